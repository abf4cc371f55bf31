"""Makes the pictures of the README anew: `.venv/bin/python conf/pictures.py [folder]`.

Real jobs on a tmux server of their own, seen by a real client that runs in a pane of a second one; what that pane shows
becomes an SVG. Nothing of yours is touched: home, state and sockets are in a folder that goes away.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

PICTURES = Path(*sys.argv[1:2] or [Path(__file__).parent / "pictures"])
COLUMNS, ROWS = 100, 24
PATIENCE_S = 30
JOBS = {
    "build": 'for i in 1 2 3 4; do echo "[$i/4] compiling module $i"; done; echo "built in 2.1 s"',
    "test": 'for t in parse store login; do echo "test_$t ... ok"; done; echo "test_logout ... FAILED"; exit 1',
    "deploy": 'echo "3 files changed since v1.4"; read -p "Deploy to production? [y/N] " yes; echo "done: $yes"',
    "web": (
        "trap 'exit 0' INT; echo 'ready on http://localhost:3000'; "
        'i=0; while sleep 0.2; do i=$((i+1)); echo "GET /assets/app.js?v=$i 200 3 ms"; done'
    ),
}


class Screen:
    """A terminal of a person: a pane of the outer tmux."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.outer("new-session", "-d", "-s", "screen", "-x", str(COLUMNS), "-y", str(ROWS), "sh")
        self.outer("set-option", "-g", "status", "off")
        self.outer("set-option", "-g", "default-terminal", "tmux-256color")

    def outer(self, *arguments: str) -> str:
        return subprocess.run(
            ["tmux", "-u", "-L", "outer", "-f", "/dev/null", *arguments],
            env=self.environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    def run(self, command: str) -> None:
        """Instead of what ran there; the prompt and the command are part of the picture."""
        shown = f"printf '\\033[1;32m$\\033[m {command}\\n'"
        program = f"{shown}; env -u TMUX -u TMUX_PANE {command}; exec sleep 1000"
        self.outer("respawn-pane", "-k", "-t", "=screen:", "sh", "-c", program)

    def seen(self) -> str:
        return self.outer("capture-pane", "-e", "-p", "-N", "-t", "=screen:")

    def picture(self, name: str, title: str, until: str) -> None:
        """Once `until` is on the screen: what is on it, in conf/pictures/<name>.svg."""
        shown = wait_for(self.seen, lambda text: until in re.sub(r"\x1b\[[0-9;]*m", "", text))
        console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
        lines = shown.rstrip("\n").split("\n")
        while lines and not lines[-1].strip():
            lines.pop()
        for line in lines:
            console.print(Text.from_ansi(line), no_wrap=True, overflow="crop", crop=True)
        PICTURES.mkdir(exist_ok=True)
        svg = console.export_svg(title=title, theme=MONOKAI, unique_id=f"tmuxjobs-{name}")
        (PICTURES / f"{name}.svg").write_text(re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE))
        print(PICTURES / f"{name}.svg")


def wait_for(look: Callable[[], str], done: Callable[[str], bool]) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while not done(last := look()):
        if time.monotonic() > deadline:
            sys.exit(f"not seen within {PATIENCE_S} s; the last look was:\n{last}")
        time.sleep(0.1)
    return last


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tj", dir="/tmp") as folder:
        (Path(folder) / "tmuxjobs").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tmuxjobs "$@"\n')
        (Path(folder) / "tmuxjobs").chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TMUX", "XDG_"))}
        places = {"HOME": folder, "TMUX_TMPDIR": folder, "PATH": f"{folder}:{os.environ['PATH']}"}
        environ = kept | places | {"TERM": "xterm-256color", "SHELL": "/bin/sh"}
        root = str(Path(__file__).parents[1])
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, kept.get("PYTHONPATH")]))

        def tmuxjobs(*arguments: str) -> str:
            return subprocess.run(
                ["tmuxjobs", *arguments], env=environ, cwd=folder, capture_output=True, text=True, check=True
            ).stdout

        try:
            ids = {name: tmuxjobs("execute", "-q", "--name", name, "--", line).strip() for name, line in JOBS.items()}
            wait_for(lambda: tmuxjobs("status", ids["deploy"]), lambda text: "waits for input" in text)
            time.sleep(2)  # so that the server has something to show
            screen = Screen(environ)
            screen.run("tmuxjobs list")
            screen.picture("list", "your terminal", until=ids["build"])
            screen.run(f"tmuxjobs attach {ids['web']}")
            screen.picture("attach", "tmux attach -t mcp-jobs", until="leave")
            screen.run(f"tmuxjobs attach {ids['test']}")
            screen.picture("ended", "a job that has ended", until="FAILED")
        finally:
            for socket in ("outer", "default"):
                subprocess.run(["tmux", "-L", socket, "kill-server"], env=environ, capture_output=True, check=False)
            time.sleep(1)  # the runners write how their jobs ended


if __name__ == "__main__":
    main()
