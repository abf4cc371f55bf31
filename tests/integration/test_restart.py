"""A restart is the same command again: the old job ends, the new one has a new id."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from support import Jobs, Tmux, change_pane, ended, record_of, server_of, wait_until, with_timing

from tmuxjobs import Settings
from tmuxjobs.answers import Kill
from tmuxjobs.errors import InvalidInput, JobNotFound, NotStarted, StateError, TmuxError, TmuxjobsError
from tmuxjobs.hosts.local import Host
from tmuxjobs.states import Job
from tmuxjobs.verbs import kill


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
    for record in jobs.host.store.folder(old).glob("*.json"):
        assert "hidden-value" not in record.read_text()


def test_restart_of_an_unknown_job_is_refused(jobs: Jobs) -> None:
    with pytest.raises(JobNotFound):
        jobs.restart("nosuch-1234")


async def test_restart_over_mcp_names_both_jobs(jobs: Jobs) -> None:
    old = jobs.execute("sleep 1000").job_id
    async with Client(server_of(jobs)) as client:
        fields = (await client.call_tool("restart", {"job_id": old})).structured_content
    assert fields is not None
    assert (fields["restarted"], fields["status"]) == (old, "running")


def test_job_that_could_not_start_again_is_not_ended(jobs: Jobs, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    job_id = jobs.execute("sleep 1000", cwd=str(tmp_path / "gone")).job_id
    (tmp_path / "gone").rmdir()
    with pytest.raises(InvalidInput, match="is not a directory"):
        jobs.restart(job_id)
    assert jobs.status(job_id).status == "running"


def unharmed(jobs: Jobs, job_id: str, error: type[TmuxjobsError], words: str) -> None:
    """A restart fails with these words, and nothing else has happened."""
    before = {entry.name for entry in jobs.host.store.jobs.iterdir()}
    with pytest.raises(error, match=words) as refused:
        jobs.restart(job_id)
    assert str(refused.value).endswith(f" Job '{job_id}' was not ended.")
    assert {entry.name for entry in jobs.host.store.jobs.iterdir()} == before
    assert jobs.status(job_id).status == "running"


def test_job_whose_shell_is_gone_is_not_ended(jobs: Jobs, tmp_path: Path) -> None:
    shell = Path(shutil.copy("/bin/sh", tmp_path / "sh"))
    job_id = jobs.execute("sleep 1000", shell=str(shell)).job_id
    shell.unlink()
    unharmed(jobs, job_id, InvalidInput, "There is no shell")


def test_job_whose_output_could_not_be_recorded_again_is_not_ended(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    change_pane(monkeypatch, tmp_path, "recorder.py", lambda _: "raise SystemExit(1)")
    unharmed(Jobs.open(Settings.load()), job_id, NotStarted, "the recorder of its output was killed")
    assert set(jobs.host.tmux.panes()) == {job_id}


def test_job_is_not_ended_when_tmux_does_not_answer(jobs: Jobs, tmux: Tmux) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    server = int(tmux("display-message", "-p", "#{pid}"))
    os.kill(server, signal.SIGSTOP)
    try:
        unharmed(with_timing(jobs, tmux=0.5), job_id, TmuxError, "tmux did not answer")
    finally:
        os.kill(server, signal.SIGCONT)


def test_job_is_not_ended_when_nothing_can_be_written(jobs: Jobs) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    (jobs.host.store.root / "sequence").rename(jobs.host.store.root / "kept")
    (jobs.host.store.root / "sequence").mkdir()
    try:
        unharmed(jobs, job_id, StateError, "sequence")
    finally:
        (jobs.host.store.root / "sequence").rmdir()


def test_restart_takes_the_slot_and_the_room_of_the_job_it_ends() -> None:
    jobs = Jobs.open(Settings.load(max_jobs=2, max_output_size="256KB", max_total_size="1MB"))
    old, other = (jobs.execute("sleep 1000").job_id for _ in range(2))
    new = jobs.restart(old).job_id
    assert {job.job_id for job in jobs.list(status="running").jobs} == {new, other}


def test_job_that_does_not_end_in_time_is_not_started_twice(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    monkeypatch.setattr(kill, "stop", stop_too_late(kill.stop, job_id))
    with pytest.raises(NotStarted, match="So nothing was started"):
        jobs.restart(job_id)
    assert jobs.host.store.ids() == [job_id]
    assert set(jobs.host.tmux.panes()) == {job_id}


def stop_too_late(stop: Any, late: str) -> Any:
    def stops(host: Host, job: Job, *how: Any) -> Kill:
        if job.id == late:
            raise TmuxError("It was told to end, and is not there after 20 s.")
        return stop(host, job, *how)

    return stops


def test_new_job_waits_with_its_command_for_the_end_of_the_old_one(jobs: Jobs, tmp_path: Path) -> None:
    log = tmp_path / "order"
    job_id = jobs.execute(f"trap 'sleep 0.3; echo old >> {log}; exit' TERM; echo ready; while :; do sleep 0.01; done")
    wait_until(lambda: jobs.output(job_id.job_id).stdout, lambda text: "ready" in text)
    path = jobs.host.store.folder(job_id.job_id) / "job.json"
    path.write_text(path.read_text().replace("echo ready;", f"echo new >> {log};"))
    new = jobs.restart(job_id.job_id).job_id
    wait_until(lambda: log.read_text(), lambda text: text == "old\nnew\n")
    assert not [path.name for path in jobs.host.store.folder(new).glob("env*")]


def test_new_job_whose_restart_was_killed_gives_up(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    old = jobs.execute("sleep 1000").job_id
    monkeypatch.setattr("tmuxjobs.verbs.restart.hand_over", lambda *_: None)
    new = jobs.restart(old).job_id
    assert jobs.host.store.is_held_back(new)
    assert jobs.kill(new).detail == "not started: it was ended before its turn"
    assert [path.name for path in jobs.host.store.folder(new).glob("env*")] == []
    assert record_of(jobs, old).exit is None


async def test_held_job_is_not_restarted_by_the_agent(jobs: Jobs) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    jobs.hold(job_id)
    async with Client(server_of(jobs)) as client:
        refused = await client.call_tool("restart", {"job_id": job_id}, raise_on_error=False)
    assert refused.is_error
    assert jobs.status(job_id).status == "running"
