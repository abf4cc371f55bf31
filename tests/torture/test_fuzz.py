"""Whatever a client sends to a tool: an answer or one clear line, never a traceback, a path outside, or a shell."""

import asyncio
import os
from functools import cache
from pathlib import Path
from typing import Any

from fastmcp import Client
from fastmcp.exceptions import ToolError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Jobs, server_of

from tmuxjobs import Settings
from tmuxjobs.hosts.local import Host

JOB = "<a job>"
TEXTS = st.one_of(
    st.sampled_from(
        [
            JOB,
            JOB,
            JOB,
            "",
            ".",
            "../../etc/passwd",
            "/etc/passwd",
            "a" * 5000,
            "\0",
            "x\ny",
            "#(touch pwned)",
            "%%",
            "((",
        ]
    ),
    st.text(max_size=30),
)
NUMBERS = st.sampled_from([-(10**12), -1, 0, 0.01, 1, 7, 10**12])
OTHERS = st.one_of(st.none(), st.booleans(), st.lists(TEXTS, max_size=3), st.dictionaries(TEXTS, TEXTS, max_size=2))
ANY = st.one_of(TEXTS, NUMBERS, OTHERS)
# What takes long or ends in a shell by intent is left small: the rest is as it comes.
BOUNDED: dict[str, st.SearchStrategy[Any]] = {
    "command": st.sampled_from(["true", "echo x", "exit 3", "", " ", "\0", "\ud7ff", "x" * 200_000]),
    "timeout": st.sampled_from([-1, 0, 0.01, 0.2]),
    "wait": st.sampled_from([-1, 0, 0.01, 0.2]),
    "grace": st.sampled_from([-1, 0, 0.01, 1]),
}


@cache
def schemas() -> dict[str, dict[str, Any]]:
    async def ask() -> dict[str, dict[str, Any]]:
        jobs = Jobs(Host(Settings(), environ={}, cwd=Path("/")))
        return {tool.name: tool.parameters for tool in await server_of(jobs).list_tools()}

    return asyncio.run(ask())


def of_schema(name: str, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if name in BOUNDED:
        return BOUNDED[name]
    parts = schema.get("anyOf", [schema])
    kinds = {kind for part in parts for kind in [part.get("type")] if isinstance(kind, str)}
    kinds |= {kind for part in parts if isinstance(part.get("type"), list) for kind in part["type"]}
    fitting = [TEXTS] * ("string" in kinds) + [NUMBERS] * bool({"integer", "number"} & kinds)
    fitting += [st.booleans()] * ("boolean" in kinds) + [st.lists(TEXTS, max_size=3)] * ("array" in kinds)
    return st.one_of(*fitting, *fitting, *fitting, ANY)


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    tools = schemas()
    name = draw(st.sampled_from(sorted(tools)))
    properties = tools[name]["properties"]
    required = tools[name].get("required", [])
    chosen = [key for key in properties if (key in required or draw(st.booleans()))]
    bounded = [key for key in properties if key in ("timeout", "wait")]
    return name, {key: draw(of_schema(key, properties[key])) for key in dict.fromkeys([*chosen, *bounded])}


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(made=st.lists(calls(), min_size=5, max_size=10))
def test_any_call_is_answered_or_refused_in_one_line(isolated: Path, made: list[tuple[str, dict[str, Any]]]) -> None:
    before = outside(isolated)
    said = asyncio.run(send(made))
    for call, text in said:
        assert "Traceback" not in text, call
        assert not text.startswith(("Error calling tool", "Internal")), (call, text)
    assert outside(isolated) == before


def outside(folder: Path) -> set[Path]:
    """Files of the test's world that are not tmuxjobs' own."""
    found = set()
    for place, folders, names in os.walk(folder):  # unlike `rglob` it bears a folder that goes
        folders[:] = {*folders} - {"xdg-state"}
        found |= {Path(place, name) for name in names if Path(place, name).is_file()}
    return found


async def send(made: list[tuple[str, dict[str, Any]]]) -> list[tuple[object, str]]:
    jobs = Jobs.open()
    job_id = (await asyncio.to_thread(jobs.execute, "read x")).job_id
    said = []
    async with Client(server_of(jobs)) as client:
        for name, arguments in made:
            real = {key: job_id if value == JOB else value for key, value in arguments.items()}
            try:
                await client.call_tool(name, real)
            except ToolError as error:
                said.append(((name, real), str(error)))
    for job in jobs.list(limit=500, status="running").jobs:
        await asyncio.to_thread(jobs.kill, job.job_id, grace=0)
    return said
