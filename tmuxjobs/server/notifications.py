"""Each answer of a tool also reports, once per client, which other jobs have ended since that client's last call.

These are the jobs of its project, and others that it has waited for.

A client that asked for progress also sees the last line of output while it waits.
"""

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any

from fastmcp.server.context import Context
from fastmcp.server.dependencies import get_context
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from fastmcp.tools.base import ToolResult
from mcp_types import CallToolRequestParams, TextContent
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from tmuxjobs.contract import OPEN
from tmuxjobs.errors import StateError, TmuxjobsError
from tmuxjobs.job_answers import said
from tmuxjobs.jobs import Jobs
from tmuxjobs.models import STATUSES, Caller, Entry, Seen
from tmuxjobs.visible import visible

SHOWN = 5
NAME_CHARS = 80
CLIENTS = 1000
EARLIER = 100
"""How many of the newest jobs are counted for a new client."""


class EndsTold(Middleware):
    """Adds the line and the field `also_ended` if there is something to report, and marks calls as their client's."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self.clients: dict[str, Seen] = {}

    def connected(self) -> None:
        """Begin to report ends to the client on stdio."""
        with self._seen("").asks():
            self._news(())

    def seen_by(self, context: Context | None) -> Seen:
        """What this client was given of the jobs; one that cannot be distinguished from others is always new."""
        key = client_of(context)
        return Seen() if key is None else self._seen(key)

    def _seen(self, key: str) -> Seen:
        if key not in self.clients:
            while len(self.clients) >= CLIENTS:
                del self.clients[next(iter(self.clients))]
            self.clients[key] = Seen()
        return self.clients[key]

    async def on_call_tool(
        self, context: MiddlewareContext[CallToolRequestParams], call_next: CallNext[CallToolRequestParams, Any]
    ) -> Any:
        reports = client_of(context.fastmcp_context) is not None
        with self.seen_by(context.fastmcp_context).asks() as seen:
            arguments = context.message.arguments or {}
            if reports and seen.reported is None:
                await asyncio.to_thread(self._news, ())
            if context.message.name == "wait":
                seen.waited_for |= ids_of(arguments)
            earlier = await self._earlier(seen, context.message.name) if reports else ""
            result = await call_next(context)
            if not isinstance(result, ToolResult) or result.structured_content is None:
                return result
            if earlier:
                result.structured_content["from_earlier"] = earlier
                result.content.append(TextContent(type="text", text=f"[from earlier: {earlier}; `list` shows them]"))
            if reports:
                known = set(ended_in(result.structured_content, arguments))
                about = known | ids_of(arguments) | ids_of(result.structured_content)
                news = await asyncio.to_thread(self._tell, known, about)
                if news:
                    result.structured_content["also_ended"] = [
                        said({"job_id": one.job_id, "status": one.status, "exit_code": one.exit_code or None})
                        for one in news
                    ]
                    result.content.append(TextContent(type="text", text=line(news)))
            return result

    async def _earlier(self, seen: Seen, tool: str) -> str:
        """What a new client reads once about its project's jobs: "1 running, 2 failed, 1 lost"."""
        if not seen.is_new:
            return ""
        seen.is_new = False
        if tool in ("list", "list_jobs"):
            return ""
        with contextlib.suppress(TmuxjobsError):  # the answer itself matters more
            jobs = (await asyncio.to_thread(self._jobs.list, limit=EARLIER)).jobs
            counts = Counter(job.status for job in jobs)
            counted = [status for status in STATUSES if status in (*OPEN, "failed", "lost") and counts[status]]
            return ", ".join(f"{counts[status]} {status}" for status in counted)
        return ""

    def knows(self, context: Context | None, job_ids: set[str]) -> None:
        """Note that the client knows these ends from another answer."""
        self._jobs.mark_reported(job_ids)
        self.seen_by(context).known |= job_ids

    def _tell(self, known: set[str], about: set[str]) -> tuple[Entry, ...]:
        """The news, after recording that an agent got an answer about them and about the jobs of the answer."""
        news = self._news(known)
        self._jobs.mark_reported(about | {one.job_id for one in news})
        return news

    def _news(self, known: Iterable[str]) -> tuple[Entry, ...]:
        with contextlib.suppress(StateError):  # reported later; the answer itself matters more
            return self._jobs.also_ended(known)
        return ()


@contextlib.asynccontextmanager
async def progress(jobs: Jobs, job_ids: Sequence[str]) -> AsyncIterator[None]:
    """Within it, a client that asked for progress is sent the last line of output when it has changed."""
    context = get_context()
    request = context.request_context
    asked = request is not None and request.meta is not None and "progressToken" in request.meta
    task = asyncio.create_task(_report(jobs, job_ids, context)) if asked else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()


async def _report(jobs: Jobs, job_ids: Sequence[str], context: Context) -> None:
    sent = 0
    async for line in jobs.last_lines(job_ids):
        sent += 1
        await context.report_progress(sent, message=line)


def client_of(context: Context | None) -> str | None:
    """A key for each client of this server; None when there is none: over HTTP each modern request stands alone."""
    if context is None or context.transport not in ("sse", "streamable-http"):
        return ""
    request = context.request_context
    if request is None or request.protocol_version in MODERN_PROTOCOL_VERSIONS:
        return None
    return context.session_id


def who_asks() -> Callable[[], Caller]:
    """A function that says who calls a tool now: the client's name and version, and its session with this server.

    A client that has none, as over HTTP in the modern era, is known by its name and this server.
    """
    server = secrets.token_hex(8)

    def asks() -> Caller:
        try:
            context = get_context()
            key = client_of(context) or ""
            params = context.session.client_params if context.request_context is not None else None
        except RuntimeError:  # no call of a tool: the server's own work
            key, params = "", None
        info = params.client_info if params is not None else None
        client, version = (visible(text)[:NAME_CHARS] for text in (info.name, info.version)) if info else ("", "")
        return Caller(kind="agent", client=client, version=version, session=f"{server} {key}".strip())

    return asks


def ids_of(arguments: dict[str, Any]) -> set[str]:
    """The jobs that `job_id` of a call or an answer names."""
    asked = arguments.get("job_id")
    given = asked if isinstance(asked, list) else [asked]  # a model may have given anything
    return {one for one in given if isinstance(one, str)}


def ended_in(answer: dict[str, Any], arguments: dict[str, Any]) -> Iterator[str]:
    """Jobs whose end the answer itself reports."""
    if answer.get("status", "running") not in OPEN:
        asked = answer.get("job_id", arguments.get("job_id"))
        if isinstance(asked, str):
            yield asked
    if isinstance(answer.get("restarted"), str):
        yield answer["restarted"]
    for one in answer.get("jobs", ()):
        if one.get("status") not in OPEN and one.get("job_id"):
            yield one["job_id"]


def line(news: Sequence[Entry]) -> str:
    """The news in one short line."""
    shown = [f"{one.job_id} {one.status}{f' {one.exit_code}' if one.exit_code else ''}" for one in news[:SHOWN]]
    more = f" and {len(news) - SHOWN} more" if len(news) > SHOWN else ""
    return f"[ended meanwhile: {', '.join(shown)}{more}]"
