"""A job that is not kept ends with the server that started it, however that ends; any other lives on."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fastmcp import Client
from fastmcp.client.transports import StdioTransport
from support import Jobs, ended, own_seconds, record_of, sleeping, wait_until

from tmuxjobs.errors import NotStarted
from tmuxjobs.models import ProcessRecord

SERVER = """
import sys, time
from tmuxjobs import Jobs
keep = {"keep": True, "kill": False, "default": None}[sys.argv[1]]
jobs = Jobs.open(caller=sys.argv[2])
job_id = jobs.execute(sys.argv[3], keep=keep).job_id
while jobs.status(job_id).pid is None:  # an agent is answered before the command runs
    time.sleep(0.01)
print(job_id, flush=True)
sys.stdin.read()
"""


@contextmanager
def started_by(command: str, *, keep: str = "kill", who: str = "agent") -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A job, and the process that started it, which waits."""
    argv = [sys.executable, "-c", SERVER, keep, who, command]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip(), server
        finally:
            server.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_job_that_is_not_kept_ends_with_its_server(jobs: Jobs, number: int) -> None:
    seconds = own_seconds()
    with started_by(f"(setsid sleep {seconds} &) ; trap '' HUP; sleep {seconds}") as (job_id, server):
        assert jobs.status(job_id).status == "running"
        server.send_signal(number)
        status = ended(jobs, job_id)
    assert (status.status, status.reason, status.signal) == ("killed", "disconnected", "SIGTERM")
    assert "because the server that started it ended" in status.detail
    assert not sleeping(seconds)


def test_zombie_of_a_server_is_gone(jobs: Jobs) -> None:
    """Its client may never ask how it ended."""
    with started_by("sleep 1000") as (job_id, server):
        os.kill(server.pid, signal.SIGKILL)
        assert ended(jobs, job_id).reason == "disconnected"


def test_kept_jobs_outlive_their_server(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for keep, who, setting in (
        ("default", "agent", "keep"),
        ("default", "person", "kill"),
        ("keep", "agent", "kill"),
    ):
        monkeypatch.setenv("TMUXJOBS_ON_DISCONNECT", setting)
        with started_by("sleep 1000", keep=keep, who=who) as (job_id, _):
            ids.append(job_id)
    with started_by("sleep 1000", keep="default", who="agent") as (job_id, _):
        assert record_of(jobs, job_id).job.ends_with is not None
    assert ended(jobs, job_id).reason == "disconnected"
    assert [jobs.status(one).status for one in ids] == ["running"] * 3


def test_other_process_with_the_servers_pid_does_not_stand_for_it(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    later = ProcessRecord(pid=os.getpid(), name="tmuxjobs", start="12")
    monkeypatch.setattr(jobs.host, "this_process", lambda: later)
    with pytest.raises(NotStarted, match="it is to end with its server, which has ended"):
        jobs.execute("sleep 1000", keep=False)
    assert jobs.list().total == 0


def test_restart_by_an_agent_ties_the_job_to_the_new_server(jobs: Jobs) -> None:
    with started_by("sleep 1000") as (job_id, _):
        mine = jobs.called_by("agent").restart(job_id).job_id
        tied = record_of(jobs, mine).job.ends_with
        assert tied is not None
        assert tied.pid == os.getpid()
        persons = jobs.restart(mine).job_id
    assert record_of(jobs, persons).job.ends_with is None
    assert jobs.status(persons).status == "running"


async def test_client_that_leaves_takes_its_jobs_along(jobs: Jobs) -> None:
    transport = StdioTransport(sys.executable, ["-m", "tmuxjobs", "serve"], env=dict(os.environ), keep_alive=False)
    async with Client(transport) as client:
        ids = []
        for keep in (False, True):
            answer = await client.call_tool("execute", {"command": "sleep 1000", "keep": keep})
            assert answer.structured_content is not None
            ids.append(answer.structured_content["job_id"])
        said = await client.call_tool("status", {"job_id": ids[0]})
        assert "and ends with its server" in said.content[0].text  # type: ignore[union-attr]
    assert wait_until(lambda: jobs.status(ids[0]), lambda status: status.status != "running").reason == "disconnected"
    assert jobs.status(ids[1]).status == "running"
