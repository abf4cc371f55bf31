"""What an agent spends on common work: one call a step, and few characters."""

from collections.abc import Callable
from pathlib import Path

import pytest
from scenarios import SCENARIOS, agent_at_work
from support import Person

CHARS = 2_500


@pytest.mark.parametrize("name", SCENARIOS)
async def test_common_work_takes_one_call_a_step_and_few_characters(
    name: str, tmp_path: Path, person: Callable[..., Person]
) -> None:
    scenario, calls = SCENARIOS[name]
    async with agent_at_work(person) as agent:
        await scenario(agent, tmp_path)
    assert agent.calls <= calls
    assert agent.chars < CHARS
