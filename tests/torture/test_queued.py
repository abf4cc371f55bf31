"""The quick form of `queued.py`; a failure prints its seed."""

import random
from pathlib import Path

import pytest
from torture.queued import World, torture


@pytest.mark.timeout(600)
def test_queued_jobs_are_neither_lost_nor_run_twice_nor_beyond_a_limit_whoever_is_killed(isolated: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    folder = isolated / "queue"
    folder.mkdir()
    world = World(folder, seed=seed)
    try:
        wrong = torture(world, 20, 40.0, pause_s=0.25)
    finally:
        world.close()
    assert not wrong, f"seed {seed}: " + "; ".join(wrong)
