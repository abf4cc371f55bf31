"""Slurm's own commands, each run within a time limit: how a job stands there, signals, cancellation. Stdlib only.

A job's name in Slurm is its id, so it is found by its name, too. Measured with Slurm 22.05 on one node: an answer takes
20 to 40 ms, and 9 s when slurmctld is down. Used with 22.05 and 24.11.
"""

from __future__ import annotations

import os
import select
import time

from tmuxjobs.lean import signal
from tmuxjobs.system.processes import signal_name

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, TypeVar

    Name = TypeVar("Name", str, bytes)

ASK_S = 2.0
SAID_BYTES = 1 << 16
SUBMIT_S = 10.0
FIELDS = "JobID:|,State:|,NodeList:|,exit_code:|,Reason:|,TimeUsed:|"
KEPT = "JobIDRaw,State,NodeList,ExitCode,Reason,ElapsedRaw"
"""What is asked of Slurm's accounting, where there is one."""
QUEUED = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
"""States of a job of which nothing runs yet."""
OPEN = (*QUEUED, "RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "COMPLETING")


BY_SLURM = ("TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "PREEMPTED", "CANCELLED", "DEADLINE", "BOOT_FAIL", "REVOKED")
"""States in which Slurm or a person ended the job, whatever exit code there is."""


class Silent(Exception):
    """Slurm did not answer, or refused; the text says what it said."""


class Allocation:
    """How a job stands in Slurm: `state`, `reason` in its words, `status` as of wait(2), `used_s` that it has run."""

    used_s = 0.0
    by = ""
    """The number of the user who cancelled it, if Slurm's accounting has that."""

    def __init__(self, number: str, state: str, node: str, status: int, reason: str) -> None:
        self.number = number
        self.state = state
        self.node = node
        self.status = status
        self.reason = reason

    @property
    def queued(self) -> bool:
        return self.state in QUEUED

    @property
    def open(self) -> bool:
        """Whether Slurm still has it: it waits, runs, or is being ended."""
        return self.state in OPEN

    @property
    def words(self) -> str:
        """The state in words for people."""
        return f"job {self.number}, {self.state}" + (f" on {self.node}" if self.node else "")


def find(srun: str, name: str, environ: Mapping[Name, Name], bound_s: float = ASK_S) -> Allocation | None:
    """How the job of that name stands; None when Slurm does not know it, or no longer does. Raises Silent."""
    asked = ["--noheader", "--me", "--states=all", f"--name={name}", "-O", FIELDS]
    lines = ask(beside(srun, "squeue"), asked, environ, bound_s).splitlines()
    for line in reversed(lines):
        parts = line.split("|")
        if len(parts) > 4 and parts[0].isdecimal():
            number, state, node, status, reason = parts[:5]
            found = Allocation(number, state, node, status_of(status), "" if reason == "None" else reason)
            found.used_s = used(parts[5]) if len(parts) > 5 else 0.0
            return found
    return None


def status_of(text: str) -> int:
    """The exit code in Slurm's words as of wait(2): `CODE:SIGNAL`, and by squeue before 23.02 that number itself."""
    code, is_pair, number = text.partition(":")
    if not ((code or "0") + (number or "0")).isdecimal():
        raise Silent(f"it reported an unknown exit code: {text}")
    return int(code or "0") << 8 | int(number or "0") if is_pair else int(code or "0")


def used(text: str) -> float:
    """The seconds in `D-HH:MM:SS`."""
    days, _, rest = text.rpartition("-")
    seconds = 0
    for part in rest.split(":"):
        seconds = 60 * seconds + int(part) if part.isdecimal() else 0
    return float(seconds + 86400 * int(days if days.isdecimal() else "0"))


def kept(srun: str, number: str, environ: Mapping[Name, Name]) -> Allocation | None:
    """As `find`, from Slurm's accounting, which keeps jobs that Slurm has forgotten; None if it has no usable entry."""
    asked = ["--noheader", "--parsable2", "--allocations", f"--jobs={number}", f"--format={KEPT}"]
    try:
        for line in reversed(ask(beside(srun, "sacct"), asked, environ, ASK_S).splitlines()):
            parts = line.split("|")
            if len(parts) > 5 and parts[0] == number:
                state, _, by = parts[1].partition(" by ")
                reason = "" if parts[4] == "None" else parts[4]
                found = Allocation(number, state, parts[2], status_of(parts[3]), reason)
                found.used_s, found.by = float(parts[5] or "0"), by
                return found
    except Silent:
        pass
    return None


def submit(srun: str, name: str, script: str, options: list[str], environ: Mapping[Name, Name]) -> str:
    """Submit that script to Slurm, which runs it without us, and return its number; raises Silent."""
    fixed: list[str] = ["--parsable", "--no-requeue", f"--job-name={name}", "--output=/dev/null"]
    said = ask(beside(srun, "sbatch"), [*fixed, *options, script], environ, SUBMIT_S)
    number = said.strip().splitlines()[-1].partition(";")[0] if said.strip() else ""
    if not number.isdecimal():
        raise Silent(f"sbatch did not report a number: {last_line(said.encode())}")
    return number


def tell_end(record: dict[str, Any], allocation: Allocation, *, asked: bool) -> None:
    """Put what Slurm says of the end into an exit record; the reason stays if the job was `asked` to end."""
    if allocation.open:
        record["note"] = f"Slurm is still ending it ({allocation.words}); `kill` cancels it"
    if os.WIFSIGNALED(allocation.status):
        record.update(exit_code=None, signal=signal_name(os.WTERMSIG(allocation.status)))
    by_slurm = allocation.state in BY_SLURM
    if by_slurm and not os.WIFSIGNALED(allocation.status):
        record.update(exit_code=None, signal=None)
    if not asked and by_slurm:
        record["reason"] = f"slurm-{allocation.state.lower().replace('_', '-')}"
    elif not asked:
        record["reason"] = "signal" if record["signal"] else "exit"
    if allocation.by and not asked:
        record["note"] = f"by user {allocation.by}"


def send(srun: str, number: str, wanted: int, environ: Mapping[Name, Name], *, batch: bool = False) -> None:
    """Send a signal to what the job runs, with `batch` to its script's; its allocation does not end. Raises Silent."""
    ask(beside(srun, "scancel"), [f"--signal={wanted}", *(["--full"] if batch else []), number], environ, ASK_S)


def cancel(srun: str, name: str, environ: Mapping[Name, Name]) -> None:
    """Cancel the job of that name; raises Silent."""
    ask(beside(srun, "scancel"), ["--me", f"--name={name}"], environ, ASK_S)


def beside(srun: str, command: str) -> str:
    return os.path.join(os.path.dirname(srun), command)


def outside(environ: Mapping[Name, Name]) -> dict[Name, Name]:
    """Without the variables of another Slurm job that we run in: srun would start a step of that one."""
    names = {os.fsdecode(name): name for name in environ}
    inside = {"SLURM_JOB_ID", "SLURM_JOBID"} & names.keys()
    drop = {name for name in names if inside and name.startswith("SLURM_") and name != "SLURM_CONF"}
    return {key: environ[key] for name, key in names.items() if name not in drop}


def ask(program: str, arguments: list[str], environ: Mapping[Name, Name], bound_s: float) -> str:
    """Run the command and return what it prints; raises Silent."""
    env = {k: v for k, v in outside(environ).items() if not os.fsdecode(k).startswith(("SQUEUE_", "SCANCEL_"))}
    name = os.path.basename(program)
    read, write = os.pipe()
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, write, 1)]
    actions += [(os.POSIX_SPAWN_DUP2, write, 2)]
    try:
        pid = os.posix_spawn(program, [program, *arguments], env, file_actions=actions)
    except OSError as error:
        os.close(read)
        raise Silent(f"{program} cannot be run: {error.strerror}") from None
    finally:
        os.close(write)
    said, ended = b"", False
    deadline = time.monotonic() + bound_s
    poll = select.poll()
    poll.register(read, select.POLLIN)
    while not ended and poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        chunk = os.read(read, SAID_BYTES)
        said, ended = (said + chunk)[:SAID_BYTES], not chunk
    if not ended:
        os.kill(pid, signal.SIGKILL)
    os.close(read)
    status = os.waitpid(pid, 0)[1]
    if not ended:
        raise Silent(f"{name} did not answer within {bound_s:g} s")
    if status:
        raise Silent(last_line(said) or f"{name} failed")
    return said.decode(errors="replace")


def last_line(said: bytes) -> str:
    """The last line that a command of Slurm printed, without its own name."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].split("error: ", 1)[-1].split("srun: ", 1)[-1] if lines else ""
