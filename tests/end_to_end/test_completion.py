"""What `--install-completion` gives to the shells that people have, with their configuration there already."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Jobs, Screen, Tmux, ended, needs, wait_until

from .conftest import INSTALLED, Run

READY = "ready> "
CONFIGURED = {
    "bash": (".bashrc", f"PS1='{READY}'\n"),
    "zsh": (".zshrc", f"autoload -Uz compinit && compinit\nPROMPT='{READY}'\n"),
    "fish": (".config/fish/config.fish", f"function fish_prompt; echo -n '{READY}'; end\n"),
}


@pytest.fixture(params=CONFIGURED)
def shell(
    request: pytest.FixtureRequest,
    isolated: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Run,
    screen: Callable[..., Screen],
) -> Callable[[], Screen]:
    """Opens a terminal with that shell, which had been set up before."""
    name = request.param
    needs(name)
    file, text = CONFIGURED[name]
    path = isolated / "home" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    monkeypatch.setenv("PATH", f"{INSTALLED.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(isolated / "home" / ".config"))
    installed = run("--install-completion", "--shell", name)
    assert installed.returncode == 0, installed.stderr

    def open_one() -> Screen:
        terminal = screen(name, columns=100)
        terminal.until(READY.strip())
        return terminal

    return open_one


@pytest.mark.parametrize(
    ("typed", "whole"), [("tmuxjobs ta", "tmuxjobs tail"), ("tmuxjobs tail --fol", "tmuxjobs tail --follow")]
)
def test_shell_completes_commands_and_options(shell: Callable[[], Screen], typed: str, whole: str) -> None:
    terminal = shell()
    terminal.press(typed, "Tab")
    terminal.until(f"{READY}{whole}")


def test_shell_completes_ids_of_running_and_ended_jobs(shell: Callable[[], Screen], jobs: Jobs) -> None:
    running = jobs.execute("sleep 1000", name="web").job_id
    over = ended(jobs, jobs.execute("echo what it said", name="build").job_id).job_id
    terminal = shell()
    for start, job_id in (("w", running), ("b", over)):
        terminal.press(f"tmuxjobs status {start}", "Tab")
        terminal.until(f"{READY}tmuxjobs status {job_id}")
        terminal.press("C-u")
    terminal.press("tmuxjobs output ", "Tab", "Tab")
    terminal.until(running, over)


def test_shell_completes_only_what_fits(shell: Callable[[], Screen], jobs: Jobs, tmux: Tmux) -> None:
    running = jobs.execute("sleep 1000", name="web").job_id
    over = ended(jobs, jobs.execute("true", name="build").job_id).job_id
    closed = ended(jobs, jobs.execute("true", name="shut").job_id).job_id
    # A moment after the job: its runner keeps the window then.
    jobs.host.tmux.close(wait_until(lambda: jobs.host.tmux.panes()[closed], lambda pane: pane.dead))
    tmux("new-window", "-d", "-n", "mine", "-t", "=mcp-jobs:", "sleep", "1000")
    window = tmux("display-message", "-p", "-t", "=mcp-jobs:mine", "#{window_id}").strip()
    terminal = shell()
    for command in ("kill", "hold", "interact"):
        terminal.press(f"tmuxjobs {command} ", "Tab")
        terminal.until(f"{READY}tmuxjobs {command} {running}")
        terminal.press("C-u")
    terminal.press("tmuxjobs adopt ", "Tab")
    wait_until(terminal.look, lambda text: f"tmuxjobs adopt {window}" in text.replace("\\", ""))
    terminal.press("C-u")
    terminal.press("tmuxjobs attach ", "Tab", "Tab")
    assert closed not in terminal.until(running, over)
