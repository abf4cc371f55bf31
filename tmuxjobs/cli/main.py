"""The command line: the same verbs over the same `Jobs`. One function a command; errors end in `main`."""

import sys

from cyclopts import CycloptsError

from tmuxjobs import bugs
from tmuxjobs.cli import admin, control, read, start  # noqa: F401  each registers its commands
from tmuxjobs.cli.admin import serve
from tmuxjobs.cli.app import BUG, INTERRUPTED, USAGE, app, wrong_usage
from tmuxjobs.cli.streams import take_over
from tmuxjobs.errors import InvalidInput, TmuxjobsError
from tmuxjobs.visible import visible


@app.default
def default() -> None:
    """Serve when a program started us, help a person."""
    if sys.stdin is not None and sys.stdin.isatty():
        app.help_print()
    else:
        serve()


def main() -> None:
    """Every error ends here: ours one line and 1, usage 2, a bug a traceback in a file and 3."""
    output = take_over()
    code = run()
    output.flush()
    if output.error is not None:
        print(f"tmuxjobs: The answer cannot be written: {output.error.strerror}.", file=sys.stderr)
        code = 1
    sys.exit(code)


def run() -> int | str | None:
    """Runs the command; its exit code."""
    try:
        app(exit_on_error=False, print_error=False)
    except SystemExit as done:
        return done.code
    except CycloptsError as error:
        print(f"tmuxjobs: {visible(wrong_usage(error))}", file=sys.stderr)
        return USAGE
    except InvalidInput as error:
        print(f"tmuxjobs: {error}", file=sys.stderr)
        return USAGE
    except TmuxjobsError as error:
        print(f"tmuxjobs: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the one place where a bug ends
        print(f"tmuxjobs: this is a bug; what happened is in {visible(bugs.save(error))}.", file=sys.stderr)
        return BUG
    return 0
