"""What all commands share: the app, common parameters, how answers and wrong usage are printed, exit codes."""

from difflib import get_close_matches
from typing import Annotated, Any

from cyclopts import App, CoercionError, CycloptsError, MissingArgumentError, Parameter, UnusedCliTokensError

from tmuxjobs.jobs import Jobs
from tmuxjobs.visible import visible, visible_json, visible_lines

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
    return [(job.job_id, f"{job.status}: {' '.join(job.command.split())[:60]}") for job in found]


def windows(_: object) -> list_of[tuple[str, str]]:
    """What a shell completes a window to that can be adopted."""
    return [(visible(window), visible(what)) for window, what in Jobs.open().adoptable()]


JobId = Annotated[str, Parameter(completer=job_ids)]


app.register_install_completion_command(help="Make this shell complete commands, options and job ids.")


def show(result: Any, *, as_json: bool = False, ids: str | None = None) -> None:
    """The answer on stdout, as JSON, as ids alone, or as text; nothing in it reaches a terminal as a control."""
    if ids is not None:
        print(ids)
    else:
        print(visible_json(result.model_dump_json()) if as_json else visible_lines(result.text()))


def wrong_usage(error: CycloptsError) -> str:
    """What is wrong with the command line, in one sentence, and where to read on."""
    chain = error.command_chain or ()
    used = " ".join(("tmuxjobs", *chain))
    name = error.argument.name if error.argument else ""
    said = " ".join(str(error).split())
    match error:
        case UnusedCliTokensError(unused_tokens=[word, *_]) if chain:
            said = f"`{used}` does not take '{word}'."
        case UnusedCliTokensError(unused_tokens=[word, *_]):
            near = get_close_matches(word, [command for command in app if not command.startswith("-")], n=1)
            said = f"There is no command '{word}'." + "".join(f" Did you mean `tmuxjobs {one}`?" for one in near)
        case MissingArgumentError(keyword=str() as option):
            said = f"{option} needs a value."
        case MissingArgumentError() if name == "--job-id":
            said = f"`{used}` needs a job id; `tmuxjobs list` shows all."
        case MissingArgumentError():
            said = f"`{used}` needs {name.lstrip('-').upper()}."
        case CoercionError(token=token, target_type=kind) if token is not None and kind in (int, float):
            number = "a whole number" if kind is int else "a number"
            said = f"{token.keyword or name} takes {number}, not '{token.value}'."
    return f"{said} See `{used} --help`."
