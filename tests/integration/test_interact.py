"""Typing into a job and what it answers."""

import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from support import PYTHON, Jobs, Tmux, contents, ended, needs, record_of, server_of, wait_until, with_timing

from tmuxjobs.arguments import Pipe
from tmuxjobs.errors import InvalidInput, JobEnded, TmuxError
from tmuxjobs.system import terminals
from tmuxjobs.tmux import keyboard
from tmuxjobs.tmux.session import Tmux as Session
from tmuxjobs.verbs import interact, waiter
from tmuxjobs.verbs.prompts import Turn


def works(python: str) -> bool:
    """Whether there is such a Python: a shim of pyenv is there for each that any folder has."""
    return shutil.which(python) is not None and subprocess.run([python, "-V"], capture_output=True).returncode == 0


def ready(jobs: Jobs, command: str, sign: str = "ready\n", **options: Any) -> str:
    job_id = jobs.execute(command, **options).job_id
    wait_until(lambda: jobs.output(job_id).stdout, lambda text: sign in text)
    return job_id


@pytest.fixture
def slow_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """So long it may take on a slow machine until the log has the prompt that tmux shows."""
    monkeypatch.setattr(interact, "SETTLED_S", 3.0)


@pytest.mark.usefixtures("slow_log")
def test_answer_is_the_response_without_the_echo(jobs: Jobs) -> None:
    job_id = at_prompt(jobs, "python3 -c \"while True: print('got', repr(input('> ')))\"", prompt=">")
    assert jobs.interact(job_id, "a;", wait=30).stdout == "got 'a;'\n> "
    assert jobs.interact(job_id, "ünï 漢", wait=30).stdout == "got 'ünï 漢'\n> "
    assert jobs.interact(job_id, "", wait=30).stdout == "got ''\n> "


@pytest.mark.usefixtures("slow_log")
def test_newline_at_the_end_is_enter_once(jobs: Jobs) -> None:
    job_id = at_prompt(jobs, "python3 -c \"while True: print('got', repr(input('> ')))\"", prompt=">")
    assert jobs.interact(job_id, "a\n", wait=30).stdout == "got 'a'\n> "


def test_enter_false_leaves_the_line_open(jobs: Jobs) -> None:
    job_id = ready(jobs, "echo ready; read x; echo got $x")
    jobs.interact(job_id, "ab", enter=False, wait=0.3)
    jobs.interact(job_id, "cd", wait=0)
    wait_until(lambda: "got abcd\n" in jobs.output(job_id).stdout)


def test_keys_reach_the_program(jobs: Jobs) -> None:
    job_id = ready(jobs, "trap 'echo interrupted; exit 3' INT; echo ready; while :; do sleep 0.1; done")
    answer = jobs.interact(job_id, keys=["C-c"], wait=30)
    assert "interrupted" in answer.stdout
    assert ended(jobs, job_id).exit_code == 3


def test_pattern_ends_the_wait_and_is_not_matched_by_the_echo(jobs: Jobs) -> None:
    job_id = ready(jobs, "echo ready; read x; sleep 0.3; echo done $x; sleep 1000")
    answer = jobs.interact(job_id, "done", pattern="done\n", wait=20)
    assert answer.stdout == "done done\n"
    assert "the pattern showed" in answer.note


