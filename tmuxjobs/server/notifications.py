"""Each answer of a tool also says, once per client, which other jobs have ended since that client last looked.

And a client that asked for progress sees the last line of output while it waits.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from fastmcp.server.context import Context
from fastmcp.server.dependencies import get_context
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from fastmcp.tools.base import ToolResult
from mcp_types import CallToolRequestParams, TextContent
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from tmuxjobs.errors import StateError
from tmuxjobs.jobs import Jobs
from tmuxjobs.models import Entry

SHOWN = 5
CLIENTS = 1000


class Reported:
    """Last journal entry reported to this client, and the ends it knows from other answers."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.known: set[str] = set()


class EndsTold(Middleware):
    """Adds the line and the field `also_ended`; nothing when there is nothing."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._clients: dict[str, Reported] = {}
        self._lock = threading.Lock()

    def connected(self, key: str = "") -> None:
        """A client that is new starts at now."""
        with contextlib.suppress(StateError), self._lock:  # the first call of a tool tells it to someone who can act
            self._reported(key)

    def _reported(self, key: str) -> Reported:
        if key not in self._clients:
            entries = self._jobs.events()
            while len(self._clients) >= CLIENTS:
                del self._clients[next(iter(self._clients))]
            self._clients[key] = Reported(entries[-1].n if entries else 0)
        return self._clients[key]

    async def on_call_tool(
        self, context: MiddlewareContext[CallToolRequestParams], call_next: CallNext[CallToolRequestParams, Any]
    ) -> Any:
        key = client_of(context.fastmcp_context)
        if key is not None and key not in self._clients:
            await asyncio.to_thread(self.connected, key)
        result = await call_next(context)
        if key is not None and isinstance(result, ToolResult) and result.structured_content is not None:
            known = set(ended_in(result.structured_content, context.message.arguments or {}))
            news = await asyncio.to_thread(self.news, key, known)
            if news:
                result.structured_content["also_ended"] = [
                    {"job_id": one.job_id, "status": one.status, "exit_code": one.exit_code} for one in news
                ]
                result.content.append(TextContent(type="text", text=line(news)))
        return result

    def knows(self, context: Context | None, job_ids: set[str]) -> None:
        """The client knows these ends from another answer."""
        key = client_of(context)
        if key in self._clients:
            self._clients[key].known |= job_ids

    def news(self, key: str, known: set[str]) -> list[Entry]:
        """What to report now, and never again."""
        with contextlib.suppress(StateError), self._lock:  # reported later; the answer itself matters more
            reported = self._reported(key)
            entries = self._jobs.events(reported.number)
            if entries:
                reported.number = entries[-1].n
            ends = [one for one in entries if one.event == "end"]
            reported.known |= known
            news = [one for one in ends if one.status is not None and one.job_id not in reported.known]
            # What has ended and is in the journal is not reported again: only of the others it matters who knows.
            reported.known &= set(self._jobs.host.journal.open_jobs())
            return news
        return []


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
    """What tells clients of this server apart; None when nothing does: over HTTP each modern request stands alone."""
    if context is None or context.transport not in ("sse", "streamable-http"):
        return ""
    request = context.request_context
    if request is None or request.protocol_version in MODERN_PROTOCOL_VERSIONS:
        return None
    return context.session_id


def ended_in(answer: dict[str, Any], arguments: dict[str, Any]) -> Iterator[str]:
    """Jobs whose end the answer itself tells."""
    if answer.get("status", "running") != "running":
        asked = answer.get("job_id", arguments.get("job_id"))
        if isinstance(asked, str):
            yield asked
    if isinstance(answer.get("restarted"), str):
        yield answer["restarted"]
    for one in answer.get("jobs", ()):
        if one.get("status") != "running":
            yield one["job_id"]


def line(news: list[Entry]) -> str:
    """One short line."""
    shown = [f"{one.job_id} {one.status}{f' {one.exit_code}' if one.exit_code else ''}" for one in news[:SHOWN]]
    more = f" and {len(news) - SHOWN} more" if len(news) > SHOWN else ""
    return f"[ended meanwhile: {', '.join(shown)}{more}]"
