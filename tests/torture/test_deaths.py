"""What dies, is closed or is taken away at a bad moment: each rule here was broken once."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import Jobs, Tmux, change_pane, contents, ended, in_panes, log_of, record_of, wait_until

from tmuxjobs import Settings
from tmuxjobs.contract import FIRST
from tmuxjobs.errors import JobNotFound, NotStarted, StateError, TmuxError
from tmuxjobs.system import job_processes
from tmuxjobs.verbs import kill

WHILE_IT_RUNS = {"recorder", FIRST, "run.room", "exit.room", "stop.json", "env"}


def running(jobs: Jobs, command: str) -> str:
    """A job that has printed `ready`."""
    job_id = jobs.execute(f"echo ready; {command}").job_id
    wait_until(lambda: jobs.output(job_id).stdout, lambda text: "ready" in text)
    return job_id


def runner_of(jobs: Jobs, job_id: str) -> int:
    run = record_of(jobs, job_id).run
    assert run is not None
    return run.pid


def recorders(jobs: Jobs, job_id: str) -> list[psutil.Process]:
    return in_panes(jobs, "recorder", job_id)


def test_window_closed_before_its_runner_speaks_is_told_at_once(jobs: Jobs, tmux: Tmux) -> None:
    jobs.host.tmux.ensure_session(["cat"], ())
    tmux("set-hook", "-g", "after-new-window", "kill-window")
    with pytest.raises(NotStarted, match=r"window was closed|runner killed|hung up"):
        jobs.execute("sleep 1000")
    assert jobs.list().total == 0


def stderr_of(jobs: Jobs, job_id: str) -> bytes:
    return (jobs.host.look(job_id).folder / "stderr.log").read_bytes()


def at_gate(jobs: Jobs, tmp_path: Path, command: str) -> str:
    """A job with a stderr of its own that goes on once there is a file `go`."""
    head = f"echo ready; until [ -e {tmp_path}/go ]; do sleep 0.01; done; "
    job_id = jobs.execute(head + command, separate_stderr=True, cwd=str(tmp_path)).job_id
    wait_until(lambda: jobs.output(job_id).stdout, lambda text: "ready" in text)
    return job_id


def test_stderr_is_whole_though_tmux_is_stopped_beyond_the_end_of_the_command(
    jobs: Jobs, tmux: Tmux, tmp_path: Path
) -> None:
    job_id = at_gate(jobs, tmp_path, "seq 1 10000 >&2; exit 3")
    server = int(tmux("display-message", "-p", "#{pid}"))
    os.kill(server, signal.SIGSTOP)
    try:
        (tmp_path / "go").touch()
        wait_until(lambda: record_of(jobs, job_id).run.awaits_tmux)  # type: ignore[union-attr]
    finally:
        os.kill(server, signal.SIGCONT)
    status = ended(jobs, job_id)
    assert (status.exit_code, status.log) == (3, "complete")
    assert stderr_of(jobs, job_id) == b"".join(b"%d\r\n" % n for n in range(1, 10001))


def test_child_that_has_only_stderr_keeps_the_job_and_can_write(jobs: Jobs, tmp_path: Path) -> None:
    child = (
        "exec </dev/null >/dev/null; touch begun; until [ -e child ]; do sleep 0.01; done; echo late >&2; touch wrote"
    )
    job_id = at_gate(jobs, tmp_path, f"setsid sh -c '{child}' & until [ -e begun ]; do sleep 0.01; done; exit 3")
    (tmp_path / "go").touch()
    told = wait_until(lambda: jobs.status(job_id), lambda status: "exit code 3" in status.detail)
    assert told.status == "running"
    (tmp_path / "child").touch()
    status = ended(jobs, job_id)
    assert (status.exit_code, status.log, stderr_of(jobs, job_id)) == (3, "complete", b"late\r\n")
    assert (tmp_path / "wrote").exists()


def test_stderr_that_someone_else_has_is_not_waited_for_and_told(jobs: Jobs, tmp_path: Path) -> None:
    give = (
        "import socket; far = socket.socket(socket.AF_UNIX); far.connect('s'); "
        "socket.send_fds(far, [b'x'], [2]); far.recv(1)"
    )
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        job_id = at_gate(jobs, tmp_path, f'echo early >&2; {sys.executable} -I -c "{give}"; exit 3')
        (tmp_path / "go").touch()
        near = listener.accept()[0]
        _, (stderr,), _, _ = socket.recv_fds(near, 1, 1)
        near.close()
    try:
        status = ended(jobs, job_id)
    finally:
        os.close(stderr)
    assert (status.exit_code, stderr_of(jobs, job_id)) == (3, b"early\r\n")
    assert status.log.startswith("incomplete: a process outside the job still has its stderr open")


def test_runner_stopped_while_the_terminal_is_full_leaves_no_doubt_untold(
    jobs: Jobs, tmux: Tmux, tmp_path: Path
) -> None:
    job_id = at_gate(jobs, tmp_path, "yes err | head -c 300000 >&2 & yes out | head -c 300000; wait; exit 3")
    runner = runner_of(jobs, job_id)
    server = int(tmux("display-message", "-p", "#{pid}"))
    os.kill(server, signal.SIGSTOP)
    try:
        (tmp_path / "go").touch()
        wait_until(lambda: writes_into_a_full_terminal(runner))
        os.kill(runner, signal.SIGSTOP)
        wait_until(lambda: psutil.Process(runner).status(), lambda status: status == psutil.STATUS_STOPPED)
    finally:
        os.kill(server, signal.SIGCONT)
    os.kill(runner, signal.SIGCONT)
    status = ended(jobs, job_id)
    whole = not stderr_of(jobs, job_id).strip(b"er\r\n") and not log_of(status).strip(b"readyout\r\n")
    assert status.exit_code == 3
    assert "may be mixed" in status.log or (status.log == "complete" and whole)


def writes_into_a_full_terminal(runner: int) -> bool:
    """Whether a thread of the runner, other than its first, sleeps in a write."""
    for thread in Path(f"/proc/{runner}/task").iterdir():
        call = (thread / "syscall").read_text().split()[0]
        if int(thread.name) != runner and call == {"x86_64": "1", "aarch64": "64"}[os.uname().machine]:
            return True
    return False


def remove(path: Path) -> None:
    path.rename(path.with_name("removed"))


def replace(path: Path) -> None:
    path.with_name("new").write_bytes(path.read_bytes()[:20])
    path.with_name("new").replace(path)


def cut(path: Path) -> None:
    os.truncate(path, 20)


def edit(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"X")


@pytest.mark.parametrize("name", ["output.log", "stderr.log"])
@pytest.mark.parametrize("harm", [remove, replace, cut, edit], ids=lambda harm: harm.__name__)
def test_log_that_is_not_as_printed_is_told_by_whoever_reads_it(
    jobs: Jobs, tmp_path: Path, harm: Callable[[Path], None], name: str
) -> None:
    to = " >&2" if name == "stderr.log" else ""
    wait = "until [ -e goon ]; do sleep 0.01; done"
    job_id = at_gate(jobs, tmp_path, f"(seq 1000 1199; {wait}; seq 1200 1399){to}; exit 3")
    path = jobs.host.store.folder(job_id) / name
    (tmp_path / "go").touch()
    wait_until(path.read_bytes, lambda data: data.endswith(b"1199\r\n"))
    harm(path)
    (tmp_path / "goon").touch()
    status = ended(jobs, job_id)
    assert status.exit_code == 3
    assert status.log.startswith("incomplete: ")
    assert name in status.log
    assert path.read_bytes().endswith(b"".join(b"%d\r\n" % n for n in range(1200, 1400)))
    said = f"the log is {status.log}"
    for answer in (jobs.output(job_id), jobs.tail(job_id), jobs.wait(job_id), jobs.search(job_id, "12")):
        assert said in answer.note
        assert said in answer.text()
    assert said in jobs.wait([job_id, job_id, jobs.execute("true").job_id], mode="all").jobs[0].note


@pytest.mark.parametrize("name", ["output.log", "stderr.log"])
def test_log_that_is_removed_or_cut_after_the_end_is_told(jobs: Jobs, tmp_path: Path, name: str) -> None:
    job_id = at_gate(jobs, tmp_path, "seq 1000 1199; seq 1000 1199 >&2")
    (tmp_path / "go").touch()
    assert ended(jobs, job_id).log == "complete"
    path = jobs.host.store.folder(job_id) / name
    size = path.stat().st_size
    for harm, has in ((cut, 20), (Path.unlink, 0)):
        harm(path)
        said = f"incomplete: {name} had {size} bytes at the end of the job and has {has} now"
        assert jobs.status(job_id).log == said
        assert f"the log is {said}" in jobs.tail(job_id).note


def test_list_of_gaps_that_is_removed_after_the_end_is_told(tmp_path: Path) -> None:
    jobs = Jobs.open(Settings.load(max_output_size=65536))
    job_id = jobs.execute("seq 1 100000").job_id
    before = ended(jobs, job_id).log
    assert re.fullmatch(r"incomplete: \d+ bytes of output.log are gone \(limit\)", before)
    (jobs.host.store.folder(job_id) / "output.gaps").unlink()
    assert "bytes are gone is no longer known: their list was removed" in jobs.status(job_id).log
    assert "is no longer known" in jobs.tail(job_id).note


def test_bytes_that_are_gone_are_told_while_the_job_runs(jobs: Jobs) -> None:
    job_id = running(jobs, "read x; echo more; read x")
    assert jobs.status(job_id).log == "recording"
    (jobs.host.store.folder(job_id) / "output.log").unlink()
    answer = jobs.interact(job_id, "go", wait=50, pattern="more")
    assert "more" in answer.stdout
    assert jobs.status(job_id).log == "recording; 7 bytes are gone (changed by another program)"
    assert jobs.output(job_id).gone_bytes == 7


DYING = """#!/bin/sh
case "$*" in *new-window*) touch {dead};; esac
if [ -e {dead} ]; then case "$*" in {calls}) echo "server exited unexpectedly" >&2; exit 1;; esac; fi
exec {tmux} "$@"
"""
"""A tmux that says, from the first window on, what the real one says to a call in flight when it is killed."""


@pytest.mark.parametrize("calls", ["*new-window*|*list-panes*", "*new-window*|*-session*", "*"])
def test_start_cut_off_by_the_end_of_tmux_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: str
) -> None:
    program = tmp_path / "tmux"
    program.write_text(DYING.format(tmux=shutil.which("tmux"), dead=tmp_path / "dead", calls=calls))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    jobs = Jobs.open()
    with pytest.raises((NotStarted, TmuxError)):
        jobs.execute("ls")
    assert list(jobs.host.store.jobs.iterdir()) == []


def test_log_whose_end_tmux_took_with_it_names_tmux(jobs: Jobs, tmux: Tmux, tmp_path: Path) -> None:
    job_id = running(jobs, f"until [ -e {tmp_path}/go ]; do sleep 0.01; done; exit 3")
    pid = jobs.status(job_id).pid
    assert pid is not None
    server = int(tmux("display-message", "-p", "#{pid}"))
    os.kill(server, signal.SIGSTOP)
    (tmp_path / "go").touch()
    wait_until(lambda: job_processes.start_of(pid) is None)
    os.kill(server, signal.SIGKILL)
    status = ended(jobs, job_id)
    assert (status.reason, status.exit_code) == ("exit", 3)
    assert status.log == "incomplete: the tmux server ended: output that tmux had not handed over is missing"


def test_job_whose_tmux_was_killed_as_it_ended_leaves_the_next_server_alone(
    jobs: Jobs, tmux: Tmux, tmp_path: Path
) -> None:
    job_id = running(jobs, f"until [ -e {tmp_path}/go ]; do :; done; exit 3")
    runner, command = runner_of(jobs, job_id), record_of(jobs, job_id).run.command_pid  # type: ignore[union-attr]
    assert command is not None
    server = int(tmux("display-message", "-p", "#{pid}"))
    try:
        # tmux wakes a child that was stopped: it is stopped first.
        for pid in (server, runner):
            os.kill(pid, signal.SIGSTOP)
        (tmp_path / "go").touch()
        wait_until(lambda: psutil.Process(command).status(), lambda status: status == psutil.STATUS_ZOMBIE)
        os.kill(server, signal.SIGKILL)
        next_id = running(jobs, "sleep 1000")
    finally:
        with contextlib.suppress(ProcessLookupError):  # its terminal's end has woken it, and it may be reaped
            os.kill(runner, signal.SIGCONT)
    status = ended(jobs, job_id)
    assert (status.reason, status.exit_code) == ("exit", 3)
    assert status.log == "incomplete: the tmux server ended: output that tmux had not handed over is missing"
    wait_until(lambda: job_processes.start_of(runner) is None)
    assert list(jobs.host.tmux.panes()) == [next_id]
    assert jobs.output(next_id).stdout == "ready\n"


def test_server_without_a_session_has_no_windows(jobs: Jobs, tmux: Tmux) -> None:
    tmux("start-server", ";", "set-option", "-s", "exit-empty", "off")
    assert jobs.host.tmux.panes() == {}
    assert jobs.prune() == []
    assert ended(jobs, jobs.execute("exit 4").job_id).exit_code == 4


def test_request_to_stop_that_comes_after_the_end_does_not_stay(jobs: Jobs) -> None:
    job_id = running(jobs, "sleep 1000")
    job = jobs.host.look(job_id)
    jobs.kill(job_id)
    assert kill.stop(jobs.host, job, "SIGTERM", 1.0).status == "killed"
    wait_until(lambda: jobs.host.store.transient(job_id), lambda left: left == [])  # its runner clears up meanwhile


def test_failing_hook_of_the_person_refuses_no_job(jobs: Jobs, tmux: Tmux) -> None:
    jobs.host.tmux.ensure_session(["cat"], ())
    tmux("set-hook", "-g", "after-new-window", "rename-window -t nosuchwindow x")
    for code in range(5):
        assert ended(jobs, jobs.execute(f"exit {code}").job_id).exit_code == code


def test_window_that_opens_when_its_job_is_given_up_closes_itself(jobs: Jobs, tmux: Tmux) -> None:
    host = jobs.host
    host.ensure_session()
    opened = threading.Event()
    host.tmux.open_window("gone-1234", host.unit().argv("runner"), line="cat > /dev/null", answered=opened.set)
    assert opened.wait(30)
    wait_until(lambda: tmux("list-windows", "-t", "=mcp-jobs", "-F", "#{window_name}"), lambda names: names == "jobs\n")


def test_recorder_starts_along_with_its_runner_which_calls_no_tmux(jobs: Jobs) -> None:
    folder = jobs.host.look(running(jobs, "sleep 1000")).folder
    assert {path.name for path in folder.iterdir()} & {"recorder", FIRST} == {FIRST}


def test_session_closed_between_look_and_window_is_made_again(
    jobs: Jobs, tmux: Tmux, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure = jobs.host.tmux.ensure_session
    closed = []

    def ensure_and_close(*welcome: Any) -> None:
        ensure(*welcome)
        if not closed:
            closed.append(True)
            tmux("kill-session", "-t", "=mcp-jobs")

    monkeypatch.setattr(jobs.host.tmux, "ensure_session", ensure_and_close)
    assert ended(jobs, jobs.execute("exit 4").job_id).exit_code == 4


def test_kill_that_comes_after_the_end_is_told_so(jobs: Jobs) -> None:
    job_id = running(jobs, "exit 3")
    command = record_of(jobs, job_id).run.command_pid  # type: ignore[union-attr]
    assert command is not None
    wait_until(lambda: job_processes.start_of(command) is None)
    assert jobs.kill(job_id).status == "already_terminated"
    assert ended(jobs, job_id).exit_code == 3


def test_kill_of_a_job_that_has_just_ended_by_itself_claims_nothing(jobs: Jobs, tmux: Tmux, tmp_path: Path) -> None:
    job_id = running(jobs, f"until [ -e {tmp_path}/go ]; do :; done; exit 3")
    runner, command = runner_of(jobs, job_id), record_of(jobs, job_id).run.command_pid  # type: ignore[union-attr]
    assert command is not None
    # tmux wakes a child that was stopped: it is stopped first.
    stopped = [int(tmux("display-message", "-p", "#{pid}")), runner]
    answers: list[str] = []
    killer = threading.Thread(target=lambda: answers.append(jobs.kill(job_id).status))
    try:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        (tmp_path / "go").touch()
        wait_until(lambda: psutil.Process(command).status(), lambda status: status == psutil.STATUS_ZOMBIE)
        killer.start()
        wait_until(lambda: pending(runner, signal.SIGUSR1))
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    killer.join()
    status = ended(jobs, job_id)
    assert (answers, status.status, status.exit_code, status.reason) == (["already_terminated"], "failed", 3, "exit")


def pending(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(next(line.split()[1] for line in status.splitlines() if line.startswith("ShdPnd")), 16)
    return bool(mask >> (number - 1) & 1)


def test_recorder_killed_again_before_it_is_ready_is_replaced_again(jobs: Jobs, tmux: Tmux) -> None:
    job_id = running(jobs, "read x; echo after; exit 6")
    real = record_of(jobs, job_id)
    shot: set[int] = set()
    for process in recorders(jobs, job_id):
        shot.add(process.pid)
        process.kill()
    deadline = time.monotonic() + 20
    while len(shot) < 3 and time.monotonic() < deadline:
        for process in recorders(jobs, job_id):
            if process.pid not in shot:
                shot.add(process.pid)
                with contextlib.suppress(psutil.Error):
                    process.kill()
    wait_until(lambda: jobs.status(job_id).log, lambda log: log.startswith("recording; its recorder was replaced"))
    assert real.run is not None
    wait_until(lambda: recorders(jobs, job_id))
    wait_until(lambda: tmux("display-message", "-p", "-t", real.run.pane, "#{pane_pipe}").strip() == "1")  # type: ignore[union-attr]
    tmux("send-keys", "-t", real.run.pane, "Enter")
    status = ended(jobs, job_id)
    assert (status.exit_code, status.log.startswith("incomplete: the recorder ended")) == (6, True)
    assert b"after" in log_of(status)


def test_recorder_killed_on_a_bounded_log_is_replaced_where_the_stream_is(isolated: Path) -> None:
    jobs = Jobs.open(Settings.load(max_output_size="100KB"))
    job_id = jobs.execute("seq 100000 199999; echo middle; read x; echo last").job_id
    wait_until(lambda: jobs.tail(job_id, lines=1).stdout, lambda line: line == "middle\n")
    size = 100_000 * 8 + len("middle\r\n")
    assert jobs.status(job_id).log_bytes == size
    for process in recorders(jobs, job_id):
        process.kill()
    wait_until(lambda: jobs.status(job_id).log, lambda log: "its recorder was replaced" in log)
    wait_until(lambda: recorders(jobs, job_id))
    jobs.interact(job_id, "go")
    status = ended(jobs, job_id)
    assert f"the recorder ended (gone) at byte {size}," in status.log
    text = Path(status.log_path).read_text()
    assert (text.startswith("100000\n"), text.endswith("last\n"), "\0" in text) == (True, True, False)


def test_recorder_that_somebody_stopped_goes_on(jobs: Jobs, tmux: Tmux) -> None:
    job_id = running(jobs, "read x; echo after; read x; exit 6")
    for process in recorders(jobs, job_id):
        process.suspend()
    jobs.interact(job_id, "", wait=0)
    wait_until(lambda: jobs.output(job_id).stdout, lambda text: "after" in text, timeout=60)
    jobs.interact(job_id, "", wait=0)
    status = ended(jobs, job_id)
    assert (status.exit_code, status.log) == (6, "complete")


def test_recorder_stopped_at_the_end_goes_on(jobs: Jobs, tmp_path: Path) -> None:
    job_id = running(jobs, f"until [ -e {tmp_path}/go ]; do sleep 0.02; done; echo last; exit 6")
    for process in recorders(jobs, job_id):
        process.suspend()
    (tmp_path / "go").touch()
    status = ended(jobs, job_id)
    assert (status.exit_code, status.log, log_of(status).endswith(b"last\r\n")) == (6, "complete", True)


@pytest.fixture
def hasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """Runners that wait only ten seconds for the end of a log; how long that is."""

    def hurry(text: str) -> str:
        assert "\nMARK_S = 60.0\n" in text
        return text.replace("\nMARK_S = 60.0\n", "\nMARK_S = 10.0\n")

    change_pane(monkeypatch, tmp_path, "runner_log.py", hurry)
    return 10.0


@pytest.fixture
def awaited(jobs: Jobs, tmux: Tmux, tmp_path: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """A job whose command has ended while tmux was stopped, and what lets tmux go on."""
    job_id = running(jobs, f"until [ -e {tmp_path}/go ]; do sleep 0.02; done; seq 200; exit 3")
    server = int(tmux("display-message", "-p", "#{pid}"))

    def go_on() -> None:
        os.kill(server, signal.SIGCONT)

    os.kill(server, signal.SIGSTOP)
    try:
        (tmp_path / "go").touch()
        wait_until(lambda: record_of(jobs, job_id).run, lambda run: run is not None and run.command_ended)
        yield job_id, go_on
    finally:
        go_on()


def test_end_of_a_log_is_awaited_from_a_stopped_tmux(
    jobs: Jobs, hasty: float, awaited: tuple[str, Callable[[], None]]
) -> None:
    job_id, go_on = awaited
    since = time.monotonic()
    wait_until(lambda: time.monotonic() - since, lambda passed: passed > hasty + 1)
    status = jobs.status(job_id)
    words = "the command ended with exit code 3; tmux is stopped, and has the end of its output"
    assert (status.status, status.detail) == ("running", words)
    go_on()
    status = ended(jobs, job_id)
    assert (status.exit_code, status.reason, status.log) == (3, "exit", "complete")
    assert log_of(status).endswith(b"\n200\r\n")


def test_kill_of_a_job_whose_end_a_stopped_tmux_has_ends_it(
    jobs: Jobs, awaited: tuple[str, Callable[[], None]]
) -> None:
    job_id, _ = awaited
    assert jobs.kill(job_id).status == "already_terminated"
    status = ended(jobs, job_id)
    assert (status.exit_code, status.reason) == (3, "exit")
    assert status.log == "incomplete: tmux was stopped and did not hand over the end of the output"


def tmux_with_a_shell_that(isolated: Path, does: str) -> None:
    """Start the test's tmux server where `/bin/sh` runs these lines before it becomes a recorder."""
    shell = isolated / "sh"
    shutil.copy("/bin/sh", isolated / "real")
    shell.write_text(f'#!{isolated}/real\ncd {isolated}\ncase $2 in *recorder*)\n{does}\n;; esac\nexec ./real "$@"\n')
    shell.chmod(0o755)
    start = f"mount --bind {shell} /bin/sh && exec tmux new-session -d -s person cat"
    if os.getuid() or subprocess.run(["unshare", "-m", isolated / "real", "-c", start]).returncode:
        pytest.skip("another shell is mounted by root on Linux")


