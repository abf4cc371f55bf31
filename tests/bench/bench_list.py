"""How long `tmuxjobs list` takes as an installed command: `python -m pytest -s tests/bench/bench_list.py`."""

import os
import shutil
import subprocess
import sys
import time

import pytest
from support import ended

from tmuxjobs import Jobs

RUNS = 15


def finish(jobs: Jobs, count: int) -> None:
    """One job that has ended, and copies of it."""
    first = ended(jobs, jobs.execute("true", name="first").job_id).job_id
    for number in range(1, count):
        copy = jobs.host.store.jobs / f"copy-{number:04}"
        shutil.copytree(jobs.host.store.jobs / first, copy)
        record = copy / "exit.json"
        record.write_text(record.read_text().replace(first, copy.name))


@pytest.mark.parametrize(("finished", "running"), [(0, 0), (10, 0), (10, 5), (1000, 5)])
def test_list(jobs: Jobs, finished: int, running: int) -> None:
    if finished:
        finish(jobs, finished)
    for _ in range(running):
        jobs.execute("sleep 1000")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    times = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "tmuxjobs", "list"], env=environment, stdout=subprocess.DEVNULL, check=True
        )
        times.append(time.perf_counter() - start)
    times = sorted(times[1:])  # the first may still compile
    assert jobs.list().total == finished + running
    print(f"\n{finished:4} finished, {running} running: best {times[0]:.3f} s, median {times[RUNS // 2]:.3f} s")
