"""The wall clock jumps, or everything stands still for a while: jobs, their times and their order stay true."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import Jobs, Tmux, ended, in_panes, log_of, record_of, wait_until

DAY_S = 86400
# The wall clock cannot be another for some processes, as the monotonic one can: time_namespaces(7).
PRELOAD = """
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long jump(void) {
    char text[32] = "";
    int before = errno;
    int fd = open(getenv("CLOCK_JUMP"), O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (read(fd, text, sizeof text - 1) < 0) text[0] = 0;
        close(fd);
    }
    errno = before;
    return atol(text);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec += jump();
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec fine;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &fine);
    now->tv_sec = fine.tv_sec;
    now->tv_usec = fine.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec fine;
    clock_gettime(CLOCK_REALTIME, &fine);
    if (now) *now = fine.tv_sec;
    return fine.tv_sec;
}
"""


@pytest.fixture
def clock(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the wall clock so many days off for whatever is started after this; files have the machine's time."""
    compiler, setting, library = shutil.which("cc"), isolated / "jump", isolated / "clock.so"
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("needs Linux and a C compiler")
    argv = [compiler, "-shared", "-fPIC", "-x", "c", "-o", str(library), "-"]
    subprocess.run(argv, input=PRELOAD, text=True, check=True)

    def jump(days: int) -> None:
        beside = setting.with_suffix(".new")
        beside.write_text(str(days * DAY_S))
        beside.replace(setting)

    jump(0)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("CLOCK_JUMP", str(setting))
    return jump


def cli(*argv: str) -> list[str]:
    return [sys.executable, "-m", "tmuxjobs", *argv]


def told(verb: str, *argv: str) -> Any:
    done = subprocess.run(cli(verb, "--json", *argv), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def started(command: str, name: str) -> str:
    return str(told("execute", "--name", name, "--", "sh", "-c", command)["job_id"])


@pytest.mark.parametrize(("first", "then"), [(30, -30), (-30, 30)])
def test_jobs_outlive_a_wall_clock_that_jumps(
    jobs: Jobs, clock: Callable[[int], None], tmp_path: Path, first: int, then: int
) -> None:
    long = started(f"until [ -e {tmp_path}/go ]; do sleep 0.02; done; echo late; exit 3", "long")
    with subprocess.Popen(cli("tail", "-f", long), stdout=subprocess.PIPE, text=True) as follower:
        clock(first)
        short = started("exit 4", "short")
        wait_until(lambda: jobs.host.store.has_ended(short))
        assert subprocess.run(cli("wait", long, "--timeout", "0.3"), capture_output=True).returncode == 124
        clock(then)
        (tmp_path / "go").touch()
        assert (follower.communicate(timeout=60)[0].splitlines()[-1], follower.returncode) == ("late", 3)
    last = started("exit 5", "last")
    wait_until(lambda: jobs.host.store.has_ended(last))
    clock(first)
    subprocess.run(cli("prune"), capture_output=True, check=True, timeout=60)
    listed = told("list")["jobs"]
    days = {datetime.fromisoformat(job["started"]).astimezone(UTC).date() for job in listed}
    assert len(days) == 3, "the clock did not jump"
    assert [job["job_id"] for job in listed] == [last, short, long]
    assert [job["exit_code"] for job in listed] == [5, 4, 3]
    assert max(job["runtime"] for job in listed) < DAY_S
    written = list(jobs.events())
    assert [entry.n for entry in written] == [1, 2, 3, 4, 5, 6]
    assert [entry.job_id for entry in written if entry.event == "start"] == [long, short, last]
    assert [entry.job_id for entry in written if entry.event == "end"] == [short, long, last]


def test_jobs_outlive_a_time_in_which_nothing_moves(jobs: Jobs, tmux: Tmux, tmp_path: Path) -> None:
    """The nearest to a suspended machine: tmux, runner, recorder and command are all stopped, and go on."""
    os.mkfifo(tmp_path / "go")
    go = os.open(tmp_path / "go", os.O_RDWR)
    command = f"echo ready; read x < {tmp_path}/go; seq 3000; exit 3"
    job_id = jobs.execute(command, timeout=3600).job_id
    wait_until(lambda: jobs.output(job_id).stdout)
    server = psutil.Process(int(tmux("display-message", "-p", "#{pid}")))
    run = record_of(jobs, job_id).run
    assert run is not None
    runner = psutil.Process(run.pid)
    # The welcome page is left out: while it starts a program it waits for that one, and does not stop.
    everything = [server, runner, *runner.children(recursive=True), *in_panes(jobs, "recorder", job_id)]
    try:
        # tmux wakes a child that was stopped: it is stopped first.
        for process in everything:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        # A command that one of them was just running may have ended, and waits for its stopped parent.
        wait_until(
            lambda: {one.status() for one in everything if one.is_running()} - {psutil.STATUS_ZOMBIE},
            lambda states: states == {psutil.STATUS_STOPPED},
        )
        os.write(go, b"\n")
        assert subprocess.run(cli("wait", job_id, "--timeout", "2"), capture_output=True).returncode == 124
        assert jobs.status(job_id).status == "paused"
    finally:
        for process in everything:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
        os.close(go)
    status = ended(jobs, job_id)
    assert (status.exit_code, status.reason, status.log) == (3, "exit", "complete")
    assert log_of(status).endswith(b"\n3000\r\n")
