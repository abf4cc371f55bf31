"""The extension `io.modelcontextprotocol/tasks` (SEP-2663): a wait as a task that the client polls for its model.

A task lies in the folder of its job as long as the job does, so a server that is started anew answers for it. What a
client polls is looked at again each time; to cancel a task ends the waiting, never the job.
"""

import asyncio
import contextlib
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from fastmcp.server.context import Context
from fastmcp.server.dependencies import get_context
from fastmcp.server.extensions import MethodBinding, ServerExtension, ToolCallContinuation, ToolCallOutcome
from fastmcp.tools.base import ToolResult
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, MISSING_REQUIRED_CLIENT_CAPABILITY, CallToolRequestParams, RequestParams
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tmuxjobs.answers import Started, Waited, ran
from tmuxjobs.contract import FORMAT
from tmuxjobs.errors import JobNotFound, StateError, TmuxjobsError
from tmuxjobs.jobs import Jobs
from tmuxjobs.models import Count, Model, Moment
from tmuxjobs.server.notifications import EndsTold, ended_in
from tmuxjobs.system.watch import Watch
from tmuxjobs.text.log import log_size
from tmuxjobs.verbs.job_wait import CHARS, UNTIL, Conditions, Mode, goal
from tmuxjobs.verbs.wait import Wait
from tmuxjobs.visible import visible

EXTENSION = "io.modelcontextprotocol/tasks"
SOON_S = 1.0
"""What is over sooner is answered at once; a task would cost the client one more round."""
POLL_MS = 1000
MESSAGE_CHARS = 200
ID = re.compile(r"([a-z0-9-]+)(?:\.([0-9a-f]{8}))?")
CONDITIONS = tuple(Conditions.__annotations__)
inline: ContextVar[float] = ContextVar("inline", default=float("inf"))
"""How long a tool waits, in s, while its call may become a task."""


class TaskRecord(Model):
    """`task.json` in the folder of the job, `task-*.json` for further ones."""

    format: int = FORMAT
    task_id: str
    tool: str
    job_ids: tuple[str, ...]
    conditions: dict[str, Any]
    begins: dict[str, Count]
    cursor: Count | None
    mode: Mode
    max_bytes: int
    created_at: Moment
    updated_at: Moment
    deadline_at: Moment | None
    cancelled: bool = False
    result: dict[str, Any] | None = None


class Wire(BaseModel):
    """A result of ours on the wire: its fields as they are given."""

    model_config = ConfigDict(extra="allow")


class TaskParams(RequestParams):
    """Of each method; `tasks/update` has answers to questions too, and we ask none."""

    task_id: str = Field(alias="taskId")


