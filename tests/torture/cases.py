"""The cases of the torture suite: each does one hostile thing to a world, at random, and compares with the truth.

A case takes a world and makes one try; `world.tally` has what came of it. `test_torture.py` makes a few tries of each,
`long.py` as many as fit into the time.
"""

import asyncio
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from fastmcp import Client
from fastmcp.client.transports import StdioTransport
from support import Person, with_timing

from tmuxjobs.errors import JobEnded, JobNotFound, TmuxjobsError
from tmuxjobs.job_answers import JobStatus

from .world import Asked, World, load, slow_disk

HERE = Path(__file__).parent
STARTER = "import sys; from tmuxjobs import Jobs; print(flush=True); print(Jobs.open().execute(sys.argv[1]).job_id)"


# Completeness and truth under load


def one_after_another(world: World) -> None:
    """Jobs of any size, each looked at when it has ended."""
    for _ in range(world.count(10)):
        world.check(world.start(largest=4 << 20))


def burst(world: World) -> None:
    """Fifty at once from one server."""
    jobs = with_timing(world.jobs, tmux=60.0)  # it has all of them to answer
    with ThreadPoolExecutor(50) as pool:
        asked = list(pool.map(lambda _: world.start(largest=200_000, jobs=jobs), range(world.count(50))))
    for one in asked:
        world.check(one)


def slow_jobs(world: World) -> None:
    """Jobs that print, pause and print on, twenty beside each other."""
    asked = [world.start(largest=1 << 20, pause=world.random.uniform(0.05, 1)) for _ in range(world.count(20))]
    for one in asked:
        world.check(one)


def under_load(world: World) -> None:
    """Six beside each other while processors or the disk are busy with other things."""
    hostile = load(world.random.randrange(2, 6)) if world.random.random() < 0.7 else slow_disk(world.folder)
    with hostile, ThreadPoolExecutor(6) as pool:
        asked = list(pool.map(lambda _: world.start(largest=1 << 20), range(world.count(24))))
        for one in asked:
            world.check(one)


def eight_processes(world: World) -> None:
    """Eight launchers in eight processes, each with jobs of its own."""
    argv = [sys.executable, str(HERE / "long.py"), "--share", str(world.share), "--launcher"]
    launchers = []
    for _ in range(world.count(8)):
        seed = str(world.random.random())
        launchers.append(subprocess.Popen([*argv, seed], stdout=subprocess.PIPE, text=True, cwd="/"))
    world.own |= {launcher.pid for launcher in launchers}
    for launcher in launchers:
        said = json.loads(launcher.communicate(timeout=300)[0])
        world.tally.jobs += said["jobs"]
        world.tally.lost_bytes += said["lost_bytes"]
        world.tally.wrong_ends += said["wrong_ends"]
        world.tally.notes += said["notes"]


def launcher(world: World) -> None:
    """What one of the eight does."""
    for _ in range(world.count(4)):
        for one in [world.start(largest=500_000) for _ in range(3)]:
            world.check(one)


def large(world: World) -> None:
    """One job of 200 MB beside small ones, in a log that may hold it."""
    jobs = world.another(max_output_size="300MB")
    times = 200_000_000 // len(world.data)
    text = f"stty -opost -echo; for i in $(seq {times}); do cat source; done; exit 9"
    started = jobs.execute(text, cwd=str(world.folder), name="large")
    world.tally.jobs += 1
    for _ in range(5):
        world.check(world.start(largest=100_000))
    status = world.ended(started.job_id, timeout=300)
    if (status.exit_code, status.log) != (9, "complete"):
        world.tally.wrong(f"large: {status.text()}")
    with open(status.log_path, "rb") as log:
        bad = sum(log.read(len(world.data)) != world.data for _ in range(times)) + len(log.read())
    world.tally.lost_bytes += bad
    with contextlib.suppress(JobNotFound), jobs.host.store.lock():
        jobs.host.store.remove(started.job_id)


def all_agree(world: World) -> None:
    """Two servers and the command line watch the same jobs: nobody goes back, and all say the same end."""
    asyncio.run(agree(world))


def client() -> Client[StdioTransport]:
    transport = StdioTransport(sys.executable, ["-m", "tmuxjobs", "serve"], env=dict(os.environ), keep_alive=False)
    return Client(transport)