def test_what_follows_the_echo_is_kept_though_the_job_ends_while_it_is_read(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a job says in a line that ends like the typed one; its window takes keys once it has ended."""
    os.mkfifo(gate := tmp_path / "gate")
    job_id = ready(jobs, f"echo ready; read x; echo built $x; read y < {gate}")
    real, calls = terminals.terminal, []

    def terminal(tty: str) -> terminals.Terminal | None:
        calls.append(tty)
        if len(calls) == 2:
            gate.write_text("go\n")
            ended(jobs, job_id)
            wait_until(lambda: real(tty), lambda settings: settings is None or not settings.cooked)
        return real(tty)

    monkeypatch.setattr(jobs.host.machine, "terminal", terminal)
    assert jobs.interact(job_id, "lib", wait=0.5).stdout == "built lib\n"
    assert len(calls) >= 2


def test_output_that_comes_before_the_echo_is_kept(jobs: Jobs, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    job_id = ready(jobs, f"echo ready; stty -echo; read y < {gate}; stty echo; read x; echo got $x; sleep 1000")
    line = "a line of more than sixty characters, for which a line editor may take rows"
    gate.write_text("go\n")
    pane = jobs.host.tmux.panes()[job_id]
    wait_until(lambda: terminals.terminal(pane.tty), lambda settings: settings and settings.echo)
    with open(pane.tty, "w") as terminal:
        before = jobs.tail(job_id).cursor
        exchange = interact.begin(jobs.host, job_id, line, pattern=f"got {line}\n", wait=30)
        terminal.write("one\ntwo\n")
    wait_until(lambda: jobs.tail(job_id).cursor > before)
    answer = waiter.run(exchange)
    assert answer.stdout == f"one\ntwo\ngot {line}\n"


def test_copy_mode_of_a_person_does_not_swallow_input(jobs: Jobs, tmux: Tmux) -> None:
    job_id = ready(jobs, "echo ready; read x; echo got $x; sleep 1000")
    pane = record_of(jobs, job_id).run.pane  # type: ignore[union-attr]
    tmux("copy-mode", "-t", pane)
    assert jobs.interact(job_id, "hello", pattern="got hello\n", wait=30).stdout == "got hello\n"
    assert tmux("display-message", "-p", "-t", pane, "#{pane_in_mode}").strip() == "1"


def test_keys_work_in_copy_mode(jobs: Jobs, tmux: Tmux) -> None:
    job_id = ready(jobs, "trap 'exit 3' INT; echo ready; while :; do sleep 0.1; done")
    tmux("copy-mode", "-t", record_of(jobs, job_id).run.pane)  # type: ignore[union-attr]
    jobs.interact(job_id, keys=["C-c"])
    assert ended(jobs, job_id).exit_code == 3


def test_one_megabyte_arrives_exactly(jobs: Jobs, tmp_path: Path) -> None:
    text = "".join(f"{number:09d} abcdefghijklmnopqrstuvwxyz;#{{x}}%H\n" for number in range(25_000))
    command = f"stty -echo; echo ready; head -c {len(text)} > got; stty echo; echo done"
    job_id = jobs.execute(command, cwd=str(tmp_path)).job_id
    wait_until(lambda: jobs.output(job_id).stdout, lambda shown: "ready" in shown)
    jobs.interact(job_id, text, wait=0)
    wait_until(lambda: "done" in jobs.output(job_id).stdout, timeout=90)
    got = (tmp_path / "got").read_bytes()
    assert hashlib.sha256(got).digest() == hashlib.sha256(text.encode()).digest()


def test_line_that_the_terminal_would_cut_is_refused(jobs: Jobs) -> None:
    job_id = ready(jobs, "echo ready; read x; echo got $x")
    with pytest.raises(InvalidInput, match="A line of 5000 bytes would be cut"):
        jobs.interact(job_id, "x" * 5000)


def test_input_to_a_finished_job_says_how_it_ended(jobs: Jobs) -> None:
    job_id = jobs.execute("exit 4").job_id
    ended(jobs, job_id)
    with pytest.raises(JobEnded, match=r"takes no input: exit code 4"):
        jobs.interact(job_id, "x")


@pytest.mark.parametrize("key", ["Foo", "C-", "", "ctrl", "Ctrl-Foo", "F13", "é́x"])
def test_wrong_key_is_refused_and_types_nothing(jobs: Jobs, key: str) -> None:
    job_id = ready(jobs, "echo ready; read x; echo got $x")
    with pytest.raises(InvalidInput, match="is not a key"):
        jobs.interact(job_id, "typed", keys=[key])
    assert jobs.output(job_id).stdout == "ready\n"


READS = """
import os, tty
tty.setraw(0)
os.write(1, b"ready\\r\\n")
while typed := os.read(0, 99):
    os.write(1, typed.hex().encode() + b"\\r\\n")
"""
"""Shows the bytes of each read."""
CODES = {
    ";": "3b",
    "M-;": "1b3b",
    "a": "61",
    "S-b": "42",
    "alt+shift+b": "1b42",
    "-": "2d",
    "+": "2b",
    "\\": "5c",
    "#": "23",
    "S-Tab": "1b5b5a",
    "Shift+Tab": "1b5b5a",
    "BTab": "1b5b5a",
    "M-Enter": "1b0d",
    "C-j": "0a",
    "^C": "03",
    "C-Space": "00",
    "S-Space": "20",
    "C-M-Space": "1b00",
    "C-[": "1b",
    "C-\\": "1c",
    "C-/": "1f",
    "C-M-x": "1b18",
    "S-Up": "1b5b313b3241",
    "C-S-Up": "1b5b313b3641",
    "S-F5": "1b5b31353b327e",
    "BSpace": "7f",
    "C-BSpace": "08",
    "M-é": "1bc3a9",
}


def test_each_key_sends_what_a_terminal_sends(jobs: Jobs) -> None:
    job_id = ready(jobs, f"{PYTHON} -c {shlex.quote(READS)}")
    jobs.interact(job_id, keys=list(CODES), wait=0.1)
    wanted = "".join(CODES.values())
    wait_until(lambda: "".join(jobs.output(job_id).stdout.split()[1:]), lambda seen: seen == wanted)


def test_semicolon_among_keys_ends_no_command_of_tmux(jobs: Jobs) -> None:
    job_id = ready(jobs, f"{PYTHON} -c {shlex.quote(READS)}")
    jobs.interact(job_id, keys=[";", "k", ";", "M-;"], wait=0.1)
    wait_until(lambda: "".join(jobs.output(job_id).stdout.split()[1:]), lambda seen: seen == "3b6b3b1b3b")


@pytest.mark.parametrize("key", ["S-Enter", "Ctrl+Enter", "C-M-Enter", "C-Tab", "C-1", "C-;", "C-S-x", "S-1", "C-é"])
def test_key_that_terminals_have_no_code_for_is_refused_by_name(jobs: Jobs, key: str) -> None:
    job_id = ready(jobs, "echo ready; read x; echo got $x")
    with pytest.raises(InvalidInput, match=rf"'{re.escape(key)}' cannot be sent"):
        jobs.interact(job_id, "typed", keys=[key])
    assert jobs.output(job_id).stdout == "ready\n"


TAKES_READS = r"""
import os, tty
tty.setraw(0)
os.write(1, b"ready\r\n")
text = b""
while True:
    key = os.read(0, 1000)
    if key == b"\r":
        os.write(1, b"submitted <" + text + b">\r\n")
        text = b""
    elif key == b"\x1b[B":
        text += b"down "
    else:
        text += key.replace(b"\r", b"(pasted Enter)").replace(b"\x1b", b"(Esc)")
"""


@pytest.mark.parametrize(
    ("typed", "submitted"),
    [
        ({"input": "two words"}, "two words"),
        ({"input": "x", "keys": ["Enter"]}, "x"),
        ({"keys": ["Down", "Down", "Enter"]}, "down down "),
    ],
    ids=["text", "text and key", "keys"],
)
def test_keys_come_apart_for_a_program_that_takes_a_read_for_a_key(
    jobs: Jobs, typed: dict[str, Any], submitted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interact, "TAKEN_S", 30.0)  # so long a slow machine may need until it reads a key
    job_id = ready(jobs, f"{PYTHON} -c {shlex.quote(TAKES_READS)}")
    jobs.interact(job_id, **typed, wait=0.1)
    wait_until(lambda: jobs.output(job_id).stdout, lambda text: f"submitted <{submitted}>\n" in text)


@pytest.mark.usefixtures("slow_log")
def test_response_of_a_repl_is_one_call(jobs: Jobs) -> None:
    job_id = at_prompt(jobs, "python3 -i -q", prompt=">>>")
    assert jobs.interact(job_id, "21 * 2", wait=30).stdout == "42\n>>> "
    answer = jobs.interact(job_id, "exit(6)", wait=30)
    assert "the job ended" in answer.note
    assert jobs.status(job_id).exit_code == 6


def at_prompt(jobs: Jobs, command: str, *, prompt: str = "", **options: Any) -> str:
    """A job that waits for input; with *prompt*, which may reach the log after the read, once that shows."""
    job_id = jobs.execute(command, **options).job_id
    wait_until(lambda: jobs.status(job_id), lambda status: status.waits_for and prompt in (status.prompt or ""))
    return job_id


PYTHONS = [name for name in ("python3", "python3.13", "python3.14") if works(name)]
LONG = "'" + "x" * 500 + "'"
BLOCK = "for n in range(3):\n    if n:\n        print(n * 7)\n\n"


@pytest.mark.usefixtures("slow_log")
@pytest.mark.parametrize("python", PYTHONS)
def test_turn_of_a_python_repl_answers_with_the_answer_alone(jobs: Jobs, python: str) -> None:
    job_id = at_prompt(jobs, f"{python} -q", prompt=">>>")
    turns = {"21 * 2": "42\n", BLOCK: "7\n14\n", "def f(a):\n    return a\n\n": "", "f(5)": "5\n", LONG: f"{LONG}\n"}
    for said, answer in turns.items():
        assert jobs.interact(job_id, said, wait=30).stdout.replace(" \\\n", "") == f"{answer}>>> "
    assert jobs.interact(job_id, "print()", wait=30).stdout == "\n>>> "
    assert jobs.interact(job_id, "", wait=30).stdout == ">>> "


@pytest.mark.parametrize(
    ("program", "command", "turns"),
    [
        ("node", "node", {"1+1": "2\n> ", "function f(a) {\n  return a * 2\n}": "undefined\n> ", "f(4)": "8\n> "}),
        (
            "bash",
            "PS1='$ ' bash --norc -i",
            {"for i in 1 2; do\n echo a$i\ndone": "a1\na2\n$ ", "cat <<E\nb\nE": "b\n$ "},
        ),
        ("gdb", "gdb -q", {"p 1+1": "$1 = 2\n(gdb) ", "p 5": "$2 = 5\n(gdb) "}),
    ],
)
@pytest.mark.usefixtures("slow_log")
def test_turn_of_other_repls_does_too(jobs: Jobs, program: str, command: str, turns: dict[str, str]) -> None:
    needs(program)
    job_id = at_prompt(jobs, command, prompt=next(iter(turns.values())).split()[-1])
    assert [jobs.interact(job_id, said, wait=30).stdout for said in turns] == list(turns.values())


@pytest.mark.parametrize("text", ["if true\nthen echo b\nfi\n", "for i in a b\ndo echo $i\ndone\n"])
def test_turn_of_a_paste_is_not_over_before_its_enter(jobs: Jobs, text: str) -> None:
    job = jobs.host.look(at_prompt(jobs, "PS1='$ ' bash --norc -i", prompt="$"))
    assert job.run is not None
    turn = Turn.begin(job, terminals.terminal(job.run.tty), text)
    assert turn is not None
    last = text.split("\n")[-2]
    early: list[bool] = []

    def look() -> None:
        wait_until(lambda: jobs.screen(job.id).screen.rstrip().endswith(last))
        wait_until(lambda: terminals.reader(turn.tty, turn.runner))
        early.extend(turn.is_over() for _ in range(20))

    keyboard.type_text(jobs.host.tmux, jobs.host.tmux.panes()[job.id], text, hidden=False, before_enter=look)
    wait_until(turn.is_over)
    assert early == [False] * 20


@pytest.mark.usefixtures("slow_log")
def test_repl_that_is_silent_for_long_is_waited_for(jobs: Jobs) -> None:
    job_id = at_prompt(jobs, "python3 -q", prompt=">>>")
    answer = jobs.interact(job_id, "import time; time.sleep(2); print('done')", wait=30)
    assert (answer.stdout, answer.note) == ("done\n>>> ", "it waits for input")


@pytest.mark.usefixtures("slow_log")
def test_password_prompt_is_answered_with_what_to_do(jobs: Jobs) -> None:
    job_id = at_prompt(jobs, "read -p 'User: ' x; python3 -c 'import getpass; getpass.getpass()'", prompt="User:")
    answer = jobs.interact(job_id, "me", wait=20)
    assert answer.stdout == "Password: "
    assert f"ask the person to type it there: tmux attach -t mcp-jobs:{job_id}" in answer.note


def test_what_the_terminal_hides_is_no_echo(jobs: Jobs) -> None:
    job_id = at_prompt(jobs, "stty -echo; printf 'Again: '; read x; echo $x; read y", prompt="Again:")
    assert jobs.interact(job_id, "yes", wait=30).stdout == "yes\n"


def test_separate_stderr_is_answered_too(jobs: Jobs) -> None:
    job_id = at_prompt(jobs, "printf '> '; read x; echo bad $x >&2; read y", prompt=">", separate_stderr=True)
    answer = jobs.interact(job_id, "input", pattern="bad input\n", wait=30)
    assert (answer.stdout, answer.stderr) == ("", "bad input\n")


def test_full_screen_program_answers_with_its_screen(jobs: Jobs, tmp_path: Path) -> None:
    needs("less")
    (tmp_path / "file").write_text("".join(f"line {n}\n" for n in range(500)))
    job_id = at_prompt(jobs, "less file", prompt="file", cwd=str(tmp_path))
    answer = jobs.interact(job_id, keys=["PageDown"], wait=30)
    assert answer.stdout.splitlines()[0] == "line 49"
    assert "stdout ends with its screen" in answer.note


def test_screen_begins_on_a_line_of_its_own_after_what_was_printed_before_it(jobs: Jobs, tmp_path: Path) -> None:
    needs("less")
    (tmp_path / "file").write_text("".join(f"line {n}\n" for n in range(500)))
    job_id = at_prompt(jobs, "PS1='$ ' bash --norc -i", prompt="$", cwd=str(tmp_path))
    stdout = jobs.interact(job_id, "printf 'half a line'; less file", wait=30).stdout
    assert stdout.splitlines()[:2] == ["half a line", "line 0"]


@pytest.mark.usefixtures("slow_log")
def test_keys_may_be_one_string(jobs: Jobs) -> None:
    job_id = at_prompt(jobs, "PS1='$ ' bash --norc -i", prompt="$")
    jobs.interact(job_id, "echo ab", wait=30)
    assert jobs.interact(job_id, keys="Up BSpace Enter", wait=30).stdout.endswith("\na\n$ ")


def test_pattern_that_explodes_is_refused_in_time(jobs: Jobs) -> None:
    job_id = at_prompt(jobs, "read x; yes a | head -5000 | tr -d '\\n'; echo b; read y")
    with pytest.raises(InvalidInput, match="It was typed, but the pattern takes more than"):
        with_timing(jobs, pattern=0.2).interact(job_id, "go", pattern=r"(a+b?)+\1[^ab\n]", wait=30)


@pytest.fixture
def spied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tmux that notes what it is called with, and where: the arguments of every process of ours."""
    calls = tmp_path / "calls"
    program = tmp_path / "bin" / "tmux"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\nexec {shutil.which("tmux")} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return calls


BY_KEYS = """
import os, sys, termios, tty
{set}(0)
os.write(1, b"Password: ")
typed = b""
while not typed.endswith((b"\\r", b"\\n")):
    typed += os.read(0, 1)
    os.write(1, b"{shown}" if typed[-1] not in b"\\r\\n" else b"")
os.write(1, b"\\r\\n%d\\r\\n" % (len(typed.decode()) - 1))
termios.tcdrain(1)
input()
"""
PROGRAMS = Path(__file__).parents[1] / "programs"
ASKS, INNER = f"python3 {PROGRAMS}/asks.py", f"python3 {PROGRAMS}/works.py inner"
HIDING = {
    "getpass": "python3 -c 'import getpass; print(len(getpass.getpass())); input()'",
    "line editor": "LC_ALL=C.UTF-8 bash --norc -c 'read -e -s -p \"Password: \" x; echo; echo ${#x}; read y'",
    "raw": f"python3 -c '{BY_KEYS.format(set='tty.setraw', shown='')}'",
    "single keys": f"python3 -c '{BY_KEYS.format(set='tty.setcbreak', shown='')}'",
    "a terminal of its own": f"{INNER} python3 -c 'import getpass; print(len(getpass.getpass())); input()'",
    "a line editor with stars": f"bash -c \"{ASKS} stars 'Passphrase: '; read x\"",
    "a hint behind the question": f"bash -c \"{ASKS} stars 'Password: (press TAB for no echo) '; read x\"",
    "what is taken else": f"bash -c \"{ASKS} stars 'PIN [empty: none]: '; read x\"",
    "stars": f"python3 -c '{BY_KEYS.format(set='tty.setraw', shown='*')}'",
}


@pytest.mark.parametrize("secret", [True, False], ids=["as secret", "not marked"])
@pytest.mark.parametrize("program", HIDING)
def test_secret_is_typed_and_left_nowhere(spied: Path, isolated: Path, tmux: Tmux, program: str, secret: bool) -> None:
    jobs = Jobs.open()
    job_id = jobs.execute(HIDING[program], shell="bash").job_id
    wait_until(lambda: jobs.status(job_id).waits_for, lambda waits_for: waits_for == "password")
    answer = jobs.interact(job_id, "hunter2-ünï;", secret=secret, pattern="12", wait=20)
    assert "12" in answer.stdout.splitlines()[-1].split()
    assert "load-buffer" in spied.read_text()
    assert tmux("list-buffers") == ""
    assert b"hunter2" not in spied.read_bytes()
    assert [path for path, content in contents(isolated).items() if b"hunter2" in content] == []
    assert "hunter2" not in answer.text() + jobs.screen(job_id).screen


SHOWING = {
    "a shell in a folder named for passwords": "PS1='password-reset: ' bash --norc -i",
    "a client of a database named so": "PS1='MariaDB [password_app]> ' bash --norc -i",
    "a REPL behind an old question": "printf 'Password: '; python3 -q",
    "an editor behind an old question": f"printf 'Password: '; {ASKS} screen text",
    "a line editor that shows it": f"{ASKS} toolkit 'Password: '",
    "a line editor that shows it later": f"{ASKS} slow 'Passphrase: '",
    "a menu": f"{ASKS} hidden Pick:",
    "hidden by nobody who reads": "stty -echo; printf 'Password: '; sleep 1000",
}


@pytest.mark.parametrize("program", SHOWING)
def test_secret_is_refused_with_the_persons_way(jobs: Jobs, isolated: Path, program: str) -> None:
    job_id = jobs.execute(SHOWING[program]).job_id
    wait_until(
        lambda: jobs.status(job_id), lambda status: status.log_bytes and (status.waits_for or "nobody" in program)
    )
    with pytest.raises(InvalidInput, match=f"ask the person to type it there: tmux attach -t mcp-jobs:{job_id}"):
        jobs.interact(job_id, "top5ecret", secret=True)
    assert [path for path, content in contents(isolated).items() if b"top5" in content] == []
    assert "top5" not in jobs.screen(job_id).screen


def test_shown_character_is_erased_again(jobs: Jobs) -> None:
    job_id = at_prompt(jobs, f"{ASKS} toolkit 'Password: '")
    with pytest.raises(InvalidInput, match="erased"):
        jobs.interact(job_id, "hunter2", secret=True)
    assert "0 characters" in jobs.interact(job_id, "", pattern="characters", wait=30).stdout


def test_what_is_typed_is_not_kept_in_the_clear(jobs: Jobs, isolated: Path) -> None:
    job_id = jobs.execute("stty -echo -icanon; echo ready; cat > /dev/null").job_id
    wait_until(lambda: "ready" in jobs.output(job_id).stdout)
    jobs.interact(job_id, "correct horse\nbattery", wait=0.2)
    places = contents(isolated)
    assert any(path.name == "typed.jsonl" for path in places)
    assert [path for path, content in places.items() if b"horse" in content or b"battery" in content] == []


def test_answer_to_a_secret_is_whole_though_it_repeats_it(jobs: Jobs) -> None:
    job_id = at_prompt(jobs, "bash --norc -c 'read -e -s -p \"Password: \" x; echo you said $x; read y'")
    answer = jobs.interact(job_id, "yes", secret=True, pattern="you said yes\n", wait=20)
    assert answer.stdout.split("\n")[-2:] == ["you said yes", ""]


@pytest.mark.parametrize("command", ["read -p 'Password: ' x", "PS1='$ ' bash --norc -i", "sleep 1000"])
def test_secret_is_refused_where_it_would_be_shown(jobs: Jobs, command: str) -> None:
    job_id = jobs.execute(command).job_id
    wait_until(lambda: jobs.status(job_id), lambda status: status.waits_for or "sleep" in command)
    with pytest.raises(InvalidInput, match="does not hide what is typed") as refused:
        jobs.interact(job_id, "hunter2", secret=True)
    assert "hunter2" not in str(refused.value) + jobs.output(job_id).stdout


def test_secret_to_a_window_that_closes_is_not_left_in_a_buffer(jobs: Jobs, tmux: Tmux) -> None:
    job_id = at_prompt(jobs, "python3 -c 'import getpass; getpass.getpass()'")
    pane = jobs.host.tmux.panes()[job_id]
    tmux("kill-window", "-t", f"=mcp-jobs:{job_id}")
    with pytest.raises(TmuxError):
        keyboard.type_text(jobs.host.tmux, pane, "hunter2\n", hidden=True)
    assert tmux("list-buffers") == ""


@pytest.mark.parametrize(
    ("text", "by_keys"),
    [
        ("ls -l", True),
        ("a;", True),
        (";", False),
        ("-t x; kill-server", True),
        ("#{pane_id} #(date) %H $HOME `id` \\; ~", True),
        ("Grüße ✓ 日本", True),
        ("one\ntwo\n\nthree", True),
        ("", True),
        ("tab\there", False),
        ("x" * 501, False),
        ("\n".join("abcdefgh"), False),
    ],
)
def test_ordinary_text_is_typed_by_send_keys_and_every_text_is_exact(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, by_keys: bool
) -> None:
    read = tmp_path / "read"
    job_id = jobs.execute(f"cat > {read}; echo over").job_id
    wait_until(lambda: jobs.status(job_id).waits_for)
    calls: list[tuple[str, ...]] = []
    run = Session.run

    def noted(self: Session, *words: str, **options: Any) -> list[str]:
        calls.append(words)
        return run(self, *words, **options)

    monkeypatch.setattr(Session, "run", noted)
    jobs.interact(job_id, text, wait=1)
    monkeypatch.undo()
    jobs.interact(job_id, keys=["C-d"], wait=20, pattern="over")
    assert read.read_text() == text + "\n"
    assert any("send-keys" in words for words in calls) is by_keys
    assert any("paste-buffer" in words for words in calls) is not by_keys


def test_secret_is_in_no_arguments(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = at_prompt(jobs, 'python3 -c "import getpass; print(len(getpass.getpass()))"')
    calls: list[str] = []
    run = Session.run

    def noted(self: Session, *words: str, **options: Any) -> list[str]:
        calls.extend(words)
        return run(self, *words, **options)

    monkeypatch.setattr(Session, "run", noted)
    jobs.interact(job_id, "hunter2", secret=True, pattern="^7$", wait=30)
    assert not [word for word in calls if "hunter2" in word]


def test_secret_of_the_command_line_comes_from_standard_input_alone(jobs: Jobs) -> None:
    job_id = at_prompt(jobs, 'python3 -c "import getpass; print(len(getpass.getpass()))"', prompt="Password:")
    argv = [sys.executable, "-m", "tmuxjobs", "interact", job_id, "--secret", "--wait", "30"]
    refused = subprocess.run([*argv, "hunter2"], capture_output=True, text=True)
    assert (refused.returncode, "leave the text out" in refused.stderr) == (2, True)
    answered = subprocess.run(argv, input="hunter2\n", capture_output=True, text=True)
    assert answered.stdout == "\n7\n"


def test_program_that_looks_for_keys_while_it_ends_has_ended(jobs: Jobs) -> None:
    job_id = at_prompt(jobs, f"{ASKS} screen title")
    answer = jobs.interact(job_id, "q", enter=False, wait=20)
    assert (answer.status, answer.note.partition(";")[0]) == ("completed", "the job ended: exit code 0")
    assert "tmux" not in answer.stdout


def test_call_without_anything_to_type_types_nothing(jobs: Jobs) -> None:
    job_id = ready(jobs, "echo ready; read x; echo got $x")
    with pytest.raises(InvalidInput, match="nothing to type"):
        jobs.interact(job_id)
    assert jobs.status(job_id).status == "running"


@pytest.mark.usefixtures("slow_log")
def test_long_response_is_told_by_its_head_and_its_end(jobs: Jobs) -> None:
    job_id = ready(jobs, "echo ready; read x; seq 1 20000; read x")
    answer = jobs.interact(job_id, "go", wait=20)
    assert answer.stdout.startswith("1\n2\n3\n")
    assert answer.stdout.endswith("19999\n20000\n")
    assert len(answer.stdout) < 9000
    assert answer.omitted_at is not None
    assert jobs.output(job_id, cursor=answer.omitted_at, max_bytes=400).stdout.split("\n")[1].isdigit()
    assert jobs.output(job_id, cursor=answer.cursor).stdout == ""


def test_end_in_response_is_told_with_its_code(jobs: Jobs) -> None:
    job_id = ready(jobs, "echo ready; read x; exit 3")
    assert "the job ended: exit code 3" in jobs.interact(job_id, "x", wait=30).note


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_wait_beyond_what_one_call_may_take_is_cut_and_said(jobs: Jobs, mode: Any) -> None:
    jobs = with_timing(jobs, call=0.3)
    job_id = jobs.execute("read x; sleep 1000").job_id
    async with Client(server_of(jobs), mode=mode) as client:
        arguments = {"job_id": job_id, "input": "go", "wait": 600, "pattern": "never"}
        said = (await client.call_tool("interact", arguments)).structured_content["note"]  # type: ignore[index]
    assert said.startswith("timed out after 0.3 s")
    assert said.endswith("0.3 s is the most for one call")


def stopping_tmux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, at: str, typed: bool) -> None:
    """From now on our tmux server is stopped as soon as a command with `at` was done, or right before it."""
    program, real = tmp_path / "bin" / "tmux", shutil.which("tmux")
    program.parent.mkdir()
    stop = f"kill -STOP $({real} display-message -p '#{{pid}}')"
    acts = f'{real} "$@"; code=$?; {stop}; exit $code' if typed else f'{stop}; exec {real} "$@"'
    program.write_text(f'#!/bin/sh\ncase "$*" in *{at}*) {acts};; *) exec {real} "$@";; esac\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_tmux_that_stops_after_the_typing_hides_not_that_it_was_typed(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = ready(jobs, "echo ready; read x; echo $x > got; sleep 1000", cwd=str(tmp_path))
    run = record_of(jobs, job_id).run
    assert run is not None
    stopping_tmux(tmp_path, monkeypatch, at="send-keys", typed=True)
    answer = with_timing(Jobs.open(), tmux=6.0).interact(job_id, "hello", wait=0.1)
    os.kill(run.server_pid, signal.SIGCONT)
    assert "it was typed, but what a full-screen program shows now is not known: tmux did not answer" in answer.note
    wait_until((tmp_path / "got").exists)


def test_tmux_that_stops_before_the_typing_leaves_it_open_whether_it_was_typed(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = ready(jobs, "echo ready; read x; sleep 1000")
    run = record_of(jobs, job_id).run
    assert run is not None
    stopping_tmux(tmp_path, monkeypatch, at="send-keys", typed=False)
    with pytest.raises(TmuxError, match=r"did not answer .* Whether the text reached the job is not known"):
        with_timing(Jobs.open(), tmux=6.0).interact(job_id, "hello")
    os.kill(run.server_pid, signal.SIGCONT)


def test_key_that_was_pressed_before_something_else_is_not_why_the_job_ended(jobs: Jobs) -> None:
    job_id = ready(
        jobs, "trap 'echo again' INT; echo ready; while read -r line; do exit $line; done; read -r x; exit $x"
    )
    jobs.interact(job_id, keys=["C-c"], wait=10, pattern="again")
    jobs.interact(job_id, "3", wait=10)
    status = ended(jobs, job_id)
    assert (status.exit_code, status.detail) == (3, "exit code 3")


BASH = "PS1='sh> ' bash --norc --noprofile -i"
TABS = {
    "a line editor that takes no pastes": ("python3.11 -q", ">>>", 'print(repr("x\ty"))', r"'x\ty'"),
    "several lines for it": ("python3.11 -q", ">>>", 'p = "x\ty"\nprint(repr(p))', r"'x\ty'"),
    "a block that tabs set in": ("python3.11 -q", ">>>", "if 1:\n\tprint('y' * 3)\n\n", "yyy"),
    "a line editor that takes pastes": (BASH, "sh>", "printf %s 'one\t\ttwo' | wc -c", "8"),
    "several lines for that": (BASH, "sh>", "p='one\ttwo'\nprintf %s \"$p\" | wc -c", "7"),
    "one whose pastes are off": (f"{BASH.replace('bash', 'TERM=dumb bash')}", "sh>", "printf %s 'a\tb' | wc -c", "3"),
    "one that reads lines": ("while read -r x; do printf '%s' \"$x\" | wc -c; done", "", "q\tw", "3"),
    "a debugger": ("gdb -q", "(gdb)", 'printf "%d\\n", sizeof("u\tv")', "4"),
}


@pytest.mark.parametrize("name", TABS)
def test_tab_in_a_text_is_text(jobs: Jobs, tmp_path: Path, name: str) -> None:
    command, prompt, text, said = TABS[name]
    program = next(word for word in command.split() if "=" not in word and word != "sh>")
    if program == "gdb":
        needs(program)
    if program == "python3.11" and not works(program):
        pytest.skip("there is no python3.11")
    (tmp_path / "only.txt").touch()
    job_id = jobs.execute(command, cwd=str(tmp_path)).job_id
    wait_until(lambda: jobs.status(job_id), lambda status: status.waits_for and str(status.prompt).startswith(prompt))
    answer = jobs.interact(job_id, text, wait=30)
    wait_until(lambda: said in jobs.output(job_id).stdout.split())
    assert not re.search("for a key|for keys", answer.note)


LINES = {
    "gdb": ("gdb -q", "(gdb)", "set $n = 20\nset $m = 3\nprint $n + $m\nprint $n * $m", ["= 23\n", "= 60\n"]),
    "a block of gdb": ("gdb -q", "(gdb)", "define twice\nprint 2 * $arg0\nend\ntwice 21", ["= 42\n"]),
    "sqlite3": ("sqlite3", "sqlite>", ".mode csv\nselect 4 + 5, 'x';", ["9,x\n"]),
    "more lines": ("sqlite3", "sqlite>", "\n".join(f"select {n} * 1000;" for n in range(1, 9)), ["1000\n", "8000\n"]),
    "read -e": (
        'for n in 1 2 3; do read -e -p "$n? " x; echo "<$x>"; done',
        "1?",
        "one\ntwo\nthree",
        ["<two>", "<three>"],
    ),
    "a script": ("bash read.sh", "name?", "Ada\n36", ["<Ada>", "<36>"]),
    "a shell": (BASH, "sh>", "for n in 1 2; do\n  echo $((n * 111))\ndone\necho over$((1 + 1))", ["222\n", "over2\n"]),
}


@pytest.mark.parametrize("name", LINES)
def test_each_line_of_a_text_is_a_line(jobs: Jobs, tmp_path: Path, name: str) -> None:
    command, prompt, text, said = LINES[name]
    (tmp_path / "read.sh").write_text('for n in name age; do read -e -p "$n? " x; echo "<$x>"; done\n')
    program = command.split()[0]
    if program in ("gdb", "sqlite3"):
        needs(program)
    job_id = jobs.execute(command, cwd=str(tmp_path)).job_id
    wait_until(lambda: jobs.status(job_id), lambda status: status.waits_for and str(status.prompt).startswith(prompt))
    jobs.interact(job_id, text)
    wait_until(lambda: jobs.output(job_id).stdout, lambda shown: all(one in shown for one in said))


@pytest.mark.parametrize(
    ("asks", "waits_for"),
    [
        ("read -p 'Nom : ' n; read -rsp 'Mot de passe : ' x", "password"),
        ("read -p 'Name: ' n; read -rsp 'PIN [4 digits]> ' x", "password"),
        ("read -p 'Name: ' n; read -rp 'Keep the password? [Y/n] ' x", "input"),
        ("read -p 'Name: ' n; read -rp 'Drop that token (yes/no)? ' x", "input"),
    ],
)
def test_next_question_is_for_a_password_where_the_terminal_hides_it(jobs: Jobs, asks: str, waits_for: str) -> None:
    job_id = jobs.execute(asks).job_id
    wait_until(lambda: jobs.status(job_id).waits_for)
    assert jobs.interact(job_id, "Jo", wait=50).waits_for == waits_for
    assert wait_until(lambda: jobs.status(job_id).waits_for) == waits_for


def test_text_of_tabs_alone_is_keys(jobs: Jobs, tmp_path: Path) -> None:
    (tmp_path / "only.txt").touch()
    job_id = jobs.execute(BASH, cwd=str(tmp_path)).job_id
    wait_until(lambda: jobs.status(job_id).waits_for)
    jobs.interact(job_id, "echo on", enter=False, wait=0.1)
    jobs.interact(job_id, "\t", enter=False, wait=0.1)
    jobs.interact(job_id, "", wait=0.1)
    wait_until(lambda: jobs.output(job_id).stdout, lambda shown: "\nonly.txt\n" in shown)


@pytest.mark.parametrize(
    ("command", "text", "doubt"),
    [
        (f"{PYTHON} -c {shlex.quote(READS)}", "p\tq", "the program may have taken Tab in the text for keys"),
        (f"{PYTHON} -c {shlex.quote(READS)}", "p\x1bq", "the program may have taken Escape in the text for keys"),
        ("echo ready; cat", "pq\x7f\x17r", "the program may have taken BSpace, C-w in the text for keys"),
        ("echo ready; sleep 1000", "p\tq", "a line editor that was not reading yet takes a tab in it for a key"),
    ],
)
def test_control_character_that_may_be_a_key_is_told(jobs: Jobs, command: str, text: str, doubt: str) -> None:
    job_id = ready(jobs, command)
    if "sleep" not in command:
        wait_until(lambda: attends(jobs, job_id))
    assert doubt in jobs.interact(job_id, text, wait=0.1).note


def attends(jobs: Jobs, job_id: str) -> bool:
    """Whether its program reads."""
    run = record_of(jobs, job_id).run
    return run is not None and terminals.fronts({run.tty: run.pid})[run.tty].attends


@pytest.mark.parametrize("text", ["\x03", "\x1b[A", "plain", "two\nlines"])
def test_keys_as_text_and_plain_text_raise_no_doubt(jobs: Jobs, text: str) -> None:
    job_id = ready(jobs, f"{PYTHON} -c {shlex.quote(READS)}")
    assert "for keys" not in jobs.interact(job_id, text, wait=0.1).note


def test_end_of_a_pipe_needs_no_job_that_takes_it(jobs: Jobs) -> None:
    job_id = jobs.execute("true").job_id
    ended(jobs, job_id)
    assert jobs.type(job_id, b"\x04", pipe=Pipe(ended=True)) == 1
    with pytest.raises(JobEnded, match="takes no input"):
        jobs.type(job_id, b"left\n", pipe=Pipe())
