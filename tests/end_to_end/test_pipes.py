"""Output that nobody reads, or that cannot be written: the command does its work, and its exit code is true."""

import fcntl
import os
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import Tmux, ended, wait_until

from tmuxjobs import Jobs
from tmuxjobs.cli import main

from .conftest import PROGRAM
from .test_commands import JSON, opened

COMMANDS = [name for name in main.app if not name.startswith("-")]
ARGUMENTS = {name: arguments for name, (arguments, _, _) in JSON.items()} | {"install": "cursor"}
OTHER_CODES = {"attach": 1}
"""tmux itself is what refuses to attach without a terminal."""
PIPE_BYTES = 65536
PRINT_NOTHING = {"attach", "serve"}


@contextmanager
def pipe_without_reader() -> Iterator[int]:
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def run(*arguments: str, stdout: int, stderr: int = subprocess.PIPE, unbuffered: bool = False) -> tuple[int, str]:
    """The exit code, and what was printed on stderr."""
    env = os.environ | {"PYTHONUNBUFFERED": "1" if unbuffered else ""}
    argv = [*PROGRAM, *arguments]
    done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, text=True, timeout=60)
    return done.returncode, done.stderr or ""


def command_line(name: str, jobs: Jobs, tmux: Tmux) -> list[str]:
    ids = {"ENDED": jobs.execute("echo hello").job_id, "RUNNING": jobs.execute("cat").job_id}
    ended(jobs, ids["ENDED"])
    ids["OPENED"] = opened(tmux)
    return [name, *(ids.get(word, word) for word in ARGUMENTS.get(name, "").split())]


@pytest.mark.parametrize("name", COMMANDS)
def test_reader_that_has_left_is_no_error(jobs: Jobs, tmux: Tmux, name: str) -> None:
    line = command_line(name, jobs, tmux)
    with pipe_without_reader() as pipe:
        code, said = run(*line, stdout=pipe)
        assert code == OTHER_CODES.get(name, 0)
        assert "Error" not in said
        assert run(name, "--help", stdout=pipe) == (0, "")
        assert run(name, "--no-such-option", stdout=pipe, stderr=pipe) == (main.USAGE, "")


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_answer_that_cannot_be_written_is_one_line_and_1(jobs: Jobs, tmux: Tmux, name: str) -> None:
    line = command_line(name, jobs, tmux)
    with open("/dev/full", "w") as full:
        code, said = run(*line, stdout=full.fileno())
        if name not in PRINT_NOTHING:
            assert code == 1
            assert said.splitlines()[-1] == "tmuxjobs: The answer cannot be written: No space left on device."
            assert "bug" not in said
        assert run(name, "--no-such-option", stdout=full.fileno(), stderr=full.fileno()) == (main.USAGE, "")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_options_of_the_program_do_the_same(option: str) -> None:
    with pipe_without_reader() as pipe, open("/dev/full", "w") as full:
        assert run(option, stdout=pipe) == (0, "")
        code, said = run(option, stdout=full.fileno())
    assert (code, said.count("\n")) == (1, 1)


@pytest.mark.parametrize("unbuffered", [False, True])
def test_all_jobs_are_ended_though_nobody_reads_of_the_first(jobs: Jobs, unbuffered: bool) -> None:
    ids = [jobs.execute("sleep 1000").job_id for _ in range(3)]
    with pipe_without_reader() as pipe:
        assert run("kill", *ids, stdout=pipe, unbuffered=unbuffered) == (0, "")
    assert [job.status for job in jobs.list().jobs] == ["killed"] * 3


@pytest.mark.parametrize("unbuffered", [False, True])
def test_exit_code_is_the_commands_own(jobs: Jobs, unbuffered: bool) -> None:
    job_id = jobs.execute("exit 3").job_id
    ended(jobs, job_id)
    with pipe_without_reader() as pipe:
        for line in (["wait", job_id], ["search", job_id, "nothing"], ["status", "no-such"]):
            assert run(*line, stdout=pipe, stderr=pipe, unbuffered=unbuffered) == (1, "")


def test_pipe_that_somebody_made_non_blocking_gets_everything(jobs: Jobs) -> None:
    job_id = jobs.execute("seq 50000").job_id
    ended(jobs, job_id)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def waiting_bytes() -> int:
        return int.from_bytes(fcntl.ioctl(reading, termios.FIONREAD, bytes(4)), sys.byteorder)

    argv = [*PROGRAM, "output", "--max-bytes", "1000000", job_id]
    with open(reading) as pipe, subprocess.Popen(argv, stdout=writing, stderr=subprocess.PIPE) as process:
        os.close(writing)
        wait_until(lambda: waiting_bytes() == PIPE_BYTES)
        assert pipe.read().split() == [str(number) for number in range(1, 50001)]
        assert process.communicate() == (None, b"")
    assert process.returncode == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_may_be_closed_from_the_start(closed: str, tmp_path: Path) -> None:
    script = f'("$@" {closed}); echo $? > code'
    argv = ["sh", "-c", script, "sh", *PROGRAM, "list"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    code = (tmp_path / "code").read_text()
    if ">&-" in closed.split():
        assert (code, done.stdout) == ("1\n", "")
        assert done.stderr in ("", "tmuxjobs: The answer cannot be written: Bad file descriptor.\n")
    else:
        assert (code, done.stdout, done.stderr) == ("0\n", "No jobs.\n", "")


@pytest.mark.parametrize("rest", ["sleep 1000", "while sleep 0.05; do echo more; done"], ids=["quiet", "printing"])
@pytest.mark.parametrize("follow", ["execute", "tail"])
def test_job_runs_on_when_the_reader_of_its_output_leaves(jobs: Jobs, tmp_path: Path, follow: str, rest: str) -> None:
    command = f"echo first; {rest}"
    line = ["execute", "--wait", command] if follow == "execute" else ["tail", "-f", jobs.execute(command).job_id]
    script = '{ "$@"; echo $? > code; } | head -1'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *PROGRAM, *line], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.count("\n"), done.stderr, (tmp_path / "code").read_text()) == (1, "", "141\n")
    assert [job.status for job in jobs.list().jobs] == ["running"]


def test_code_of_a_job_that_has_ended_is_told_all_the_same(jobs: Jobs) -> None:
    job_id = jobs.execute("seq 100; exit 6").job_id
    ended(jobs, job_id)
    with pipe_without_reader() as pipe:
        assert run("tail", "-f", job_id, stdout=pipe) == (6, "")
