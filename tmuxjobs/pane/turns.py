"""Moves the queue on, in any process of ours: a job gets its turn, its window and its runner. Stdlib only.

A turn is `turn.json` in the job's folder, made under the lock of the state directory. The process that opens the window
holds a lock on that file until the runner has claimed the job, also under the lock of the state directory. If the file
is not locked and the job not claimed, that process was killed, and the turn is given again. So no job is lost, and none
runs twice.
"""

from __future__ import annotations

import fcntl
import os
import time

from tmuxjobs import files
from tmuxjobs.contract import FIRST, FORMAT, IN_OURS, WELCOME, in_pane, mark_of, new_window, recorder_line
from tmuxjobs.files import write_json
from tmuxjobs.lean import dumps, signal, suppress
from tmuxjobs.outcome import End
from tmuxjobs.pane import announce, queue
from tmuxjobs.pane.line import Line, groups
from tmuxjobs.system import processes

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

TMUX_S = 10.0
CLAIM_S = 20.0
"""Seconds for a runner to claim its job once its window is open."""
MOVE_S = 60.0
"""Seconds after which a process that only moves the queue on is ended."""
DEATHS = 5
"""A job is ended as not started once this many of its runners were killed before they claimed it."""
ROOM_BYTES = 16384


def take(line: Line, wanted: str = "") -> list[tuple[dict[str, Any], int]]:
    """Give turns to all jobs that may start; returns (job, turn) of each. Call it under the lock, after `skip_failed`.

    With `wanted` only that job gets its turn, if it is the first. A turn is a descriptor, kept open until the runner
    has claimed the job.
    """
    turns = []
    while (found := line.next()) is not None:
        entry, job = found
        if wanted not in ("", entry.job_id):
            break
        turns.append((job, give(line.state, job)))
        line.take(job)
    return turns


