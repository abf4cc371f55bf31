"""The command line: the same verbs over the same `Jobs`. One function a command; errors end in `main.py`."""

import sys

from cyclopts import CycloptsError

from tmuxjobs.cli import USAGE, admin, control, read, start, up  # noqa: F401  each registers its commands
from tmuxjobs.cli.app import app, wrong_usage
from tmuxjobs.cli.overview import overview
from tmuxjobs.visible import visible


@app.default
def default() -> None:
    """Serve when a program started us, help a person."""
    if sys.stdin is not None and sys.stdin.isatty():
        print(overview())
    else:
        admin.serve()


def run() -> int:
    """Runs the command of this command line."""
    try:
        app(exit_on_error=False, print_error=False)
    except CycloptsError as error:
        print(f"tmuxjobs: {visible(wrong_usage(error))}", file=sys.stderr)
        return USAGE
    return 0
