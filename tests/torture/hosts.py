"""Jobs on other hosts, while connections, agents, servers, sshd and the network go at random.

Every job's command says what it prints and how it ends, so the truth about each is known. All of it runs in a network
and among processes of its own. By name: `python tests/torture/hosts.py 1000 600 [SEED]`, jobs and seconds at most.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1])]

import psutil  # noqa: E402
from far import Far, together  # noqa: E402
from torture.world import environment_of  # noqa: E402

from tmuxjobs import Settings  # noqa: E402
from tmuxjobs.errors import TmuxjobsError  # noqa: E402
from tmuxjobs.far.machine import Stream  # noqa: E402
from tmuxjobs.hosts.connection import kept  # noqa: E402
from tmuxjobs.jobs import Jobs  # noqa: E402

SERVERS, AT_ONCE = 3, 4
ANSWER_S = 120.0
"""For an answer of a server, however the hosts stand."""
END_S = 120.0
"""For a job to be known to have ended, once its host is reached."""
HELLO = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "torture", "version": "1"}}
INSIDE = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]


class Gone(Exception):
    """The server was killed."""


class Server:
    """An MCP server over stdio, made anew when it was killed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.numbers = itertools.count(1)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tmuxjobs", "serve"], env=self.world.env, cwd=self.world.folder, stdin=pipe,
            stdout=pipe, stderr=null,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.stream = Stream(self.process.stdout.fileno())
        self.ask("initialize", HELLO)
        self.write({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def write(self, message: dict[str, Any]) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        number = next(self.numbers)
        self.write({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        deadline = time.monotonic() + ANSWER_S
        while True:
            answer: dict[str, Any] = json.loads(self.stream.line(deadline))
            if answer.get("id") == number:
                result: dict[str, Any] = answer["result"]
                return result

    def call(self, tool: str, **arguments: object) -> dict[str, Any]:
        """The fields of the answer, of a refusal `error` alone; raises Gone."""
        try:
            if self.process is None:
                self.start()
            answer = self.ask("tools/call", {"name": tool, "arguments": arguments})
        except (EOFError, BrokenPipeError):
            self.close()
            raise Gone from None
        except TimeoutError:
            self.world.wrong(f"{tool} {arguments} was not answered within {ANSWER_S:.0f} s")
            self.close()
            raise Gone from None
        if answer.get("isError"):
            return {"error": answer["content"][0]["text"]}
        fields: dict[str, Any] = answer["structuredContent"]
        return fields

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()  # type: ignore[union-attr]
        self.process = None


@dataclass
class Truth:
    """A job as it was asked for: what it prints and how it ends by itself."""

    name: str
    lines: int
    kind: str
    code: int

    @property
    def command(self) -> str:
        half = self.lines // 2
        before = f"seq 1 {half}; sleep 0.{self.code % 7}; seq {half + 1} {self.lines}"
        end = {"exit": f"exit {self.code}", "typed": f"read x; exit {self.code}", "killed": "sleep 100000"}[self.kind]
        return f"stty -echo; {before}; {end}"

    @property
    def printed(self) -> str:
        return "".join(f"{number}\n" for number in range(1, self.lines + 1))

    def told_truly(self, status: str, code: int | None) -> bool:
        if self.kind == "killed":
            return status == "killed"
        return (status, code) == ("failed" if self.code else "completed", self.code)


class World:
    """The machines, the servers that use them, and what went wrong."""

    def __init__(self, folder: Path, *, seed: int, hosts: int) -> None:
        self.folder = folder
        self.chance = random.Random(seed)
        self.notes: list[str] = []
        self.done: Counter[str] = Counter()
        self.lost_bytes = 0
        self.truths: dict[str, Truth] = {}
        self.started: dict[str, Truth] = {}
        self.seen: set[str] = set()
        """Those whose end and output somebody has seen."""
        self.numbers = itertools.count(1)
        self.over = threading.Event()
        self.machines = [Far(folder, f"gpu{number}") for number in range(1, hosts + 1)]
        self.ssh = together(folder, self.machines)
        names = ",".join(one.name for one in self.machines)
        bounds = {"SSH": self.ssh, "HOSTS": names, "MAX_JOBS": 40, "KEEP_JOBS": 100_000, "KEEP_WINDOWS": 3}
        self.env = {**os.environ, **{f"TMUXJOBS_{name}": str(value) for name, value in bounds.items()}}
        self.servers = [Server(self) for _ in range(SERVERS)]

    def wrong(self, note: str) -> None:
        self.notes.append(note)
        print(f"{time.strftime('%H:%M:%S')} {note}", flush=True)

    # Jobs

    def asked(self) -> Truth:
        number = next(self.numbers)
        kind = self.chance.choices(("exit", "typed", "killed"), (8, 1, 1))[0]
        lines = self.chance.choice((0, 1, 30, 400, 3000, 20_000))
        truth = Truth(f"t{number}", lines, kind, self.chance.choice((0, 0, 1, 3, 77)))
        self.truths[truth.name] = truth
        return truth

    def work(self, server: Server, count: int) -> None:
        """Start jobs and see each to its end, by one server, until so many have been started by all."""
        while len(self.started) < count and not self.over.is_set():
            jobs = {}
            for _ in range(AT_ONCE):
                truth, host = self.asked(), self.chance.choice(self.machines).name
                with contextlib.suppress(Gone):
                    told = server.call(
                        "execute", command=truth.command, name=truth.name, host=host, cwd=str(self.folder)
                    )
                    if "job_id" in told:
                        jobs[told["job_id"]] = self.started[told["job_id"]] = truth
                        self.done["started"] += 1
                    else:
                        self.check_refusal(told["error"])
            for job_id, truth in jobs.items():
                try:
                    self.see(server, job_id, truth)
                except Exception as error:  # noqa: BLE001 - a look that breaks is a wrong thing, and the others go on
                    self.wrong(f"{job_id}: {type(error).__name__} {error}")

    def check_refusal(self, error: str) -> None:
        self.done["refused"] += 1
        time.sleep(0.2)
        if "gpu" not in error or "\n" in error or "bug" in error:
            self.wrong(f"refused: {error}")

    def see(self, server: Server, job_id: str, truth: Truth) -> None:
        """Read a job's output as it comes, let it end, and compare what is told with the truth."""
        cursor, read, status, code = 0, "", "", None
        while not self.over.is_set() and status in ("", "running", "unknown"):
            with contextlib.suppress(Gone):
                if truth.kind == "typed" and status:
                    server.call("interact", job_id=job_id, input="go", wait=0)
                if truth.kind == "killed" and status:
                    server.call("kill", job_id=job_id, grace=1)
                told = server.call("wait", job_id=job_id, timeout=3)
                if "error" in told:
                    self.check_refusal(told["error"])
                    continue
                status, code = told["status"], told.get("exit_code")
                if status not in ("running", "unknown") and not truth.told_truly(status, code):
                    self.wrong(f"{job_id} is told as {status}, {code}; true is {truth}")
                told = server.call("output", job_id=job_id, cursor=cursor, max_bytes=100_000)
                read, cursor = read + told.get("stdout", ""), told.get("cursor", cursor)
        while not self.over.is_set() and read != truth.printed:
            with contextlib.suppress(Gone):
                told = server.call("output", job_id=job_id, cursor=cursor, max_bytes=100_000)
                if "error" in told:
                    self.check_refusal(told["error"])
                    continue
                if not told.get("stdout"):
                    if truth.kind == "killed" and truth.printed.startswith(read):
                        break  # it was killed before it had printed all
                    self.lost_bytes += max(1, len(truth.printed) - len(read))
                    self.wrong(
                        f"{job_id}: {len(read)} of {len(truth.printed)} bytes read, up to {cursor}: {read[-60:]!r}; "
                        f"the answer was {told}"
                    )
                    break
                read, cursor = read + told["stdout"], told["cursor"]
        if not self.over.is_set():
            self.seen.add(job_id)

    # What is cut

    def cut(self) -> None:
        """One of them, at random."""
        machine = self.chance.choice(self.machines)
        kinds = {
            "ssh": 6, "connection": 6, "sshd": 2, "agent": 6, "agent stopped": 2, "server": 4, "link": 2, "command": 2,
        }  # fmt: skip
        what = self.chance.choices(list(kinds), list(kinds.values()))[0]
        self.done[what] += 1
        if what == "ssh":
            self.end(self.of_ssh())
        elif what == "connection":
            machine.cut()
        elif what == "sshd":
            machine.down()
            time.sleep(self.chance.random() * 3)
            machine.up()
        elif what == "agent":
            self.end(agents(machine))
        elif what == "agent stopped":
            for one in agents(machine)[:1]:
                with contextlib.suppress(psutil.Error):
                    one.suspend()
                    time.sleep(self.chance.random() * 3)
                    one.resume()
        elif what == "server":
            process = self.chance.choice(self.servers).process
            if process is not None:
                process.kill()
        elif what == "link":
            # Seldom longer than ssh bears it.
            self.link("down")
            time.sleep(self.chance.choice((0.5, 2, 4, 18)))
            self.link("up")
        else:
            argv = [sys.executable, "-m", "tmuxjobs", "list"]
            listing = subprocess.Popen(argv, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(self.chance.random())
            listing.kill()
            listing.wait()

    def end(self, processes: list[psutil.Process]) -> None:
        if processes:
            with contextlib.suppress(psutil.Error):
                self.chance.choice(processes).kill()

    def of_ssh(self) -> list[psutil.Process]:
        """The clients, and the processes of the kept connections."""
        return [one for one in alive() if one.info["name"] == "ssh"]

    def link(self, to: str) -> None:
        subprocess.run(["ip", "link", "set", "lo", to], check=True)

    # What is to be so

    def verdict(self) -> None:
        settings = Settings.load(ssh=self.ssh, hosts=",".join(one.name for one in self.machines), max_jobs=40)
        jobs = Jobs.open(settings)
        try:
            self.compare(jobs)
            # What was being told when somebody was killed is not taken away while another may still tell it.
            deadline = time.monotonic() + 30
            jobs.prune(everywhere=True)
            while self.left_files() and time.monotonic() < deadline:
                time.sleep(1)
                jobs.prune(everywhere=True)
        finally:
            jobs._hosts.close()
        for one in self.machines:
            subprocess.run([*self.ssh.split(), "-O", "exit", *self.control(jobs, one), one.name], capture_output=True)
        self.leftovers()

    def control(self, jobs: Jobs, machine: Far) -> list[str]:
        return [f"-o{key}={value}" for key, value in kept(self.ssh.split(), machine.name).items()]

    def compare(self, jobs: Jobs) -> None:
        listed = {job.job_id: job for job in jobs.list(limit=100_000).jobs}
        there = {path.name: (one, path) for one in self.machines for path in (one.state / "jobs").iterdir()}
        for job_id in self.started.keys() - there.keys():
            self.wrong(f"{job_id} was started and is gone")
        for job_id in listed.keys() ^ {name for name in there if not name.startswith(".")}:
            self.wrong(
                f"{job_id} is {'' if job_id in there else 'not '}there, and {'' if job_id in listed else 'not '}listed"
            )
        events = Counter((entry.job_id, entry.event) for entry in jobs.events())
        deadline = time.monotonic() + END_S
        for job_id, (machine, folder) in there.items():
            if job_id.startswith("."):
                continue
            truth = self.truths[job_id.rpartition("-")[0]]
            acknowledged = job_id in self.started
            status = jobs.status(job_id)
            while status.status in ("running", "unknown") and time.monotonic() < deadline:
                with contextlib.suppress(TmuxjobsError):
                    if truth.kind != "exit":
                        jobs.kill(job_id)
                time.sleep(0.1)
                status = jobs.status(job_id)
            self.done[status.status if acknowledged else f"unacknowledged {status.status}"] += 1
            if not acknowledged and (status.status == "lost" or truth.kind != "exit"):
                continue
            if job_id not in self.seen and truth.kind != "exit":
                continue  # the time was over before its end was its own
            if not truth.told_truly(status.status, status.exit_code) or status.log != "complete":
                self.wrong(f"{job_id} on {machine.name} is {status.text()}; true is {truth}")
            printed = (folder / "output.log").read_bytes().replace(b"\r\n", b"\n").decode()
            if printed != truth.printed and not (truth.kind == "killed" and truth.printed.startswith(printed)):
                self.lost_bytes += max(1, len(truth.printed) - len(printed))
                self.wrong(f"{job_id}: its log has {len(printed)} bytes of {len(truth.printed)}")
            mirrored = jobs._host.settings.state_dir / "hosts" / machine.name / "jobs" / job_id / "exit.json"
            if mirrored.read_bytes() != (folder / "exit.json").read_bytes():
                self.wrong(f"{job_id}: its mirrored record is not the one on {machine.name}")
            if acknowledged and (events[job_id, "start"], events[job_id, "end"]) != (1, 1):
                self.wrong(
                    f"{job_id} has {events[job_id, 'start']} starts and {events[job_id, 'end']} ends in the journal"
                )

    def leftovers(self) -> None:
        deadline = time.monotonic() + 40
        while (left := self.strays()) and time.monotonic() < deadline:
            time.sleep(0.2)
        for one in left:
            with contextlib.suppress(psutil.Error):
                self.wrong(f"left behind: {' '.join(one.cmdline())[:200]}, {time.time() - one.create_time():.0f} s old")
        for path in self.left_files():
            self.wrong(f"left behind: {path}")

    def left_files(self) -> list[Path]:
        home = Path(self.env["XDG_STATE_HOME"]) / "tmuxjobs"
        every = (path for state in (home, *(one.state for one in self.machines)) for path in state.rglob("*"))
        half_made = re.compile(r"\.\d+(\.[0-9a-f]{8})?$|/\.new-|/env(\.held|\.ready)?$|stop\.json$")
        return [path for path in every if half_made.search(str(path))]

    def strays(self) -> list[psutil.Process]:
        found = []
        for one in alive():
            line = one.info["cmdline"] or []
            ours = one.info["name"] in ("ssh", "seq", "sleep", "tmuxjobs-job") or "tmuxjobs" in line
            pages = any(part in ("finished", "welcome") for part in line)
            looping = line[:1] == ["sleep"] and line[1:] == ["0.02"]
            if ours and not pages and not looping:
                found.append(one)
        return found

    def close(self) -> None:
        for server in self.servers:
            server.close()
        for one in self.machines:
            one.close()


def alive() -> list[psutil.Process]:
    return [
        one for one in psutil.process_iter(["name", "cmdline", "status"])
        if one.info["status"] != psutil.STATUS_ZOMBIE and one.pid != os.getpid()
    ]  # fmt: skip


def agents(machine: Far) -> list[psutil.Process]:
    found = []
    for one in machine.processes("tmuxjobs-job"):
        with contextlib.suppress(psutil.Error):
            if any(part.endswith("far/__main__.py") for part in one.cmdline()):
                found.append(one)
    return found


def torture(world: World, count: int, bound_s: float, *, pause_s: float) -> None:
    """Start so many jobs and cut at random until all have ended, or the time is over; then look."""
    deadline = time.monotonic() + bound_s
    threads = [threading.Thread(target=world.work, args=(one, count), daemon=True) for one in world.servers]
    for thread in threads:
        thread.start()
    while time.monotonic() < deadline and any(one.is_alive() for one in threads):
        time.sleep(pause_s * world.chance.random() * 2)
        world.cut()
    world.over.set()
    for thread in threads:
        thread.join(ANSWER_S)
    for server in world.servers:
        server.close()
    try:
        world.verdict()
    except TmuxjobsError as error:
        world.wrong(f"{type(error).__name__}: {error}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("seed", type=int, nargs="?", default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--pause", type=float, default=2.0, help="between two cuts, in the mean")
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    if os.environ.get("TMUXJOBS_TORTURE") != "inside":
        os.environ["TMUXJOBS_TORTURE"] = "inside"
        os.execvp(INSIDE[0], [*INSIDE, sys.executable, *sys.argv])
    del os.environ["TMUXJOBS_TORTURE"]
    folder = Path(tempfile.mkdtemp(prefix="tj-h"))
    os.environ.update(environment_of(folder) | {"XDG_RUNTIME_DIR": str(folder), "LANG": "C.UTF-8"})
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    tempfile.tempdir = None
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    world = World(folder, seed=given.seed, hosts=given.hosts)
    began = time.monotonic()
    try:
        torture(world, given.count, given.seconds, pause_s=given.pause)
        took = time.monotonic() - began
        print(f"seed {given.seed}, {took:.0f} s, {given.hosts} hosts: {dict(world.done)}")
        print(f"{world.lost_bytes} bytes lost, {len(world.notes)} things wrong")
    finally:
        world.close()
        if not given.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return bool(world.notes)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
