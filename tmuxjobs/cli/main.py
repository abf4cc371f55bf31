"""Runs the command and ends every error: ours in one line and code 1, usage in 2, a bug in a traceback file and 3.

What does not need the command line's library is done without it: its import takes as long as ten starts of Python.
"""

import contextlib
import gc
import os
import sys
from collections.abc import Iterator, Sequence

from tmuxjobs.cli import BUG, INTERRUPTED, USAGE
from tmuxjobs.cli.streams import take_over
from tmuxjobs.contract import SET_HERE, VERSION
from tmuxjobs.errors import InvalidInput, TmuxjobsError
from tmuxjobs.visible import visible

PLUGINS = "PYDANTIC_DISABLE_PLUGINS"
"""Setting it saves 10 to 40 ms: otherwise pydantic reads the metadata of all that is installed to find its plugins."""


def main() -> None:
    """Run the command and exit with its code."""
    output = take_over()
    code = run()
    output.flush()
    if output.error is not None:
        print(f"tmuxjobs: The answer cannot be written: {output.error.strerror}.", file=sys.stderr)
        code = 1
    sys.exit(code)


def run() -> int | str | None:
    """Run the command and return its exit code."""
    try:
        match sys.argv[1:]:
            case ["--version"]:
                print(VERSION)
            case ["--help" | "-h"]:
                from tmuxjobs.cli.overview import overview

                print(overview())
            case ["serve"]:
                serve()
            case [] if sys.stdin is None or not sys.stdin.isatty():
                serve()
            case ["list" | "status" | "tail", *_] as words if plainly(words):
                pass
            case _:
                from tmuxjobs.cli import commands

                return commands.run()
    except SystemExit as done:
        return done.code
    except InvalidInput as error:
        print(f"tmuxjobs: {error}", file=sys.stderr)
        return USAGE
    except TmuxjobsError as error:
        print(f"tmuxjobs: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the one place where a bug ends
        from tmuxjobs import bugs

        print(f"tmuxjobs: this is a bug; what happened is in {visible(bugs.save(error))}.", file=sys.stderr)
        return BUG
    return 0


def plainly(words: Sequence[str]) -> bool:
    """Whether this command line is plain enough; if so, its command has run."""
    with without_plugins():
        from tmuxjobs.cli import plain

        return plain.run(words)


def serve() -> None:
    """Serve MCP on stdio."""
    with without_plugins():
        gc.disable()  # the imports make many objects that stay; searching them for garbage is a fifth of the start
        from tmuxjobs.server.serve import serve
        from tmuxjobs.settings import Settings

        gc.freeze()
        gc.enable()
        serve(Settings.load())


@contextlib.contextmanager
def without_plugins() -> Iterator[None]:
    """Within it, pydantic does not search for plugins; jobs do not see the variable."""
    given = SET_HERE[PLUGINS] = os.environ.get(PLUGINS)
    os.environ[PLUGINS] = "__all__"
    try:
        yield
    finally:
        del os.environ[PLUGINS], SET_HERE[PLUGINS]
        os.environ.update({PLUGINS: given} if given is not None else {})