class Tasks(ServerExtension):
    """Makes tasks of `wait`, and of `execute` that waits, for clients that declare the extension in their request."""

    identifier: ClassVar[str] = EXTENSION  # type: ignore[misc]

    def __init__(self, jobs: Jobs, ends: EndsTold) -> None:
        self._jobs = jobs
        self._ends = ends
        self._waits: dict[str, tuple[Wait, asyncio.Lock]] = {}

    def methods(self) -> Sequence[MethodBinding]:
        """Those of the modern era; in the other one there are no such methods."""
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
        begins = await asyncio.to_thread(self._sizes, arguments.get("job_id", ()))
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
        task = await asyncio.to_thread(self._create, params.name, arguments, begins or {fields["job_id"]: 0}, bound)
        return Wire.model_validate({"resultType": "task"} | shown(task, "working", self._keep_ms))

    def _sizes(self, job_id: str | Sequence[str]) -> dict[str, int]:
        """{job: size of its log now}, where what counts as new begins."""
        sizes = {}
        with contextlib.suppress(JobNotFound):  # the tool tells it
            for name in [job_id] if isinstance(job_id, str) else job_id:
                sizes[name] = log_size(self._jobs.host.log_path(self._jobs.host.store.read(name)))
        return sizes

    def _create(
        self, tool: str, arguments: Mapping[str, Any], begins: dict[str, int], bound: float | None
    ) -> TaskRecord:
        given = arguments.get("cursor")
        cursor = 0 if tool == "execute" else None if given is None else int(given)
        first = next(iter(begins))
        now = datetime.now(UTC)
        path = self._jobs.host.store.folder(first) / "task.json"
        task_id = f"{first}.{secrets.token_hex(4)}" if os.path.lexists(path) else first
        task = TaskRecord(
            task_id=task_id,
            tool=tool,
            job_ids=tuple(begins),
            conditions={name: arguments[name] for name in CONDITIONS if name in arguments},
            begins=begins if cursor is None else {first: cursor},
            cursor=cursor,
            mode=arguments.get("mode", "any"),
            max_bytes=int(arguments.get("max_bytes", CHARS)),
            created_at=now,
            updated_at=now,
            deadline_at=None if bound is None else now + timedelta(seconds=bound - SOON_S),
        )
        self._save(task)
        return task

    def _path(self, task_id: str) -> Path:
        """Where the record is; raises JobNotFound for what is no id of a task."""
        parts = ID.fullmatch(task_id)
        if parts is None:
            raise JobNotFound(task_id)
        return self._jobs.host.store.folder(parts[1]) / (f"task-{parts[2]}.json" if parts[2] else "task.json")

    def _save(self, task: TaskRecord) -> None:
        self._jobs.host.store.save(self._path(task.task_id), task)

    def _load(self, task_id: str) -> TaskRecord:
        try:
            task = self._jobs.host.store.load(self._path(task_id), TaskRecord)
            if task is not None:
                coerced(task.conditions)
        except (JobNotFound, StateError, ValidationError):
            task = None
        if task is None:
            raise MCPError(INVALID_PARAMS, f"There is no task '{task_id}'; it goes with its job.")
        return task

    @property
    def _keep_ms(self) -> int:
        return int(self._jobs.settings.keep_jobs_for * 1000)

    async def _get(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> dict[str, Any]:
        self._check(ctx)
        task = await asyncio.to_thread(self._load, params.task_id)
        if task.result is None and not task.cancelled:
            task, message = await self._look(task)
        else:
            message = ""
        if task.cancelled:
            return shown(task, "cancelled", self._keep_ms)
        if task.result is None:
            return shown(task, "working", self._keep_ms, message)
        self._ends.knows(get_context(), set(ended_in(task.result["structuredContent"], {})))
        return shown(task, "completed", self._keep_ms) | {"result": task.result}

    async def _look(self, task: TaskRecord) -> tuple[TaskRecord, str]:
        """The task as it is now, and the last line of its job while it is not over."""
        try:
            if task.task_id not in self._waits:
                wait = await asyncio.to_thread(self._wait, task)
                self._forget_removed()
                self._waits.setdefault(task.task_id, (wait, asyncio.Lock()))
            wait, lock = self._waits[task.task_id]
            async with lock:
                answer = await asyncio.to_thread(wait.look)
            if answer is None:
                return task, (await asyncio.to_thread(last_words, wait))[-MESSAGE_CHARS:]
            task = task.model_copy(update={"result": self._result(task, answer), "updated_at": datetime.now(UTC)})
            await asyncio.to_thread(self._save, task)
        except JobNotFound as error:
            self._waits.pop(task.task_id, None)
            raise MCPError(INVALID_PARAMS, str(error)) from None
        self._waits.pop(task.task_id, None)
        return task, ""

    def _forget_removed(self) -> None:
        """Of tasks that nobody polls any more, when their jobs have gone."""
        for task_id in [one for one in self._waits if not os.path.lexists(self._path(one))]:
            self._waits.pop(task_id, None)

    def _wait(self, task: TaskRecord) -> Wait:
        left = None if task.deadline_at is None else max(0.0, (task.deadline_at - datetime.now(UTC)).total_seconds())
        wait = Wait(
            self._jobs.host,
            task.job_ids,
            goal(**coerced(task.conditions)),
            cursor=task.cursor,
            mode=task.mode,
            timeout=left,
            max_bytes=task.max_bytes,
            called=_nobody,
            begins=task.begins,
        )
        wait.watches = [Watch(_nobody) for _ in task.job_ids]
        return wait

    def _result(self, task: TaskRecord, answer: Waited) -> dict[str, Any]:
        """As the tool would have answered."""
        if task.tool == "execute":
            record = self._jobs.host.store.read(answer.job_id)
            log_path, attach = str(self._jobs.host.log_path(record)), self._jobs.host.attach_line(record)
            answer = ran(Started(job_id=answer.job_id, status=answer.status, log_path=log_path, attach=attach), answer)
        return {
            "resultType": "complete",
            "content": [{"type": "text", "text": answer.text()}],
            "structuredContent": answer.model_dump(mode="json"),
            "isError": False,
        }

    async def _cancel(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> dict[str, Any]:
        self._check(ctx)
        task = await asyncio.to_thread(self._load, params.task_id)
        if task.result is None and not task.cancelled:
            ended = task.model_copy(update={"cancelled": True, "updated_at": datetime.now(UTC)})
            await asyncio.to_thread(self._save, ended)
        self._waits.pop(task.task_id, None)
        return {}

    async def _update(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> dict[str, Any]:
        """Answers to questions that were not asked are passed over."""
        self._check(ctx)
        await asyncio.to_thread(self._load, params.task_id)
        return {}

    def _check(self, ctx: ServerRequestContext[Any, Any]) -> None:
        if self.client_settings(ctx) is None:
            raise MCPError(
                MISSING_REQUIRED_CLIENT_CAPABILITY,
                f"The request must declare the extension {EXTENSION}.",
                {"requiredCapabilities": {"extensions": {EXTENSION: {}}}},
            )


def _nobody() -> None:
    """Nobody sleeps: the client asks again."""


def declared(context: Context) -> bool:
    """Whether this request may be answered by a task; there are none in the era of handshakes."""
    request = context.request_context
    modern = request is not None and request.protocol_version in MODERN_PROTOCOL_VERSIONS
    return modern and context.client_extension_settings(EXTENSION) is not None


class _Given(Model):
    """The conditions as the tool took them: a client may have written a number as text."""

    until: str | None = None
    pattern: str | None = None
    fail_pattern: str | None = None
    literal: bool = False
    idle: float | None = None
    port: int | None = None
    url: str | None = None


def coerced(conditions: Mapping[str, Any]) -> Conditions:
    given = _Given.model_validate(conditions)
    until = next((one for one in UNTIL if one == given.until), None)
    return Conditions(
        until=until,
        pattern=given.pattern,
        fail_pattern=given.fail_pattern,
        literal=given.literal,
        idle=given.idle,
        port=given.port,
        url=given.url,
    )


def last_words(wait: Wait) -> str:
    """The last line of the first job that is waited for."""
    with contextlib.suppress(TmuxjobsError):
        return next((line for one in wait.all if (line := one.last_line())), "")
    return ""


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
