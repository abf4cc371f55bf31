"""Answers calls by the tool names of mcp-background-job in the shapes that its callers know.

None of these tools is listed: a model learns the verbs, and a script or a prompt that names an old tool still works.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated, Any, Literal, cast, get_args

from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from fastmcp.tools.function_tool import FunctionTool
from mcp_types import CallToolRequestParams
from pydantic import Field

from tmuxjobs.answers import Output
from tmuxjobs.contract import OPEN
from tmuxjobs.errors import InvalidInput, JobEnded, JobNotFound, LimitReached, NotAllowed, TmuxjobsError
from tmuxjobs.job_answers import Answer, JobSummary, Lines
from tmuxjobs.jobs import Jobs
from tmuxjobs.models import Status
from tmuxjobs.server.wire import Tool, as_tool

CHARS = 10_000_000
"""Characters of one stream in one answer, the newest; the old server kept as many."""
PAGE_CHARS = 400_000
JOBS = 500
OldStatus = Literal["running", "completed", "failed", "killed"]


class OldAnswer(Answer):
    """Its text is its fields as JSON, as FastMCP gave it for the old server's models."""

    def text(self) -> str:
        return self.model_dump_json()

    def fields(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


class Id(OldAnswer):
    job_id: str


class Standing(OldAnswer):
    status: OldStatus


class Ended(OldAnswer):
    status: Literal["killed", "already_terminated", "not_found", "signalled"]


class Printed(OldAnswer):
    stdout: Lines
    stderr: Lines


class Row(OldAnswer):
    job_id: str
    status: OldStatus
    command: Lines
    started: datetime


class Rows(OldAnswer):
    jobs: tuple[Row, ...]


class OldNames(Middleware):
    """Runs the tools below; passes every other call on."""

    def __init__(self, jobs: Jobs) -> None:
        self._verbs = {verb.__name__: verb for verb in old_tools(jobs)}
        self._tools: dict[str, FunctionTool] = {}

    async def on_call_tool(
        self, context: MiddlewareContext[CallToolRequestParams], call_next: CallNext[CallToolRequestParams, Any]
    ) -> Any:
        verb = self._verbs.get(context.message.name)
        if verb is None:
            return await call_next(context)
        name = verb.__name__
        if name not in self._tools:  # few clients call one
            self._tools[name] = Tool.from_function(as_tool(verb))
        return await self._tools[name].run(context.message.arguments or {})


def old_tools(jobs: Jobs) -> list[Callable[..., Any]]:
    """The seven tools, with the parameters and error messages that they had."""

    def execute_command(command: str) -> Id:
        try:
            # The old server kept the two streams apart, and callers look for errors in `stderr`.
            return Id(job_id=jobs.execute(command, separate_stderr=True).job_id)
        except LimitReached as error:
            raise LimitReached(f"Job limit reached: {error}") from None
        except (InvalidInput, NotAllowed) as error:
            raise InvalidInput(f"Invalid command: {error}") from None

    def get_job_status(job_id: str) -> Standing:
        with found(job_id):
            return Standing(status=old_status(jobs.status(job_id).status))

    def get_job_output(job_id: str) -> Printed:
        with found(job_id):
            return everything(jobs, job_id)

    def tail_job_output(job_id: str, lines: Annotated[int, Field(ge=1, le=1000)] = 50) -> Printed:
        with found(job_id):
            return printed(jobs.tail(job_id, lines=lines))

    async def interact_with_job(job_id: str, input: str) -> Printed:
        with found(job_id):
            try:
                return printed(await jobs.interact_async(job_id, input))
            except JobEnded:
                raise JobEnded(f"Job {job_id} is not running and cannot accept input") from None

    def kill_job(job_id: str) -> Ended:
        return Ended.model_validate({"status": jobs.kill(job_id).status})

    def list_jobs() -> Rows:
        shown = jobs.list(limit=JOBS).jobs
        return Rows(jobs=tuple(row(one) for one in shown))

    return [execute_command, get_job_status, get_job_output, tail_job_output, interact_with_job, kill_job, list_jobs]


@contextlib.contextmanager
def found(job_id: str) -> Iterator[None]:
    try:
        yield
    except JobNotFound as error:
        raise TmuxjobsError(f"Job {job_id} not found: {error}") from None


def old_status(status: Status) -> OldStatus:
    """The status in the old words. An unknown end is not a success, nor is a job that never ran."""
    if status in OPEN:
        return "running"
    return cast(OldStatus, status) if status in get_args(OldStatus) else "failed"


def row(job: JobSummary) -> Row:
    return Row(job_id=job.job_id, status=old_status(job.status), command=job.command, started=job.started)


def printed(answer: Output) -> Printed:
    """The lines, without the newline of the last one."""
    return Printed(stdout=answer.stdout.removesuffix("\n"), stderr=answer.stderr.removesuffix("\n"))


def everything(jobs: Jobs, job_id: str) -> Printed:
    """All that the job has printed; if that is too much the newest, with a line at the top that says so."""
    out, err = Newest(), Newest()
    cursor, stderr_cursor, more = 0, 0, True
    while more:
        page = jobs.output(job_id, cursor=cursor, stderr_cursor=stderr_cursor, max_bytes=PAGE_CHARS)
        out.add(page.stdout)
        err.add(page.stderr)
        stuck = (page.cursor, page.stderr_cursor or 0) == (cursor, stderr_cursor)
        cursor, stderr_cursor = page.cursor, page.stderr_cursor or 0
        more = page.more and not stuck
    return Printed(stdout=out.text(), stderr=err.text())


class Newest:
    """Collects text, and drops the oldest when it is too much."""

    def __init__(self) -> None:
        self._parts: deque[str] = deque()
        self._chars = 0
        self._gone = 0

    def add(self, text: str) -> None:
        self._parts.append(text)
        self._chars += len(text)
        while self._chars > CHARS:
            first = self._parts.popleft()
            self._chars -= len(first)
            self._gone += len(first)

    def text(self) -> str:
        missing = f"== {self._gone} characters before this are only in the log\n" if self._gone else ""
        return (missing + "".join(self._parts)).removesuffix("\n")
