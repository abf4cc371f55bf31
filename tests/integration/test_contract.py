"""The seven tools of the server this one replaces: their names, parameters, bounds and result fields, in both eras."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from support import Jobs, ended, server_of, wait_until

from tmuxjobs.store.store import Store

SEED = {
    "execute": {"command"},
    "list": set(),
    "status": {"job_id"},
    "output": {"job_id"},
    "tail": {"job_id", "lines"},
    "interact": {"job_id", "input"},
    "kill": {"job_id"},
}


@pytest.fixture(params=["here", "gpu1", "slurm"])
def jobs(request: pytest.FixtureRequest, jobs: Jobs) -> Jobs:
    """The contract is one, wherever the jobs run."""
    others = {"gpu1": "far_jobs", "slurm": "slurm_jobs"}
    chosen: Jobs = request.getfixturevalue(others[request.param]) if request.param in others else jobs
    return chosen


@pytest.fixture(params=["auto", "legacy"])
async def client(request: pytest.FixtureRequest, jobs: Jobs) -> AsyncIterator[Client[Any]]:
    async with Client(server_of(jobs), mode=request.param) as client:
        yield client


async def call(client: Client[Any], tool: str, **arguments: object) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert result.structured_content is not None
    return result.structured_content


async def refusal(client: Client[Any], tool: str, **arguments: object) -> str:
    result = await client.call_tool(tool, arguments, raise_on_error=False)
    assert result.is_error
    text: str = result.content[0].text  # type: ignore[union-attr]
    assert "\n" not in text
    return text


async def test_tools_have_the_seeds_names_and_parameters(client: Client[Any]) -> None:
    tools = {tool.name: tool for tool in await client.list_tools()}
    for name, parameters in SEED.items():
        assert parameters <= set(tools[name].input_schema["properties"])
    lines = tools["tail"].input_schema["properties"]["lines"]
    assert (lines["minimum"], lines["maximum"], lines["default"]) == (1, 1000, 50)


async def test_tools_say_what_they_may_do(client: Client[Any]) -> None:
    hints = {tool.name: tool.annotations for tool in await client.list_tools()}
    reading = {name for name, hint in hints.items() if hint is not None and hint.read_only_hint}
    assert {"list", "status", "output", "tail"} <= reading
    assert not {"execute", "interact", "kill"} & reading
    assert hints["kill"] is not None
    assert (hints["kill"].destructive_hint, hints["kill"].idempotent_hint) == (True, True)


async def test_results_have_the_seeds_fields(client: Client[Any], jobs: Jobs) -> None:
    started = await call(client, "execute", command="echo out; read x; echo got $x; sleep 1000")
    job_id = started["job_id"]
    assert {"status", "log_path", "attach"} <= set(started)
    wait_until(lambda: jobs.output(job_id).stdout)
    listed = (await call(client, "list"))["jobs"][0]
    assert (listed["job_id"], listed["status"]) == (job_id, "running")
    assert {"command", "started"} <= set(listed)
    status = await call(client, "status", job_id=job_id)
    assert status["status"] == "running"
    assert {"started", "runtime", "pid", "cwd", "command", "log_path", "attach", "waiting_for_input"} <= set(status)
    output = await call(client, "output", job_id=job_id)
    assert (output["stdout"], output["cursor"]) == ("out\n", 5)
    tail = await call(client, "tail", job_id=job_id, lines=1)
    assert tail["stdout"].strip() == "out"
    answer = await call(client, "interact", job_id=job_id, input="it", wait=30, pattern="got it")
    assert answer["stdout"] == "got it\n"
    assert (await call(client, "kill", job_id=job_id))["status"] == "killed"
    assert {"ended", "signal", "reason"} <= set(await call(client, "status", job_id=job_id))
    assert (await call(client, "kill", job_id=job_id))["status"] == "already_terminated"
    assert (await call(client, "kill", job_id="nosuch-0000"))["status"] == "not_found"


WRONG: list[tuple[str, dict[str, object], str]] = [
    ("execute", {"command": ""}, "The command is empty"),
    ("execute", {}, "`command` is required"),
    ("execute", {"command": "ls", "pattern": "x"}, "needs `wait`"),
    ("execute", {"command": "ls", "nonsense": 1}, "`nonsense` is not a parameter"),
    ("status", {"job_id": "nosuch-0000"}, "No job 'nosuch-0000'"),
    ("output", {"job_id": "nosuch-0000"}, "No job 'nosuch-0000'"),
    ("interact", {"job_id": "../../etc", "input": "x"}, "No job '../../etc'"),
    ("tail", {"job_id": "x", "lines": 0}, "`lines`"),
    ("tail", {"job_id": "x", "lines": 1001}, "`lines`"),
    ("output", {"job_id": "x", "cursor": -1}, "`cursor`"),
    ("kill", {"job_id": 7}, "`job_id`"),
]


async def test_wrong_call_is_told_in_one_line(client: Client[Any]) -> None:
    for tool, arguments, said in WRONG:
        text = await refusal(client, tool, **arguments)
        assert said in text, (tool, arguments)
        assert "pydantic" not in text, (tool, arguments)


async def test_text_of_an_answer_stands_alone(client: Client[Any], jobs: Jobs) -> None:
    started = await call(client, "execute", command="echo hello; exit 3")
    ended(jobs, started["job_id"])
    status = await client.call_tool("status", {"job_id": started["job_id"]})
    text: str = status.content[0].text  # type: ignore[union-attr]
    assert "failed (exit code 3)" in text
    assert started["log_path"] in text
    output = await client.call_tool("output", {"job_id": started["job_id"]})
    assert output.content[0].text == "hello\n==\n[failed, cursor 7]"  # type: ignore[union-attr]


async def test_bug_is_masked(client: Client[Any], jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(jobs), "status", lambda *_: 1 / 0)
    assert "division" not in await refusal(client, "status", job_id="x")


def test_instructions_teach_the_way_to_watch(jobs: Jobs) -> None:
    assert "tmux attach -t mcp-jobs" in (server_of(jobs).instructions or "")


def test_instructions_say_which_lines_are_ours(jobs: Jobs) -> None:
    assert "lines that begin with `== `, is from tmuxjobs" in (server_of(jobs).instructions or "")


@pytest.mark.parametrize("client", ["auto"], indirect=True)
async def test_slow_calls_do_not_hold_up_fast_ones(client: Client[Any], jobs: Jobs) -> None:
    stubborn = [jobs.execute("trap '' TERM INT; echo ready; while :; do sleep 1000; done").job_id for _ in range(2)]
    for job_id in stubborn:
        await asyncio.to_thread(wait_until, lambda job_id=job_id: jobs.output(job_id).stdout)
    calls = [client.call_tool("wait", {"job_id": stubborn[0], "timeout": 40}) for _ in range(50)]
    calls += [
        client.call_tool("interact", {"job_id": stubborn[0], "input": "x", "wait": 40, "pattern": "never"})
        for _ in range(30)
    ]
    calls += [client.call_tool("kill", {"job_id": stubborn[1], "grace": 30}) for _ in range(10)]
    slow = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(0)
    for tool, arguments in (("status", {"job_id": stubborn[0]}), ("list", {}), ("tail", {"job_id": stubborn[0]})) * 3:
        await call(client, tool, **arguments)
        assert not any(task.done() for task in slow)
    for job_id in stubborn:
        await asyncio.to_thread(jobs.kill, job_id, signal="KILL")
    await asyncio.gather(*slow, return_exceptions=True)


async def test_bug_in_a_tool_leaves_a_file_and_says_where(
    client: Client[Any], jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Store, "ids", lambda _: 1 / 0)
        said = await refusal(client, "list")
    where = Path(said.rpartition(" in ")[2].removesuffix("."))
    assert where.parent == jobs.host.settings.state_dir
    mode, text = await asyncio.to_thread(lambda: (where.stat().st_mode & 0o777, where.read_text()))
    assert mode == 0o600
    assert "ZeroDivisionError" in text
    assert all(f"\n{name} " in text for name in ("tmuxjobs", "Python", "tmux", "fastmcp"))