@pytest.mark.parametrize(("deaths", "starts"), [(1, True), (2, False)])
def test_recorder_killed_before_it_could_speak_is_replaced_once(
    jobs: Jobs, isolated: Path, deaths: int, starts: bool
) -> None:
    """As when the shell that tmux starts for it is killed before it has opened the FIFO."""
    for number in range(deaths):
        (isolated / f"death.{number}").mkdir()
    tmux_with_a_shell_that(isolated, 'for one in death.*; do rmdir "$one" && kill -KILL $$; done')
    if starts:
        status = ended(jobs, jobs.execute("echo all; exit 4").job_id)
        assert (status.exit_code, status.log, log_of(status)) == (4, "complete", b"all\r\n")
    else:
        with pytest.raises(NotStarted, match="the recorder of its output was killed"):
            jobs.execute("exit 4")
        assert jobs.list().total == 0
    assert not list(isolated.glob("death.*"))


def test_recorder_whose_runner_was_killed_before_leaves(jobs: Jobs, isolated: Path) -> None:
    tmux_with_a_shell_that(isolated, ": > waits; until [ -e go ]; do sleep 0.02; done")
    refused: list[str] = []

    def start() -> None:
        try:
            jobs.execute("exit 4")
        except NotStarted as error:
            refused.append(str(error))

    starter = threading.Thread(target=start)
    starter.start()
    wait_until((isolated / "waits").exists)
    (job_id,) = jobs.host.store.ids()
    wait_until(lambda: record_of(jobs, job_id).run)  # it starts beside its recorder
    fifo = str(jobs.host.store.folder(job_id) / "recorder")
    shells = [one for one in psutil.process_iter() if any(fifo in part for part in cmdline(one))]
    os.kill(runner_of(jobs, job_id), signal.SIGKILL)
    wait_until(lambda: has_gone(jobs, job_id))
    (isolated / "go").touch()
    assert shells
    wait_until(lambda: [one for one in shells if lives(one)], lambda left: not left)
    starter.join()
    assert "its runner killed before it ran" in refused[0]


