"""The extension `io.modelcontextprotocol/tasks` (SEP-2663): a wait as a task that the client polls for its model.

A task is kept in the folder of its job as long as the job is, so a server that was started later answers for it. Each
poll checks the wait again; cancelling a task ends the wait, never the job.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, ClassVar

from fastmcp.server.context import Context
from fastmcp.server.dependencies import get_context
from fastmcp.server.extensions import MethodBinding, ServerExtension, ToolCallContinuation, ToolCallOutcome
from fastmcp.tools.base import ToolResult
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolRequestParams,
    RequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, ConfigDict, Field

from tmuxjobs.answers import Waited
from tmuxjobs.errors import JobNotFound, TmuxjobsError
from tmuxjobs.jobs import Jobs
from tmuxjobs.models import TaskRecord
from tmuxjobs.server.notifications import EndsTold, ended_in
from tmuxjobs.server.wire import with_short_rulers
from tmuxjobs.visible import visible

EXTENSION = "io.modelcontextprotocol/tasks"
SOON_S = 1.0
"""A wait that is over sooner is answered at once; a task would cost the client one more round trip."""
POLL_MS = 1000
MESSAGE_CHARS = 200
inline: ContextVar[float] = ContextVar("inline", default=float("inf"))
"""How long a tool waits, in s, while its call may become a task."""


class Wire(BaseModel):
    """A result of ours on the wire, with its fields as given."""

    model_config = ConfigDict(extra="allow")


class TaskParams(RequestParams):
    """The parameters of each method; `tasks/update` has answers to questions too, and we ask none."""

    task_id: str = Field(alias="taskId")


class Tasks(ServerExtension):
    """Makes tasks of `wait`, and of `execute` that waits, for clients that declare the extension in their request."""

    identifier: ClassVar[str] = EXTENSION  # type: ignore[misc]

    def __init__(self, jobs: Jobs, ends: EndsTold, *, keep_s: float) -> None:
        self._jobs = jobs
        self._ends = ends
        self._keep_ms = int(keep_s * 1000)

    def methods(self) -> Sequence[MethodBinding]:
        """The methods, which exist only in the modern era."""
        handlers = {"tasks/get": self._get, "tasks/cancel": self._cancel, "tasks/update": self._update}
        return [
            MethodBinding(name, TaskParams, handler, frozenset(MODERN_PROTOCOL_VERSIONS))
            for name, handler in handlers.items()
        ]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, context: Context, call_next: ToolCallContinuation
    ) -> ToolCallOutcome:
        """Wait inline for a moment; if that was not enough, the rest of the wait is a task."""
        arguments = params.arguments or {}
        waits = params.name == "wait" or (params.name == "execute" and arguments.get("wait"))
        if not waits or not declared(context):
            return await call_next()
        with self._ends.seen_by(get_context()).asks():
            begins = await asyncio.to_thread(self._begins, arguments.get("job_id"), project=params.name == "wait")
        token = inline.set(SOON_S)
        try:
            result = await call_next()
        finally:
            inline.reset(token)
        fields = result.structured_content if isinstance(result, ToolResult) else None
        asked = arguments.get("wait" if params.name == "execute" else "timeout")
        bound = None if asked is None else float(asked)
        if not fields or fields.get("reason") != "timeout" or (bound is not None and bound <= SOON_S):
            return result
        task = await asyncio.to_thread(
            self._jobs.create_task,
            params.name,
            arguments,
            begins=begins or {fields["job_id"]: 0},
            bound_s=None if bound is None else bound - SOON_S,
        )
        return Wire.model_validate({"resultType": "task"} | shown(task, "working", self._keep_ms))

    def _begins(self, job_id: str | Sequence[str] | None, *, project: bool) -> dict[str, int]:
        """`task_begins` for the jobs that the call names, or for the jobs of the project that run now."""
        with contextlib.suppress(TmuxjobsError):  # the tool reports it
            asked = self._jobs.running() if job_id is None and project else job_id or ()
            given = [asked] if isinstance(asked, str) else asked if isinstance(asked, list) else []
            return self._jobs.task_begins(given)
        return {}

    async def _load(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> TaskRecord:
        refuse_another_name(ctx, params.task_id)
        if self.client_settings(ctx) is None:
            raise MCPError(
                MISSING_REQUIRED_CLIENT_CAPABILITY,
                f"The request must declare the extension {EXTENSION}.",
                {"requiredCapabilities": {"extensions": {EXTENSION: {}}}},
            )
        task = await asyncio.to_thread(self._jobs.read_task, params.task_id)
        if task is None:
            raise MCPError(INVALID_PARAMS, f"There is no task '{params.task_id}'; it is removed with its job.")
        return task

    async def _get(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> dict[str, Any]:
        task = await self._load(ctx, params)
        try:
            with self._ends.seen_by(get_context()).asks():
                task, line = await asyncio.to_thread(self._jobs.check_task, task, complete)
        except JobNotFound as error:
            raise MCPError(INVALID_PARAMS, str(error)) from None
        if task.cancelled:
            jobs = ", ".join(task.job_ids)
            on = f"Only the wait was stopped. `status` says how {jobs} stands, `kill` ends it."
            return shown(task, "cancelled", self._keep_ms, on)
        if task.result is None:
            return shown(task, "working", self._keep_ms, line[-MESSAGE_CHARS:])
        self._ends.knows(get_context(), set(ended_in(task.result["structuredContent"], {})))
        return shown(task, "completed", self._keep_ms) | {"result": task.result}

    async def _cancel(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> dict[str, Any]:
        task = await self._load(ctx, params)
        await asyncio.to_thread(self._jobs.cancel_task, task)
        return {}

    async def _update(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> dict[str, Any]:
        """Ignore answers, as no questions were asked."""
        await self._load(ctx, params)
        return {}


def refuse_another_name(ctx: ServerRequestContext[Any, Any], task_id: str) -> None:
    """Raises MCPError if the HTTP header does not name the task too: proxies route requests by it (SEP-2243)."""
    headers = getattr(ctx.request, "headers", None)
    if headers is not None and decode_header_value(headers.get(MCP_NAME_HEADER)) != task_id:
        raise MCPError(HEADER_MISMATCH, f"The header {MCP_NAME_HEADER} and the parameter 'taskId' must be the same.")


def complete(answer: Waited) -> dict[str, Any]:
    """The result of the tool's call."""
    answer = with_short_rulers(answer)
    return {
        "resultType": "complete",
        "content": [{"type": "text", "text": answer.text()}],
        "structuredContent": answer.fields(),
        "isError": False,
    }


def declared(context: Context) -> bool:
    """Whether this request may be answered by a task; there are none in the era of handshakes."""
    request = context.request_context
    modern = request is not None and request.protocol_version in MODERN_PROTOCOL_VERSIONS
    return modern and context.client_extension_settings(EXTENSION) is not None


def shown(task: TaskRecord, status: str, keep_ms: int, message: str = "") -> dict[str, Any]:
    """The task on the wire, without what follows from its status."""
    said = {"statusMessage": visible(message)} if message else {}
    return said | {
        "taskId": task.task_id,
        "status": status,
        "createdAt": task.created_at.isoformat(),
        "lastUpdatedAt": task.updated_at.isoformat(),
        "ttlMs": keep_ms,
        "pollIntervalMs": POLL_MS,
    }
