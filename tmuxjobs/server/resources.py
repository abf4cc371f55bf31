"""The MCP resources and prompts: a job and its log to attach to a conversation, and ways of working to start from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastmcp import FastMCP
from fastmcp.exceptions import ResourceError
from pydantic import Field

from tmuxjobs.errors import TmuxjobsError
from tmuxjobs.job_answers import Answer
from tmuxjobs.jobs import Jobs

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
