"""The parts of the runner that need no terminal; `tests/integration` has the rest."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import wait_until

from tmuxjobs import contract, files
from tmuxjobs.pane import recorder_link, window
from tmuxjobs.pane.runner_log import RunnerLog
from tmuxjobs.store import units
from tmuxjobs.system import processes

HOSTILE = [
    "plain", "with space", "", "it's", "'#", "#'", '"', "`touch x`", "$(touch x)", "$HOME", "a;b|c&d", "a\\", "-n",
    "日本", "line\nbreak", "#{session_name}", "#(touch x)", "#[fg=red]", "##(x)", "###", "#", "%H:%M", "%%", "%",
    "50%#S", "#{?#{pane_id},a,b}", "~", "*", "}", "#,",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_argument_comes_through_tmux_and_shell_as_it_is(text: str) -> None:
    as_tmux_expands = contract.tmux_format(text).replace("%%", "%").replace("##", "#")
    done = subprocess.run(["/bin/sh", "-c", f"printf %s. {as_tmux_expands}"], capture_output=True, check=True)
    assert done.stdout.decode() == f"{text}."


@pytest.mark.parametrize("text", HOSTILE)
def test_argument_holds_nothing_that_tmux_expands(text: str) -> None:
    quoted = contract.tmux_format(text)
    assert re.search(r"(?<!#)(##)*#(?!#)[^']", quoted) is None
    assert all(len(run) % 2 == 0 for run in re.findall("#+|%+", quoted))
    # `##{` and its like mean different things to different versions of tmux.
    assert re.search(r"#[^#']", quoted) is None


@pytest.mark.parametrize("part", ["runner", "recorder"])
def test_start_imports_little(part: str, tmp_path: Path) -> None:
    unit = units.prepare(tmp_path)
    code = f"import sys; sys.path.insert(0, sys.argv[1]); import tmuxjobs.pane.{part}; print(*sys.modules)"
    argv = [unit.python, "-I", "-S", "-c", code, unit.folder]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    slow = {"typing", "subprocess", "ctypes", "asyncio", "logging", "tempfile", "pathlib", "dataclasses"}
    slow |= {"collections", "contextlib", "enum", "functools", "json", "re", "shlex", "signal", "threading"}
    assert not slow & set(done.stdout.split())


def test_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    files.write_json(str(path), {"pid": 1})
    files.write_json(str(path), {"pid": 2})
    assert path.read_text() == '{"pid": 2}'
    assert os.listdir(tmp_path) == ["run.json"]


def test_signal_has_a_name_even_when_python_knows_none() -> None:
    assert (processes.signal_name(9), processes.signal_name(40)) == ("SIGKILL", "SIG40")


@pytest.mark.skipif(not processes.LINUX, reason="reads /proc")
def test_process_may_have_any_name(tmp_path: Path) -> None:
    program = tmp_path / "a) Z 1 (b"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    with subprocess.Popen([program, "60"]) as child:
        facts = wait_until(lambda: processes.stat_of(child.pid), lambda facts: facts.name == program.name)
        assert (facts.ppid, facts.session) == (os.getpid(), os.getsid(0))
        assert processes.all_processes()[child.pid].start == facts.start == processes.start_of(child.pid)
        child.kill()


def test_another_process_with_the_pid_of_the_tmux_server_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMUX", f"{tmp_path}/socket,{os.getpid()},0")
    monkeypatch.setenv("TMUX_PANE", "%1")
    recorder = recorder_link.RecorderLink(str(tmp_path), {})
    assert recorder.server_lives()
    if processes.LINUX:
        recorder.server_start += "0"
        assert not recorder.server_lives()


@pytest.mark.skipif(not processes.LINUX, reason="start times are read from /proc")
def test_page_takes_no_later_tmux_server_for_the_one_of_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMUX", f"/nowhere,{os.getpid()},0")
    monkeypatch.setenv("TMUX_PANE", "%1")
    place = window.Place(tmux="tmux", session="mcp-jobs", state_dir="/nowhere")
    run = {"server_pid": os.getpid(), "server_start": processes.start_of(os.getpid())}
    assert place.is_server(run)
    assert not place.is_server(run | {"server_start": "1"})
    assert not place.is_server(run | {"server_pid": os.getppid()})


def test_signal_does_not_reach_a_later_process_with_that_pid() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        start = processes.start_of(child.pid)
        processes.send(child.pid, start + "0", signal.SIGKILL)
        processes.send(child.pid, start, signal.SIGTERM)
        assert child.wait() == -signal.SIGTERM
        processes.send(child.pid, start, signal.SIGKILL)


def test_zombie_stays_in_the_table_as_the_parent_of_whom_it_left() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert processes.all_processes()[child].state == "Z"
    os.waitpid(child, 0)


def test_write_to_a_full_terminal_is_bounded() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    assert recorder_link.write_fully(write, bytes(1 << 20), time.monotonic() + 0.02) is False
    os.close(read)
    os.close(write)


def test_write_without_a_bound_waits_also_when_a_job_made_its_terminal_not_block() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    got: list[bytes] = []
    with open(read, "rb") as reader:
        thread = threading.Thread(target=lambda: got.append(reader.read(1 << 20)))
        thread.start()
        assert recorder_link.write_fully(write, b"x" * (1 << 20)) is True
        thread.join()
    os.close(write)
    assert got == [b"x" * (1 << 20)]


@pytest.mark.skipif(not os.access("/bin/ps", os.X_OK), reason="there is no /bin/ps")
def test_later_process_with_that_pid_is_not_alive_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LINUX", False)
    start = processes.start_of(os.getpid())
    assert processes.is_alive(os.getpid(), start)
    assert not processes.is_alive(os.getpid(), "Thu Jan  1 00:00:00 1970")


def test_recorder_is_looked_at_less_and_less_while_nothing_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMUX", f"{tmp_path}/socket,{os.getpid()},0")
    monkeypatch.setenv("TMUX_PANE", "%1")
    recorder = recorder_link.RecorderLink(str(tmp_path), {})
    tty = tmp_path / "tty"
    tty.touch()
    recorder.fd, recorder_end = os.pipe()
    assert recorder.look_s == recorder_link.QUIET_CHECK_S
    os.write(recorder_end, b'{"why": "prints"}\n')
    assert recorder.report(0) is None
    pauses = [recorder.look_s]
    for change in (1, 1, 1, 1, 1, 2):
        os.utime(tty, (change, change))
        recorder.look_at = 0.0
        recorder.carry_on(str(tty))
        pauses.append(recorder.look_s)
    first = recorder_link.RECORDER_CHECK_S
    most = recorder_link.QUIET_CHECK_S
    assert pauses == [first, first, *(min(first * 2**n, most) for n in range(1, 5)), first]
    os.close(recorder.fd)
    os.close(recorder_end)


def test_server_that_closes_its_terminals_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMUX", f"/nowhere,{os.getpid()},0")
    monkeypatch.setenv("TMUX_PANE", "%0")
    recorder = recorder_link.RecorderLink(str(tmp_path), {})
    assert recorder.server_lives()
    monkeypatch.setattr(recorder_link, "is_ending", lambda folder: folder == f"/proc/{os.getpid()}")
    assert not recorder.server_lives()
    with pytest.raises(recorder_link.Refused, match="the tmux server ended"):
        recorder.is_piped()


def test_report_of_a_recorder_that_another_server_started_is_not_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMUX", f"{tmp_path}/socket,{os.getpid()},0")
    monkeypatch.setenv("TMUX_PANE", "%1")
    recorder = recorder_link.RecorderLink(str(tmp_path), {})
    recorder.fd, recorder_end = os.pipe()
    os.write(recorder_end, b'{"why": "ready", "server": 1, "pid": 5}\n{"why": "eof", "server": 1, "logs": {}}\n')
    assert recorder.report(0) is None
    os.write(recorder_end, b'{"why": "ready", "server": %d, "pid": 6}\n' % os.getpid())
    assert (recorder.report(0) or {})["pid"] == 6
    os.write(recorder_end, b'{"why": "gone"}\n')  # one of an earlier version does not name its server
    assert recorder.report(0) == {"why": "gone"}
    os.close(recorder_end)
    os.close(recorder.fd)


def test_stderr_that_ends_behind_a_standstill_is_not_held_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, end = os.pipe()
    stderr = SimpleNamespace(ended=ended, unshown=lambda: 0, torn_at=None)
    command: Any = SimpleNamespace(stderr=stderr, tty=os.devnull, stop=None)
    recorder: Any = SimpleNamespace(look_s=0.0, carry_on=lambda _: None, server_pid=os.getpid())
    log = RunnerLog("", command, recorder, {}, lambda: False)
    real, calls = time.monotonic, itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: real() + (5.0 if next(calls) > 1 else 0.0))
    copier = threading.Timer(0.2, os.close, [end])
    copier.start()
    log.end_stderr()
    copier.join()
    os.close(ended)
    assert log.notes == []