def give(state: str, job: dict[str, Any]) -> int:
    """Give a job its turn, with disk space for its runner's records, as the disk may be full later; raises OSError."""
    folder = queue.folder_of(state, job["job_id"])
    marks = os.path.join(state, "open", processes.machine_id())
    os.makedirs(marks, mode=0o700, exist_ok=True)
    os.close(files.opened(os.path.join(marks, job["job_id"]), os.O_WRONLY | os.O_CREAT))
    size = os.stat(os.path.join(folder, "job.json")).st_size
    for name in ("run.room", "exit.room"):
        with open(files.opened(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as room:
            room.write(b" " * (size + ROOM_BYTES))
    before = queue.record(folder, "turn.json", files.TURN) or {}
    facts = {"tries": before.get("tries", 0) + 1, "deaths": before.get("deaths", 0), "why": ""}
    path = os.path.join(folder, "turn.json")
    with suppress(FileNotFoundError):
        os.unlink(f"{path}.new")
    fd = files.opened(f"{path}.new", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    fcntl.flock(fd, fcntl.LOCK_EX)  # before it has its name, so that no other process can lock it first
    os.write(
        fd, dumps({"format": FORMAT, "boot": processes.boot_id(), "monotonic": time.monotonic(), **facts}).encode()
    )
    os.replace(f"{path}.new", path)
    return fd


def release(state: str, job_id: str, turn: int) -> None:
    """Give up the turn, whether the job was started or not."""
    if queue.is_over(queue.folder_of(state, job_id)):
        queue.leave(state, job_id)
    os.close(turn)
    queue.report_change(state)


def move(state: str, make_session: Callable[[str, str], None] | None = None) -> Line | None:
    """Start all jobs that may start, and end those that never may; returns the line that is left, None if empty.

    `make_session` makes a session (socket, name) that is gone. Raises OSError; TimeoutError means that another process
    holds the lock, which is taken only when there is something to do.
    """
    while queue.waiting(state):
        line = Line(state)
        if not line.asks_for_a_move():
            return line
        with queue.Locked(state):
            line = Line(state, anew=True)
            skipped = line.skip_failed()
            turns = take(line)
        queue.report_change(state)
        starts = [Start(state, job, turn, make_session) for job, turn in turns]
        announced(state, skipped)
        for start in starts:
            start.finish()
        if not turns and not skipped:
            return line
    return None


def announced(state: str, ended: Sequence[str]) -> None:
    """Announce jobs that ended before their turn, as a runner does at its end, from a separate process."""
    job = queue.record(queue.folder_of(state, ended[-1]), "job.json", files.JOB) if ended else None
    if job is not None:
        argv = in_pane(job["python"], job["pane"], "announce")
        processes.called(argv, {**os.environ, IN_OURS: " ".join(ended)}, bound_s=TMUX_S)


def announce_all(state: str, ended: Sequence[str]) -> None:
    """In that process: one notice and one bell for all, then the hook of each, one after the other."""
    null = os.open(os.devnull, os.O_RDWR)
    if os.fork():
        os._exit(0)
    os.setsid()
    for fd in range(3):
        os.dup2(null, fd)
    loud = []
    for job_id in ended:
        folder = queue.folder_of(state, job_id)
        found = queue.record(folder, "exit.json", files.EXIT)
        if found is not None and announce.speaks(found["job"], End(found)):
            loud.append((folder, found, End(found)))
    if not loud:
        return
    _, found, end = loud[-1]
    job = found["job"]
    more = f", and {len(loud) - 1} more" if loud[1:] else ""
    tmux, session = [job["tmux"], "-S", job["queue"]["socket"]], f"={job['session']}:"
    page = processes.called([*tmux, "show-options", "-qv", "-t", session, WELCOME], bound_s=TMUX_S)[0]
    ring = [["send-keys", "-t", page, "C-g"]] if page[:1] == "%" and page[1:].isdecimal() else []
    for command in (*announce.notice(job, f"{job['job_id']}: {end.words}{more}"), *ring):
        processes.called([*tmux, *command], bound_s=TMUX_S)
    for folder, found, end in loud:
        if found["job"].get("on_end"):
            announce.hook(found["job"]["on_end"], announce.hook_environment(folder, found, end))


class Start:
    """A job whose turn has come: its window is opened, and its runner claims it."""

    def __init__(
        self, state: str, job: dict[str, Any], turn: int, make_session: Callable[[str, str], None] | None
    ) -> None:
        self.state = state
        self.job = job
        self.folder = queue.folder_of(state, job["job_id"])
        self.turn = turn
        self.pid = 0
        self.why = ""
        self.deadline = time.monotonic() + CLAIM_S
        self.open()
        if not self.pid and make_session is not None:
            make_session(job["queue"]["socket"], job["session"])
            self.open()

    def open(self) -> None:
        """Open its window; its recorder starts at the same time, unless a person must first approve the job."""
        job, line = self.job, None
        if not job.get("ask_why"):
            fifo = os.path.join(self.folder, FIRST)
            with suppress(OSError):  # the runner says what cannot be made here
                files.new_fifo(fifo)
            facts = job["nonce"], str(job["max_output_bytes"]), "1" if job["separate_stderr"] else "0", FIRST
            line = recorder_line(in_pane(job["python"], job["pane"], "recorder", *facts), job["job_id"], fifo)
        runner = in_pane(job["python"], job["pane"], "runner")
        root, token = mark_of(self.state), os.urandom(8).hex()
        argv = [job["tmux"], "-u", "-S", job["queue"]["socket"]]
        argv += new_window(job["session"], job["job_id"], root, runner, token, line)
        env = {name: value for name, value in os.environ.items() if name not in ("TMUX", "TMUX_PANE", IN_OURS)}
        said, error = processes.called(argv, env, bound_s=TMUX_S)
        # Errors of a person's hook come after the window is there.
        first = said.split("\n", 1)[0]
        self.pid = int(first) if first.isdecimal() else 0
        self.why = "" if self.pid else f"its window could not be opened ({error or 'tmux said nothing'})"

    def finish(self) -> None:
        """Wait until it is claimed, or give its turn back."""
        pause = 0.001
        while not self.why and not queue.is_over(self.folder):
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                self.why = "its runner was killed before it began"
            if time.monotonic() >= self.deadline:
                self.why = f"its runner did not begin within {CLAIM_S:.0f} s"
            time.sleep(pause)
            pause = min(0.02, 1.5 * pause)
        if self.why:
            with suppress(OSError, files.Odd), queue.Locked(self.state):
                self.give_back()
        release(self.state, self.job["job_id"], self.turn)

    def give_back(self) -> None:
        """Note why the turn came to nothing, or end the job after DEATHS; call it under the lock."""
        turn = queue.record(self.folder, "turn.json", files.TURN)
        if queue.is_over(self.folder) or turn is None:
            return
        deaths = turn.get("deaths", 0) + (self.pid > 0)
        if deaths >= DEATHS:
            queue.end(self.state, self.job["job_id"], "not-started", error=f"{self.why}, {deaths} times")
            return
        facts = {"monotonic": time.monotonic(), "deaths": deaths, "why": self.why}
        write_json(os.path.join(self.folder, "turn.json"), {**turn, **facts})


def start(state: str, job_id: str) -> None:
    """Give that job its turn, whatever else waits, and open its window; raises OSError."""
    with queue.Locked(state):
        job = queue.record(queue.folder_of(state, job_id), "job.json", files.JOB)
        turn = give(state, job) if job is not None else -1
    if job is not None:
        Start(state, job, turn, None).finish()


def cancel(state: str, job_id: str) -> bool:
    """End a job that waits, before it has run; False when it has begun. Raises OSError."""
    with queue.Locked(state):
        waits = not queue.has_turn(queue.folder_of(state, job_id))
        ended = waits and queue.end(state, job_id, "kill", note="before its turn, so it never ran")
    announced(state, [job_id] if ended else [])
    return ended


def change(state: str, job: dict[str, Any]) -> bool:
    """Replace the record of a job that waits; False when it has begun. Raises OSError."""
    job_id = job["job_id"]
    folder = queue.folder_of(state, job_id)
    with queue.Locked(state):
        if queue.is_over(folder) or queue.has_turn(folder):
            return False
        before = [name for name in queue.names(state) if name.endswith(f",{job_id}")]
        write_json(os.path.join(folder, "job.json"), job)
        queue.enter(state, job)
        queue.report_change(state)
        for name in before:
            if name != queue.entry_name(job):
                queue.remove(state, name)
    return True


def change_group(state: str, name: str, changes: dict[str, Any]) -> None:
    """Change what a person has set for a group; raises OSError."""
    with queue.Locked(state):
        found = groups(state)
        found[name] = {**found.get(name, {}), **changes}
        write_json(os.path.join(state, "groups.json"), {"format": FORMAT, "groups": found})


def places(state: str, job_ids: list[str], line: Line | None = None) -> dict[str, tuple[int, int, str]]:
    """{id: (place in the line, of how many, why it waits)} of those jobs that wait; raises OSError."""
    line = line or Line(state)
    found = line.places()
    return {job_id: (found[job_id][0], len(found), line.why(found[job_id][1])) for job_id in job_ids if job_id in found}


def go_on(state: str) -> None:
    """Move the queue on in a separate process, without waiting for it."""
    with suppress(OSError):  # the machine is out of processes: the next of ours to check does it
        if not queue.names(state) or os.fork():
            return
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            for fd in range(3):
                os.dup2(null, fd)
            os.closerange(3, 256)
            signal.alarm(int(MOVE_S))
            move(state)
        finally:
            os._exit(0)
