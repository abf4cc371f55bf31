"""The quick form: one small try of every case; `sh conf/torture.sh` is the long one. A failure prints its seed."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from support import NotHere
from torture.cases import CASES, kill_starters, large
from torture.limits import LIMITS
from torture.world import World

SHARE = 0.25
"""Of the jobs that a case has in the long form."""
# A killed starter's slot is free after a minute, and 200 MB take their time: the long form has both.
QUICK = [case for case in (*CASES, *LIMITS) if case not in (kill_starters, large)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.__name__)
def test_case_loses_nothing_tells_the_truth_and_leaves_nothing(isolated: Path, case: Callable[[World], None]) -> None:
    seed = random.SystemRandom().randrange(10**6)
    world = World(isolated, seed, share=SHARE)
    try:
        case(world)
    except NotHere as reason:
        pytest.skip(str(reason))
    world.settle()
    assert world.tally.clean, f"seed {seed}: " + "; ".join(world.tally.notes)
