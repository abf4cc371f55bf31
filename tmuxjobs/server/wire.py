"""How answers and errors of the verbs reach a client: text and fields, schemas, one line for each error.

Also jobs and their logs as resources, to attach to a conversation, and prompts: ways of working to start from.
"""

import asyncio
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

from fastmcp import FastMCP
from fastmcp.exceptions import ResourceError, ToolError, ValidationError
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from fastmcp.tools.base import ToolResult
from fastmcp.tools.function_tool import FunctionTool
from fastmcp.utilities.types import Image
from mcp_types import CallToolRequestParams, ImageContent, TextContent, ToolAnnotations
from mcp_types import Tool as MCPTool
from pydantic import BaseModel, Field
from pydantic import ValidationError as PydanticValidationError

from tmuxjobs import bugs
from tmuxjobs.answers import Screen, Waited
from tmuxjobs.errors import TmuxjobsError
from tmuxjobs.job_answers import Answer
from tmuxjobs.jobs import Jobs
from tmuxjobs.visible import short_rulers, visible

list_of = list
"""The built-in, under a name that the tool `list` does not hide."""
Verb = Callable[..., Answer] | Callable[..., Awaitable[Answer]]
M = TypeVar("M", bound=BaseModel)
READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
ACTS = ToolAnnotations(destructive_hint=True)
"""Hints at their default are left out: not read-only, not idempotent, in an open world."""


class PlainArgumentErrors(Middleware):
    """Wrong arguments become one plain line, without pydantic's layout and address."""

    async def on_call_tool(
        self, context: MiddlewareContext[CallToolRequestParams], call_next: CallNext[CallToolRequestParams, Any]
    ) -> Any:
        try:
            return await call_next(context)
        except ValidationError as error:
            cause = error.__cause__
            said = _argument_error(cause) if isinstance(cause, PydanticValidationError) else str(error)
            raise ToolError(visible(f"{context.message.name}: {said}"), log_level=logging.DEBUG) from None


