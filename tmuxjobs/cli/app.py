"""What all commands share: the app, common parameters, how answers and wrong usage are printed, exit codes."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated

from cyclopts import (
    App,
    CoercionError,
    CycloptsError,
    Group,
    MissingArgumentError,
    Parameter,
    Token,
    UnusedCliTokensError,
)

from tmuxjobs.arguments import duration
from tmuxjobs.cli.overview import ABOUT
from tmuxjobs.contract import OPEN, VERSION
from tmuxjobs.jobs import Jobs
from tmuxjobs.models import STATUSES, Status
from tmuxjobs.settings import Settings
from tmuxjobs.visible import visible

RUN, LOOK, CONTROL, SET_UP, OPTIONS = (
    Group(name, sort_key=place) for place, name in enumerate(("Run", "Look", "Control", "Set up", "Options"))
)
"""The parts of `tmuxjobs --help`."""
app = App(
    "tmuxjobs",
    group_commands=OPTIONS,
    help=ABOUT,
    help_flags=["--help", "-h"],
    version=VERSION,
    version_flags=["--version"],
)
Json = Annotated[
    bool, Parameter("--json", negative="", show_default=False, help="Print the answer as one line of JSON.")
]
Quiet = Annotated[bool, Parameter(("--quiet", "-q"), negative="", show_default=False, help="Print job ids alone.")]
list_of = list
"""The built-in, under a name that the command `list` does not hide."""
Flag = Parameter(negative="", show_default=False)


MEANT = {
    "list": "ps ls jobs top",
    "output": "log logs cat less print",
    "kill": "stop end terminate cancel",
    "execute": "run start exec spawn bg",
    "interact": "send type input write keys",
    "search": "grep find",
    "status": "show info inspect describe",
    "tail": "follow",
    "attach": "open watch enter",
    "approve": "allow accept",
    "refuse": "deny reject",
    "restart": "rerun retry again",
    "serve": "server mcp",
    "install": "setup add",
    "doctor": "check diagnose",
    "--help": "help",
    "--version": "version",
}
"""{our command or option: words of other programs for it}."""
HARMFUL = {"approve", "kill", "prune", "restart"}
"""Commands that are suggested only for a word very close to them."""


def job_ids(_: object) -> list_of[tuple[str, str]]:
    """Completions of a job id, newest first, each with its state and command."""
    return offered(None)


def running_ids(_: object) -> list_of[tuple[str, str]]:
    """Likewise, for jobs that have not ended."""
    return [one for status in STATUSES if status in OPEN for one in offered(status)]


def queued_ids(_: object) -> list_of[tuple[str, str]]:
    """Likewise, for jobs that wait for their turn."""
    return offered("queued")


def runnable_ids(_: object) -> list_of[tuple[str, str]]:
    """Likewise, for jobs that can be run again."""
    return offered(None, adopted=False)


def shown_ids(_: object) -> list_of[tuple[str, str]]:
    """Likewise, for jobs that have a window."""
    shown = set(Jobs.open().with_window())
    return [(job_id, words) for job_id, words in offered(None) if job_id in shown]


def offered(status: Status | None, *, adopted: bool = True) -> list_of[tuple[str, str]]:
    found = Jobs.open().list(status=status, limit=200).jobs
    fits = [job for job in found if adopted or not job.adopted]
    return [(job.job_id, f"{job.status}: {' '.join(job.command.split())[:60]}") for job in fits]


def group_names(_: object) -> list_of[tuple[str, str]]:
    """Completions of a group: those of the newest jobs, and those with a limit in the settings."""
    found = dict.fromkeys(job.group for job in Jobs.open().list(limit=200).jobs if job.group)
    return [(name, "group") for name in found | dict.fromkeys(Settings.load().groups or ())]


def windows(_: object) -> list_of[tuple[str, str]]:
    """Completions of a window: those that can be adopted."""
    return [(visible(window), visible(what)) for window, what in Jobs.open().adoptable()]


def whole_id(_: object, tokens: Sequence[Token]) -> str:
    """The id that was typed, or the only one that begins with it."""
    return Jobs.open().whole_id(tokens[0].value)


def seconds_of(_: object, tokens: Sequence[Token]) -> float:
    return duration(tokens[0].value)


ONE = "The job's id, or any beginning of it that no other job's id has."
JobId = Annotated[str, Parameter(completer=job_ids, converter=whole_id, help=ONE)]
RunningId = Annotated[str, Parameter(completer=running_ids, converter=whole_id, help=ONE)]
QueuedId = Annotated[str, Parameter(completer=queued_ids, converter=whole_id, help=ONE)]
RunningIds = Annotated[str, Parameter(completer=running_ids, converter=whole_id, help=f"One or several. {ONE}")]
RunnableId = Annotated[str, Parameter(completer=runnable_ids, converter=whole_id, help=ONE)]
ShownId = Annotated[str, Parameter(completer=shown_ids, converter=whole_id, help=ONE)]
Seconds = Annotated[float, Parameter(converter=seconds_of)]
"""Also `90s`, `10m`, `2h`."""


app.register_install_completion_command(help="Make this shell complete commands, options and job ids.")


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
            said = f"There is no command '{word}'." + "".join(f" Did you mean `tmuxjobs {one}`?" for one in meant(word))
        case MissingArgumentError(keyword=str() as option):
            said = f"{option} needs a value."
        case MissingArgumentError() if name == "--job-id":
            said = f"`{used}` needs a job id; `tmuxjobs list` shows all."
        case MissingArgumentError():
            said = f"`{used}` needs {name.lstrip('-').upper()}."
        case CoercionError(token=token, target_type=kind) if token is not None and kind in (int, float):
            number = "a whole number" if kind is int else "seconds, or a duration like 90s, 10m or 2h"
            said = f"{token.keyword or name} takes {number}, not '{token.value}'."
    return f"{said}{'' if said.endswith(('.', '?')) else '.'} See `{used} --help`."


def meant(word: str) -> list_of[str]:
    """The command that somebody who typed this word may have meant, if any."""
    for ours, theirs in MEANT.items():
        if word.lower().lstrip("-") in theirs.split():
            return [ours]
    names = [name for name in app if not name.startswith("-")]
    near = get_close_matches(word, names, n=1)
    return [
        name for name in near if name not in HARMFUL or (word[0] == name[0] and get_close_matches(word, near, 1, 0.85))
    ]
