"""Five things an agent does with jobs, as the calls it makes; `tests/bench/bench_scenarios.py` prints their price."""

import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
from fastmcp import Client
from fastmcp.client.transports import StdioTransport
from support import Person

import tmuxjobs

Attach = Callable[..., Person]
FAILING = """
import pytest

@pytest.mark.parametrize("number", range(200))
def test_half(number):
    assert number // 2 * 2 == number or number not in (17, 71, 133)
"""
REDRAWS = """
import sys
for n in range(5001):
    sys.stdout.write(f"\\r{n * 100 // 5000:3d}%|{'#' * (n * 50 // 5000):50}| {n}/5000")
    sys.stdout.flush()
print("\\nupload complete")
"""
ASKING = "import getpass; print('logged in with', len(getpass.getpass('Password for ada: ')), 'characters')"
TURNS = {
    "import json, collections": "",
    "data = json.loads('[3, 1, 2, 3, 3]')": "",
    "data": "[3, 1, 2, 3, 3]",
    "count = collections.Counter(data)": "",
    "count.most_common(1)": "[(3, 3)]",
    "def mean(numbers):\n    total = sum(numbers)\n    return total / len(numbers)\n\n": "",
    "mean(data)": "2.4",
    "mean([])": "ZeroDivisionError: division by zero",
    "for number in sorted(set(data)):\n    print(number, count[number])\n\n": "1 1\n2 1\n3 3",
    "exit(mean(data) > 2)": "the job ended",
}


class Agent:
    """A client that counts what a model spends: its calls, and the characters of arguments and answers."""

    def __init__(self, client: Client[Any], attach: Attach) -> None:
        self.client = client
        self.attach = attach
        self.calls = 0
        self.chars = 0

    async def call(self, tool: str, **arguments: object) -> str:
        answer = await self.client.call_tool(tool, arguments)
        text: str = answer.content[0].text  # type: ignore[union-attr]
        self.calls += 1
        self.chars += len(json.dumps(arguments)) + len(text)
        self.last = answer.structured_content or {}
        return text


@asynccontextmanager
async def agent_at_work(attach: Attach) -> AsyncIterator[Agent]:
    """An agent with a server of its own, as a client starts it."""
    kept = {name: os.environ[name] for name in os.environ if name in ("HOME", "TMUX_TMPDIR") or name.startswith("XDG_")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = kept | {"PATH": path, "PYTHONPATH": str(Path(tmuxjobs.__file__).parents[1])}
    transport = StdioTransport(sys.executable, ["-m", "tmuxjobs"], env=env, keep_alive=False)
    async with Client(transport, timeout=90) as client:
        yield Agent(client, attach)


async def failing_tests(agent: Agent, folder: Path) -> None:
    """Run a failing test suite, and see what fails."""
    (folder / "test_half.py").write_text(FAILING)
    ran = await agent.call("execute", command="python -m pytest -q -p no:cacheprovider", cwd=str(folder), wait=50)
    assert "3 failed, 197 passed" in ran
    assert agent.last["exit_code"] == 1
    seen = await agent.call("search", job_id=agent.last["job_id"], pattern="^E  |^FAILED")
    assert all(f"test_half[{number}]" in seen for number in (17, 71, 133))


async def web_server(agent: Agent, folder: Path) -> None:
    """Start a server, wait until it answers, read its log, stop it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = f"python -u -m http.server --bind 127.0.0.1 {port}"
    started = await agent.call("execute", command=command, cwd=str(folder), wait=30, url=f"http://127.0.0.1:{port}/")
    assert agent.last["reason"] == "url", started
    job_id = agent.last["job_id"]
    assert '"GET / HTTP/1.1" 200' in await agent.call("tail", job_id=job_id)
    await agent.call("kill", job_id=job_id)
    assert agent.last["status"] == "killed"
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(port) in (one.info["cmdline"] or ())]


async def repl(agent: Agent, folder: Path) -> None:
    """Debug in a REPL: ten turns."""
    await agent.call("execute", command="python3 -q", cwd=str(folder), wait=30, until="input")
    job_id = agent.last["job_id"]
    for said, answer in TURNS.items():
        assert answer in await agent.call("interact", job_id=job_id, input=said)


async def progress_bar(agent: Agent, folder: Path) -> None:
    """Run what redraws a progress bar 5,000 times."""
    (folder / "upload.py").write_text(REDRAWS)
    shown = await agent.call("execute", command="python upload.py", cwd=str(folder), wait=50)
    assert "100%|" + "#" * 50 + "| 5000/5000\nupload complete" in shown


async def password(agent: Agent, folder: Path) -> None:
    """Be stopped by a password prompt, which a person answers."""
    (folder / "login.py").write_text(ASKING)
    told = await agent.call("execute", command="python login.py", cwd=str(folder), wait=50)
    job_id = agent.last["job_id"]
    assert (agent.last["waits_for"], agent.last["prompt"]) == ("password", "Password for ada: ")
    assert f"tmux -u attach -t mcp-jobs:{job_id}" in told  # the client started the server without a locale
    agent.attach(f"=mcp-jobs:{job_id}").type("hunter2\r")
    assert "logged in with 7 characters" in await agent.call("wait", job_id=job_id)
    assert agent.last["exit_code"] == 0


Scenario = Callable[[Agent, Path], Awaitable[None]]
SCENARIOS: dict[str, tuple[Scenario, int]] = {
    "run a failing test suite, see the failures": (failing_tests, 2),
    "start a server, wait for it, read its log, stop it": (web_server, 3),
    "debug in a REPL, ten turns": (repl, 11),
    "5,000 redraws of a progress bar": (progress_bar, 1),
    "a password prompt that a person answers": (password, 2),
}
"""{what: (how, the calls it may take)}."""