def _argument_error(error: PydanticValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    parts, of_choices = [], set()
    for fault in faults:
        where = ".".join(map(str, fault["loc"]))
        name, *kind = fault["loc"]
        if kind and kind[0] in ("str", "list[str]"):  # one fault is enough for a parameter that takes either
            where = str(name)
            if where in of_choices:
                continue
            of_choices.add(where)
        what = {"missing_argument": "is required", "unexpected_keyword_argument": "is not a parameter of this tool"}
        parts.append(f"`{where}` {what.get(fault['type']) or fault['msg'][0].lower() + fault['msg'][1:]}")
    return "; ".join(parts) + "."


def as_tool(verb: Verb) -> Callable[..., Awaitable[ToolResult]]:
    """The verb as a tool: its answer as text and fields, our errors as one line each, a bug with its file.

    A verb that is not `async` runs in a thread.
    """

    @functools.wraps(verb)
    async def call(*args: Any, **kwargs: Any) -> ToolResult:
        try:
            if inspect.iscoroutinefunction(verb):
                result = await verb(*args, **kwargs)
            else:
                result = await asyncio.to_thread(verb, *args, **kwargs)
        except TmuxjobsError as error:
            raise ToolError(str(error), log_level=logging.DEBUG) from None
        except Exception as error:  # noqa: BLE001 - the one place of the server where a bug ends
            where = await asyncio.to_thread(bugs.save, error)
            said = f"This is a bug in tmuxjobs ({type(error).__name__}); what happened is in {where}."
            raise ToolError(visible(said), log_level=logging.DEBUG) from None
        if not kwargs.get("raw"):
            result = with_short_rulers(result)
        return result_of(result)

    # FastMCP would search the text for parameters, by a parser that takes 25 ms to import, and make an unused schema.
    call.__doc__ = None
    call.__annotations__ = verb.__annotations__ | {"return": ToolResult}
    call.__signature__ = inspect.signature(verb).replace(return_annotation=ToolResult)  # type: ignore[attr-defined]
    return call


def result_of(answer: Answer) -> ToolResult:
    """The answer's text and fields; no fields beside a picture, which Codex would drop."""
    pictured = isinstance(answer, Screen) and answer.png is not None
    return ToolResult(content=content(answer), structured_content=None if pictured else answer.fields())


def with_short_rulers(answer: M) -> M:
    """The text with short rulers: an agent pays for each character."""
    changed: dict[str, Any] = {}
    for name in ("stdout", "stderr"):
        if text := getattr(answer, name, ""):
            changed[name] = short_rulers(text)
    if isinstance(answer, Waited):
        changed["jobs"] = tuple(map(with_short_rulers, answer.jobs))
    return answer.model_copy(update=changed)


def brief(parameters: dict[str, Any]) -> dict[str, Any]:
    """A tool's input schema without the obvious: that an option may be null, or that its default is null or false."""
    properties = {}
    for name, part in parameters["properties"].items():
        choices = [one for one in part.pop("anyOf", ()) if one != {"type": "null"}]
        if part.get("default") in (None, False):
            part.pop("default", None)
        kinds = [one["type"] for one in choices]
        properties[name] = part | {key: value for one in choices for key, value in one.items()}
        if len(kinds) > 1:
            properties[name]["type"] = kinds
    kept = {key: parameters[key] for key in ("type", "required") if key in parameters}
    return kept | {"properties": properties}


class Tool(FunctionTool):
    """A tool without FastMCP's remarks and a title that repeats its name, which every client's context would hold."""

    def to_mcp_tool(self, **overrides: Any) -> MCPTool:
        return super().to_mcp_tool(**{"_meta": None, "title": None} | overrides)


def content(answer: Answer) -> list_of[TextContent | ImageContent]:
    """The answer's text, and then its picture."""
    parts: list_of[TextContent | ImageContent] = [TextContent(type="text", text=answer.text())]
    if isinstance(answer, Screen) and answer.png is not None:
        parts.append(Image(data=answer.png, format="png").to_image_content())
    return parts


RUN = """\
Run this in the background with tmuxjobs and see it through: {command}

1. `execute` it with wait=50. A short command has ended then, and the answer has its output and exit code.
2. If it runs on, do other work or `wait` for its end; never poll. If the answer says that it waits for input, answer \
with `interact`; for a password ask the person to attach with the line given.
3. Report the exit code and what matters of the output: `search` finds errors in a long log.
"""
SERVE = """\
Start this server in the background with tmuxjobs and use it: {command}

1. `execute` it with wait=50, and url={url!r} to learn when it answers (or pattern, for the line that says so).
2. If it ended instead, read the reason in the answer, mend it, start again.
3. Tell the person its job id and how to watch it. `kill` it when it is not needed any more.
"""
INVESTIGATE = """\
Find out why job {job_id} failed.

1. `status` says how it ended: exit code, signal, timeout, or a person who closed its window.
2. `search` its log for error|fail|traceback|panic with ignore_case and context=3; `tail` shows how it ended.
3. Name the first cause, not the last message, with the lines that prove it, and propose the smallest fix.
"""


def add_resources(server: FastMCP, jobs: Jobs) -> None:
    """`job://{job_id}` and `job://{job_id}/log`, as text."""

    @server.resource("job://{job_id}", name="job", mime_type="text/plain")
    def job(job_id: str) -> str:
        """How a job stands."""
        return text_of(lambda: jobs.status(job_id))

    @server.resource("job://{job_id}/log", name="log", mime_type="text/plain")
    def log(job_id: str) -> str:
        """A job's output as clean text: all of it, or head and tail."""
        return text_of(lambda: jobs.output(job_id))


def text_of(verb: Callable[[], Answer]) -> str:
    try:
        return verb().text()
    except TmuxjobsError as error:
        raise ResourceError(str(error)) from None


def add_prompts(server: FastMCP) -> None:
    @server.prompt(description="Run a command in the background and see it through.")
    def run_and_watch(command: Annotated[str, Field(description="Shell command line")]) -> str:
        return RUN.format(command=command)

    @server.prompt(description="Start a server and wait until it is ready.")
    def start_server(
        command: Annotated[str, Field(description="Shell command line")],
        url: Annotated[str, Field(description="Where it answers when it is ready")] = "http://localhost:8000",
    ) -> str:
        return SERVE.format(command=command, url=url)

    @server.prompt(description="Find out why a job failed.")
    def investigate_failure(job_id: Annotated[str, Field(description="Job id")]) -> str:
        return INVESTIGATE.format(job_id=job_id)
