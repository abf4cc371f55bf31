"""Typing into a job and what it answers."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import Tmux, ended, needs, record_of, wait_until

from tmuxjobs import Jobs
from tmuxjobs.errors import InvalidInput, JobEnded, TmuxError


def works(python: str) -> bool:
    """Whether there is such a Python: a shim of pyenv is there for each that any folder has."""
    return shutil.which(python) is not None and subprocess.run([python, "-V"], capture_output=True).returncode == 0


def ready(jobs: Jobs, command: str, sign: str = "ready", **options: Any) -> str:
    job_id = jobs.execute(command, **options).job_id
    wait_until(lambda: jobs.output(job_id).stdout, lambda text: sign in text)
    return job_id


def test_answer_is_the_response_without_the_echo(jobs: Jobs) -> None:
    job_id = ready(jobs, "python3 -c \"while True: print('got', repr(input('> ')))\"", ">")
    assert jobs.interact(job_id, "a;").stdout == "got 'a;'\n> "
    assert jobs.interact(job_id, "ünï 漢").stdout == "got 'ünï 漢'\n> "
    assert jobs.interact(job_id, "").stdout == "got ''\n> "


def test_newline_at_the_end_is_enter_once(jobs: Jobs) -> None:
    job_id = ready(jobs, "python3 -c \"while True: print('got', repr(input('> ')))\"", ">")
    assert jobs.interact(job_id, "a\n").stdout == "got 'a'\n> "


def test_enter_false_leaves_the_line_open(jobs: Jobs) -> None:
    job_id = ready(jobs, "echo ready; read x; echo got $x")
    jobs.interact(job_id, "ab", enter=False, wait=0.3)
    jobs.interact(job_id, "cd", wait=5, pattern="got")
    assert "got abcd\n" in jobs.output(job_id).stdout


def test_keys_reach_the_program(jobs: Jobs) -> None:
    job_id = ready(jobs, "trap 'echo interrupted; exit 3' INT; echo ready; sleep 1000")
    answer = jobs.interact(job_id, keys=["C-c"])
    assert "interrupted" in answer.stdout
    assert ended(jobs, job_id).exit_code == 3


def test_pattern_ends_the_wait_and_is_not_matched_by_the_echo(jobs: Jobs) -> None:
    job_id = ready(jobs, "echo ready; read x; sleep 0.3; echo done $x; sleep 1000")
    answer = jobs.interact(job_id, "done", pattern="done", wait=20)
    assert answer.stdout == "done done\n"
    assert "the pattern showed" in answer.note


def test_copy_mode_of_a_person_does_not_swallow_input(jobs: Jobs, tmux: Tmux) -> None:
    job_id = ready(jobs, "echo ready; read x; echo got $x; sleep 1000")
    pane = record_of(jobs, job_id).run.pane  # type: ignore[union-attr]
    tmux("copy-mode", "-t", pane)
    assert jobs.interact(job_id, "hello", pattern="got").stdout == "got hello\n"
    assert tmux("display-message", "-p", "-t", pane, "#{pane_in_mode}").strip() == "1"


def test_keys_work_in_copy_mode(jobs: Jobs, tmux: Tmux) -> None:
    job_id = ready(jobs, "trap 'exit 3' INT; echo ready; sleep 1000")
    tmux("copy-mode", "-t", record_of(jobs, job_id).run.pane)  # type: ignore[union-attr]
    jobs.interact(job_id, keys=["C-c"])
    assert ended(jobs, job_id).exit_code == 3


def test_one_megabyte_arrives_exactly(jobs: Jobs, tmp_path: Path) -> None:
    text = "".join(f"{number:09d} abcdefghijklmnopqrstuvwxyz;#{{x}}%H\n" for number in range(25_000))
    command = f"stty -echo; echo ready; head -c {len(text)} > got; stty echo; echo done"
    job_id = jobs.execute(command, cwd=str(tmp_path)).job_id
    wait_until(lambda: jobs.output(job_id).stdout, lambda shown: "ready" in shown)
    jobs.interact(job_id, text, pattern="done", wait=50)
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


def test_response_of_a_repl_is_one_call(jobs: Jobs) -> None:
    job_id = ready(jobs, "python3 -i -q", ">>>")
    assert jobs.interact(job_id, "21 * 2").stdout == "42\n>>> "
    answer = jobs.interact(job_id, "exit(6)")
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


@pytest.mark.parametrize("python", PYTHONS)
def test_turn_of_a_python_repl_answers_with_the_answer_alone(jobs: Jobs, python: str) -> None:
    job_id = at_prompt(jobs, f"{python} -q", prompt=">>>")
    turns = {"21 * 2": "42\n", BLOCK: "7\n14\n", "def f(a):\n    return a\n\n": "", "f(5)": "5\n", LONG: f"{LONG}\n"}
    for said, answer in turns.items():
        assert jobs.interact(job_id, said).stdout.replace(" \\\n", "") == f"{answer}>>> "
    assert jobs.interact(job_id, "print()").stdout == "\n>>> "
    assert jobs.interact(job_id, "").stdout == ">>> "


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
def test_turn_of_other_repls_does_too(jobs: Jobs, program: str, command: str, turns: dict[str, str]) -> None:
    needs(program)
    job_id = at_prompt(jobs, command, prompt=next(iter(turns.values())).split()[-1])
    assert [jobs.interact(job_id, said).stdout for said in turns] == list(turns.values())


def test_repl_that_is_silent_for_long_is_waited_for(jobs: Jobs) -> None:
    job_id = at_prompt(jobs, "python3 -q", prompt=">>>")
    answer = jobs.interact(job_id, "import time; time.sleep(2); print('done')", wait=30)
    assert (answer.stdout, answer.note) == ("done\n>>> ", "it waits for input")


def test_password_prompt_is_answered_with_what_to_do(jobs: Jobs) -> None:
    job_id = at_prompt(jobs, "read -p 'User: ' x; python3 -c 'import getpass; getpass.getpass()'", prompt="User:")
    answer = jobs.interact(job_id, "me", wait=20)
    assert answer.stdout == "Password: "
    assert f"ask the person to type it there: tmux attach -t mcp-jobs:{job_id}" in answer.note


def test_what_the_terminal_hides_is_no_echo(jobs: Jobs) -> None:
    job_id = at_prompt(jobs, "stty -echo; printf 'Again: '; read x; echo $x; read y", prompt="Again:")
    assert jobs.interact(job_id, "yes").stdout == "yes\n"


def test_separate_stderr_is_answered_too(jobs: Jobs) -> None:
    job_id = at_prompt(jobs, "printf '> '; read x; echo bad $x >&2; read y", prompt=">", separate_stderr=True)
    answer = jobs.interact(job_id, "input", pattern="bad")
    assert (answer.stdout, answer.stderr) == ("", "bad input\n")


def test_full_screen_program_answers_with_its_screen(jobs: Jobs, tmp_path: Path) -> None:
    needs("less")
    (tmp_path / "file").write_text("".join(f"line {n}\n" for n in range(500)))
    job_id = at_prompt(jobs, "less file", cwd=str(tmp_path))
    answer = jobs.interact(job_id, keys=["PageDown"])
    assert answer.stdout.splitlines()[0] == "line 49"
    assert "stdout ends with its screen" in answer.note


def test_keys_may_be_one_string(jobs: Jobs) -> None:
    job_id = at_prompt(jobs, "PS1='$ ' bash --norc -i", prompt="$")
    jobs.interact(job_id, "echo ab")
    assert jobs.interact(job_id, keys="Up BSpace Enter").stdout.endswith("\na\n$ ")


def test_pattern_that_explodes_is_refused_in_time(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tmuxjobs.verbs.interact.PATTERN_S", 0.2)
    job_id = at_prompt(jobs, "read x; yes a | head -5000 | tr -d '\\n'; echo b; read y")
    with pytest.raises(InvalidInput, match="It was typed, but the pattern takes more than"):
        jobs.interact(job_id, "go", pattern=r"(a+b?)+\1[^ab\n]")


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
HIDING = {
    "getpass": "python3 -c 'import getpass; print(len(getpass.getpass())); input()'",
    "line editor": "LC_ALL=C.UTF-8 bash --norc -c 'read -e -s -p \"Password: \" x; echo; echo ${#x}; read y'",
    "raw": f"python3 -c '{BY_KEYS.format(set='tty.setraw', shown='')}'",
    "single keys": f"python3 -c '{BY_KEYS.format(set='tty.setcbreak', shown='')}'",
    "stars": f"python3 -c '{BY_KEYS.format(set='tty.setraw', shown='*')}'",
}


@pytest.mark.parametrize("secret", [True, False], ids=["as secret", "not marked"])
@pytest.mark.parametrize("program", HIDING)
def test_secret_is_typed_and_left_nowhere(spied: Path, isolated: Path, tmux: Tmux, program: str, secret: bool) -> None:
    jobs = Jobs.open()
    job_id = jobs.execute(HIDING[program], shell="bash").job_id
    wait_until(lambda: jobs.status(job_id).waits_for, lambda waits_for: waits_for == "password")
    answer = jobs.interact(job_id, "hunter2-ünï;", secret=secret, pattern="12", wait=20)
    assert answer.stdout.split()[-1] == "12"
    assert "load-buffer" in spied.read_text()
    assert tmux("list-buffers") == ""
    places = [spied, *(path for path in isolated.rglob("*") if path.is_file())]
    assert [path for path in places if b"hunter2" in path.read_bytes()] == []
    assert "hunter2" not in answer.text() + jobs.screen(job_id).screen


def test_answer_to_a_secret_is_whole_though_it_repeats_it(jobs: Jobs) -> None:
    job_id = at_prompt(jobs, "bash --norc -c 'read -e -s -p \"Password: \" x; echo you said $x; read y'")
    answer = jobs.interact(job_id, "yes", secret=True, pattern="you said", wait=20)
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
        jobs.host.tmux.type(pane, "hunter2\n")
    assert tmux("list-buffers") == ""


def test_secret_of_the_command_line_comes_from_standard_input_alone(jobs: Jobs) -> None:
    job_id = at_prompt(jobs, 'python3 -c "import getpass; print(len(getpass.getpass()))"')
    argv = [sys.executable, "-m", "tmuxjobs", "interact", job_id, "--secret"]
    refused = subprocess.run([*argv, "hunter2"], capture_output=True, text=True)
    assert (refused.returncode, "leave the text out" in refused.stderr) == (2, True)
    answered = subprocess.run(argv, input="hunter2\n", capture_output=True, text=True)
    assert answered.stdout == "\n7\n"


def test_call_without_anything_to_type_types_nothing(jobs: Jobs) -> None:
    job_id = ready(jobs, "echo ready; read x; echo got $x")
    with pytest.raises(InvalidInput, match="nothing to type"):
        jobs.interact(job_id)
    assert jobs.status(job_id).status == "running"


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
    assert "the job ended: exit code 3" in jobs.interact(job_id, "x").note


def stopping_tmux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, at: str, typed: bool) -> None:
    """From now on our tmux server is stopped as soon as a command with `at` was done, or right before it."""
    program, real = tmp_path / "bin" / "tmux", shutil.which("tmux")
    program.parent.mkdir()
    stop = f"kill -STOP $({real} display-message -p '#{{pid}}')"
    acts = f'{real} "$@"; code=$?; {stop}; exit $code' if typed else f'{stop}; exec {real} "$@"'
    program.write_text(f'#!/bin/sh\ncase "$*" in *{at}*) {acts};; *) exec {real} "$@";; esac\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("tmuxjobs.tmux.command.CALL_S", 2.0)


def test_tmux_that_stops_after_the_typing_hides_not_that_it_was_typed(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = ready(jobs, "echo ready; read x; echo $x > got; sleep 1000", cwd=str(tmp_path))
    run = record_of(jobs, job_id).run
    assert run is not None
    stopping_tmux(tmp_path, monkeypatch, at="load-buffer", typed=True)
    answer = Jobs.open().interact(job_id, "hello", wait=0.1)
    os.kill(run.server_pid, signal.SIGCONT)
    assert "it was typed, but what a full-screen program shows now is not known: tmux did not answer" in answer.note
    wait_until((tmp_path / "got").exists)


def test_tmux_that_stops_before_the_typing_leaves_it_open_whether_it_was_typed(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = ready(jobs, "echo ready; read x; sleep 1000")
    run = record_of(jobs, job_id).run
    assert run is not None
    stopping_tmux(tmp_path, monkeypatch, at="load-buffer", typed=False)
    with pytest.raises(TmuxError, match=r"did not answer .* Whether the text reached the job is not known"):
        Jobs.open().interact(job_id, "hello")
    os.kill(run.server_pid, signal.SIGCONT)
