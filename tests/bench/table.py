"""What each thing costs beside the least that it could: `python tests/bench/table.py [--peer 'COMMAND'] [--only ROW]`.

Both sides of a row are measured in turns in one run, so what else the machine does hits both: trust the ratios. The
limit is what bare tmux, an MCP server that does nothing, or a program of the system takes for the same. With `--peer`
the same jobs run by another server too, over the tools of mcp-background-job: `execute_command`, `get_job_status`, ...
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from fastmcp import Client
from fastmcp.client.transports import StdioTransport

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import environment_of, leads_outside
from far import Far, together
from support import Jobs, write_finished

MB = 1_000_000
FLOOD_BYTES = 200 * MB
GIGABYTE = 1000 * MB
FINISHED, WINDOWS, RUNNING, WAITS, QUEUED, FAR = 10_000, 300, 50, 20, 500, 200
IDLE_S = 20.0
LINE = "2024-01-01 12:00:00 INFO request {} served in {} ms by worker aaaaaaaaaaaaaaaa\r\n"
NOTHING = """
from fastmcp import FastMCP
server = FastMCP("nothing")
@server.tool
def nothing() -> dict[str, int]:
    "Does nothing."
    return {"nothing": 0}
server.run("stdio", show_banner=False, log_level="ERROR")
"""
Row = tuple[str, list[float], list[float], str]
"""Its name; ours and the limit, in *unit*."""


class Place:
    """A home and a tmux server of its own, and the MCP servers in it."""

    def __init__(self, folder: Path, rounds: int) -> None:
        self.folder = folder
        self.rounds = rounds
        kept = {name: value for name, value in os.environ.items() if not leads_outside(name)}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        self.env = kept | environment_of(folder) | {"TMUXJOBS_MAX_JOBS": "400", "TMUXJOBS_KEEP_JOBS": "100000"}
        self.env |= {"TMUXJOBS_MAX_JOBS_TOTAL": "400", "TMUXJOBS_KEEP_WINDOWS": "1000"}

    def tmux(self, *arguments: str) -> str:
        done = subprocess.run(["tmux", *arguments], env=self.env, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    @contextlib.asynccontextmanager
    async def client(self, argv: list[str]) -> AsyncIterator[Client[Any]]:
        transport = StdioTransport(argv[0], argv[1:], env=self.env, cwd=str(self.folder), keep_alive=False)
        async with Client(transport) as client:
            yield client

    def end(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            os.kill(int(self.tmux("display-message", "-p", "#{pid}")), signal.SIGTERM)
        mark = f"TMUX_TMPDIR={self.folder}".encode()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if mark in Path(f"/proc/{process.pid}/environ").read_bytes() and process.pid != os.getpid():
                    process.kill()


OURS = [sys.executable, "-m", "tmuxjobs", "serve"]
LEAST = [sys.executable, "-c", NOTHING]


async def timed(call: Callable[[], Awaitable[Any]]) -> float:
    start = time.perf_counter()
    await call()
    return (time.perf_counter() - start) * 1000


async def execute(client: Client[Any], command: str, **options: Any) -> str:
    answer = await client.call_tool("execute", {"command": command, **options})
    assert answer.structured_content is not None
    return str(answer.structured_content["job_id"])


async def starts(place: Place) -> list[Row]:
    """`execute` beside a bare window and a tool call."""
    ours: list[float] = []
    whole: list[float] = []
    least: list[float] = []
    place.tmux("new-session", "-d", "-s", "bare", "cat")
    async with place.client(OURS) as client, place.client(LEAST) as other:
        await execute(client, "true", wait=10)
        for number in range(place.rounds):

            async def bare() -> None:
                place.tmux("new-window", "-d", "-t", "bare:", "true")
                await other.call_tool("nothing")

            least.append(await timed(bare))
            ours.append(await timed(lambda: execute(client, "true")))
            await asyncio.sleep(0.3)  # its end is no part of the next start
            text = f"echo {number}"
            whole.append(await timed(lambda text=text: execute(client, text, wait=20)))  # type: ignore[misc]
    return [("execute", ours, least, "ms"), ("start to whole end of echo", whole, least, "ms")]


async def turns(place: Place) -> list[Row]:
    """One exchange with a REPL beside `send-keys` and the print it makes."""
    ours: list[float] = []
    least: list[float] = []
    log = place.folder / "repl.log"
    pane = place.tmux("new-session", "-d", "-P", "-F", "#{pane_id}", "-s", "repl", "python3 -q")
    place.tmux("pipe-pane", "-t", pane, f"cat >> {shlex.quote(str(log))}")
    await asyncio.sleep(1)

    async def bare(number: int) -> None:
        place.tmux("send-keys", "-t", pane, "-l", f"print('r', {number})")
        place.tmux("send-keys", "-t", pane, "Enter")
        while f"r {number}\r\n".encode() not in log.read_bytes():
            await asyncio.sleep(0.0002)

    async with place.client(OURS) as client:
        job_id = await execute(client, "python3 -q", wait=20, until="input")
        for number in range(place.rounds):
            least.append(await timed(lambda number=number: bare(number)))  # type: ignore[misc]
            typed = {"job_id": job_id, "input": f"print('r', {number})"}
            start = time.perf_counter()
            answer = await client.call_tool("interact", typed)
            ours.append((time.perf_counter() - start) * 1000)
            assert answer.structured_content is not None
            assert f"r {number}" in answer.structured_content["stdout"]
    return [("REPL turn by interact", ours, least, "ms")]


async def ends(place: Place) -> list[Row]:
    """From the end, as the command itself saw it last, to a waiting call."""
    ours: list[float] = []
    least: list[float] = []
    stamp = "sleep 0.3; date +%s.%N"
    async with place.client(OURS) as client:
        for _ in range(place.rounds):
            answer = await client.call_tool("execute", {"command": stamp, "wait": 20})
            known = time.time()
            assert answer.structured_content is not None
            ours.append((known - float(answer.structured_content["stdout"].split()[-1])) * 1000)
            done = await asyncio.to_thread(
                subprocess.run, ["sh", "-c", stamp], capture_output=True, text=True, check=True
            )
            least.append((time.time() - float(done.stdout)) * 1000)
    return [("end known to a waiting call", ours, least, "ms")]


async def server_starts(place: Place) -> list[Row]:
    """From the start of a server to its first list of tools; its memory then."""
    found: dict[str, list[float]] = {"ours": [], "least": [], "our memory": [], "least memory": []}
    for _ in range(max(3, place.rounds // 4)):
        for name, argv in (("ours", OURS), ("least", LEAST)):
            start = time.perf_counter()
            async with place.client(argv) as client:
                await client.list_tools()
                found[name].append((time.perf_counter() - start) * 1000)
                if name == "ours":
                    await execute(client, "true", wait=10)
                [child] = [one for one in psutil.Process().children() if one.cmdline()[1:2] == argv[1:2]]
                memory = "our memory" if name == "ours" else "least memory"
                found[memory].append(child.memory_info().rss / (1 << 20))
    return [
        ("server start to first tools/list", found["ours"], found["least"], "ms"),
        ("server memory", found["our memory"], found["least memory"], "MB"),
    ]


def own_pages(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def in_panes(place: Place) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name() == "tmuxjobs-job" and str(place.folder) in " ".join(process.cmdline()):
                found.append(process)
    return found


async def crowd(place: Place) -> list[Row]:
    """With many jobs running: `list`, `status`; then what it costs that nothing happens."""
    listing: list[float] = []
    state: list[float] = []
    least: list[float] = []
    async with place.client(OURS) as client, place.client(LEAST) as other:
        ids = [await execute(client, "sleep 100000") for _ in range(RUNNING)]
        await client.call_tool("list")
        await asyncio.sleep(3)
        for number in range(place.rounds):
            least.append(await timed(lambda: other.call_tool("nothing")))
            listing.append(await timed(lambda: client.call_tool("list")))
            asked = {"job_id": ids[number % RUNNING]}
            state.append(await timed(lambda asked=asked: client.call_tool("status", asked)))  # type: ignore[misc]
        waits = [asyncio.create_task(client.call_tool("wait", {"job_id": one, "timeout": 50})) for one in ids[:WAITS]]
        await asyncio.sleep(5)
        [server] = [one for one in psutil.Process().children() if "tmuxjobs" in one.cmdline()]
        parts = in_panes(place)
        pages = sum(own_pages(one.pid) for one in parts) / RUNNING
        used, woken = sum(server.cpu_times()[:2]), sum(one.num_ctx_switches().voluntary for one in parts)
        await asyncio.sleep(IDLE_S)
        share = 100 * (sum(server.cpu_times()[:2]) - used) / IDLE_S
        wakeups = (sum(one.num_ctx_switches().voluntary for one in parts) - woken) / IDLE_S
        for one in waits:
            one.cancel()
    return [
        (f"list with {RUNNING} running", listing, least, "ms"),
        (f"status with {RUNNING} running", state, least, "ms"),
        (f"idle, {RUNNING} jobs and {WAITS} waits: server", [share], [], "% of a core"),
        ("    its runners and recorders", [wakeups], [], "wakeups/s"),
        ("memory of a running job, own pages", [pages], [], "MB"),
    ]


async def flood(place: Place) -> list[Row]:
    """A job that prints as fast as it can until its log is whole, beside bare tmux with `cat` behind the pipe."""
    data = place.folder / "flood"
    data.write_bytes(b"".join(b"line %09d of a flood of text\n" % number for number in range(FLOOD_BYTES // 33)))
    size = data.stat().st_size
    command = f"cat {shlex.quote(str(data))}"
    ours: list[float] = []
    least: list[float] = []
    place.tmux("new-session", "-d", "-s", "flood", "cat")
    async with place.client(OURS) as client:
        for number in range(3):
            start = time.perf_counter()
            await execute(client, command, wait=50)
            ours.append(size / MB / (time.perf_counter() - start))
            log = place.folder / f"flood-{number}.log"
            start = time.perf_counter()
            pane = place.tmux(
                "new-window", "-d", "-P", "-F", "#{pane_id}", "-t", "flood:", f"sleep 0.3; {command}; cat"
            )
            place.tmux("pipe-pane", "-t", pane, f"cat > {shlex.quote(str(log))}")
            lines = FLOOD_BYTES // 33
            while not log.exists() or log.stat().st_size < size + lines:  # the terminal makes \n to \r\n
                await asyncio.sleep(0.005)
            least.append(size / MB / (time.perf_counter() - start - 0.3))
            place.tmux("kill-pane", "-t", pane)
            log.unlink()
    return [("flood, log whole", ours, least, "MB/s")]


def process_ms(argv: list[str], env: dict[str, str]) -> float:
    start = time.perf_counter()
    # Not /dev/null: there grep stops at the first match.
    subprocess.run(argv, env=env, stdout=subprocess.PIPE, check=True, stdin=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1000


async def commands(place: Place) -> list[Row]:
    """Whole processes of the command line beside a Python that imports pydantic."""
    found: dict[str, list[float]] = {"list": [], "--version": [], "--help": []}
    least = []
    for _ in range(place.rounds):
        least.append(process_ms([sys.executable, "-c", "import pydantic"], place.env))
        for name, times in found.items():
            times.append(process_ms([sys.executable, "-m", "tmuxjobs", name], place.env))
    return [(f"tmuxjobs {name}, whole process", times, least, "ms") for name, times in found.items()]


async def searches(place: Place) -> list[Row]:
    """One gigabyte: `search` beside grep, `tail` beside a call of nothing."""
    block = "".join(LINE.format(number, number % 977) for number in range(10_000)).encode()
    rows: list[Row] = []
    async with place.client(OURS) as client, place.client(LEAST) as other:
        job_id = await execute(client, "true", wait=10)
        status = await client.call_tool("status", {"job_id": job_id})
        assert status.structured_content is not None
        log = Path(status.structured_content["log_path"])
        with log.open("wb") as file:
            for _ in range(GIGABYTE // len(block)):
                file.write(block)
            file.write(b"needle in the last line\r\n")
        for name, pattern, literal in (
            ("literal", "needle", True),
            ("regex", r"need\w+ in", False),
            ("regex, many hits", r"request \d+77 served", False),
        ):
            ours: list[float] = []
            least: list[float] = []
            for _ in range(3):
                asked = {"job_id": job_id, "pattern": pattern, "literal": literal}
                ours.append(await timed(lambda asked=asked: client.call_tool("search", asked)))  # type: ignore[misc]
                least.append(process_ms(["grep", "-c", "-F" if literal else "-P", pattern, str(log)], place.env))
            rows.append((f"search of 1 GB: {name}", ours, least, "ms"))
        ours, least = [], []
        for _ in range(place.rounds):
            ours.append(await timed(lambda: client.call_tool("tail", {"job_id": job_id})))
            least.append(await timed(lambda: other.call_tool("nothing")))
        rows.append(("tail of 1 GB", ours, least, "ms"))
        log.unlink()
    return rows


async def growth(place: Place) -> list[Row]:
    """What finished jobs cost: the same calls with none, and with FINISHED of them."""
    found: dict[str, list[list[float]]] = {}
    for place_of_it, count in ((place, FINISHED), (empty(place), 0)):
        with contextlib.ExitStack() as stack:
            if count:
                stack.enter_context(environment(place_of_it.env))
                write_finished(Jobs.open(), count)
        async with place_of_it.client(OURS) as client:
            found.setdefault("first list", []).append([await timed(lambda: client.call_tool("list", {"limit": 20}))])
            lists = [await timed(lambda: client.call_tool("list", {"limit": 20})) for _ in range(place.rounds)]
            found.setdefault("later list", []).append(lists)
            await execute(client, "true", wait=10)
            runs = []
            for _ in range(place.rounds):
                runs.append(await timed(lambda: execute(client, "true")))
                await asyncio.sleep(0.2)
            found.setdefault("execute", []).append(runs)
        argv = [sys.executable, "-m", "tmuxjobs", "list"]
        times = [process_ms(argv, place_of_it.env) for _ in range(max(3, place.rounds // 3))]
        found.setdefault("tmuxjobs list", []).append(times)
        if place_of_it is not place:
            place_of_it.end()
    return [(f"{FINISHED:,} finished beside none: {name}", many, none, "ms") for name, (many, none) in found.items()]


def empty(place: Place) -> Place:
    folder = Path(tempfile.mkdtemp(prefix="e", dir=place.folder))
    return Place(folder, place.rounds)


@contextlib.contextmanager
def environment(env: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


async def windows(place: Place) -> list[Row]:
    """The same calls beside few windows and beside many."""
    few: dict[str, list[float]] = {"execute": [], "list": [], "new-window": []}
    many: dict[str, list[float]] = {"execute": [], "list": [], "new-window": []}
    async with place.client(OURS) as client:
        for found, count in ((few, 10), (many, WINDOWS)):
            there = len(place.tmux("list-windows", "-t", "=mcp-jobs").splitlines()) if found is many else 0
            for _ in range(count - there):
                place.tmux(
                    *(("new-window", "-d", "-t", "=mcp-jobs:") if found is many else ("new-session", "-d")), "cat"
                )
                if found is few:
                    await execute(client, "true", wait=10)
            for _ in range(place.rounds):
                found["execute"].append(await timed(lambda: execute(client, "true", wait=0)))
                found["list"].append(await timed(lambda: client.call_tool("list", {"limit": 20})))
                start = time.perf_counter()
                pane = place.tmux("new-window", "-d", "-P", "-F", "#{pane_id}", "-t", "=mcp-jobs:", "cat")
                found["new-window"].append((time.perf_counter() - start) * 1000)
                place.tmux("kill-pane", "-t", pane)
    return [(f"{WINDOWS} windows beside 10: {name}", many[name], few[name], "ms") for name in few]


async def peer(place: Place, argv: list[str]) -> list[Row]:
    """The same jobs by another server of the old tools, ours beside it by the same calls."""
    rows: dict[str, tuple[list[float], list[float]]] = {}
    sizes: tuple[list[float], list[float]] = ([], [])
    floods: tuple[list[float], list[float]] = ([], [])
    data = place.folder / "flood"
    data.write_bytes(b"line of a flood of text, as much as a terminal takes\n" * (FLOOD_BYTES // 54))

    async def one(client: Client[Any], side: int) -> None:
        async def call(tool: str, **arguments: Any) -> dict[str, Any]:
            answer = await client.call_tool(tool, arguments)
            return dict(answer.structured_content or {})

        async def note(name: str, act: Callable[[], Awaitable[Any]]) -> None:
            rows.setdefault(name, ([], []))[side].append(await timed(act))

        async def until_ended(job_id: str) -> None:
            while (await call("get_job_status", job_id=job_id))["status"] == "running":
                await asyncio.sleep(0.002)

        await note("execute_command", lambda: call("execute_command", command="sleep 1000"))

        async def whole() -> None:
            await until_ended((await call("execute_command", command="echo hello"))["job_id"])

        await note("start to known end of echo", whole)
        repl = (await call("execute_command", command="python3 -q -i -u"))["job_id"]
        await asyncio.sleep(0.5)
        await note("interact_with_job", lambda: call("interact_with_job", job_id=repl, input="print(6 * 7)\n"))
        await note("tail_job_output", lambda: call("tail_job_output", job_id=repl, lines=50))
        await note("list_jobs", lambda: call("list_jobs"))
        listed = await call("list_jobs")
        sizes[side].append(len(json.dumps(listed)))
        for job in listed["jobs"]:
            if job["status"] == "running":
                await call("kill_job", job_id=job["job_id"])

    async with place.client(OURS) as ours, place.client(argv) as theirs:
        for _ in range(place.rounds):
            await one(ours, 0)
            await one(theirs, 1)
        for side, client in enumerate((ours, theirs)):
            start = time.perf_counter()
            started = await client.call_tool("execute_command", {"command": f"cat {shlex.quote(str(data))}"})
            asked = dict(started.structured_content or {})
            while (await client.call_tool("get_job_status", asked)).structured_content["status"] == "running":  # type: ignore[index]
                await asyncio.sleep(0.01)
            floods[side].append(data.stat().st_size / MB / (time.perf_counter() - start))
    shown: list[Row] = [(f"peer: {name}", *times, "ms") for name, times in rows.items()]
    return [*shown, ("peer: list_jobs", *sizes, "characters"), ("peer: flood to known end", *floods, "MB/s")]


async def queue(place: Place) -> list[Row]:
    """A freed slot to the next start beside a plain start, and calls beside those without jobs that wait."""
    place.env |= {"TMUXJOBS_GROUPS": "bench=1"}
    stamped = f"echo $EPOCHREALTIME >> {place.folder}/stamps"
    plain: list[float] = []
    calls: dict[str, tuple[list[float], list[float]]] = {"list": ([], []), "execute": ([], [])}

    def stamps() -> list[float]:
        path = place.folder / "stamps"
        return [float(line) for line in path.read_text().split()] if path.exists() else []

    async with place.client(OURS) as client:
        await execute(client, "true", wait=10)

        async def note(side: int) -> None:
            for _ in range(place.rounds):
                calls["list"][side].append(await timed(lambda: client.call_tool("list", {})))
                calls["execute"][side].append(await timed(lambda: execute(client, "true")))
                await asyncio.sleep(0.3)

        for _ in range(place.rounds):
            began = time.time()
            await execute(client, stamped, wait=10)
            plain.append((stamps()[-1] - began) * 1000)
        await note(1)
        (place.folder / "stamps").unlink()
        line = f"{stamped}; sleep 0.3; {stamped}"
        ids = [await execute(client, line, group="bench") for _ in range(place.rounds + 1)]
        await client.call_tool("wait", {"job_id": ids, "mode": "all", "timeout": 50})
        found = stamps()
        freed = [(start - end) * 1000 for end, start in zip(found[1::2], found[2::2], strict=False)]
        for _ in range(QUEUED):
            await execute(client, "true", delay=100_000)
        await note(0)
        page = next(one for one in in_panes(place) if "welcome" in one.cmdline())
        before = sum(page.cpu_times()[:2])
        await asyncio.sleep(IDLE_S)
        idle = [(sum(page.cpu_times()[:2]) - before) / IDLE_S * 100]
    state = Path(place.env["XDG_STATE_HOME"]) / "tmuxjobs"
    used = sum(path.lstat().st_blocks for path in state.rglob("*")) * 512 / MB
    rows: list[Row] = [("freed slot to the next start", freed, plain, "ms")]
    rows += [(f"{name} with {QUEUED} queued, and none", *sides, "ms") for name, sides in calls.items()]
    return [*rows, (f"{QUEUED} queued, first window", idle, [], "% of a core"), ("on disk", [used], [], "MB")]


async def hosts(place: Place) -> list[Row]:
    """The same calls for jobs on another machine, by ssh on loopback, beside those for jobs here."""
    machines = [Far(place.folder, f"gpu{number}") for number in (1, 2, 3)]
    names = [one.name for one in machines]
    place.env |= {"TMUXJOBS_SSH": together(place.folder, machines), "TMUXJOBS_HOSTS": ",".join(names)}
    try:
        async with place.client(OURS) as client:
            return await on_hosts(place, client, machines)
    finally:
        for one in machines:
            one.close()


async def on_hosts(place: Place, client: Client[Any], machines: list[Far]) -> list[Row]:
    calls: dict[str, tuple[list[float], list[float]]] = {"execute": ([], []), "tail of 1 GB": ([], [])}
    big = [await execute(client, "true", wait=20, host=host) for host in (machines[0].name, "")]
    home = Path(place.env["XDG_STATE_HOME"]) / "tmuxjobs"
    block = "".join(LINE.format(number, number % 977) for number in range(10_000)).encode()
    for state, job_id in zip((machines[0].state, home), big, strict=True):
        with (state / "jobs" / job_id / "output.log").open("wb") as file:
            for _ in range(GIGABYTE // len(block)):
                file.write(block)
    for _ in range(place.rounds):
        for side, host in enumerate((machines[0].name, "")):
            calls["execute"][side].append(await timed(lambda host=host: execute(client, "true", host=host)))  # type: ignore[misc]
            await asyncio.sleep(0.3)
            asked = {"job_id": big[side]}
            calls["tail of 1 GB"][side].append(await timed(lambda asked=asked: client.call_tool("tail", asked)))  # type: ignore[misc]
    rows: list[Row] = [(f"on another host: {name}", *sides, "ms") for name, sides in calls.items()]
    back: list[float] = []
    runs = await execute(client, "sleep 100000", host=machines[0].name)
    for _ in range(place.rounds):
        machines[0].cut()
        start = time.perf_counter()
        while True:
            answer = await client.call_tool("status", {"job_id": runs}, raise_on_error=False)
            if (answer.structured_content or {}).get("status") == "running":
                break
        back.append((time.perf_counter() - start) * 1000)
    rows.append(("    a cut connection to the next answer", back, [], "ms"))
    for number in range(FAR):
        await execute(client, "true", host=machines[number % len(machines)].name)
    await asyncio.sleep(5)
    many = [await timed(lambda: client.call_tool("list", {"limit": FAR})) for _ in range(place.rounds)]
    async with empty(place).client(OURS) as alone:
        for _ in range(FAR):
            await execute(alone, "true")
        await asyncio.sleep(5)
        here = [await timed(lambda: alone.call_tool("list", {"limit": FAR})) for _ in range(place.rounds)]
    return [*rows, (f"list of {FAR} on three hosts, and here", many, here, "ms")]


ROWS = {
    function.__name__: function
    for function in (
        starts,
        turns,
        ends,
        server_starts,
        crowd,
        flood,
        commands,
        searches,
        growth,
        windows,
        queue,
        hosts,
    )
}


def shown(row: Row) -> str:
    name, ours, least, unit = row
    our = statistics.median(ours)
    if not least:
        return f"{name:48} {our:10.1f} {'':10} {unit:12}"
    other = statistics.median(least)
    return f"{name:48} {our:10.1f} {other:10.1f} {unit:12} {our / other:6.2f} x"


async def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--peer", help="the command of another server, over stdio")
    options.add_argument("--only", action="append", choices=sorted(ROWS), help="these rows alone; may be repeated")
    options.add_argument("--rounds", type=int, default=20, help="of what takes milliseconds")
    asked = options.parse_args()
    tmux = subprocess.getoutput("tmux -V")
    python = sys.version.split()[0]
    print(f"{os.cpu_count()} cores, Python {python}, {tmux}, load {os.getloadavg()[0]:.1f}")
    print(f"{'':48} {'ours':>10} {'limit':>10}")
    chosen: list[Callable[[Place], Awaitable[list[Row]]]] = [ROWS[name] for name in asked.only or ROWS]
    if asked.peer:
        chosen.append(lambda place: peer(place, shlex.split(asked.peer)))
    for function in chosen:
        place = Place(Path(tempfile.mkdtemp(prefix="tb", dir="/tmp")), asked.rounds)
        try:
            for row in await function(place):
                print(shown(row), flush=True)
        finally:
            place.end()
            shutil.rmtree(place.folder, ignore_errors=True)


if __name__ == "__main__":
    asyncio.run(main())
