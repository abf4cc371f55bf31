"""The command line: the same verbs over the same `Jobs`. One function a command; errors end in `main`."""

import contextlib
import os
import sys
import traceback
from pathlib import Path

from cyclopts import CycloptsError

from tmuxjobs.cli import admin, control, read, start  # noqa: F401  each registers its commands
from tmuxjobs.cli.admin import serve
from tmuxjobs.cli.app import BUG, INTERRUPTED, USAGE, app, wrong_usage
from tmuxjobs.cli.streams import take_over
from tmuxjobs.errors import InvalidInput, SettingsError, StateError, TmuxjobsError
from tmuxjobs.settings import Settings
from tmuxjobs.store.store import Store
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
    except Exception:  # noqa: BLE001 - the one place where a bug ends
        print(f"tmuxjobs: this is a bug; what happened is in {visible(_save_traceback())}.", file=sys.stderr)
        return BUG
    return 0


def _save_traceback() -> str:
    """The traceback in a private file in the state directory, or the reason why not."""
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"tmuxjobs-bug-{os.getpid()}.txt"
    with contextlib.suppress(SettingsError, StateError):
        store = Store(Settings.load().state_dir)
        if store.is_marked():
            path = store.root / f"bug-{os.getpid()}.txt"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        return f"no file ({error.strerror})"
    with open(fd, "w") as file:
        traceback.print_exc(file=file)
    return str(path)
