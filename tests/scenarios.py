"""Eight things an agent does with jobs, as the calls it makes; `tests/bench/bench_scenarios.py` prints their price."""

import asyncio
import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
from fastmcp import Client
from fastmcp.client.transports import StdioTransport
from support import Person, needs, wait_until

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
ADA = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
YESTERDAY = {
    "fetch": "echo fetched 12 files",
    "unit": "for n in $(seq 40); do echo test $n ok; done",
    "build": "echo compiling; echo error: no rule for x.o; exit 2",
    "web": "while true; do echo tick; sleep 5; done",
}
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
    "exit(mean(data) > 2)": "failed",
}


class Agent:
    """A client that counts what a model spends: its calls, and the characters of arguments and answers.

    Its model reads the fields of an answer, and its text only where there are none, as in the leading clients.
    """

    def __init__(self, client: Client[Any], attach: Attach) -> None:
        self.client = client
        self.attach = attach
        self.calls = 0
        self.chars = 0

    async def call(self, tool: str, **arguments: object) -> str:
        """What the answer says, a fact a line."""
        answer = await self.client.call_tool(tool, arguments)
        self.last: dict[str, Any] = answer.structured_content or {}
        text = "\n".join(part.text for part in answer.content if part.type == "text")
        self.calls += 1
        self.chars += len(compact(arguments)) + len(compact(self.last) if self.last else text)
        return "\n".join(words_of(self.last)) or text


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def words_of(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from words_of(part)
    else:
        yield str(value)


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
    line = "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 python -m pytest -q -p no:cacheprovider"  # they take longer than the tests
    ran = await agent.call("execute", command=line, cwd=str(folder), wait=50)
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
    started = await agent.call("execute", command=command, cwd=str(folder), wait=50, url=f"http://127.0.0.1:{port}/")
    assert agent.last["reason"] == "url", started
    job_id = agent.last["job_id"]
    log = Path(os.environ["XDG_STATE_HOME"], "tmuxjobs", "jobs", job_id, "output.log")
    # That it answers is known by the URL alone, and may be known before its log has the line.
    await asyncio.to_thread(wait_until, log.read_bytes, lambda text: b"GET /" in text)
    assert '"GET / HTTP/1.1" 200' in await agent.call("tail", job_id=job_id)
    await agent.call("kill", job_id=job_id)
    assert agent.last["status"] == "killed"
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(port) in (one.info["cmdline"] or ())]


async def repl(agent: Agent, folder: Path) -> None:
    """Debug in a REPL: ten turns."""
    await agent.call("execute", command="python3 -q", cwd=str(folder), wait=50, until="input")
    job_id = agent.last["job_id"]
    for said, answer in TURNS.items():
        assert answer in await agent.call("interact", job_id=job_id, input=said, wait=50)


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
    assert (agent.last["waits_for"], agent.last["stdout"]) == ("password", "Password for ada: ")
    assert f"tmux -u attach -t mcp-jobs:{job_id}" in told  # the client started the server without a locale
    agent.attach(f"=mcp-jobs:{job_id}").type("hunter2\r")
    assert "logged in with 7 characters" in await agent.call("wait", job_id=job_id)
    assert agent.last["exit_code"] == 0


async def editor(agent: Agent, folder: Path) -> None:
    """Squash commits by `git rebase -i`, which opens an editor twice."""
    needs("vim")
    git(folder, "init", "-q")
    for number in range(4):
        git(folder, "commit", "-q", "--allow-empty", "-m", f"change number {number}")
    rebase = shlex.join(["git", *ADA, "-c", "core.editor=vim -u NONE", "rebase", "-i", "HEAD~3"])
    shown = await agent.call("execute", command=rebase, cwd=str(folder), wait=50, until="input")
    assert "change number 1" in shown
    job_id = agent.last["job_id"]
    shown = await agent.call("interact", job_id=job_id, input=":2,3s/^pick/squash/ | wq", wait=50)
    assert "combination of 3 commits" in shown
    said = await agent.call("interact", job_id=job_id, input=":wq", wait=50, pattern="Successfully")
    assert "Successfully rebased" in said
    assert git(folder, "log", "--format=%s") == "change number 1\nchange number 0\n"


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *ADA, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


async def in_parallel(agent: Agent, folder: Path) -> None:
    """Run three checks at once, and learn which one failed."""
    ids = []
    for name, code in (("lint", 0), ("types", 2), ("unit", 0)):
        command = f"for n in 1 2 3; do echo {name} step $n; sleep 0.1; done; exit {code}"
        await agent.call("execute", command=command, name=name, cwd=str(folder))
        ids.append(agent.last["job_id"])
    said = await agent.call("wait", job_id=ids, mode="all", timeout=50)
    assert all(f"{name} step 3" in said for name in ("lint", "types", "unit"))
    ends = {one["job_id"]: (one["status"], one["exit_code"]) for one in agent.last["jobs"]}
    assert ends == {ids[0]: ("completed", 0), ids[1]: ("failed", 2), ids[2]: ("completed", 0)}


async def next_day(agent: Agent, folder: Path) -> None:
    """Come back with a new server: find what ran, why it failed, and end what still runs."""
    async with agent_at_work(agent.attach) as yesterday:
        for name, command in YESTERDAY.items():
            await yesterday.call("execute", command=command, name=name, wait=50, pattern="tick")
    await agent.call("list")
    assert sorted(one["status"] for one in agent.last["jobs"]) == ["completed", "completed", "failed", "running"]
    ids = {one["status"]: one["job_id"] for one in agent.last["jobs"]}
    assert "no rule for x.o" in await agent.call("tail", job_id=ids["failed"])
    await agent.call("kill", job_id=ids["running"])
    assert agent.last["status"] == "killed"


Scenario = Callable[[Agent, Path], Awaitable[None]]
SCENARIOS: dict[str, tuple[Scenario, int]] = {
    "run a failing test suite, see the failures": (failing_tests, 2),
    "start a server, wait for it, read its log, stop it": (web_server, 3),
    "debug in a REPL, ten turns": (repl, 11),
    "5,000 redraws of a progress bar": (progress_bar, 1),
    "a password prompt that a person answers": (password, 2),
    "an editor that git opens, twice": (editor, 3),
    "three checks at once, one of which fails": (in_parallel, 4),
    "back the next day": (next_day, 3),
}
"""{what: (how, the calls it may take)}."""
