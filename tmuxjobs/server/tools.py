"""The MCP tools: what a model reads of each verb. Knows no tmux and no files."""

import asyncio
import contextlib
import inspect
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Unpack, cast

import fastmcp
from fastmcp import FastMCP
from mcp_types import ToolAnnotations
from pydantic import BeforeValidator, Field

from tmuxjobs.answers import Found, Kill, Kills, Output, Ran, Screen, Started, Waited, ran
from tmuxjobs.arguments import CHARS, WAIT_S, Conditions, Mode, RestartPolicy, Scope, Until
from tmuxjobs.contract import VERSION
from tmuxjobs.errors import InvalidInput, TmuxjobsError, apart
from tmuxjobs.job_answers import Fetched, JobList, JobStatus
from tmuxjobs.jobs import Jobs
from tmuxjobs.models import Notify, Status
from tmuxjobs.server import wire
from tmuxjobs.server.approval import AsksPerson
from tmuxjobs.server.notifications import EndsTold, progress, who_asks
from tmuxjobs.server.old_names import OldNames
from tmuxjobs.server.tasks import Tasks, inline
from tmuxjobs.server.wire import ACTS, READS, PlainArgumentErrors, Tool, Verb, as_tool, brief, list_of
from tmuxjobs.settings import Settings

# Not by variables, which jobs would inherit.
fastmcp.settings.check_for_updates = "off"
fastmcp.settings.enable_rich_tracebacks = False
fastmcp.settings.enable_rich_logging = False

NOTICE_S = 2.0
FIRST_S = 3.0
THREADS = 128
"""How many calls may be at work at once; a wait takes a thread only for its checks."""


INSTRUCTIONS = """\
Use this for every shell command that is slow, long-running or interactive: builds, tests, servers, REPLs, training.
Each runs as a background job in tmux, where the person can watch and take over: `tmux attach -t {session}`.
- `execute` answers at once. With `wait` (up to 50 s) the same answer has output and exit code; a longer job runs on.
- `wait` returns when it has ended, printed something or listens on a port: never poll `status`, never sleep.
- `tail` shows the newest output, `output` with the last cursor only what is new, `search` finds lines in a large log.
- `interact` types into a job and answers with what it printed; `keys=["C-c"]` interrupts.
- `also_ended` (`[ended meanwhile: ...]` in text) names other jobs that have ended, once.
- A job lives on when this server ends, and every later session sees it in `list`. `kill` what you no longer need.
- `a | b` exits with the code of `b`, as in any shell: put `set -o pipefail;` before it to learn of `a`.
- Where a job waits for a password, ask the person to attach and type it.
- In text, what a job printed ends at a line `==`. Only what follows, and lines that begin with `== `, is from tmuxjobs;
  output that begins like that has a `\\` before it.
"""


JobId = Annotated[str, Field(description="From `execute` or `list`")]