def has_gone(jobs: Jobs, job_id: str) -> bool:
    """Whether the job does not run any more, or its start has been undone."""
    try:
        return jobs.status(job_id).status != "running"
    except JobNotFound:
        return True


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_lost_job_leaves_no_pipe_room_or_environment(jobs: Jobs) -> None:
    job_id = running(jobs, "sleep 1000")
    os.kill(runner_of(jobs, job_id), signal.SIGKILL)
    assert ended(jobs, job_id).status == "lost"
    jobs.kill(job_id, grace=0)
    jobs.prune()
    assert {entry.name for entry in jobs.host.store.folder(job_id).iterdir()} & WHILE_IT_RUNS == set()
    assert wait_until(lambda: not recorders(jobs, job_id))


def test_folder_removed_by_a_person_while_it_runs_ends_quietly(jobs: Jobs, tmux: Tmux) -> None:
    job_id = running(jobs, "read x")
    for timer in threading.enumerate():
        if isinstance(timer, threading.Timer):  # the prune behind a start would close the window that is looked at here
            timer.join()
    run = record_of(jobs, job_id).run
    assert run is not None
    subprocess.run(["rm", "-rf", jobs.host.store.folder(job_id)], check=True)
    with pytest.raises(JobNotFound):
        jobs.status(job_id)
    tmux("send-keys", "-t", run.pane, "Enter")
    wait_until(lambda: not job_processes.alive(run.pid, run.start))
    assert "Traceback" not in tmux("capture-pane", "-p", "-t", run.pane)
    assert wait_until(lambda: not recorders(jobs, job_id))
    jobs.prune()
    assert job_id not in jobs.host.tmux.panes()


