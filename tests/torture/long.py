"""The long form: every case in turn, at random, for as many minutes as asked, then one table; exits 1 if not clean.

`sh conf/torture.sh [minutes]`. A seed repeats the same choices, not the same timing.
"""

import argparse
import dataclasses
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]
os.environ["FASTMCP_CHECK_FOR_UPDATES"] = "off"

from support import NotHere  # noqa: E402
from torture import cases  # noqa: E402
from torture.limits import LIMITS  # noqa: E402
from torture.world import Tally, World, environment_of, remove  # noqa: E402

WEIGHTS = {
    "large": 1,
    "all_agree": 2,
    "kill_starters": 1,
    "kill_servers": 2,
    "eight_processes": 20,
    "burst": 30,
    "one_after_another": 10,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", type=float, nargs="?", default=30.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--case", action="append", help="only this one; may be given several times")
    parser.add_argument("--launcher", help=argparse.SUPPRESS)
    parser.add_argument("--share", type=float, default=1.0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.launcher is not None:
        return launch(given.launcher, given.share)
    folder = Path(tempfile.mkdtemp(prefix="tj", dir="/tmp"))
    for name in [name for name in os.environ if name.startswith(("TMUX", "MCP_BG_"))]:
        del os.environ[name]
    os.environ.update(environment_of(folder))
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    tempfile.tempdir = None
    os.chdir("/")
    print(f"seed {given.seed}, folder {folder}", flush=True)
    try:
        tallies = torture(folder, given.seed, given.minutes * 60, given.case)
    finally:
        World(folder, 0).close()
        remove(folder)
    print(table(tallies))
    return 0 if all(tally.clean for tally in tallies.values()) else 1


def launch(seed: str, share: float) -> int:
    world = World(Path(os.environ["TMUX_TMPDIR"]), seed, share=share)
    cases.launcher(world)
    print(json.dumps(dataclasses.asdict(world.tally)))
    return 0


def torture(folder: Path, seed: int, seconds: float, only: list[str] | None) -> dict[str, Tally]:
    """Cases until the time is over, every one at least once."""
    chance = random.Random(seed)
    chosen = [case for case in (*cases.CASES, *LIMITS) if not only or case.__name__ in only]
    tallies = {case.__name__: Tally() for case in chosen}
    deadline = time.monotonic() + seconds
    queue: list[Callable[[World], None]] = []
    number = 0
    while time.monotonic() < deadline or number < len(chosen):
        if not queue:
            queue = chosen if not number else [c for c in chosen for _ in range(WEIGHTS.get(c.__name__, 4))]
            queue = chance.sample(queue, len(queue))
        case = queue.pop()
        number += 1
        once(case, World(folder, f"{seed}.{number}"), tallies[case.__name__])
    return tallies


def once(case: Callable[[World], None], world: World, total: Tally) -> None:
    """One try, and what it leaves behind."""
    world.tally.tries += 1
    began = time.monotonic()
    try:
        case(world)
        world.settle()
    except NotHere as reason:
        print(f"{case.__name__} was skipped: {reason}", flush=True)
    except Exception as error:  # noqa: BLE001 - a case that breaks is a wrong end, and the others go on
        world.tally.wrong(f"{type(error).__name__}: {error}")
    if (took := time.monotonic() - began) > 30:
        print(f"{case.__name__} took {took:.0f} s", flush=True)
    for note in world.tally.notes:
        print(f"{time.strftime('%H:%M:%S')} {case.__name__}: {note[:600]}", flush=True)
    total.add(world.tally)


def table(tallies: dict[str, Tally]) -> str:
    total = Tally()
    for tally in tallies.values():
        total.add(tally)
    heads = ("case", "tries", "jobs", "lost bytes", "wrong ends", "leftovers")
    rows = [
        (name.replace("_", " "), *map(str, (one.tries, one.jobs, one.lost_bytes, one.wrong_ends, one.leftovers)))
        for name, one in {**tallies, "all": total}.items()
    ]
    widths = [max(len(row[place]) for row in [heads, *rows]) for place in range(len(heads))]
    lines = [heads, tuple("-" * width for width in widths), *rows]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if not i else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in lines
    )


if __name__ == "__main__":
    sys.exit(main())