def as_text(value: object) -> object:
    """The value of a variable as a shell would have it: models give numbers and booleans, too."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


Variables = dict[str, Annotated[str, BeforeValidator(as_text)]]


def build_server(settings: Settings, *, opened: Callable[..., Jobs] = Jobs.open, call_s: float = WAIT_S) -> FastMCP:
    """The MCP server over the jobs of these settings; nothing runs before it is started. Raises SettingsError.

    A wait within one call takes at most `call_s` seconds.
    """
    jobs = opened(settings, caller=who_asks())
    ends = EndsTold(jobs)
    policies = settings.policies(settings.working_dir or Path.cwd(), agent=True)
    hidden = set[str]().union(*(policy.hidden for policy in policies))

    @contextlib.asynccontextmanager
    async def keep_house(_: FastMCP) -> AsyncIterator[None]:
        """Prune, and notice jobs that wait for input, at intervals. Nothing depends on reaching the end of this."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        ends.connected()
        works = (
            (partial(asyncio.to_thread, jobs.prune), settings.cleanup_interval),
            (partial(asyncio.to_thread, jobs.notice_prompts), NOTICE_S),
            (jobs.move_on, NOTICE_S),
        )
        # Not before the client has its first answer: calling tmux needs a library that is slow to import.
        tasks = [asyncio.create_task(_for_ever(*work, after_s=FIRST_S)) for work in works]
        tasks.append(asyncio.create_task(_load()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    server = FastMCP(
        "tmuxjobs",
        INSTRUCTIONS.format(session=settings.session),
        version=VERSION,
        lifespan=keep_house,
        # Old names before `ends`, which adds to answers: the old shapes have no place for it.
        middleware=[PlainArgumentErrors(), OldNames(jobs), ends, AsksPerson(jobs)],
        mask_error_details=True,
    )

    server.add_extension(Tasks(jobs, ends, keep_s=settings.keep_jobs_for))

    def tool(hints: ToolAnnotations) -> Callable[[Verb], Any]:
        def add(verb: Verb) -> Any:
            if verb.__name__ in hidden:
                return verb
            described = inspect.getdoc(verb)
            made = Tool.from_function(as_tool(verb), description=described, output_schema=None, annotations=hints)
            parameters = brief(made.parameters)
            if "host" in parameters["properties"]:  # without another machine there is nothing to choose
                parameters["properties"]["host"]["enum"] = [*settings.hosts]
                for name in () if settings.hosts else ("host", "sync"):
                    parameters["properties"].pop(name)
            return server.add_tool(made.model_copy(update={"parameters": parameters}))

        return add

    @tool(ACTS)
    async def execute(
        command: Annotated[str, Field(description="Shell line. No `&`, `nohup` or `| tail`: output is cut for you")],
        name: Annotated[str | None, Field(description="Short name for the id")] = None,
        cwd: Annotated[str | None, Field(description="Working directory")] = None,
        env: Annotated[Variables | None, Field(description="Variables to add or replace")] = None,
        timeout: Annotated[float | None, Field(description="Kill the job after this many seconds")] = None,
        shell: Annotated[str | None, Field(description="Default bash, else sh")] = None,
        separate_stderr: Annotated[bool, Field(description="Keep stderr apart from stdout")] = False,
        max_output_size: Annotated[str | None, Field(description="Size limit of its log, like 5GB")] = None,
        notify: Annotated[Notify | None, Field(description="For which ends to notify the person")] = None,
        keep: Annotated[bool | None, Field(description="false: kill it when this server ends")] = None,
        queue: Annotated[bool | None, Field(description="Wait for a turn if too many run")] = None,
        group: Annotated[str | None, Field(description="Queue it in this group, which may have a limit")] = None,
        priority: Annotated[int | None, Field(description="Higher goes first")] = None,
        after: Annotated[
            list_of[str] | None, Field(description="Job ids: start once they succeeded (ID:any ended, ID:ready)")
        ] = None,
        delay: Annotated[float | None, Field(description="Start after this many seconds")] = None,
        at: Annotated[str | None, Field(description="Start at 18:30, or an ISO time")] = None,
        reuse: Annotated[bool, Field(description="If a job of this name has not ended, answer about that one")] = False,
        engine: Annotated[Literal["slurm", "local"] | None, Field(description="Run it in Slurm, or not")] = None,
        resources: Annotated[
            Variables | None,
            Field(description="Of Slurm: cpus, memory (16G), gpus, time (2h), partition; detach=true: by sbatch"),
        ] = None,
        host: Annotated[str | None, Field(description="Run it on that machine instead of here")] = None,
        sync: Annotated[
            str | None,
            Field(description="Copy this folder there first, without what .gitignore names; runs in the copy"),
        ] = None,
        wait: Annotated[float, Field(description="Answer after this many seconds (max 50) or at its end", ge=0)] = 0,
        until: Annotated[Until | None, Field(description="Or as soon as this holds")] = None,
        pattern: Annotated[str | None, Field(description="Or when its output matches this regex")] = None,
        idle: Annotated[float | None, Field(description="Or after this many seconds without output")] = None,
        port: Annotated[int | None, Field(description="Or when it listens on this TCP port; 0: any")] = None,
        url: Annotated[str | None, Field(description="Or when it answers at this HTTP URL")] = None,
        retry: Annotated[int | None, Field(description="Run it again after a failure, this often at most")] = None,
        restart_policy: Annotated[
            RestartPolicy | None, Field(description="For servers: at most `retry` in a row")
        ] = None,
        success_codes: Annotated[list_of[int] | None, Field(description="Default 0")] = None,
        ready_when: Annotated[
            str | None, Field(description='"port N", "url URL", "pattern REGEX" or "command LINE"; wait until="ready"')
        ] = None,
        ready_timeout: Annotated[float | None, Field(description="Seconds, default 300")] = None,
    ) -> Started:
        """Start a command as a background job in its own tmux window; returns its job_id at once, or after `wait`.

        With `wait` the answer has output and exit code, so a short command is one call; a longer one runs on.
        The job has a real terminal: REPLs, prompts and full-screen programs work.
        """
        conditions = conditions_of(until=until, pattern=pattern, idle=idle, port=port, url=url)
        if not wait and conditions:
            raise InvalidInput(f"`{next(iter(conditions))}` needs `wait`, the seconds to wait; nothing was started.")
        started = await asyncio.to_thread(
            partial(jobs.execute, **conditions),
            command,
            name=name,
            cwd=cwd,
            env=env,
            timeout=timeout,
            shell=shell,
            separate_stderr=separate_stderr,
            max_output_size=max_output_size,
            notify=notify,
            keep=keep,
            queue=queue,
            group=group,
            priority=priority,
            after=after,
            delay=delay,
            at=at,
            reuse=reuse,
            engine=engine,
            resources=resources,
            retry=retry,
            restart_policy=restart_policy,
            success_codes=success_codes,
            ready_when=ready_when,
            ready_timeout=ready_timeout,
            host=host,
            sync=sync,
        )
        return await waited_for(started, wait, conditions)

    async def waited_for(started: Started, wait: float, conditions: Conditions) -> Started:
        if isinstance(started, Ran):
            return started.model_copy(update={"asked_to_wait": bool(wait)})
        if started.waits_for or not wait:
            return started
        async with progress(jobs, [started.job_id]):
            timeout = min(wait, call_s, inline.get())
            waited = await jobs.wait_async(started.job_id, cursor=0, timeout=timeout, **conditions)
        return ran(started, bounded(waited, wait, call_s))

    @tool(READS)
    def list(
        status: Annotated[Status | None, Field(description="Only jobs in this state")] = None,
        limit: Annotated[int, Field(ge=1, le=500)] = 20,
        name: Annotated[str | None, Field(description="Only jobs with this in their id or command")] = None,
        scope: Annotated[Scope | None, Field(description="Default project")] = None,
    ) -> JobList:
        """List this project's jobs, newest first, those of earlier sessions and of people too."""
        return jobs.list(status=status, limit=limit, name=name, scope=scope)

    @tool(READS)
    def status(job_id: JobId) -> JobStatus:
        """Show a job's state and why: running, paused, queued, completed (code 0), failed, killed, skipped, lost."""
        return jobs.status(job_id)

    @tool(READS)
    def output(
        job_id: JobId,
        cursor: Annotated[int | None, Field(description="From an earlier answer: only what is new since", ge=0)] = None,
        stderr_cursor: Annotated[int | None, Field(description="Likewise for stderr", ge=0)] = None,
        max_bytes: Annotated[int, Field(description="Budget in characters", ge=200, le=400_000)] = 20_000,
        raw: Annotated[bool, Field(description="Keep escapes and redraws")] = False,
        attempt: Annotated[int | None, Field(description="Only what this attempt printed")] = None,
    ) -> Output:
        """Read a job's output as clean text. Without cursor: all of it, or head and tail with what was left out named.

        The answer's cursor fetches what comes next. For the newest lines only, use `tail`.
        """
        return jobs.output(
            job_id, cursor=cursor, stderr_cursor=stderr_cursor, max_bytes=max_bytes, raw=raw, attempt=attempt
        )

    @tool(READS)
    def tail(job_id: JobId, lines: Annotated[int, Field(description="How many", ge=1, le=1000)] = 50) -> Output:
        """Read the last lines of a job's output as clean text, a prompt included."""
        return jobs.tail(job_id, lines=lines)

    @tool(READS)
    async def wait(
        job_id: Annotated[
            str | list_of[str] | None,
            Field(description="One or several jobs. Default: whichever of the project ends first"),
        ] = None,
        until: Annotated[Until | None, Field(description="Default exit")] = None,
        pattern: Annotated[str | None, Field(description="Regex to see in new output")] = None,
        fail_pattern: Annotated[str | None, Field(description="Regex that means failure")] = None,
        literal: Annotated[bool, Field(description="Patterns are plain text")] = False,
        redraws: Annotated[bool, Field(description="Match redrawn frames too")] = False,
        idle: Annotated[float | None, Field(description="Seconds without output")] = None,
        port: Annotated[int | None, Field(description="TCP port that the job listens on; 0: any")] = None,
        url: Annotated[str | None, Field(description="HTTP URL that answers")] = None,
        cursor: Annotated[int | None, Field(description="New output begins here. Default: where you last read")] = None,
        mode: Annotated[Mode, Field(description="Until any of several jobs, or all")] = "any",
        timeout: Annotated[float, Field(description="Answer after this many seconds (at most 50); no kill")] = WAIT_S,
        max_bytes: Annotated[int, Field(description="Budget in characters")] = CHARS,
    ) -> Waited:
        """Wait until a job ends, or a given condition is met first; `reason` says which. Use it instead of polling.

        When the timeout passes, `reason` is timeout and the job runs on: wait again.
        """
        async with progress(jobs, [job_id] if isinstance(job_id, str) else job_id or ()):
            waited = await jobs.wait_async(
                job_id,
                until=until,
                pattern=pattern,
                fail_pattern=fail_pattern,
                literal=literal,
                redraws=redraws,
                idle=idle,
                port=port,
                url=url,
                cursor=cursor,
                mode=mode,
                timeout=min(timeout, call_s, inline.get()),
                max_bytes=max_bytes,
            )
        return bounded(waited, timeout, call_s)

    @tool(READS)
    def search(
        job_id: JobId,
        pattern: Annotated[str, Field(description="Regex")],
        literal: Annotated[bool, Field(description="It is plain text")] = False,
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

    @tool(READS)
    def screen(job_id: JobId, image: Annotated[bool, Field(description="Also as a picture (PNG)")] = False) -> Screen:
        """Show what the person sees of a job now: for full-screen programs (editors, pagers, top)."""
        seen = jobs.screen(job_id)
        if not image:
            return seen
        from tmuxjobs.picture import png  # few calls draw one, and what draws takes 30 ms to import

        return seen.model_copy(update={"png": png(seen)})

    @tool(ACTS)
    async def interact(
        job_id: JobId,
        input: Annotated[str | None, Field(description="Text; Enter follows unless it ends with a newline")] = None,
        keys: Annotated[
            list_of[str] | str | None, Field(description='Keys to press after the text: ["C-c"], ["Up", "Enter"]')
        ] = None,
        enter: Annotated[bool, Field(description="Press Enter after the text")] = True,
        wait: Annotated[float, Field(description="Seconds to wait for the response (at most 50)")] = 5.0,
        pattern: Annotated[str | None, Field(description="Regex: answer once it shows")] = None,
        secret: Annotated[bool, Field(description="Keep it out of every log; only at a password prompt")] = False,
    ) -> Output:
        """Type into a running job and return what it printed in response, without the echo.

        Answers as soon as the program waits for input again, is quiet, has ended, or `pattern` shows; for a full-screen
        program with its screen.
        """
        return await jobs.interact_async(
            job_id, input, keys=keys or (), enter=enter, wait=wait, pattern=pattern, secret=secret
        )

    @tool(ToolAnnotations(destructive_hint=True, idempotent_hint=True, open_world_hint=False))
    def kill(
        job_id: Annotated[str | list_of[str], Field(description="One job or several")],
        signal: Annotated[str, Field(description="First signal")] = "TERM",
        grace: Annotated[float, Field(description="Seconds until SIGKILL", le=30)] = 5.0,
        end: Annotated[bool, Field(description="false: only send it (HUP, USR1; STOP pauses, CONT resumes)")] = True,
    ) -> Kill | Kills:
        """End a job with everything it started: killed, already_terminated or not_found.

        To interrupt and keep the job: `interact` with keys ["C-c"].
        """
        if isinstance(job_id, str):
            return jobs.kill(job_id, signal=signal, grace=grace, end=end)
        if not job_id:
            raise InvalidInput("`job_id` names no job; nothing was ended.")
        answers = []
        for one in dict.fromkeys(job_id):
            try:
                answers.append(jobs.kill(one, signal=signal, grace=grace, end=end))
            except TmuxjobsError as error:  # the others are ended all the same
                answers.append(Kill(job_id=one, status="refused", detail=str(error).removesuffix(".")))
        return Kills(jobs=tuple(answers))

    @tool(ACTS)
    async def restart(
        job_id: JobId,
        env: Annotated[Variables | None, Field(description="Variables; earlier ones are not kept")] = None,
        wait: Annotated[float, Field(description="As in execute", ge=0)] = 0,
        until: Until | None = None,
        pattern: str | None = None,
        url: str | None = None,
    ) -> Started:
        """End a job if it runs and start the same command again as a new job."""
        conditions = conditions_of(until=until, pattern=pattern, url=url)
        if not wait and conditions:
            raise InvalidInput(f"`{next(iter(conditions))}` needs `wait`, the seconds to wait; nothing was restarted.")
        started = await asyncio.to_thread(jobs.restart, job_id, env=env)
        return await waited_for(started, wait, conditions)

    if settings.hosts:

        @tool(ACTS)
        def fetch(
            job_id: JobId,
            paths: Annotated[list_of[str] | str, Field(description="In the job's folder there")],
            to: Annotated[str | None, Field(description="Default: the folder of `sync`, else the current")] = None,
        ) -> Fetched:
            """Copy results, files or folders, of a job on another machine here, under the same paths."""
            return jobs.fetch(job_id, paths, to=to)

    wire.add_resources(server, jobs)
    wire.add_prompts(server)
    return server


def conditions_of(**asked: Unpack[Conditions]) -> Conditions:
    """The conditions that were given."""
    given = {name: value for name, value in asked.items() if value is not None}
    return cast(Conditions, given)


def bounded(waited: Waited, asked_s: float, most_s: float) -> Waited:
    """The answer, with a note when the limit of one call ended the wait."""
    if waited.reason != "timeout" or asked_s <= most_s:
        return waited
    return waited.model_copy(update={"note": f"{waited.note}; {most_s:g} s is the most for one call"})


async def _load() -> None:
    """Import every verb, after the first answer: the installation may change while this server lives."""
    await asyncio.sleep(FIRST_S)
    await asyncio.to_thread(lambda: [getattr(Jobs, name) for name in dir(Jobs)])


async def _for_ever(work: Callable[[list[str]], Awaitable[object]], pause_s: float, *, after_s: float) -> None:
    """Repeat the work, whatever happens; each fault is printed once on stderr."""
    await asyncio.sleep(after_s)
    said: set[str] = set()
    while True:
        faults: list[str] = []
        with contextlib.suppress(TmuxjobsError), apart("", faults):  # the next call of a tool reports it
            await work(faults)
        for fault in faults:
            if fault not in said:
                print(f"tmuxjobs: {fault}", file=sys.stderr)
        said.update(faults)
        await asyncio.sleep(pause_s)
