"""Asks the person about a job that waits for approval in the client too, if the client can ask.

In the era of handshakes this is `elicitation/create`, after the call has been answered; in the modern one the call is
answered by `input_required`, and the client calls again with what the person said. The job's window asks meanwhile, and
the first answer counts; closing the question in the client is not an answer.
"""

import asyncio
import contextlib
import json
import time
from typing import Any

from fastmcp.server.context import Context
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from fastmcp.tools.base import InputRequiredToolResult, ToolResult
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CallToolRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from tmuxjobs.answers import Restarted, Started, ran
from tmuxjobs.arguments import WAIT_S, Conditions
from tmuxjobs.contract import OPEN
from tmuxjobs.errors import TmuxjobsError
from tmuxjobs.jobs import Jobs
from tmuxjobs.server.tasks import inline
from tmuxjobs.server.wire import result_of, with_short_rulers

TOOLS = ("execute", "restart")
KEY = "approval"
"""The name of the question."""
FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "approve": {"type": "boolean", "title": "Run the command", "default": True},
        "why": {"type": "string", "title": "If not: why, for the agent"},
    },
}
"""Accepting it means approving. Codex with full access would accept a form without a field by itself."""
CLIENT_CHECK_S = 1.0
DECLINES_ALONE = {"codex-mcp-client"}
"""Clients that decline without showing the question when nobody is there to answer, as `codex exec` does."""
AT_ONCE_S = 0.2
"""Seconds in which no person can read the question and decline; Codex takes 1 ms."""


class AsksPerson(Middleware):
    """Asks in the client about each job that a call has started and that awaits approval."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._asking: set[asyncio.Task[None]] = set()

    async def on_call_tool(
        self, context: MiddlewareContext[CallToolRequestParams], call_next: CallNext[CallToolRequestParams, Any]
    ) -> Any:
        client = context.fastmcp_context
        if client is None or context.message.name not in TOOLS:
            return await call_next(context)
        if (started := asked_about(client)) is not None:
            return await self._answered(client, started, context.message.arguments or {})
        result = await call_next(context)
        fields = result.structured_content if isinstance(result, ToolResult) else None
        if not fields or fields.get("waits_for") != "approval" or not can_ask(client):
            return result
        question = await asyncio.to_thread(self._question, fields["job_id"])
        if is_modern(client):
            ask = ElicitRequest(params=ElicitRequestFormParams(message=question, requested_schema=FORM))
            state = json.dumps({KEY: fields})
            return InputRequiredToolResult(InputRequiredResult(input_requests={KEY: ask}, request_state=state))
        task = asyncio.create_task(self._ask(client.session, fields["job_id"], question))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        return result

    def _question(self, job_id: str) -> str:
        job = self._jobs.status(job_id)
        ready = f"ready when: {job.ready_when}\n\n" if job.ready_when else ""
        return (
            f"Run this command? Job {job_id} {job.detail}.\n\n{job.command}\n\n{ready}in {job.cwd}\n\n"
            "Its window in tmux asks the same, and the first answer counts."
        )

    async def _ask(self, session: Any, job_id: str, question: str) -> None:
        """Ask until the person has answered, here or elsewhere."""
        began = time.monotonic()

        async def ask() -> tuple[Any, float]:
            answer = await session.elicit_form(question, FORM)
            return answer, time.monotonic() - began  # a look at the job meanwhile may take longer

        asked = asyncio.ensure_future(ask())
        try:
            while not asked.done() and await asyncio.to_thread(self._waits, job_id):
                await asyncio.wait({asked}, timeout=CLIENT_CHECK_S)
            if asked.done():
                with contextlib.suppress(MCPError):  # it cannot ask after all
                    answer, took_s = asked.result()
                    alone = answer.action == "decline" and took_s < AT_ONCE_S
                    if not (alone and name_of(session) in DECLINES_ALONE):
                        await self._give(job_id, answer)
        finally:
            asked.cancel()

    def _waits(self, job_id: str) -> bool:
        with contextlib.suppress(TmuxjobsError):  # it was removed
            return self._jobs.status(job_id).waits_for == "approval"
        return False

    async def _give(self, job_id: str, answer: object) -> None:
        if not isinstance(answer, ElicitResult) or answer.action == "cancel":
            return
        content = answer.content or {}
        approved = content.get("approve", True) if answer.action == "accept" else False
        if not isinstance(approved, bool):
            return
        how = "in the client" if approved else "refused in the client"
        why = str(content.get("why") or "").replace("\0", "") if not approved else ""
        with contextlib.suppress(TmuxjobsError):  # another answer came first
            await asyncio.to_thread(self._jobs.settle, job_id, approved=approved, how=how, why=why)

    async def _answered(self, client: Context, started: dict[str, Any], arguments: dict[str, Any]) -> ToolResult:
        """The second round: give the person's answer, then return what the call was for."""
        job_id = str(started["job_id"])
        await self._give(job_id, (client.input_responses or {}).get(KEY))
        status = await asyncio.to_thread(self._jobs.status, job_id)
        facts: dict[str, Any] = {
            "job_id": job_id,
            "status": status.status,
            "log_path": status.log_path,
            "attach": status.attach,
        }
        if status.waits_for == "approval":
            facts |= {"waits_for": "approval", "note": started.get("note", "")}
        begun = Restarted(**facts, restarted=started["restarted"]) if "restarted" in started else Started(**facts)
        wait_s = float(arguments.get("wait") or 0)
        if status.waits_for == "approval" or not (wait_s or status.status not in OPEN):
            return result_of(begun)
        conditions = {name: arguments[name] for name in Conditions.__annotations__ if arguments.get(name) is not None}
        bound_s = min(wait_s, WAIT_S, inline.get())
        waited = await self._jobs.wait_async(job_id, cursor=0, timeout=bound_s, **conditions)
        return result_of(with_short_rulers(ran(begun, waited)))


def asked_about(client: Context) -> dict[str, Any] | None:
    """What the first round of this call has started; the state is sealed, so it is ours."""
    if not client.request_state:
        return None
    with contextlib.suppress(ValueError, TypeError, KeyError):
        started = json.loads(client.request_state)[KEY]
        return started if isinstance(started, dict) else None
    return None


def can_ask(client: Context) -> bool:
    """Whether the client says that it can ask people; an empty declaration means by forms."""
    capabilities = client.session.client_capabilities if client.request_context is not None else None
    asks = capabilities.elicitation if capabilities is not None else None
    return asks is not None and (asks.form is not None or asks.url is None)


def name_of(session: Any) -> str:
    """What the client calls itself."""
    params = session.client_params
    return params.client_info.name if params is not None and params.client_info is not None else ""


def is_modern(client: Context) -> bool:
    request = client.request_context
    return request is not None and request.protocol_version in MODERN_PROTOCOL_VERSIONS
