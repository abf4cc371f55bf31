"""How soon a wait is told, and what a hundred waits cost. Run by name: `pytest tests/bench/bench_wait.py -s`."""

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from support import Jobs, server_of

ROUNDS = 40
WAITS = 100
WATCHED_S = 20.0
CLOCK = "python3 -c 'import time; print(time.time(), flush=True)'"


def row(*cells: object) -> None:
    print("".join(f"{cell!s:>26}" for cell in cells))


async def latency_of_end(jobs: Jobs, client: Client[Any]) -> float:
    """Seconds from the end, as the runner records it, to the answer."""
    job_id = jobs.execute("sleep 0.3").job_id
    await client.call_tool("wait", {"job_id": job_id})
    told = time.time()
    record = jobs.host.store.read(job_id).exit
    assert record is not None
    return told - record.ended_at.timestamp()


async def latency_of_pattern(jobs: Jobs, client: Client[Any]) -> float:
    """Seconds from the print to the answer."""
    job_id = jobs.execute(f"sleep 0.3; {CLOCK}; sleep 1000").job_id
    result = await client.call_tool("wait", {"job_id": job_id, "pattern": r"^\d+\.\d+"})
    told = time.time()
    assert result.structured_content is not None
    await asyncio.to_thread(jobs.kill, job_id, grace=0)
    return told - float(result.structured_content["note"].split(": ")[1])


async def latency_of_port(jobs: Jobs, client: Client[Any]) -> float:
    """Seconds from the listening to the answer."""
    code = (
        'import socket, time; time.sleep(0.3); s = socket.create_server(("127.0.0.1", 0)); '
        "t = time.time(); print(t, flush=True); time.sleep(1000)"
    )
    job_id = jobs.execute(f"python3 -c '{code}'").job_id
    await client.call_tool("wait", {"job_id": job_id, "until": "port"})
    told = time.time()
    printed = float((await asyncio.to_thread(jobs.wait, job_id, pattern=r"^\d+", cursor=0)).note.split(": ")[1])
    await asyncio.to_thread(jobs.kill, job_id, grace=0)
    return told - printed


@pytest.mark.timeout(600)
@pytest.mark.parametrize("measure", [latency_of_end, latency_of_pattern, latency_of_port])
async def test_latency(jobs: Jobs, measure: Callable[[Jobs, Client[Any]], Awaitable[float]]) -> None:
    async with Client(server_of(jobs)) as client:
        times = sorted([1000 * await measure(jobs, client) for _ in range(ROUNDS)])
    row(measure.__name__, f"median {statistics.median(times):.1f} ms", f"90 % {times[ROUNDS * 9 // 10]:.1f} ms")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["one job", "ten jobs"])
async def test_hundred_waits(jobs: Jobs, how: str, tmp_path: Path) -> None:
    ids = [jobs.execute("sleep 1000").job_id for _ in range(1 if how == "one job" else 10)]
    async with Client(server_of(jobs)) as client:
        calls = [
            asyncio.create_task(client.call_tool("wait", {"job_id": ids[number % len(ids)]})) for number in range(WAITS)
        ]
        await asyncio.sleep(3)
        before = sum(os.times()[:2])
        await asyncio.sleep(WATCHED_S)
        used = sum(os.times()[:2]) - before
        row(f"{WAITS} waits, {how}", f"{100 * used / WATCHED_S:.2f} % of a CPU")
        for job_id in ids:
            await asyncio.to_thread(jobs.kill, job_id, grace=0)
        assert {(await call).structured_content["status"] for call in calls} == {"killed"}  # type: ignore[index]
