"""What a client can attach and start from, and what its model has to carry for it."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastmcp import Client
from fastmcp.exceptions import McpError
from support import Jobs, ended, server_of, wait_until

TOOLS = {"execute", "list", "status", "output", "tail", "wait", "search", "screen", "interact", "kill"}
TOOLS_CHARS = 12_000


@pytest.fixture(params=["auto", "legacy"])
async def client(request: pytest.FixtureRequest, jobs: Jobs) -> AsyncIterator[Client[Any]]:
    async with Client(server_of(jobs), mode=request.param) as client:
        yield client


async def test_list_of_tools_stays_small(client: Client[Any]) -> None:
    answer = (await client.list_tools_mcp()).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert {tool["name"] for tool in answer["tools"]} >= TOOLS
    sizes = {tool["name"]: len(json.dumps(tool)) for tool in answer["tools"]}
    assert len(json.dumps(answer)) < TOOLS_CHARS, sizes


async def test_options_of_a_tool_may_be_null_though_its_schema_is_silent(client: Client[Any]) -> None:
    arguments = {"command": "echo hi", "cwd": None, "env": None, "timeout": None, "wait": 20, "pattern": None}
    answer = await client.call_tool("execute", arguments)
    assert answer.content[0].text.startswith("hi\n")  # type: ignore[union-attr]


async def test_job_and_its_log_are_resources(client: Client[Any], jobs: Jobs) -> None:
    job_id = jobs.execute("echo hello; exit 3").job_id
    ended(jobs, job_id)
    templates = {template.uri_template for template in await client.list_resource_templates()}
    assert templates == {"job://{job_id}", "job://{job_id}/log"}
    told = await client.read_resource(f"job://{job_id}")
    assert told[0].text.startswith(f"{job_id}: failed (exit code 3)")  # type: ignore[union-attr]
    log = await client.read_resource(f"job://{job_id}/log")
    assert log[0].text.startswith("hello\n")  # type: ignore[union-attr]


async def test_resource_of_no_job_says_so(client: Client[Any]) -> None:
    with pytest.raises(McpError, match="No job 'nope'"):
        await client.read_resource("job://nope/log")


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("run_and_watch", {"command": "make -j4"}, "make -j4"),
        ("start_server", {"command": "serve", "url": "http://localhost:1"}, "url='http://localhost:1'"),
        ("investigate_failure", {"job_id": "make-1abc"}, "make-1abc"),
    ],
)
async def test_prompt_names_tools_there_are(
    client: Client[Any], name: str, arguments: dict[str, str], said: str
) -> None:
    text = (await client.get_prompt(name, arguments)).messages[0].content.text  # type: ignore[union-attr]
    assert said in text
    assert {word for word in TOOLS if f"`{word}`" in text}


async def test_screen_comes_as_a_picture_when_asked(client: Client[Any], jobs: Jobs) -> None:
    job_id = jobs.execute("echo hello; sleep 1000").job_id
    wait_until(lambda: jobs.screen(job_id).screen, lambda screen: "hello" in screen)
    answer = await client.call_tool("screen", {"job_id": job_id, "image": True})
    kinds = [part.type for part in answer.content]
    assert kinds == ["text", "image"]
    assert answer.content[1].mime_type == "image/png"  # type: ignore[union-attr]
    assert answer.structured_content is None  # beside fields one client drops the picture


async def test_empty_screen_is_told_instead_of_sent(client: Client[Any], jobs: Jobs) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    answer = await client.call_tool("screen", {"job_id": job_id, "image": True})
    assert "image" not in [part.type for part in answer.content]
    assert "nothing is on the screen" in answer.content[0].text  # type: ignore[union-attr]
    assert answer.structured_content["note"] == "nothing is on the screen"  # type: ignore[index]
