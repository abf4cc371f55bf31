"""What finished jobs cost: `python -m pytest -s tests/bench/bench_growth.py` prints times, with none and 10,000.

Processor time tells more than what the clock says where other work is done beside it.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import psutil
import pytest
from support import ended, write_finished

from tmuxjobs import Jobs

RUNS = 9
IDLE_S = 30.0


def took(argv: Sequence[str]) -> str:
    """The medians of RUNS runs, after one that may still compile: by the clock, and of processor time."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["TMUXJOBS_KEEP_JOBS"] = "100000"
    times, work = [], []
    for _ in range(RUNS + 1):
        start, before = time.perf_counter(), sum(os.times()[2:4])
        subprocess.run(argv, env=environment, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - start)
        work.append(sum(os.times()[2:4]) - before)
    return f"{statistics.median(times[1:]) * 1000:.0f} ms ({statistics.median(work[1:]) * 1000:.0f} ms of a core)"


def idle(seconds: float) -> tuple[float, int]:
    """The part of a core that an idle server takes, and its memory in bytes."""
    environment = os.environ | {"TMUXJOBS_KEEP_JOBS": "100000"}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-m", "tmuxjobs", "serve"], env=environment, stdin=pipe, stdout=pipe) as it:
        process = psutil.Process(it.pid)
        time.sleep(20)  # its start is another matter
        before = sum(process.cpu_times()[:2])
        time.sleep(seconds)
        used, memory = sum(process.cpu_times()[:2]) - before, process.memory_info().rss
        it.kill()
    return used / seconds, memory


@pytest.mark.timeout(600)
@pytest.mark.parametrize("finished", [0, 10_000])
def test_growth(jobs: Jobs, finished: int) -> None:
    write_finished(jobs, finished)
    ended(jobs, jobs.execute("true").job_id)
    command = [sys.executable, "-m", "tmuxjobs"]
    listing, starting = took([*command, "list"]), took([*command, "execute", "--", "true"])
    share, memory = idle(IDLE_S)
    print(
        f"\n{finished:6} finished: list {listing}, execute {starting}, "
        f"idle server {share:.2%} of a core, {memory >> 20} MB"
    )