async def agree(world: World) -> None:
    async with client() as one, client() as two:
        world.own |= {child.pid for child in psutil.Process().children()}
        for _ in range(world.count(8)):
            asked = await asyncio.to_thread(world.start, largest=100_000, pause=world.random.uniform(0, 0.5))
            killer = world.random.random() < 0.4
            acts: list[Coroutine[None, None, dict[str, object]]] = [watch(one, asked), watch(two, asked)]
            if killer:
                acts.append(shoot(two, asked, world.random.uniform(0, 0.6)))
            seen = await asyncio.gather(*acts)
            argv = [sys.executable, "-m", "tmuxjobs", "status", asked.job_id, "--json"]
            said = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=60)
            ends = [seen[0], seen[1], json.loads(said.stdout)]
            # The fields leave out what follows from others.
            facts = [
                tuple(
                    ({"reason": "exit"} | end).get(key)
                    for key in ("status", "exit_code", "signal", "reason", "log_bytes")
                )
                for end in ends
            ]
            if len(set(facts)) > 1:
                world.tally.wrong(f"{asked.job_id}: they differ: {facts}")
            world.check(asked, await asyncio.to_thread(world.jobs.status, asked.job_id), untouched=not killer)
            if killer and (seen[2]["status"] == "killed") != (facts[0][3] == "kill"):
                world.tally.wrong(f"{asked.job_id}: kill said {seen[2]}, status {facts[0]}")


async def watch(client: Client[StdioTransport], asked: Asked) -> dict[str, object]:
    """The status at the end; a job that is seen to run after its end is an error."""
    while True:
        answer = await client.call_tool("status", {"job_id": asked.job_id})
        if answer.structured_content["status"] != "running":
            again = await client.call_tool("status", {"job_id": asked.job_id})
            assert again.structured_content["status"] == answer.structured_content["status"], again
            return dict(again.structured_content)
        await asyncio.sleep(0.01)


async def shoot(client: Client[StdioTransport], asked: Asked, after: float) -> dict[str, object]:
    await asyncio.sleep(after)
    return dict((await client.call_tool("kill", {"job_id": asked.job_id, "grace": 1})).structured_content)


# Kill everything, at random times


def victims(world: World, count: int = 6) -> list[Asked]:
    return [world.start(largest=100_000, pause=world.random.uniform(0.1, 1.5)) for _ in range(world.count(count))]


def some_time(world: World, longest: float = 0.5) -> None:
    time.sleep(world.random.uniform(0, longest) ** 2)


def hit(process: psutil.Process | int | None, number: int = signal.SIGKILL) -> bool:
    if process is None:
        return False
    with contextlib.suppress(psutil.Error, ProcessLookupError):
        os.kill(process if isinstance(process, int) else process.pid, number)
        return True
    return False


def run_field(world: World, asked: Asked, name: str) -> int | None:
    run = world.jobs.host.store.read(asked.job_id).run
    return getattr(run, name) if run else None


def kill_runners(world: World) -> None:
    """SIGKILL to runners: lost, or the true end when it came first; what lived on can be ended."""
    asked = victims(world)
    some_time(world)
    for one in asked:
        hit(run_field(world, one, "pid"))
    for one in asked:
        status = world.ended(one.job_id)
        if status.status != "lost" or status.reason != "runner-died":
            world.check(one, status)
        world.jobs.kill(one.job_id, grace=0.5)
        if world.jobs.status(one.job_id).survivors:
            world.tally.wrong(f"{one.job_id}: processes of a lost job live after kill")
    next_job_runs(world)


def kill_recorders(world: World) -> None:
    """SIGKILL to recorders, once or twice in a row: the end is true, and the log says that bytes may be missing."""
    asked = victims(world)
    some_time(world)
    shot = {}
    for one in asked:
        shot[one] = hit(world.recorder(one.job_id))
        if world.random.random() < 0.5:
            some_time(world, 0.3)
            shot[one] |= hit(world.recorder(one.job_id))
    for one in asked:
        status = world.ended(one.job_id)
        if not one.told_truly(status) or (not shot[one] and status.log != "complete"):
            world.tally.wrong(f"{one.job_id}: told {status.detail}, log {status.log}; true is {one}")
        world.check(one, status, untouched=False)
    next_job_runs(world)


