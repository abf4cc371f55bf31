"""What clients read that show their model the fields alone: everything, once, and little more than the text."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fastmcp import Client
from support import Jobs, ended, server_of

PROSE = "for n in $(seq 60); do echo line $n of what a build or a test suite prints as it goes along; done"
OF_THE_JOB = {"stdout", "stderr", "screen", "command", "text", "before", "after", "log_path", "stderr_path"}
TIMES = {"started", "ended"}
"""Fields that may have in them what another has: what a job or a person wrote, a place named for the job, a moment."""
DEAREST = 1.3
"""Characters of the fields for one of the text."""
PROMISED = {
    "execute": "job_id status log_path attach reason exit_code stdout stderr cursor note",
    "list": "jobs total job_id status command started",
    "status": "job_id status exit_code signal reason started ended runtime pid cwd command log_path attach "
    "waiting_for_input",
    "output": "stdout stderr cursor stderr_cursor status note",
    "tail": "stdout stderr cursor stderr_cursor status note",
    "interact": "stdout stderr cursor stderr_cursor status note",
    "kill": "jobs job_id status detail survivors",
    "wait": "job_id reason status exit_code stdout stderr cursor note jobs",
    "search": "matches line cursor text before after total status",
    "screen": "screen cursor_row cursor_column columns rows status",
    "restart": "job_id status log_path attach restarted reason stdout cursor note",
}
"""The fields that any answer of a tool has where they are true: their names weigh in an answer of a line or two."""


class Reader:
    """A client that keeps what it was answered."""

    def __init__(self, client: Client[Any]) -> None:
        self.client = client
        self.answers: list[tuple[str, dict[str, Any], str]] = []

    async def __call__(self, tool: str, **arguments: Any) -> dict[str, Any]:
        answer = await self.client.call_tool(tool, arguments)
        text = "\n".join(part.text for part in answer.content if part.type == "text")
        assert answer.structured_content is not None
        self.answers.append((f"{tool} {arguments}", answer.structured_content, text))
        return answer.structured_content


@pytest.fixture(params=["auto", "legacy"])
async def ask(request: pytest.FixtureRequest, jobs: Jobs) -> AsyncIterator[Reader]:
    async with Client(server_of(jobs), mode=request.param) as client:
        yield Reader(client)


async def common_work(ask: Reader, jobs: Jobs) -> set[str]:
    """Jobs of each kind, and each tool asked of them; which tools there are."""
    failed = (await ask("execute", command=f"{PROSE}; exit 3", wait=30))["job_id"]
    (await ask("execute", command="echo fine", wait=30))["job_id"]
    apart = (await ask("execute", command="echo out; echo err >&2; cat", separate_stderr=True))["job_id"]
    asking = (await ask("execute", command="printf 'Go on? '; read x; sleep 1000", wait=30))["job_id"]
    hidden = "python3 -c \"import getpass; getpass.getpass('Token: ')\""
    secret = (await ask("execute", command=hidden, wait=30))["job_id"]
    shown = await ask("execute", command="echo serving; sleep 1000", wait=30, pattern="serving")
    killed = jobs.execute("kill -9 $$").job_id
    ended(jobs, killed)
    for job_id in (failed, apart, asking, secret, killed):
        await ask("status", job_id=job_id)
        await ask("output", job_id=job_id, max_bytes=1000)
        await ask("tail", job_id=job_id, lines=20)
    await ask("wait", job_id=asking, until="input", timeout=30)
    await ask("wait", job_id=apart, timeout=0.1)
    await ask("wait", job_id=[apart, failed], mode="all", timeout=0.1)
    await ask("wait", job_id=[apart, failed])
    await ask("search", job_id=failed, pattern="line [0-9]5", context=1)
    await ask("search", job_id=failed, pattern="not there")
    await ask("screen", job_id=asking)
    await ask("interact", job_id=apart, input="hello")
    await ask("interact", job_id=asking, input="yes", wait=0.1)
    await ask("list")
    again = await ask("restart", job_id=shown["job_id"])
    await ask("restart", job_id=again["job_id"], wait=30, pattern="serving")
    await ask("kill", job_id=apart)
    await ask("kill", job_id=asking, signal="CONT", end=False)
    await ask("kill", job_id=[asking, failed, "none-0000"])
    return {tool.name for tool in await ask.client.list_tools()}


async def test_fields_hold_nothing_empty_and_nothing_twice(ask: Reader, jobs: Jobs) -> None:
    tools = await common_work(ask, jobs)
    assert {call.partition(" ")[0] for call, _, _ in ask.answers} == tools
    for call, fields, _ in ask.answers:
        leaves = list(leaves_of(fields))
        assert not [path for path, value in leaves if value is None or value in ("", [], {})], (call, fields)
        ours = [
            (path, str(value)) for path, value in leaves if not (OF_THE_JOB | TIMES) & {*path} and len(str(value)) > 8
        ]
        for path, value in ours:
            others = [(other, text) for other, text in ours if other != path and other[:-1] == path[:-1]]
            assert path[-1] == "job_id" or not [other for other, text in others if value in text], (call, path, fields)


async def test_fields_cost_little_more_than_the_text(ask: Reader, jobs: Jobs) -> None:
    await common_work(ask, jobs)
    for call, fields, text in ask.answers:
        least = promised(fields, {"also_ended", *PROMISED[call.partition(" ")[0]].split()})
        assert size(fields) <= DEAREST * max(len(text), size(least)), (call, fields, text)
    large = {call.partition(" ")[0] for call, fields, text in ask.answers if size(fields) <= DEAREST * len(text) > 500}
    assert large >= {"execute", "output", "tail", "search", "wait", "status"}


def size(fields: Any) -> int:
    return len(json.dumps(fields, separators=(",", ":"), ensure_ascii=False))


def promised(value: Any, names: set[str]) -> Any:
    """The part of an answer that its tool promises."""
    if isinstance(value, list):
        return [promised(one, names) for one in value]
    if isinstance(value, dict):
        return {name: promised(part, names) for name, part in value.items() if name in names}
    return value


async def test_ended_job_names_no_window_and_a_running_one_does(ask: Reader) -> None:
    done = await ask("execute", command="echo done", wait=30)
    runs = await ask("execute", command="sleep 1000", wait=0.1)
    assert "attach" not in done
    assert runs["attach"].endswith(runs["job_id"])


async def test_end_of_a_job_by_a_signal_is_mentioned_without_an_exit_code(ask: Reader, jobs: Jobs) -> None:
    done = await ask("execute", command="echo done", wait=30)
    killed = jobs.execute("kill -9 $$").job_id
    ended(jobs, killed)
    assert (await ask("tail", job_id=done["job_id"]))["also_ended"] == [{"job_id": killed, "status": "killed"}]


def leaves_of(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from leaves_of(part, (*path, name))
    elif isinstance(value, list) and value:
        for number, part in enumerate(value):
            yield from leaves_of(part, (*path, str(number)))
    else:
        yield path, value
