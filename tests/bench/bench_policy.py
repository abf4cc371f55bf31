"""What a policy costs: the verdict on a line, and the first one: `python -m pytest -s tests/bench/bench_policy.py`."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tmuxjobs.policy.load import policy_of, table_in
from tmuxjobs.policy.rules import Asked, verdict_on

SAMPLE = Path(__file__).parents[2] / "conf" / "policy.toml"
RUNS = 300
LINES = [
    "ls",
    "git status && make -j4 2>&1 | tail -n 50",
    'for f in a b c; do echo "$f: $(grep -c x "$f")"; done > out.txt',
    "git commit -m \"$(cat <<'E'\nfix: a (b)\n\nbecause of c; d\nE\n)\"",
    "timeout 60 sh -c 'cd sub && make' || find . -name '*.o' -exec ls {} +",
    "; ".join(f"echo {number}" for number in range(100)),
]


@pytest.mark.parametrize("line", LINES, ids=["word", "chain", "loop", "message", "wrappers", "100 commands"])
def test_verdict(tmp_path: Path, line: str) -> None:
    (tmp_path / "sub").mkdir()
    table = table_in(SAMPLE)
    assert table is not None
    policies = [policy_of(table, tmp_path)]
    asked = Asked(line, tmp_path, "/bin/bash")
    verdict_on(policies, asked)
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        verdict_on(policies, asked)
        times.append((time.perf_counter() - start) * 1e6)
    times.sort()
    print(f"\n{line[:40]!r}: best {times[0]:.0f} us, median {times[RUNS // 2]:.0f} us")


@pytest.mark.parametrize(
    "code", ["import tmuxjobs.jobs", "import tmuxjobs.jobs, tmuxjobs.policy.load, tree_sitter_bash"]
)
def test_import(code: str) -> None:
    times = []
    for _ in range(12):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append((time.perf_counter() - start) * 1e3)
    print(f"\n{code}: best {min(times[1:]):.0f} ms")
