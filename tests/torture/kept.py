"""Run in pid namespaces of their own by `restarted_container`: `before` leaves jobs, `after` uses their pids again.

Both print one JSON list: `before` the ids of its jobs, `after` what was wrong.
"""

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from support import Jobs

from tmuxjobs.system import job_processes, processes

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
APART = "setsid -f sleep 1000 < /dev/null > /dev/null 2>&1"
COMMANDS = ("sleep 1000", f"{APART}; sleep 1000", "trap '' HUP; (sleep 1000 &); sleep 1000", APART)


def before(chance: random.Random) -> list[str]:
    jobs = Jobs.open()
    started = [jobs.execute(command).job_id for command in chance.choices(COMMANDS, k=4)]
    deadline = time.monotonic() + 30
    for job_id in started:
        while jobs.host.store.read(job_id).job.command == APART and jobs.status(job_id).status == "running":
            assert time.monotonic() < deadline, f"{job_id} does not end"
            time.sleep(0.01)
    return started


def after(chance: random.Random) -> list[str]:
    jobs = Jobs.open()
    old = [jobs.host.store.read(job_id) for job_id in jobs.host.store.ids()]
    lost = {record.job.job_id for record in old if record.exit is None}
    new = [jobs.execute("sleep 1000").job_id for _ in range(chance.randrange(3))]
    met: set[int] = set()
    for record in old:
        assert record.run is not None
        named = record.exit.left_running if record.exit else ()
        met |= {record.run.pid, record.run.command_pid or 0, *(one.pid for one in named)}
        if chance.random() < 0.5:
            seem_here(jobs, record.job.job_id)
    led, leaderless = strangers(chance, met)
    living = {pid: job_processes.start_of(pid) for pid in led | leaderless}
    wrong = []
    for job_id in lost | {record.job.job_id for record in old}:
        status = Jobs.open().status(job_id)
        if (job_id in lost) != (status.status == "lost"):
            wrong.append(f"{job_id} is told as {status.status}")
        if status.survivors or status.left_running or {one.pid for one in status.not_touched} - leaderless:
            wrong.append(f"strangers are named: {status.text()}")
        answer = Jobs.open().kill(job_id, grace=0)
        if answer.status != "already_terminated" or answer.survivors:
            wrong.append(f"kill of a job of before: {answer.text()}")
    doctor = jobs.doctor(fix=True)
    wrong += [one for one in doctor.fixed if "(" in one]
    jobs.prune()
    wrong += [f"stranger {pid} was ended" for pid, start in living.items() if job_processes.start_of(pid) != start]
    wrong += [f"{job_id} was ended" for job_id in new if jobs.status(job_id).status != "running"]
    return wrong


def seem_here(jobs: Jobs, job_id: str) -> None:
    """A new namespace may have the very name of the old one."""
    for name in ("run.json", "exit.json"):
        path = jobs.host.store.folder(job_id) / name
        with contextlib.suppress(FileNotFoundError):
            record = json.loads(path.read_text())
            run = record if name == "run.json" else record["run"]
            run["namespace"] = processes.pid_namespace()
            path.write_text(json.dumps(record))


def strangers(chance: random.Random, pids: set[int]) -> tuple[set[int], set[int]]:
    """The leaders of sessions with those pids, and the members of such sessions that have no leader any more."""
    led, leaderless = set(), set()
    for pid in sorted(pids - {0}):
        argv = chance.choice([["sleep", "1000"], ["sleep", "1000"], ["sh", "-c", "sleep 1000 & exit"]])
        for _ in range(50):
            if os.path.exists(f"/proc/{pid}"):
                break  # a new job's, or tmux: as good
            LAST_PID.write_text(str(pid - 1))
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
            if argv[0] == "sh":
                process.wait()
                leaderless |= members_of(process.pid)
            else:
                led.add(process.pid)
            if process.pid == pid:
                break
    return led, leaderless


def members_of(session: int) -> set[int]:
    found = set()
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):  # it ended
            if os.getsid(pid) == session:
                found.add(pid)
    return found


if __name__ == "__main__":
    act = {"before": before, "after": after}[sys.argv[1]]
    print(json.dumps(act(random.Random(sys.argv[2]))))
