"""Output that nobody reads, or that cannot be written: the command does its work, and its exit code is true."""

import fcntl
import os
import shlex
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from loaded import Loaded
from support import Jobs, Screen, Tmux, ended, wait_until

from tmuxjobs.cli import commands

from .conftest import PROGRAM
from .test_commands import JSON, made

COMMANDS = [name for name in commands.app if not name.startswith("-") and name != "fetch"]
"""`fetch` needs another machine."""
ARGUMENTS = {name: arguments for name, (arguments, _, _) in JSON.items()} | {"install": "cursor"}
OTHER_CODES = {"attach": 2}
"""It needs a terminal."""
PIPE_BYTES = 65536
PRINT_NOTHING = {"attach", "serve"}


@contextmanager
def pipe_without_reader() -> Iterator[int]:
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(loaded: Loaded) -> Run:
    """`run("list", stdout=fd)`: the exit code, and what was printed on stderr where that is not given."""

    def unbuffered(*arguments: str, stdout: int, stderr: int) -> int:
        env = os.environ | {"PYTHONUNBUFFERED": "1"}
        null = subprocess.DEVNULL
        return subprocess.run(
            [*PROGRAM, *arguments], env=env, stdin=null, stdout=stdout, stderr=stderr, timeout=60
        ).returncode

    def forked(*arguments: str, stdout: int, stderr: int) -> int:
        with open(os.devnull) as null:
            process = loaded.start(arguments, env=os.environ, fds=(null.fileno(), stdout, stderr), terminal=False)
            try:
                return process.wait(60)
            finally:
                process.kill()

    def call(*arguments: str, stdout: int, stderr: int | None = None, is_unbuffered: bool = False) -> tuple[int, str]:
        start = unbuffered if is_unbuffered else forked
        with tempfile.TemporaryFile() as said:
            code = start(*arguments, stdout=stdout, stderr=said.fileno() if stderr is None else stderr)
            said.seek(0)
            return code, said.read().decode()

    return call


@pytest.fixture
def line(name: str, jobs: Jobs, tmux: Tmux, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command line of that command that can be carried out."""
    (tmp_path / "Procfile").write_text("web: cat\n")
    monkeypatch.chdir(tmp_path)
    return [name, *made(ARGUMENTS.get(name, ""), jobs, tmux)]


@pytest.mark.parametrize("name", COMMANDS)
def test_reader_that_has_left_is_no_error(run: Run, name: str, line: list[str]) -> None:
    with pipe_without_reader() as pipe:
        code, said = run(*line, stdout=pipe)
        assert code == OTHER_CODES.get(name, 0)
        assert "Error" not in said


@pytest.mark.parametrize("name", ["list", "interact"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_help_and_usage_that_nobody_reads_keep_their_codes(run: Run, name: str) -> None:
    with pipe_without_reader() as pipe, open("/dev/full", "w") as full:
        assert run(name, "--help", stdout=pipe) == (0, "")
        for out in (pipe, full.fileno()):
            assert run(name, "--no-such-option", stdout=out, stderr=out) == (commands.USAGE, "")


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_answer_that_cannot_be_written_is_one_line_and_1(run: Run, name: str, line: list[str]) -> None:
    with open("/dev/full", "w") as full:
        code, said = run(*line, stdout=full.fileno())
        if name not in PRINT_NOTHING:
            assert code == 1
            assert said.splitlines()[-1] == "tmuxjobs: The answer cannot be written: No space left on device."
            assert "bug" not in said


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_options_of_the_program_do_the_same(run: Run, option: str) -> None:
    with pipe_without_reader() as pipe, open("/dev/full", "w") as full:
        assert run(option, stdout=pipe) == (0, "")
        code, said = run(option, stdout=full.fileno())
    assert (code, said.count("\n")) == (1, 1)


@pytest.mark.parametrize("unbuffered", [False, True])
def test_all_jobs_are_ended_though_nobody_reads_of_the_first(run: Run, jobs: Jobs, unbuffered: bool) -> None:
    ids = [jobs.execute("sleep 1000").job_id for _ in range(3)]
    with pipe_without_reader() as pipe:
        assert run("kill", *ids, stdout=pipe, is_unbuffered=unbuffered) == (0, "")
    assert [job.status for job in jobs.list().jobs] == ["killed"] * 3


@pytest.mark.parametrize("unbuffered", [False, True])
def test_exit_code_is_the_commands_own(run: Run, jobs: Jobs, unbuffered: bool) -> None:
    job_id = jobs.execute("exit 3").job_id
    ended(jobs, job_id)
    with pipe_without_reader() as pipe:
        for line in (["wait", job_id], ["search", job_id, "nothing"], ["status", "no-such"]):
            assert run(*line, stdout=pipe, stderr=pipe, is_unbuffered=unbuffered) == (1, "")


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


def test_pipe_gets_all_of_the_output(jobs: Jobs, tmp_path: Path) -> None:
    raw = b"\xff\x1b[1mfirst\x1b[m\r\n" + b"".join(b"row %d\r\n" % n for n in range(60_000)) + b"10%\r20%"
    (tmp_path / "printed").write_bytes(raw)
    job_id = jobs.execute("stty -opost; cat printed; sleep 1000", cwd=str(tmp_path)).job_id
    path = jobs.status(job_id).log_path
    wait_until(lambda: Path(path).read_bytes(), lambda log: log.endswith(b"20%"))

    def printed(*options: str) -> bytes:
        done = subprocess.run([*PROGRAM, "output", job_id, *options], capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout

    rows = "".join(f"row {n}\n" for n in range(60_000))
    assert printed().decode().removeprefix("\ufffd") == f"first\n{rows}20%"
    assert printed("--raw") == Path(path).read_bytes()
    assert len(printed("--json")) < 50_000


def test_reader_that_leaves_early_ends_the_output(jobs: Jobs) -> None:
    job_id = jobs.execute("seq 300000").job_id
    ended(jobs, job_id)
    script = '{ "$@"; echo "code $?" >&2; } | head -2'
    done = subprocess.run(["sh", "-c", script, "sh", *PROGRAM, "output", job_id], capture_output=True, timeout=60)
    assert (done.stdout, done.stderr) == (b"1\n2\n", b"code 0\n")


@pytest.mark.parametrize(("lines", "pager"), [(5, "sed s/^/paged:/"), (90, "sed s/^/paged:/"), (90, ""), (90, "none")])
def test_terminal_gets_what_does_not_fit_through_a_pager(
    jobs: Jobs, screen: Callable[..., Screen], monkeypatch: pytest.MonkeyPatch, lines: int, pager: str
) -> None:
    monkeypatch.setenv("PAGER", pager)
    job_id = jobs.execute(f"seq {lines}; echo end").job_id
    ended(jobs, job_id)
    person = screen("sh", "-c", f"{shlex.join(PROGRAM)} output {job_id}; echo code $?; exec sleep 1000")
    seen = person.until("code 0")
    assert f"\n{'paged:' if lines == 90 and 'sed' in pager else ''}end\n" in seen


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


def test_code_of_a_job_that_has_ended_is_told_all_the_same(run: Run, jobs: Jobs) -> None:
    job_id = jobs.execute("seq 100; exit 6").job_id
    ended(jobs, job_id)
    with pipe_without_reader() as pipe:
        assert run("tail", "-f", job_id, stdout=pipe) == (6, "")