def test_out_of_files_nothing_is_guessed() -> None:
    """A job whose runner cannot be looked at is neither lost nor removed, and each message says what is used up."""
    script = (
        "import resource; from tmuxjobs import Jobs; from tmuxjobs.errors import TmuxjobsError\n"
        "from tmuxjobs.hosts.local import Host; host = Host.open(); jobs = Jobs(host)\n"
        "job_id = jobs.execute('read x').job_id; record = host.store.read(job_id)\n"
        "[getattr(Jobs, name) for name in dir(Jobs)]  # as a server has loaded them\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))\n"
        "for look in (lambda: host.state(record), lambda: jobs.status(job_id), jobs.list, jobs.prune,\n"
        "             lambda: host.tmux.run('list-sessions'), lambda: jobs.execute('true'),\n"
        "             lambda: jobs.kill(job_id)):\n"
        "    try: print(look())\n"
        "    except TmuxjobsError as error: print('Too many open files' in str(error))\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard)); print(jobs.status(job_id).status)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert told.stdout.split("\n") == ["True"] * 7 + ["running", ""], told.stderr


def test_whatever_is_refused_for_want_of_files_is_said_in_a_sentence() -> None:
    script = (
        "import resource; from tmuxjobs import Jobs; from tmuxjobs.errors import TmuxjobsError; jobs = Jobs.open()\n"
        "job_id = jobs.execute('read x').job_id; jobs.list(); jobs.prune(); jobs.status(job_id)\n"
        "acts = (lambda: jobs.execute('true'), lambda: jobs.execute('true', queue=True), jobs.list, jobs.events,\n"
        "        lambda: jobs.status(job_id), lambda: jobs.tail(job_id), jobs.prune)\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "for limit in range(3, 20):\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))\n"
        "    for act in acts:\n"
        "        try: act()\n"
        "        except TmuxjobsError: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_text_typed_at_a_hidden_prompt_is_never_an_argument(
    jobs: Jobs, tmux: Tmux, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = running(jobs, "stty -echo; printf 'Password: '; read -r x; echo done")
    wait_until(lambda: jobs.status(job_id).waits_for == "password")
    seen: list[str] = []
    real = subprocess.Popen.__init__
    monkeypatch.setattr(
        subprocess.Popen, "__init__", lambda self, args, **kw: (seen.append(str(args)), real(self, args, **kw))[1]
    )
    assert "done" in jobs.interact(job_id, "hunter2", wait=20, pattern="done").stdout
    assert seen
    assert not [line for line in seen if "hunter2" in line]
    assert tmux("list-buffers") == ""


