"""A restart is the same command again: the old job ends, the new one has a new id."""

from pathlib import Path

import pytest
from fastmcp import Client
from support import ended

from tmuxjobs import Jobs
from tmuxjobs.errors import InvalidInput, JobNotFound
from tmuxjobs.server import build_server


def test_restart_ends_a_running_job_and_starts_its_command_anew(jobs: Jobs) -> None:
    old = jobs.execute("echo here; sleep 1000", name="server", cwd="/", timeout=500, separate_stderr=True).job_id
    new = jobs.restart(old)
    assert (jobs.status(old).status, jobs.status(old).reason) == ("killed", "kill")
    assert new.job_id != old
    assert new.job_id.startswith("server-")
    told = jobs.status(new.job_id)
    assert (told.status, told.cwd, told.timeout, told.command) == ("running", "/", 500, "echo here; sleep 1000")
    assert told.stderr_path is not None


def test_restart_of_a_finished_job_leaves_its_record(jobs: Jobs) -> None:
    old = jobs.execute("exit 3").job_id
    ended(jobs, old)
    new = jobs.restart(old).job_id
    assert jobs.wait(new, timeout=40).exit_code == 3
    assert jobs.status(old).exit_code == 3


def test_environment_must_be_given_again_and_is_kept_nowhere(jobs: Jobs) -> None:
    old = jobs.execute('echo "[$TOKEN]"', env={"TOKEN": "hidden-value"}).job_id
    ended(jobs, old)
    bare = jobs.restart(old)
    assert bare.note == "TOKEN had been given in env and must be given again"
    assert jobs.wait(bare.job_id, timeout=40).stdout == "[]\n"
    again = jobs.restart(old, env={"TOKEN": "another"})
    assert again.note == ""
    assert jobs.wait(again.job_id, timeout=40).stdout == "[another]\n"
    for record in jobs.store.folder(old).glob("*.json"):
        assert "hidden-value" not in record.read_text()


def test_restart_of_an_unknown_job_is_refused(jobs: Jobs) -> None:
    with pytest.raises(JobNotFound):
        jobs.restart("nosuch-1234")


async def test_restart_over_mcp_names_both_jobs(jobs: Jobs) -> None:
    old = jobs.execute("sleep 1000").job_id
    async with Client(build_server(jobs)) as client:
        fields = (await client.call_tool("restart", {"job_id": old})).structured_content
    assert fields is not None
    assert (fields["restarted"], fields["status"]) == (old, "running")


def test_job_that_could_not_start_again_is_not_ended(jobs: Jobs, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    job_id = jobs.execute("sleep 1000", cwd=str(tmp_path / "gone")).job_id
    (tmp_path / "gone").rmdir()
    with pytest.raises(InvalidInput, match="is no folder"):
        jobs.restart(job_id)
    assert jobs.status(job_id).status == "running"


async def test_held_job_is_not_restarted_by_the_agent(jobs: Jobs) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    jobs.hold(job_id)
    async with Client(build_server(jobs)) as client:
        refused = await client.call_tool("restart", {"job_id": job_id}, raise_on_error=False)
    assert refused.is_error
    assert jobs.status(job_id).status == "running"
