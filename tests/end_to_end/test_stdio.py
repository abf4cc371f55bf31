"""The server as a client starts it: over stdio, in both protocol eras, with no locale and a bare environment."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fastmcp import Client
from fastmcp.client.transports import StdioTransport
from support import PYTHON, Jobs, Tmux, ended, wait_until

import tmuxjobs

PACKAGE_PARENT = str(Path(tmuxjobs.__file__).parents[1])


def bare_environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in os.environ if name in ("HOME", "TMUX_TMPDIR") or name.startswith("XDG_")}
    return kept | {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": PACKAGE_PARENT}


@pytest.fixture(params=["auto", "legacy"])
async def client(request: pytest.FixtureRequest, isolated: Path) -> AsyncIterator[Client[Any]]:
    transport = StdioTransport(sys.executable, ["-m", "tmuxjobs"], env=bare_environment(), keep_alive=False)
    async with Client(transport, mode=request.param, timeout=60) as client:
        yield client


def started_server() -> psutil.Process:
    """The one that a client has started here, beside what else this process has started, which may just end."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "tmuxjobs" in child.cmdline():
                return child
    raise AssertionError("there is no server")


async def text_of(client: Client[Any], tool: str, **arguments: object) -> str:
    result = await client.call_tool(tool, arguments)
    text: str = result.content[0].text  # type: ignore[union-attr]
    return text


async def test_job_runs_from_start_to_end(client: Client[Any], jobs: Jobs) -> None:
    started = (await client.call_tool("execute", {"command": "echo 'ünï\t漢'; exit 3"})).structured_content
    assert started is not None
    status = ended(jobs, started["job_id"])
    assert status.exit_code == 3
    assert (await text_of(client, "output", job_id=started["job_id"])).startswith("ünï\t漢\n")


async def test_job_of_a_server_without_a_locale_has_utf_8(client: Client[Any], jobs: Jobs) -> None:
    started = (await client.call_tool("execute", {"command": "env | grep -E '^(LC_|LANG)' || echo none"})).data
    ended(jobs, started["job_id"] if isinstance(started, dict) else started.job_id)
    listed = jobs.list().jobs[0].job_id
    assert jobs.output(listed).stdout == "LANG=C.UTF-8\n"


async def test_job_inherits_nothing_that_the_server_sets_for_itself(client: Client[Any], jobs: Jobs) -> None:
    await client.call_tool("execute", {"command": "env", "wait": 50})
    given = {line.partition("=")[0] for line in jobs.output(jobs.list().jobs[0].job_id).stdout.splitlines()}
    server = started_server()
    ours = {"LANG", "PAGER", "GIT_PAGER", "GPG_TTY", "TMUXJOBS_JOB_ID", "TMUXJOBS_JOB_MARK"}
    terminals = {"TMUX", "TMUX_PANE", "TERM"}
    assert given - {"PWD", "SHLVL", "_"} <= server.environ().keys() | ours | terminals


async def test_repl_is_driven(client: Client[Any]) -> None:
    line = {"command": f"{PYTHON} -i -q", "wait": 50, "until": "input"}
    started = (await client.call_tool("execute", line)).structured_content
    assert started is not None
    job_id = started["job_id"]
    assert (await text_of(client, "interact", job_id=job_id, input="6 * 7", wait=50)).startswith("42\n>>>")
    await client.call_tool("interact", {"job_id": job_id, "input": "exit()"})


async def test_job_outlives_its_server_and_is_followed_by_the_next(isolated: Path, tmux: Tmux) -> None:
    transport = StdioTransport(sys.executable, ["-m", "tmuxjobs"], env=bare_environment(), keep_alive=False)
    async with Client(transport, timeout=60) as client:
        started = (await client.call_tool("execute", {"command": "read x; echo got $x; exit 5"})).structured_content
        assert started is not None
        server = started_server()
        server.send_signal(signal.SIGKILL)
        with pytest.raises(Exception):  # noqa: B017, PT011 - however the client tells that its server is gone
            await client.call_tool("list", {})
    transport = StdioTransport(sys.executable, ["-m", "tmuxjobs"], env=bare_environment(), keep_alive=False)
    async with Client(transport, timeout=60) as client:
        assert f"{started['job_id']}  running" in await text_of(client, "list")
        answer = await text_of(client, "interact", job_id=started["job_id"], input="it", wait=50, pattern="got it")
        assert "got it" in answer
    assert ended(Jobs.open(), started["job_id"]).exit_code == 5