def test_link_in_place_of_a_job_leads_nowhere(jobs: Jobs, tmp_path: Path) -> None:
    job_id = ended(jobs, jobs.execute("true").job_id).job_id
    folder = jobs.host.store.folder(job_id)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    other = Jobs.open()
    with pytest.raises(JobNotFound):
        other.status(job_id)
    with other.host.store.lock():
        other.host.store.remove(job_id)
    # A person made the link, and what it leads to is no longer in our folder.
    assert folder.is_symlink()
    assert (tmp_path / "elsewhere" / "exit.json").exists()


def test_record_of_another_job_is_refused(jobs: Jobs) -> None:
    one, two = (ended(jobs, jobs.execute("true").job_id).job_id for _ in range(2))
    folder = jobs.host.store.folder(one)
    (folder / "exit.json").write_bytes((jobs.host.store.folder(two) / "exit.json").read_bytes())
    with pytest.raises(StateError, match="records of another job"):
        Jobs.open().status(one)


def test_starter_killed_leaves_no_environment_for_long(jobs: Jobs) -> None:
    job_id = running(jobs, "sleep 1000")
    os.kill(runner_of(jobs, job_id), signal.SIGKILL)
    folder = jobs.host.store.folder(job_id)
    (folder / "env").write_text("SECRET=1")
    (folder / "run.json").unlink()
    record = json.loads((folder / "job.json").read_text())
    (folder / "job.json").write_text(json.dumps(record | {"created_monotonic": record["created_monotonic"] - 61}))
    assert jobs.status(job_id).reason == "never-started"
    jobs.prune()
    assert not (folder / "env").exists()


