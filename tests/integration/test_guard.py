"""The tests' own guard, with the real tmux: it looks for its server in the test's folder, and a person can attach."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from support import Person, Tmux, wait_until


def test_tmux_looks_for_its_server_inside_the_tests_folder(isolated: Path) -> None:
    done = subprocess.run(["tmux", "list-sessions"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert f"{isolated}/tmux-{os.getuid()}/default" in done.stderr


def test_person_types_and_sees_what_the_pane_shows(tmux: Tmux, person: Callable[..., Person]) -> None:
    tmux("new-session", "-d", "-s", "mcp-jobs", "cat")
    someone = person(rows=30, columns=100)
    someone.type("good morning\r")
    wait_until(someone.screen, lambda screen: screen.count("good morning") == 2)
    someone.detach()
    assert not someone.attached
