"""`execute --wait` stands in for a command for those who type too: nothing is shown twice or left for the shell."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from select import select

import pytest
from support import Jobs, contents, wait_until

WAIT = f"{sys.executable} -m tmuxjobs execute --wait -- "


class Shell:
    """An interactive shell on a terminal of its own, as the person has it who types."""

    def __init__(self) -> None:
        self.seen = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["PS1"] = "SHELL> "
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where the tests run in the background of a script
            os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def until(self, text: str) -> str:
        """All that was shown since the last call, once that is in it."""
        wait_until(self._read, lambda seen: text.encode() in seen, timeout=60)
        seen, self.seen = self.seen, b""
        return seen.decode()

    def _read(self) -> bytes:
        while select([self.fd], [], [], 0.02)[0]:
            self.seen += os.read(self.fd, 65536)
        return self.seen

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.close(self.fd)
        os.waitpid(self.pid, 0)


@pytest.fixture
def shell() -> Iterator[Shell]:
    shell = Shell()
    shell.until("SHELL> ")
    yield shell
    shell.close()


def test_password_is_neither_echoed_nor_run(shell: Shell, isolated: Path) -> None:
    shell.type(f"{WAIT}\"python3 -c 'import getpass; print(len(getpass.getpass()), 4711)'\"\r")
    shell.until("Password: ")
    shell.type("echo t0psecret\r")
    answer = shell.until("SHELL> ")
    assert "14 4711" in answer
    shell.type("echo $?\r")
    assert "t0psecret" not in answer + shell.until("SHELL> ")
    assert [path for path, content in contents(isolated).items() if b"t0psecret" in content] == []


def test_what_is_typed_is_edited_and_shown_once(shell: Shell) -> None:
    shell.type(f"{WAIT}\"read -p 'Na''me? ' x; echo got \\$x; read y\"\r")  # the shell shows the line too
    shell.until("Name? ")
    shell.type("ax\x7fda\r")
    answer = shell.until("got ada").replace("x\x08 \x08", "")
    assert answer.count("ada") == 2
    shell.type("left over\r")
    assert "not found" not in shell.until("SHELL> ")


def test_keys_that_end_and_stop_are_signals_for_us(shell: Shell, jobs: Jobs) -> None:
    shell.type(f"{WAIT}\"trap 'echo interrupted; exit 3' INT; echo ready $((6 * 7)); while :; do sleep 0.1; done\"\r")
    shell.until("ready 42")
    shell.type("\x1a")
    shell.until("SHELL> ")
    shell.type("stty -a | grep -o '[^ ]*icanon'\r")
    assert "-icanon" not in shell.until("icanon\r\n").replace("[^ ]*icanon", "")
    assert jobs.list().jobs[0].status == "running"
    shell.type("fg\r")
    shell.until("trap")
    # Until the shell has handed over its terminal, Ctrl-C is the shell's.
    wait_until(lambda: os.tcgetpgrp(shell.fd) != shell.pid)
    shell.type("\x03")
    shell.until("interrupted")
    shell.until("SHELL> ")
    shell.type("echo code $?\r")
    shell.until("code 3")


@pytest.mark.parametrize(
    ("given", "command", "said"),
    [
        ("a\nb\nc", "cat | wc -c", "5"),
        ("line\n" * 4000 + "end\n", "cat > /dev/null; echo $?", "0"),
        ("x" * 1500 + "\n", "wc -c", "1501"),
        ("word\n" * 3000, "cat | wc -l", "3000"),
    ],
)
def test_pipe_is_typed_with_its_end(given: str, command: str, said: str) -> None:
    done = subprocess.run([*WAIT.split(), command], input=given, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.rstrip().endswith(said)) == (0, True)


@pytest.mark.parametrize(
    ("given", "command"),
    [
        (b"b\na\nno end", "cat"),
        (b"x\x03y\x04z\x1a\x1c\x15\x16\x17\x7f\x12\x13\x11\rw\n", "cat"),
        (b"\x04\n", "cat"),
        (bytes(range(1, 256)) + b"\n", "cat"),
        ("tab\tünï\n".encode() * 2000, "cat"),
    ],
)
def test_pipe_is_text_and_not_shown(given: bytes, command: str, tmp_path: Path) -> None:
    got = tmp_path / "got"
    done = subprocess.run([*WAIT.split(), f"{command} > {got}"], input=given, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"")
    assert got.read_bytes() == given


@pytest.mark.parametrize("end", ["\n", ""])
@pytest.mark.parametrize("size", [4000, 4001, 9001])
def test_line_of_a_pipe_may_be_longer_than_a_terminal_takes(size: int, end: str, tmp_path: Path) -> None:
    given = "".join(f"{number} " for number in range(size))[:size] + end
    for number, text in enumerate((given, "word\n" * 18 + given)):
        got = tmp_path / f"got-{number}"
        done = subprocess.run([*WAIT.split(), f"cat > {got}"], input=text.encode(), capture_output=True, timeout=60)
        assert (done.returncode, done.stdout, got.read_text()) == (0, b"", text)


def test_line_that_would_be_cut_is_refused(jobs: Jobs) -> None:
    waiting = subprocess.Popen(
        [*WAIT.split(), "stty eof ^A; cat > /dev/null"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert waiting.stdin is not None
    assert waiting.stderr is not None
    waiting.stdin.write("x" * 9000 + "\n")
    waiting.stdin.flush()
    assert "would be cut" in wait_until(waiting.stderr.readline)
    jobs.kill(jobs.list().jobs[0].job_id)
    waiting.communicate(timeout=60)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("import getpass; print([len(getpass.getpass()) for _ in range(3)])", "[3, 5, 7]"),
        ("import getpass; print(len(input()), len(getpass.getpass()), len(input()))", "3 5 7"),
    ],
)
def test_program_that_drops_what_is_unread_gets_each_line(command: str, said: str) -> None:
    argv = [*WAIT.split(), sys.executable, "-c", command]
    done = subprocess.run(argv, input="one\nthree\nseventy\n", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, said)


def test_tab_in_a_pipe_is_text_for_a_line_editor() -> None:
    given = "echo 'left\tright' | cat -A\n" + ": line\n" * 18 + "echo 'up\tdown' | cat -A\n"
    argv = [*WAIT.split(), "bash", "--norc", "--noprofile"]
    done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert {"left^Iright$", "up^Idown$"} <= set(done.stdout.splitlines())


def test_job_that_gets_a_pipe_is_not_said_to_wait(jobs: Jobs) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"some\n")
    waiting = subprocess.Popen(
        [*WAIT.split(), "md5sum"], stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    os.close(reading)
    wait_until(lambda: [job.job_id for job in jobs.list().jobs if job.waits_for])
    time.sleep(1.5)  # in which it would be said
    os.write(writing, b"more\n")
    os.close(writing)
    assert waiting.communicate(timeout=60) == ("44eeb61b2f05d5666beedb5f9b4d04e2  -\n", "")


def test_job_is_said_to_wait_while_a_pipe_brings_nothing() -> None:
    waiting = subprocess.Popen([*WAIT.split(), "cat"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert waiting.stderr is not None
    assert "waits for input" in wait_until(waiting.stderr.readline)
    assert waiting.communicate("a\n", timeout=60) == (None, "")


@pytest.mark.parametrize(
    "line",
    [
        "cat > /dev/null; echo ready; read x; echo got $x",
        "read n; modes=$(stty -g); cat > /dev/null; stty $modes; echo ready; read x; echo got $x",
    ],
    ids=["its own modes", "modes saved meanwhile"],
)
def test_terminal_shows_again_what_is_typed_behind_a_pipe(jobs: Jobs, line: str) -> None:
    waiting = subprocess.Popen([*WAIT.split(), line], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert waiting.stdin is not None
    waiting.stdin.write(b"unseen\n")
    waiting.stdin.close()
    waiting.stdin = None
    job_id = wait_until(lambda: [job.job_id for job in jobs.list().jobs])[0]
    wait_until(lambda: "ready" in jobs.output(job_id).stdout)
    wait_until(lambda: jobs.status(job_id).waits_for, lambda waits_for: waits_for == "input")
    jobs.interact(job_id, "seen", wait=0)
    assert waiting.communicate(timeout=60)[0].decode() == "ready\nseen\ngot seen\n"


@pytest.mark.parametrize("stdin", [subprocess.DEVNULL, subprocess.PIPE], ids=["no input", "an empty pipe"])
def test_without_input_the_person_answers(jobs: Jobs, stdin: int) -> None:
    waiting = subprocess.Popen([*WAIT.split(), "read x; echo got $x"], stdin=stdin, stdout=subprocess.PIPE, text=True)
    if waiting.stdin is not None:
        waiting.stdin.close()
        waiting.stdin = None
    job_id = wait_until(lambda: [job.job_id for job in jobs.list().jobs if job.waits_for])[0]
    jobs.interact(job_id, "it", wait=0)
    assert waiting.communicate(timeout=60)[0].splitlines()[-1] == "got it"