def test_wall_clock_that_jumps_takes_no_environment_from_a_starting_job(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 86400 * 365)
    done = threading.Event()
    pruner = threading.Thread(target=lambda: [jobs.prune() for _ in iter(done.is_set, True)])
    pruner.start()
    try:
        codes = [ended(jobs, jobs.execute(f"exit {code}").job_id).exit_code for code in range(10)]
    finally:
        done.set()
        pruner.join()
    assert codes == list(range(10))


def test_orphans_of_what_a_job_left_running_do_not_pile_up(jobs: Jobs) -> None:
    loop = "while :; do (sleep 0.01 &); sleep 0.01; done"
    job_id = jobs.execute(f"setsid -f sh -c '{loop}' < /dev/null > /dev/null 2>&1").job_id
    # The record may name a turn's own short process beside it, which is younger.
    left = min(ended(jobs, job_id).left_running, key=lambda one: (int(one.start), one.pid))
    keeper = psutil.Process(runner_of(jobs, job_id))
    wait_until(lambda: keeper.cmdline(), lambda line: line[-1:] == ["finished"])
    # Each of its turns takes it processor time; what it left before is there already.
    before = len(keeper.children())
    since = sum(psutil.Process(left.pid).cpu_times())
    wait_until(lambda: sum(psutil.Process(left.pid).cpu_times()), lambda now: now > since + 0.1)
    assert len(keeper.children()) <= before
    jobs.kill(job_id, grace=0)


