"""What all commands share: the app, the parameters that many take, how an answer is shown, the exit codes."""

from typing import Annotated, Any

from cyclopts import App, Parameter

from tmuxjobs.jobs import Jobs

app = App(
    "tmuxjobs",
    help="Background jobs in tmux, shared by a coding agent and the person beside it.",
    help_flags=["--help", "-h"],
    version_flags=["--version"],
)
Json = Annotated[bool, Parameter("--json", negative="", help="Print the answer as one line of JSON.")]
Quiet = Annotated[bool, Parameter(("--quiet", "-q"), negative="", help="Print job ids alone.")]
list_of = list
"""The built-in, under a name that the command `list` does not hide."""
Flag = Parameter(negative="")
USAGE, BUG, WAIT_OVER, INTERRUPTED = 2, 3, 124, 130


def job_ids(_: object) -> list_of[tuple[str, str]]:
    """What a shell completes a job id to, newest first, each with its state and command."""
    found = Jobs.open().list(limit=200).jobs
    return [(job.job_id, f"{job.status}: {job.command[:60]}") for job in found]


JobId = Annotated[str, Parameter(completer=job_ids)]
app.register_install_completion_command(help="Make this shell complete commands, options and job ids.")


def show(result: Any, *, as_json: bool = False, ids: str | None = None) -> None:
    """The answer on stdout, as JSON, as ids alone, or as text."""
    print(ids if ids is not None else result.model_dump_json() if as_json else result.text())
