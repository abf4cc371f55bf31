"""`list`, `status` and `tail`, and how they are run without the library that reads command lines: it takes half as long
as they do. It declares them in `read.py`; a test holds that both ways take the same arguments."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from tmuxjobs.arguments import Scope
from tmuxjobs.errors import InvalidInput
from tmuxjobs.jobs import Jobs
from tmuxjobs.models import Status
from tmuxjobs.visible import visible_json, visible_lines

FLAGS = {
    "list": {"--watch": "watch", "-w": "watch", "--json": "json", "--quiet": "quiet", "-q": "quiet"},
    "status": {"--json": "json"},
    "tail": {"--follow": "follow", "-f": "follow", "--json": "json"},
}
NUMBERS = {
    "list": {"--limit": "limit", "-n": "limit"},
    "status": {},
    "tail": {"--lines": "lines", "-n": "lines"},
}
"""{command: {option: parameter}}; whatever else is typed, the library reads, or refuses."""


def run(words: Sequence[str]) -> bool:
    """Run the command if its command line is plain; whether it was."""
    verb, *rest = words
    options: dict[str, bool | int] = {}
    ids = []
    left = iter(rest)
    for word in left:
        if word in FLAGS[verb]:
            options[FLAGS[verb][word]] = True
        elif word in NUMBERS[verb]:
            number = next(left, "")
            if not (number.isascii() and number.isdecimal() and len(number) < 10):
                return False
            options[NUMBERS[verb][word]] = int(number)
        elif word.startswith("-"):
            return False
        else:
            ids.append(word)
    if len(ids) != (verb != "list"):
        return False
    jobs = Jobs.open()
    COMMANDS[verb](jobs, *map(jobs.whole_id, ids), **options)
    return True


def list(
    jobs: Jobs,
    *,
    status: Status | None = None,
    limit: int = 20,
    name: str | None = None,
    scope: Scope | None = None,
    watch: bool = False,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """A table for a person, else a line for each job."""
    person = sys.stdout.isatty() and not (json or quiet)
    if watch and not person:
        raise InvalidInput("--watch needs a terminal and excludes --json and --quiet; `wait` waits for jobs.")
    if person:
        # Rich's tables take 40 ms to import, and a script that lists jobs needs none.
        from rich.console import Console

        from tmuxjobs.cli.table import Listing

        listing = Listing(jobs, Console(highlight=False), status=status, limit=limit, name=name, scope=scope)
        listing.watch() if watch else listing.show()
        return
    found = jobs.list(status=status, limit=limit, name=name, scope=scope)
    ids = "\n".join(job.job_id for job in found.jobs) if quiet else None
    if ids != "":
        show(found, as_json=json, ids=ids)


def status(jobs: Jobs, job_id: str, *, json: bool = False) -> None:
    """How a job stands."""
    show(jobs.status(job_id), as_json=json)


def tail(jobs: Jobs, job_id: str, *, lines: int = 50, follow: bool = False, json: bool = False) -> None:
    """The last lines, and with *follow* what comes until the job ends."""
    if follow and json:
        raise InvalidInput("--follow prints output as it comes; for --json use `wait` or `output` with a cursor.")
    answer = jobs.tail(job_id, lines=lines)
    show(answer, as_json=json) if json else print_output(answer)
    if follow:
        from tmuxjobs.cli.follow import follow as stay

        sys.exit(stay(jobs, job_id, cursor=answer.cursor, stderr_cursor=answer.stderr_cursor))


COMMANDS: dict[str, Callable[..., None]] = {"list": list, "status": status, "tail": tail}


def show(result: Any, *, as_json: bool = False, ids: str | None = None) -> None:
    """The answer on stdout, as JSON, as ids alone, or as text; nothing in it reaches a terminal as a control."""
    if ids is not None:
        print(ids)
    else:
        print(visible_json(result.model_dump_json()) if as_json else visible_lines(result.text()))


def print_output(answer: Any) -> None:
    """The output alone on stdout, a separate stderr and notes on stderr."""
    sys.stdout.write(answer.stdout)
    sys.stdout.flush()
    sys.stderr.write(answer.stderr)
    if answer.note:
        print(f"[{answer.note}]", file=sys.stderr)