def kill_shells(world: World) -> None:
    """SIGKILL to the job's own shell: killed by SIGKILL, or the true end when it came first."""
    asked = victims(world)
    some_time(world)
    for one in asked:
        hit(run_field(world, one, "command_pid"))
    for one in asked:
        status = world.ended(one.job_id)
        if (status.signal, status.reason, status.log) != ("SIGKILL", "signal", "complete"):
            world.check(one, status)
    next_job_runs(world)


def kill_starters(world: World) -> None:
    """SIGKILL to whoever is starting a job: it runs to its true end, or never was."""
    starters = []
    for _ in range(6):
        code = world.random.randrange(1, 100)
        argv = [sys.executable, "-c", STARTER, f"exit {code}"]
        starters.append(subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/"))
    world.own |= {starter.pid for starter in starters}
    for starter in starters:
        assert starter.stdout is not None
        starter.stdout.readline()
        time.sleep(world.random.uniform(0, 0.15))
        starter.kill()
        starter.communicate()
    world.tally.jobs += len(starters)
    deadline = time.monotonic() + 90
    while (running := world.jobs.list(status="running", limit=500)).total and time.monotonic() < deadline:
        time.sleep(0.2)
    for job in running.jobs:
        world.tally.wrong(f"{job.job_id} still runs, and nobody runs it")
    for job in world.jobs.list(limit=20).jobs:
        code = job.command.removeprefix("exit ")
        if code.isdigit() and job.status != "lost" and job.exit_code != int(code):
            world.tally.wrong(f"{job.job_id}: {job.text()}")
    next_job_runs(world)


def kill_servers(world: World) -> None:
    """SIGKILL to an MCP server in the middle of a call: its jobs do not notice."""
    asyncio.run(shoot_server(world))
    next_job_runs(world)


def servers_here() -> Iterator[psutil.Process]:
    """The MCP servers that this process has started."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # something else, which has just ended
            if "serve" in child.cmdline():
                yield child


async def shoot_server(world: World) -> None:
    before = set(world.jobs.host.store.ids())
    with contextlib.suppress(Exception):  # the client's own way to say that its server is gone
        async with client() as one:
            served = list(servers_here())
            world.own |= {child.pid for child in served}
            calls = [one.call_tool("execute", {"command": "sleep 0.3; exit 5", "name": "orphan"}) for _ in range(4)]
            asyncio.get_running_loop().call_later(world.random.uniform(0.01, 0.4), lambda: [*map(hit, served)])
            await asyncio.wait_for(asyncio.gather(*calls), 30)
            await asyncio.wait_for(one.call_tool("list", {}), 10)
    for job_id in set(world.jobs.host.store.ids()) - before:
        status = await asyncio.to_thread(world.ended, job_id)
        world.tally.jobs += 1
        if (status.status, status.exit_code) != ("failed", 5) and status.reason != "never-started":
            world.tally.wrong(f"{job_id} of a killed server: {status.text()}")


def kill_tmux(world: World) -> None:
    """SIGKILL to the tmux server: every job ends, and why is told."""
    asked = victims(world)
    some_time(world)
    end_tmux(world, asked, lambda: hit(world.server_pid()), {"tmux-ended"})


def kill_tmux_at_start(world: World) -> None:
    """SIGKILL to the tmux server while jobs are starting: each runs, ends with it, or is refused; none hangs."""

    def try_one(_: int) -> Asked | None:
        with contextlib.suppress(TmuxjobsError):
            return world.start(largest=10_000, pause=0.05)
        return None

    with ThreadPoolExecutor(6) as pool:
        started = pool.map(try_one, range(12))
        time.sleep(world.random.uniform(0, 0.15))
        with contextlib.suppress(AssertionError):
            hit(world.server_pid())
        asked = [one for one in started if one is not None]
    for one in asked:
        world.check_cut(one, {"tmux-ended"})
    next_job_runs(world)


def end_tmux(world: World, asked: list[Asked], act: Callable[[], object], reasons: set[str]) -> None:
    act()
    for one in asked:
        world.check_cut(one, reasons)
    next_job_runs(world)


def stop_tmux(world: World) -> None:
    """SIGSTOP to the tmux server for a while: jobs wait for it, and nothing is lost."""
    asked = victims(world)
    some_time(world)
    server = world.server_pid()
    hit(server, signal.SIGSTOP)
    try:
        time.sleep(world.random.uniform(0.1, 3))
    finally:
        hit(server, signal.SIGCONT)
    for one in asked:
        world.check(one)
    next_job_runs(world)


def stop_recorders(world: World) -> None:
    """SIGSTOP to recorders, for a while or until their runners notice: nothing is lost."""
    asked = victims(world, 3)
    some_time(world)
    stopped = [world.recorder(one.job_id) for one in asked]
    for one in stopped:
        hit(one, signal.SIGSTOP)
    time.sleep(world.random.uniform(0.1, 2))
    for one in stopped:
        if world.random.random() < 0.5:
            hit(one, signal.SIGCONT)
    for one in asked:
        world.check(one)


TWO_STREAMS = """
import os, time
child = os.fork()
file = open("source", "rb")
file.seek({start})
for _ in range({pieces}):
    os.write(1 if child else 2, file.read({bytes}))
    time.sleep({pause})
if child:
    os.wait()
os._exit(5 if child else 0)
"""


def separate_stderr(world: World) -> None:
    """SIGSTOP or SIGKILL to each process that a separate stderr passes: neither log is told as complete when it is not.

    Both print the same bytes of the source.
    """
    asked = []
    for _ in range(3):
        pieces, size = world.random.randrange(20, 200), world.random.choice([10, 300, 4000, 20_000])
        start = world.random.randrange(len(world.data) - pieces * size + 1)
        script = TWO_STREAMS.format(start=start, pieces=pieces, bytes=size, pause=world.random.choice([0, 0.005, 0.02]))
        command = f"stty -opost -echo; exec {sys.executable} -I -S -c {shlex.quote(script)}"
        started = world.jobs.execute(command, cwd=str(world.folder), name="torture", separate_stderr=True)
        world.tally.jobs += 1
        asked.append(Asked(started.job_id, start, pieces * size, 5, None))
    place = world.random.choice(["tmux", "recorder", "runner", "helper"])
    number = world.random.choice([signal.SIGSTOP, signal.SIGKILL])
    some_time(world, 1)
    targets = [world.server_pid()] if place == "tmux" else [target_of(world, one, place) for one in asked]
    for target in targets:
        hit(target, number)
    if number == signal.SIGSTOP:
        time.sleep(world.random.uniform(0.1, 5))
        for target in targets:
            hit(target, signal.SIGCONT)
    for one in asked:
        status = world.ended(one.job_id)
        if status.status != "lost" and status.reason == "exit" and not one.told_truly(status):
            world.tally.wrong(f"{one.job_id}: told {status.detail}; true is {one}")
        if status.log == "complete" and status.stderr_path is not None:
            lost = world.lost(one, status) + world.lost(one, status.model_copy(update={"log_path": status.stderr_path}))
            world.tally.lost_bytes += lost
            if lost:
                world.tally.notes.append(f"{one.job_id}: {lost} bytes lost by {number.name} to {place}, yet complete")
        elif number == signal.SIGSTOP and place != "runner":
            world.tally.wrong(f"{one.job_id}: {status.log} after {number.name} to {place}")
        world.jobs.kill(one.job_id, grace=0.5)
    next_job_runs(world)


def target_of(world: World, asked: Asked, place: str) -> psutil.Process | int | None:
    """The recorder, the runner, or what else the runner may have started beside the command."""
    if place == "recorder":
        return world.recorder(asked.job_id)
    runner = run_field(world, asked, "pid")
    if place == "runner" or runner is None:
        return runner
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(runner).children():
            if child.pid != run_field(world, asked, "command_pid"):
                return child
    return None


def spoil_logs(world: World) -> None:
    """A person cuts, edits, extends, removes or replaces logs that are written: one told as complete is whole."""
    asked = [world.steady(seconds=world.random.uniform(0.2, 2)) for _ in range(4)]
    spoilt = []
    for one in asked:
        some_time(world, 0.7)
        path = world.jobs.host.store.folder(one.job_id) / "output.log"
        match world.random.randrange(5):
            case 0:
                os.truncate(path, world.random.randrange(path.stat().st_size + 1))
            case 1:
                path.unlink()
            case 2:
                path.with_name("new").write_bytes(path.read_bytes()[: world.random.choice([0, 10, 1 << 20])])
                path.with_name("new").replace(path)
            case harm:
                with path.open("r+b" if harm == 3 else "ab") as file:
                    file.seek(world.random.randrange(path.stat().st_size))
                    file.write(b"mine")
        # One whose log was whole by then may have been told so.
        spoilt += [one] if world.jobs.status(one.job_id).log_bytes < one.size else []
    for one in spoilt:
        status = world.check(one, untouched=False)
        if not one.told_truly(status):
            world.tally.wrong(f"{one.job_id}: told {status.detail}; true is {one}")
        world.jobs.tail(one.job_id)
    next_job_runs(world)


def windows(world: World) -> None:
    """A person closes, renames, moves, splits and respawns windows."""
    asked = victims(world, 8)
    some_time(world)
    world.tmux("new-session", "-d", "-s", "other", "sh", check=False)
    no = world.folder / "no"
    for one in asked:
        pane = world.pane(one.job_id)
        harmless = {
            "rename": ["rename-window", "-t", pane, f"##(touch {no})x"],
            "move": ["move-window", "-s", pane, "-t", "other:"],
            "split": ["split-window", "-d", "-t", pane, "sleep 3"],
            "break": ["split-window", "-d", "-t", pane, "sleep 3", ";", "break-pane", "-d", "-s", pane],
            "pipe": ["pipe-pane", "-t", pane],
            "copy": ["copy-mode", "-t", pane],
            "clear": ["clear-history", "-t", pane],
            "zoom": ["resize-pane", "-Z", "-t", pane],
        }
        closing = {
            "kill": ["kill-window", "-t", pane],
            "kill-pane": ["kill-pane", "-t", pane],
            "respawn": ["respawn-pane", "-k", "-t", pane],
        }
        act = world.random.choice([*harmless, *closing])
        world.tmux(*(harmless | closing)[act], check=False)
        if act in closing:
            world.check_cut(one, {"window-closed"})
            continue
        status = world.ended(one.job_id)
        world.check(one, status, untouched=act != "pipe" or not one.told_truly(status))
    world.tmux("kill-session", "-t", "=other", check=False)
    if no.exists():
        world.tally.wrong("the name of a window was run as a command")
        no.unlink()
    next_job_runs(world)


def sessions(world: World) -> None:
    """A person renames or kills our session, or closes its welcome window, with other sessions there or not."""
    if world.random.random() < 0.5:
        world.tmux("new-session", "-d", "-s", "mine", "sh", check=False)
    asked = victims(world)
    some_time(world)
    act = world.random.choice(["kill", "rename", "welcome", "kill-server"])
    if act == "kill":
        end_tmux(world, asked, lambda: world.tmux("kill-session", "-t", "=mcp-jobs"), {"window-closed", "tmux-ended"})
    elif act == "kill-server":
        end_tmux(world, asked, lambda: world.tmux("kill-server"), {"tmux-ended"})
    else:
        if act == "rename":
            world.tmux("rename-session", "-t", "=mcp-jobs", "renamed")
        else:
            world.tmux("kill-window", "-t", "=mcp-jobs:jobs", check=False)
        asked += victims(world, 2)
        for one in asked:
            world.check(one)
    world.tmux("kill-session", "-t", "=mine", check=False)
    world.jobs.prune()
    world.tmux("kill-session", "-t", "=renamed", check=False)
    next_job_runs(world)


def adopters(world: World) -> None:
    """Windows that a person opened become jobs, and some of their adopters are killed: no end is guessed."""
    next_job_runs(world)
    go = world.folder / f"go-{world.random.getrandbits(32):x}"
    asked = []
    for _ in range(4):
        size, code = world.size(200_000), world.random.randrange(256)
        start = world.random.randrange(len(world.data) - size + 1)
        wait = f"stty -opost -echo; until [ -e {go} ]; do sleep 0.02; done; "
        command = f"{wait}tail -c +{start + 1} source | head -c {size}; exit {code}"
        window = ("new-window", "-d", "-P", "-F", "#{pane_id}", "-t", "=mcp-jobs:", "-c", str(world.folder))
        pane = world.tmux(*window, "sh", "-c", command).strip()
        asked.append(Asked(world.jobs.adopt(pane, name="torture").job_id, start, size, code, None))
        world.tally.jobs += 1
    killed = [one for one in asked if world.random.random() < 0.3 and hit(run_field(world, one, "pid"))]
    go.touch()
    for one in asked:
        status = world.ended(one.job_id)
        if status.status != "lost" if one in killed else not one.told_truly(status):
            world.tally.wrong(f"{one.job_id}: told {status.detail}; true is {one}, adopter killed: {one in killed}")
        world.check_printed(one, status)
    next_job_runs(world)
    go.unlink()


def people(world: World) -> None:
    """A person attaches, types into a job, and their terminal is killed: the jobs do not notice."""
    asked = victims(world, 4)

    def tmux(*arguments: str) -> str:
        return world.tmux(*arguments)

    someone = Person(tmux, target="=mcp-jobs", rows=24, columns=80)
    world.own.add(someone._client.pid)
    for key in "\x02n\x02p":
        someone.type(key)
        time.sleep(0.02)  # keys that come at once are a paste to tmux
    some_time(world)
    someone.close()
    for one in asked:
        world.check(one)
    next_job_runs(world)


# Races


def kill_against_end(world: World) -> None:
    """`kill` at the moment when the job ends by itself: one of the two happened, and all say the same."""
    for _ in range(world.count(8)):
        asked = world.start(largest=20_000, pause=0.05)
        time.sleep(world.random.uniform(0, 0.14))
        answer = world.jobs.kill(asked.job_id, grace=1)
        status = world.ended(asked.job_id)
        if answer.status == "already_terminated":
            world.check(asked, status)
        elif answer.status != "killed" or status.reason != "kill" or status.status != "killed":
            world.tally.wrong(f"{asked.job_id}: kill said {answer.text()}, status {status.text()}")


def kill_by_many(world: World) -> None:
    """Several managers kill, read and prune the same jobs: no error but a clear one, and one truth."""
    asked = victims(world)
    others = [world.another(keep_jobs=100) for _ in range(4)]

    def meddle(place: int) -> None:
        jobs = others[place % 4]
        one = asked[place % len(asked)]
        act = (jobs.kill, jobs.tail, jobs.status, jobs.output, lambda _: jobs.prune())[place % 5]
        with contextlib.suppress(JobNotFound, JobEnded):
            act(one.job_id)

    with ThreadPoolExecutor(8) as pool:
        for result in [pool.submit(meddle, world.random.randrange(60)) for _ in range(40)]:
            error = result.exception()
            if error is not None:
                world.tally.wrong(f"{type(error).__name__}: {error}")
    for one in asked:
        status = world.ended(one.job_id)
        if status.reason != "kill":
            world.check(one, status)
    next_job_runs(world)


def prune_against_readers(world: World) -> None:
    """Jobs come, are read and go under each other's hands; one that runs is never removed, no id comes twice."""
    greedy = world.another(keep_jobs=0, keep_windows=0)
    done = threading.Event()
    errors: list[Exception] = []

    def read() -> None:
        while not done.is_set():
            try:
                for job in world.jobs.list(limit=30).jobs:
                    for verb in (world.jobs.tail, world.jobs.status, world.jobs.output):
                        with contextlib.suppress(JobNotFound):
                            verb(job.job_id)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                errors.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        seen: set[str] = set()
        for _ in range(3):
            asked = victims(world, 4)
            if seen & {one.job_id for one in asked}:
                world.tally.wrong("an id was given twice")
            seen |= {one.job_id for one in asked}
            for one in asked:
                greedy.prune()
                with contextlib.suppress(JobNotFound):
                    if (status := world.jobs.status(one.job_id)).status != "running":
                        world.check(one, status)
    finally:
        done.set()
        for reader in readers:
            reader.join()
    for error in errors:
        world.tally.wrong(f"a reader got {type(error).__name__}: {error}")
    while world.jobs.list(status="running").total:
        time.sleep(0.05)


def next_job_runs(world: World) -> None:
    world.check(world.start(largest=10_000))


def told(status: JobStatus) -> tuple[object, ...]:
    return status.status, status.exit_code, status.signal, status.reason, status.log


COMPLETE = (one_after_another, burst, slow_jobs, under_load, eight_processes, large, all_agree)
KILLED = (
    kill_runners,
    kill_recorders,
    kill_shells,
    kill_starters,
    kill_servers,
    kill_tmux,
    kill_tmux_at_start,
    stop_tmux,
    stop_recorders,
    separate_stderr,
    spoil_logs,
    windows,
    sessions,
    adopters,
    people,
)
RACES = (kill_against_end, kill_by_many, prune_against_readers)
CASES: tuple[Callable[[World], None], ...] = (*COMPLETE, *KILLED, *RACES)
