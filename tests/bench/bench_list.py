"""How long `tmuxjobs list` takes as an installed command: `python -m pytest -s tests/bench/bench_list.py`."""

import os
import subprocess
import sys
import time

import pytest

from tmuxjobs import Jobs

RUNS = 15
LIST = [sys.executable, "-m", "tmuxjobs", "list"]


@pytest.mark.parametrize("count", [0, 10, 200])
def test_list(jobs: Jobs, count: int) -> None:
    for _ in range(count):
        jobs.execute("true")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    times = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "tmuxjobs", "list"], env=environment, stdout=subprocess.DEVNULL, check=True
        )
        times.append(time.perf_counter() - start)
    times = sorted(times[1:])  # the first may still compile
    print(f"\n{count:4} jobs: best {times[0]:.3f} s, median {times[RUNS // 2]:.3f} s")
