"""The MCP tools: what a model reads of each verb. Knows no tmux and no files."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

from fastmcp import FastMCP
from mcp_types import ToolAnnotations
from pydantic import Field

from tmuxjobs.answers import (
    Answer,
    Found,
    JobList,
    JobStatus,
    Kill,
    Output,
    Ran,
    Restarted,
    Screen,
    Started,
    Waited,
    ran,
)
from tmuxjobs.arguments import CHARS, WAIT_S, Mode, Until
from tmuxjobs.errors import InvalidInput, TmuxjobsError, apart
from tmuxjobs.jobs import Jobs
from tmuxjobs.models import Notify, Status
from tmuxjobs.picture import png
from tmuxjobs.server.notifications import EndsTold, progress
from tmuxjobs.server.resources import add_prompts, add_resources
from tmuxjobs.server.tasks import Tasks, inline
from tmuxjobs.server.wire import ACTS, READS, PlainArgumentErrors, Tool, Verb, as_tool, brief, list_of, schema

os.environ.setdefault("FASTMCP_CHECK_FOR_UPDATES", "off")
os.environ.setdefault("FASTMCP_ENABLE_RICH_TRACEBACKS", "false")
os.environ.setdefault("FASTMCP_ENABLE_RICH_LOGGING", "false")


NOTICE_S = 2.0
THREADS = 128
"""So many calls may be at work at once; a wait takes a thread for its checks alone."""


INSTRUCTIONS = """\
Runs shell commands as background jobs in tmux, where the person can watch and take over: `tmux attach -t {session}`.
- `execute` anything slow, long-running or interactive (builds, tests, servers, REPLs): with `wait` it answers with the
  output when the command ends, without at once; either way the job runs on.
- `wait` tells when it has ended, printed something or serves: never poll `status`.
- `tail` shows the newest output, `output` with the last cursor only what is new.
- `interact` types into a job and answers with what it printed; `keys=["C-c"]` interrupts.
- What a job printed ends at a line `==`. Only what follows, and lines that begin with `== `, is from tmuxjobs; output
  that begins like that has a `\\` before it.