async def test_wait_is_begun_again_after_its_server_was_killed(isolated: Path, jobs: Jobs) -> None:
    job_id = jobs.execute("read x; echo got $x; exit 5").job_id

    def transport() -> StdioTransport:
        return StdioTransport(sys.executable, ["-m", "tmuxjobs"], env=bare_environment(), keep_alive=False)

    async with Client(transport(), timeout=60) as client:
        waiting = asyncio.create_task(client.call_tool("wait", {"job_id": job_id, "pattern": "got", "timeout": 50}))
        await client.call_tool("list", {})
        started_server().kill()
        with pytest.raises(Exception):  # noqa: B017, PT011 - however the client tells that its server is gone
            await waiting
    async with Client(transport(), timeout=60) as client:
        await asyncio.to_thread(jobs.interact, job_id, "it")
        answer = await text_of(client, "wait", job_id=job_id, cursor=0, pattern="got it", timeout=50)
    assert "got it" in answer
    assert ended(jobs, job_id).exit_code == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_server_ends_at_once_on_a_signal(number: signal.Signals) -> None:
    argv = [sys.executable, "-m", "tmuxjobs", "serve"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=bare_environment()) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(
            b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18",'
            b'"capabilities":{},"clientInfo":{"name":"t","version":"1"}}}\n'
        )
        server.stdin.flush()
        assert b'"serverInfo"' in server.stdout.readline()
        server.send_signal(number)
        assert server.wait(60) == 128 + number


def test_server_ends_when_its_input_closes_and_prints_nothing_but_protocol() -> None:
    argv = [sys.executable, "-m", "tmuxjobs"]
    done = subprocess.run(argv, input=b"", capture_output=True, timeout=100, env=bare_environment())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_bad_setting_stops_the_start_with_one_line() -> None:
    environment = bare_environment() | {"MCP_BG_ALLOWED_COMMANDS": "("}
    done = subprocess.run(
        [sys.executable, "-m", "tmuxjobs"], input=b"", capture_output=True, timeout=100, env=environment
    )
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1
    assert b"MCP_BG_ALLOWED_COMMANDS" in done.stderr


def test_person_sees_the_agents_job(jobs: Jobs, tmux: Tmux) -> None:
    job_id = jobs.execute("echo seen by the person; sleep 1000").job_id
    wait_until(lambda: tmux("capture-pane", "-p", "-t", f"=mcp-jobs:{job_id}"), lambda text: "seen by the" in text)


async def test_server_goes_on_when_its_package_is_removed(isolated: Path, jobs: Jobs) -> None:
    package = isolated / "checkout" / "tmuxjobs"
    shutil.copytree(Path(PACKAGE_PARENT) / "tmuxjobs", package, ignore=shutil.ignore_patterns("__pycache__"))
    environment = bare_environment() | {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": ""}
    argv = ["-m", "tmuxjobs"]
    transport = StdioTransport(sys.executable, argv, env=environment, cwd=str(isolated), keep_alive=False)
    async with Client(transport, timeout=60) as client:
        await client.list_tools()
        verbs = {path.stem for path in (package / "verbs").glob("*.py")}
        # Python writes byte code of what it has read.
        await asyncio.to_thread(
            wait_until,
            lambda: {path.name.partition(".")[0] for path in (package / "verbs" / "__pycache__").glob("*.pyc")},
            lambda compiled: compiled >= verbs,
        )
        begins = {"command": "echo one; cat", "wait": 50, "pattern": "one"}
        started = (await client.call_tool("execute", begins)).structured_content
        assert started is not None
        package.rename(isolated / "removed")  # at once: more byte code may still be written
        job_id = started["job_id"]
        assert "one" in await text_of(client, "search", job_id=job_id, pattern="one")
        assert "two" in await text_of(client, "interact", job_id=job_id, input="two", wait=50, pattern="two")
        assert "running" in await text_of(client, "status", job_id=job_id)
        assert "killed" in await text_of(client, "kill", job_id=job_id)


@pytest.mark.parametrize("given", ["1", None])
async def test_job_gets_what_the_server_sets_for_itself_as_it_was_given(isolated: Path, given: str | None) -> None:
    name = "PYDANTIC_DISABLE_PLUGINS"
    environment = bare_environment() | ({name: given} if given else {})
    transport = StdioTransport(sys.executable, ["-m", "tmuxjobs"], env=environment, keep_alive=False)
    async with Client(transport, timeout=60) as client:
        said = await text_of(client, "execute", command=f"echo [${{{name}-unset}}]", wait=50)
    assert f"[{given or 'unset'}]" in said