def test_kill_works_on_a_full_disk(small_disk: Path) -> None:
    jobs = Jobs.open(Settings.load(state_dir=small_disk / "state"))
    job_id = running(jobs, "sleep 1000")
    fill(small_disk)
    assert jobs.kill(job_id).status == "killed"
    status = jobs.status(job_id)
    assert (status.reason, status.log) == ("kill", "complete")


def test_restart_on_a_full_disk_says_so_and_the_job_runs_on(small_disk: Path) -> None:
    jobs = Jobs.open(Settings.load(state_dir=small_disk / "state"))
    job_id = running(jobs, "sleep 1000")
    for free in range(0, 81920, 8192):
        fill(small_disk, leave=free)
        try:
            new = jobs.restart(job_id).job_id
        except (StateError, NotStarted) as error:
            assert str(error).endswith(f"Job '{job_id}' was not ended.")  # noqa: PT017
            assert jobs.status(job_id).status == "running"
            continue
        assert (jobs.status(job_id).reason, jobs.status(new).status) == ("kill", "running")
        job_id = new


def test_start_on_a_full_disk_says_so_and_leaves_nothing(small_disk: Path) -> None:
    jobs = Jobs.open(Settings.load(state_dir=small_disk / "state"))
    ended(jobs, jobs.execute("true").job_id)
    before = jobs.list().total
    fill(small_disk)
    with pytest.raises(StateError, match="is full"):
        jobs.execute("true")
    assert jobs.list().total == before == len(list(jobs.host.store.jobs.iterdir()))
    (small_disk / "filler").unlink()
    assert ended(jobs, jobs.execute("exit 2").job_id).exit_code == 2