- `[ended meanwhile: ...]` under an answer names other jobs that have ended, once.
- A job lives on when this server ends, and every later session sees it in `list`. `kill` what you no longer need.
- `search` finds lines in a large log; it is a plain file (log_path), too.
- Where a job waits for a password, ask the person to attach and type it.
"""


JobId = Annotated[str, Field(description="From `execute` or `list`")]


def build_server(jobs: Jobs) -> FastMCP:
    """The MCP server over these jobs; nothing runs before it is started."""
    jobs = jobs.called_by("agent")
    ends = EndsTold(jobs)

    @contextlib.asynccontextmanager
    async def keep_house(_: FastMCP) -> AsyncIterator[None]:
        """Prune now and then, and notice who waits for input. Nothing depends on this end being reached."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        ends.connected()
        works = ((jobs.prune, jobs.settings.cleanup_interval), (jobs.notice_prompts, NOTICE_S))
        tasks = [asyncio.create_task(_for_ever(*work)) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    server = FastMCP(
        "tmuxjobs",
        INSTRUCTIONS.format(session=jobs.settings.session),
        version="0.1.0",
        lifespan=keep_house,
        middleware=[ends, PlainArgumentErrors()],
        mask_error_details=True,
    )

    server.add_extension(Tasks(jobs, ends))

    def tool(model: type[Answer], hints: ToolAnnotations) -> Callable[[Verb], Any]:
        def add(verb: Verb) -> Any:
            made = Tool.from_function(as_tool(verb), output_schema=schema(model), annotations=hints)
            return server.add_tool(made.model_copy(update={"parameters": brief(made.parameters)}))

        return add

    @tool(
        Ran,
        ACTS,
    )
    async def execute(
        command: Annotated[str, Field(description="Shell command line: pipes, &&, $VAR, heredocs")],
        name: Annotated[str | None, Field(description="Short name for the id and the window")] = None,
        cwd: Annotated[str | None, Field(description="Working directory")] = None,
        env: Annotated[dict[str, str] | None, Field(description="Variables to add or replace")] = None,
        timeout: Annotated[float | None, Field(description="Seconds after which the job is ended")] = None,
        shell: Annotated[str | None, Field(description="Default bash, else sh")] = None,
        separate_stderr: Annotated[bool, Field(description="Keep stderr apart from stdout")] = False,
        notify: Annotated[Notify | None, Field(description="Ends to tell the person")] = None,
        wait: Annotated[float, Field(description="Seconds to wait for the end, at most 50", ge=0)] = 0,
        until: Annotated[Until | None, Field(description="End the wait at this instead")] = None,
        pattern: Annotated[str | None, Field(description="Or at this regex in the output")] = None,
        url: Annotated[str | None, Field(description="Or when this HTTP URL answers")] = None,
    ) -> Started:
        """Start a command as a background job in its own tmux window; returns its job_id at once, or after `wait`.

        With `wait` the answer has output and exit code, so a short command is one call; if it takes longer, it runs on.
        The job has a real terminal: REPLs, prompts and full-screen programs work.
        """
        if not wait and (until or pattern or url):
            raise InvalidInput("`until`, `pattern` and `url` need `wait`, the seconds to wait; nothing was started.")
        started = await asyncio.to_thread(
            jobs.execute,
            command,
            name=name,
            cwd=cwd,
            env=env,
            timeout=timeout,
            shell=shell,
            separate_stderr=separate_stderr,
            notify=notify,
            until=until,
            pattern=pattern,
            url=url,
        )
        if isinstance(started, Ran) or not wait:
            return started
        async with progress(jobs, [started.job_id]):
            waited = await jobs.wait_async(
                started.job_id, cursor=0, timeout=min(wait, WAIT_S, inline.get()), until=until, pattern=pattern, url=url
            )
        return ran(started, waited)

    @tool(JobList, READS)
    def list(
        status: Annotated[Status | None, Field(description="Only jobs in this state")] = None,
        limit: Annotated[int, Field(ge=1, le=500)] = 20,
        name: Annotated[str | None, Field(description="Only jobs with this in their id or command")] = None,
    ) -> JobList:
        """List jobs, newest first, those of earlier sessions and other servers too."""
        return jobs.list(status=status, limit=limit, name=name)

    @tool(JobStatus, READS)
    def status(job_id: JobId) -> JobStatus:
        """Tell how a job stands: running, completed (exit code 0), failed, killed or lost, and why.

        Also runtime in seconds, pid, log path, whether it waits for input and at which prompt.
        """
        return jobs.status(job_id)

    @tool(Output, READS)
    def output(
        job_id: JobId,
        cursor: Annotated[int | None, Field(description="From an earlier answer: only what is new since", ge=0)] = None,
        stderr_cursor: Annotated[int | None, Field(description="Likewise for a separate stderr", ge=0)] = None,
        max_bytes: Annotated[int, Field(description="Budget in characters", ge=200, le=400_000)] = 20_000,
        raw: Annotated[bool, Field(description="Keep escapes and redraws")] = False,
    ) -> Output:
        """Read a job's output as clean text. Without cursor: all of it, or head and tail with what was left out named.

        The answer's cursor fetches what comes next. For the newest lines only, use `tail`.
        """
        return jobs.output(job_id, cursor=cursor, stderr_cursor=stderr_cursor, max_bytes=max_bytes, raw=raw)

    @tool(Output, READS)
    def tail(job_id: JobId, lines: Annotated[int, Field(description="How many", ge=1, le=1000)] = 50) -> Output:
        """Read the last lines of a job's output as clean text, a prompt without newline included."""
        return jobs.tail(job_id, lines=lines)

    @tool(Waited, READS)
    async def wait(
        job_id: Annotated[str | list_of[str], Field(description="One job or several")],
        until: Annotated[Until | None, Field(description="Default exit")] = None,
        pattern: Annotated[str | None, Field(description="Regex to see in new output")] = None,
        fail_pattern: Annotated[str | None, Field(description="Regex that means failure")] = None,
        literal: Annotated[bool, Field(description="Patterns are plain text")] = False,
        idle: Annotated[float | None, Field(description="Seconds without output")] = None,
        port: Annotated[int | None, Field(description="TCP port that the job listens on; 0: any")] = None,
        url: Annotated[str | None, Field(description="HTTP URL that answers")] = None,
        cursor: Annotated[int | None, Field(description="Output after it is new; 0: all. Default: now")] = None,
        mode: Annotated[Mode, Field(description="Of several jobs")] = "any",
        timeout: Annotated[float, Field(description="Seconds, at most 50")] = WAIT_S,
        max_bytes: Annotated[int, Field(description="Budget in characters")] = CHARS,
    ) -> Waited:
        """Wait until a job ends, or a given condition is met first; `reason` says which. Use it instead of polling.

        When the timeout passes, `reason` is timeout and the job runs on: wait again with the answer's cursor.
        """
        async with progress(jobs, [job_id] if isinstance(job_id, str) else job_id):
            return await jobs.wait_async(
                job_id,
                until=until,
                pattern=pattern,
                fail_pattern=fail_pattern,
                literal=literal,
                idle=idle,
                port=port,
                url=url,
                cursor=cursor,
                mode=mode,
                timeout=min(timeout, WAIT_S, inline.get()),
                max_bytes=max_bytes,
            )

    @tool(Found, READS)
    def search(
        job_id: JobId,
        pattern: Annotated[str, Field(description="Regex")],
        literal: Annotated[bool, Field(description="The pattern is plain text")] = False,
        ignore_case: bool = False,
        context: Annotated[int, Field(description="Lines around each match", le=50)] = 0,
        limit: Annotated[int, Field(ge=1, le=1000)] = 20,
        cursor: Annotated[int, Field(description="Only what comes after it")] = 0,
        stderr_cursor: int = 0,
    ) -> Found:
        """Search the whole log of a job; answers like grep -n, with the total and a cursor to further matches."""
        return jobs.search(
            job_id,
            pattern,
            literal=literal,
            ignore_case=ignore_case,
            context=context,
            limit=limit,
            cursor=cursor,
            stderr_cursor=stderr_cursor,
        )

    @tool(Screen, READS)
    def screen(job_id: JobId, image: Annotated[bool, Field(description="Also as a picture (PNG)")] = False) -> Screen:
        """Show what the person sees of a job now: for full-screen programs (editors, pagers, top)."""
        seen = jobs.screen(job_id)
        return seen.model_copy(update={"png": png(seen)}) if image else seen

    @tool(
        Output,
        ACTS,
    )
    async def interact(
        job_id: JobId,
        input: Annotated[str | None, Field(description="Text; Enter follows unless it ends with a newline")] = None,
        keys: Annotated[
            list_of[str] | str | None, Field(description='Keys to press after the text: ["C-c"], ["Up", "Enter"]')
        ] = None,
        enter: Annotated[bool, Field(description="Press Enter after the text")] = True,
        wait: Annotated[float, Field(description="Seconds to wait for the response", le=50)] = 5.0,
        pattern: Annotated[str | None, Field(description="Regex: answer once it shows in the response")] = None,
        secret: Annotated[bool, Field(description="Keep it out of every log; only at a password prompt")] = False,
    ) -> Output:
        """Type into a running job and return what it printed in response, without the echo.

        Answers as soon as the program waits for input again, is quiet, has ended, or `pattern` shows; of a full-screen
        program with its screen.
        """
        return await jobs.interact_async(
            job_id, input, keys=keys or (), enter=enter, wait=wait, pattern=pattern, secret=secret
        )

    @tool(Kill, ToolAnnotations(destructive_hint=True, idempotent_hint=True, open_world_hint=False))
    def kill(
        job_id: JobId,
        signal: Annotated[str, Field(description="First signal: TERM, INT, HUP, KILL")] = "TERM",
        grace: Annotated[float, Field(description="Seconds until SIGKILL", le=30)] = 5.0,
    ) -> Kill:
        """End a job with everything it started, and say killed, already_terminated or not_found.

        To interrupt a program and keep the job, use `interact` with keys ["C-c"].
        """
        return jobs.kill(job_id, signal=signal, grace=grace)

    @tool(Restarted, ACTS)
    def restart(
        job_id: JobId,
        env: Annotated[dict[str, str] | None, Field(description="Variables; earlier ones are not kept")] = None,
    ) -> Restarted:
        """End a job if it runs and start the same command again as a new job."""
        return jobs.restart(job_id, env=env)

    add_resources(server, jobs)
    add_prompts(server)
    return server


async def _for_ever(work: Callable[[list[str]], object], pause_s: float) -> None:
    """Do it again and again, whatever happens; each fault is said once on stderr."""
    said: set[str] = set()
    while True:
        faults: list[str] = []
        with contextlib.suppress(TmuxjobsError), apart("", faults):  # the next call of a tool tells the first
            await asyncio.to_thread(work, faults)
        for fault in faults:
            if fault not in said:
                print(f"tmuxjobs: {fault}", file=sys.stderr)
        said.update(faults)
        await asyncio.sleep(pause_s)
