"""An agent is told of ends it did not ask about: each once, none lost, whoever saw it first."""

import asyncio
import os
import signal
from typing import Any

import pytest
from fastmcp import Client
from support import Jobs, ended, record_of, server_of, wait_until

from tmuxjobs import Settings
from tmuxjobs.models import Seen
from tmuxjobs.server.tasks import complete
from tmuxjobs.verbs.wait import Tasks


@pytest.fixture(params=["auto", "legacy"])
def mode(request: pytest.FixtureRequest) -> Any:
    return request.param


async def told(client: Client[Any], tool: str = "list", **arguments: object) -> list[str]:
    """The ids that the answer names as ended."""
    result = await client.call_tool(tool, {"name": "none-of-them"} if tool == "list" else arguments)
    assert result.structured_content is not None
    names = [one["job_id"] for one in result.structured_content.get("also_ended", ())]
    if names:
        assert names[0] in result.content[-1].text  # type: ignore[union-attr]
    return names


async def test_end_of_another_job_is_told_once(jobs: Jobs, mode: Any) -> None:
    async with Client(server_of(jobs), mode=mode) as client:
        job_id = jobs.execute("exit 3").job_id
        await asyncio.to_thread(ended, jobs, job_id)
        result = await client.call_tool("list", {"name": "none-of-them"})
        assert result.content[-1].text == f"[ended meanwhile: {job_id} failed 3]"  # type: ignore[union-attr]
        assert result.structured_content["also_ended"] == [{"job_id": job_id, "status": "failed", "exit_code": 3}]  # type: ignore[index]
        assert await told(client) == []


async def test_nothing_is_added_when_nothing_ended(jobs: Jobs) -> None:
    async with Client(server_of(jobs)) as client:
        jobs.execute("sleep 1000")
        result = await client.call_tool("list", {"name": "none-of-them"})
    assert len(result.content) == 1
    assert "also_ended" not in result.structured_content  # type: ignore[operator]


async def test_end_that_the_answer_itself_tells_is_not_told_again(jobs: Jobs) -> None:
    async with Client(server_of(jobs)) as client:
        job_id = jobs.execute("exit 3").job_id
        await asyncio.to_thread(ended, jobs, job_id)
        for tool in ("status", "wait", "tail", "output"):
            assert await told(client, tool, job_id=job_id) == []
        assert await told(client) == []


async def test_new_client_starts_at_now(jobs: Jobs) -> None:
    ended(jobs, jobs.execute("exit 3").job_id)
    async with Client(server_of(jobs)) as client:
        assert await told(client) == []


async def test_two_servers_tell_each_its_own_client(jobs: Jobs) -> None:
    other = Jobs.open(Settings.load(max_jobs=40))
    async with Client(server_of(jobs)) as one, Client(server_of(other)) as two:
        ids = [jobs.execute("true").job_id, other.execute("false").job_id]
        for job_id in ids:
            await asyncio.to_thread(ended, jobs, job_id)
        assert sorted(await told(one)) == sorted(ids)
        assert sorted(await told(two)) == sorted(ids)
        assert await told(one) == await told(two) == []


async def test_no_end_is_told_twice_or_lost_among_calls_at_once(jobs: Jobs) -> None:
    async with Client(server_of(jobs)) as client:
        ids = [jobs.execute("true").job_id for _ in range(8)]
        names: list[str] = []
        while len(names) < len(ids):
            names += [name for part in await asyncio.gather(*[told(client) for _ in range(8)]) for name in part]
        assert sorted(names) == sorted(ids)
        assert await told(client) == []


async def test_lost_job_is_told(jobs: Jobs) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    async with Client(server_of(jobs)) as client:
        run = record_of(jobs, job_id).run
        assert run is not None
        os.kill(run.pid, signal.SIGKILL)
        names: list[str] = []
        while not names:
            names = await told(client)
        assert names == [job_id]
        await client.call_tool("kill", {"job_id": job_id})


def test_journal_numbers_starts_and_ends(jobs: Jobs) -> None:
    job_id = jobs.execute("exit 3").job_id
    entries = wait_until(lambda: jobs.events(), lambda entries: len(entries) == 2)
    assert [(one.n, one.event, one.job_id, one.status, one.exit_code) for one in entries] == [
        (1, "start", job_id, None, None),
        (2, "end", job_id, "failed", 3),
    ]
    assert jobs.events(1) == entries[1:]


def test_journal_begins_with_the_jobs_that_run(jobs: Jobs) -> None:
    running = jobs.execute("sleep 1000").job_id
    ended(jobs, jobs.execute("true").job_id)
    jobs.host.journal.path.unlink()
    fresh = Jobs.open(Settings.load(max_jobs=40))
    assert [(one.event, one.job_id) for one in fresh.events()] == [("start", running)]


def test_pruned_job_was_told_before_it_went(jobs: Jobs) -> None:
    job_id = jobs.execute("true").job_id
    ended(jobs, job_id)
    small = Jobs.open(Settings.load(keep_jobs=0))
    small.prune()
    assert [(one.event, one.job_id) for one in jobs.events()] == [("start", job_id), ("end", job_id)]


def test_client_s_known_ends_are_not_remembered_without_end(jobs: Jobs) -> None:
    with Seen().asks() as seen:
        jobs.also_ended()
        runs = jobs.execute("sleep 1000").job_id
        for _ in range(3):
            job_id = ended(jobs, jobs.execute("exit 3").job_id).job_id
            assert jobs.also_ended({job_id, runs}) == ()
    assert seen.known == {runs}


async def test_server_does_not_remember_waits_for_removed_jobs(jobs: Jobs) -> None:
    tasks = Tasks(jobs.host)
    for _ in range(3):
        job_id = jobs.execute("sleep 1000").job_id
        tasks.check(tasks.create("wait", {}, begins={job_id: 0}, bound_s=600), complete)
        assert list(tasks.waits) == [job_id]
        await asyncio.to_thread(jobs.kill, job_id, grace=0)
        with jobs.host.store.lock():
            jobs.host.store.remove(job_id)
