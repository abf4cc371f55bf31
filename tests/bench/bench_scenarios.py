"""What an agent spends on common work. Run by name: `pytest tests/bench/bench_scenarios.py -s`; prints a table."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from scenarios import SCENARIOS, agent_at_work
from support import Person


@pytest.mark.parametrize("name", SCENARIOS)
async def test_price_of_common_work(name: str, tmp_path: Path, person: Callable[..., Person]) -> None:
    scenario, _ = SCENARIOS[name]
    async with agent_at_work(person) as agent:
        started = time.perf_counter()
        await scenario(agent, tmp_path)
        took = time.perf_counter() - started
    sys.stdout.write(f"{name:52} {agent.calls:3} calls {agent.chars:6} characters {took:6.1f} s\n")
