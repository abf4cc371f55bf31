"""Calls by the tool names of mcp-background-job 0.1.2: its parameters, result fields and words for what goes wrong.

The shapes here were taken from that server, driven by a client.
"""

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest
from fastmcp import Client
from support import Jobs, ended, server_of, wait_until

from tmuxjobs import Settings
from tmuxjobs.server import old_names

NAMES = {
    "execute_command",
    "get_job_status",
    "get_job_output",
    "tail_job_output",
    "interact_with_job",
    "kill_job",
    "list_jobs",
}
PAGED = "seq -f 'line %.0f' 60000; echo oops >&2"


@pytest.fixture(params=["auto", "legacy"])
async def client(request: pytest.FixtureRequest, jobs: Jobs) -> AsyncIterator[Client[Any]]:
    async with Client(server_of(jobs), mode=request.param) as client:
        yield client


async def call(client: Client[Any], tool: str, **arguments: object) -> dict[str, Any]:
    """The answer's fields, which its text must have too."""
    result = await client.call_tool_mcp(tool, arguments)
    assert not result.is_error
    [part] = result.content
    assert json.loads(part.text) == result.structured_content  # type: ignore[union-attr]
    assert result.structured_content is not None
    return result.structured_content


async def refusal(client: Client[Any], tool: str, **arguments: object) -> str:
    result = await client.call_tool_mcp(tool, arguments)
    assert result.is_error
    return result.content[0].text  # type: ignore[union-attr]


async def run(client: Client[Any], jobs: Jobs, command: str) -> str:
    job_id: str = (await call(client, "execute_command", command=command))["job_id"]
    ended(jobs, job_id)
    return job_id


async def test_old_names_are_not_in_the_list(client: Client[Any]) -> None:
    assert not NAMES & {tool.name for tool in await client.list_tools()}


async def test_job_from_start_to_end(client: Client[Any], jobs: Jobs) -> None:
    started = await call(client, "execute_command", command="echo one; echo two; echo bad >&2; exit 3")
    assert list(started) == ["job_id"]
    ended(jobs, started["job_id"])
    assert await call(client, "get_job_status", **started) == {"status": "failed"}
    assert await call(client, "get_job_output", **started) == {"stdout": "one\ntwo", "stderr": "bad"}
    assert await call(client, "tail_job_output", **started, lines=1) == {"stdout": "two", "stderr": "bad"}
    [row] = (await call(client, "list_jobs"))["jobs"]
    assert row.keys() == {"job_id", "status", "command", "started"}
    assert (row["job_id"], row["status"]) == (started["job_id"], "failed")
    assert row["command"] == "echo one; echo two; echo bad >&2; exit 3"
    assert datetime.fromisoformat(row["started"]).tzinfo is not None


async def test_program_is_typed_to_and_killed(client: Client[Any], jobs: Jobs) -> None:
    started = await call(client, "execute_command", command="while read -r it; do echo got $it; done")
    wait_until(lambda: jobs.status(started["job_id"]).waiting_for_input, bool)
    assert await call(client, "interact_with_job", **started, input="tea") == {"stdout": "got tea", "stderr": ""}
    assert await call(client, "get_job_status", **started) == {"status": "running"}
    assert await call(client, "kill_job", **started) == {"status": "killed"}
    assert await call(client, "kill_job", **started) == {"status": "already_terminated"}
    assert await call(client, "get_job_status", **started) == {"status": "killed"}


async def test_newest_job_is_first(client: Client[Any], jobs: Jobs) -> None:
    ids = [await run(client, jobs, "true") for _ in range(3)]
    assert [row["job_id"] for row in (await call(client, "list_jobs"))["jobs"]] == ids[::-1]


async def test_output_of_many_pages_is_whole(client: Client[Any], jobs: Jobs) -> None:
    job_id = await run(client, jobs, PAGED)
    answer = await call(client, "get_job_output", job_id=job_id)
    assert answer["stdout"].splitlines() == [f"line {n}" for n in range(1, 60001)]
    assert answer["stderr"] == "oops"


async def test_of_very_much_the_newest_is_given(
    client: Client[Any], jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(old_names, "CHARS", 100_000)
    monkeypatch.setattr(old_names, "PAGE_CHARS", 30_000)
    job_id = await run(client, jobs, PAGED)
    first, *rest = (await call(client, "get_job_output", job_id=job_id))["stdout"].splitlines()
    gone = int(first.split()[1])
    assert first.startswith("== ")
    whole = "".join(f"line {n}\n" for n in range(1, 60001))
    assert "".join(f"{line}\n" for line in rest) == whole[gone:]
    assert len(whole) - gone <= 100_000


async def test_unknown_job(client: Client[Any]) -> None:
    for tool in ("get_job_status", "get_job_output", "tail_job_output"):
        assert (await refusal(client, tool, job_id="nope")).startswith("Job nope not found")
    assert (await refusal(client, "interact_with_job", job_id="nope", input="x")).startswith("Job nope not found")
    assert await call(client, "kill_job", job_id="nope") == {"status": "not_found"}


async def test_what_was_refused_is_refused_in_the_old_words(client: Client[Any], jobs: Jobs) -> None:
    job_id = await run(client, jobs, "true")
    words = f"Job {job_id} is not running and cannot accept input"
    assert await refusal(client, "interact_with_job", job_id=job_id, input="x") == words
    assert (await refusal(client, "execute_command", command="  ")).startswith("Invalid command: ")
    assert "lines" in await refusal(client, "tail_job_output", job_id=job_id, lines=0)
    assert await refusal(client, "get_job_status") == "get_job_status: `job_id` is required."


async def test_limit_is_named_in_the_old_words(jobs: Jobs) -> None:
    few = Jobs.open(Settings(max_jobs=1))
    async with Client(server_of(few)) as client:
        started = await call(client, "execute_command", command="sleep 1000")
        assert (await refusal(client, "execute_command", command="true")).startswith("Job limit reached: ")
        await call(client, "kill_job", **started)


async def test_answer_has_no_room_for_what_else_has_ended(client: Client[Any], jobs: Jobs) -> None:
    started = await call(client, "execute_command", command="sleep 1000")
    ended(jobs, jobs.execute("true").job_id)
    assert await call(client, "get_job_status", **started) == {"status": "running"}
    await call(client, "kill_job", **started)