def test_start_with_room_for_the_records_alone_runs_and_ends_truly(small_disk: Path) -> None:
    jobs = Jobs.open(Settings.load(state_dir=small_disk / "state"))
    ended(jobs, jobs.execute("true").job_id)
    for free in range(4096, 81920, 4096):
        fill(small_disk, leave=free)
        try:
            job_id = jobs.execute("echo x; exit 7").job_id
        except (StateError, NotStarted) as error:
            assert "full" in str(error) or "No space left" in str(error)  # noqa: PT017
            continue
        status = ended(jobs, job_id)
        assert status.exit_code == 7
        assert (status.log == "complete") == (log_of(status) == b"x\r\n")


@pytest.fixture
def small_disk(isolated: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    place = isolated / "disk"
    place.mkdir()
    if os.getuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", place]).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def fill(disk: Path, *, leave: int = 0) -> None:
    """Use up the disk but for `leave` bytes."""
    target = disk / "filler"
    target.unlink(missing_ok=True)
    with contextlib.suppress(OSError), target.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    if leave:
        os.truncate(target, max(0, target.stat().st_size - leave))


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_nothing_is_open_to_others_whatever_the_umask(mask: int) -> None:
    script = (
        "import os, sys; os.umask(int(sys.argv[1])); from tmuxjobs import Jobs\n"
        "jobs = Jobs.open()\n"
        "job_id = jobs.execute('echo $S; read x', env={'S': 'hidden'}, separate_stderr=True).job_id\n"
        "jobs.interact(job_id, 'x', wait=1); print(job_id)"
    )
    argv = [sys.executable, "-c", script, str(mask)]
    job_id = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    jobs = Jobs.open()
    ended(jobs, job_id)
    root = jobs.host.store.root
    wait_until(lambda: jobs.host.store.transient(job_id), lambda left: left == [])  # its runner clears up meanwhile
    # A link's own mode says nothing.
    modes = {path: path.lstat().st_mode & 0o777 for path in [root, *root.rglob("*")] if not path.is_symlink()}
    assert {path: oct(mode) for path, mode in modes.items() if mode & 0o077} == {}


def test_values_of_the_environment_do_not_rest_on_disk(jobs: Jobs) -> None:
    job_id = jobs.execute("read x", env={"TOKEN": "s3cr3t-value"}).job_id
    for ending in (False, True):
        if ending:
            jobs.kill(job_id)
        files = contents(jobs.host.store.root)
        assert [path.name for path, text in files.items() if b"s3cr3t-value" in text] == []
    argv = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (os.getpid(),))
    assert b"s3cr3t-value" not in argv


def test_kill_of_a_lost_job_reaches_what_it_starts_meanwhile(jobs: Jobs) -> None:
    job_id = running(jobs, "trap '' HUP TERM; while :; do (trap '' TERM; sleep 0.05 & sleep 1000) & sleep 0.01; done")
    os.kill(runner_of(jobs, job_id), signal.SIGKILL)
    assert ended(jobs, job_id).status == "lost"
    assert jobs.kill(job_id, grace=0.2).status == "killed"
    assert jobs.status(job_id).survivors == ()
