"""What a hostile world does to one job: its output, the person's tmux configuration, the machine."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from support import Jobs, Person, Tmux, ended, log_of, record_of, wait_until, with_timing

from tmuxjobs import Settings
from tmuxjobs.errors import TmuxError

NUMBERS = b"".join(b"%d\r\n" % number for number in range(1, 20001))


@pytest.mark.timeout(600)
def test_jobs_under_load_are_whole_and_exact() -> None:
    jobs = Jobs.open(Settings.load(max_jobs=20, keep_windows=5))
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    wrong: list[object] = []

    def work() -> None:
        for _ in range(5):
            started = jobs.execute("seq 1 20000; exit 3")
            status = ended(jobs, started.job_id)
            told = (status.status, status.exit_code, status.log, log_of(status) == NUMBERS)
            if told != ("failed", 3, "complete", True):
                wrong.append((started.job_id, told))

    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    assert wrong == []
    assert jobs.list(status="failed").total == 40


@pytest.mark.timeout(600)
def test_50_mb_of_lines_come_through_bounded(jobs: Jobs) -> None:
    small = Jobs.open(Settings.load(max_output_size="4MB"))
    started = small.execute("seq 1 6000000")
    status = ended(small, started.job_id, timeout=500)
    assert status.exit_code == 0
    assert status.log_bytes == sum(9 * 10**digits * (digits + 3) for digits in range(6)) + (6_000_000 - 999_999) * 9
    assert Path(status.log_path).stat().st_blocks * 512 <= 4 << 20
    assert small.tail(started.job_id, lines=2).stdout == "5999999\n6000000\n"
    assert small.output(started.job_id, cursor=0, max_bytes=200).stdout.startswith("1\n2\n3\n")
    assert small.output(started.job_id, cursor=20 << 20, max_bytes=200).gone_bytes > 0


@pytest.mark.timeout(600)
def test_100_mb_line_comes_through_and_memory_stays_flat(jobs: Jobs) -> None:
    started = jobs.execute("head -c 100000000 /dev/zero | tr '\\0' x; exit 3")
    status = ended(jobs, started.job_id, timeout=500)
    assert (status.exit_code, status.log_bytes) == (3, 100_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    jobs.tail(started.job_id, lines=1)
    jobs.output(started.job_id)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


@pytest.mark.parametrize(
    "data", [b"\xff\xfe\x00bad\x80\xc3\x28\n", bytes(range(256)) * 20, b"\x1b]7717;1;0\x07\x1b]7717;", b"\x1b" * 500]
)
def test_any_bytes_reach_the_log_as_they_are(jobs: Jobs, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "data").write_bytes(data)
    started = jobs.execute("stty -opost; cat data", cwd=str(tmp_path))
    assert log_of(ended(jobs, started.job_id)) == data
    jobs.output(started.job_id)
    jobs.tail(started.job_id)


def test_output_left_in_the_middle_of_an_escape_ends_all_the_same(jobs: Jobs) -> None:
    for start in (r"\033[", r"\033]0;title", r"\033P", r"\033_", r"\033k", r"\033X"):
        status = ended(jobs, jobs.execute(f"printf '{start}'; exit 2").job_id)
        assert (status.exit_code, status.log) == (2, "complete")


def test_full_screen_program_comes_through(jobs: Jobs, tmux: Tmux) -> None:
    job_id = jobs.execute("tput smcup; tput cup 3 5; echo full; read x; tput rmcup; exit 4").job_id
    pane = wait_until(lambda: record_of(jobs, job_id).run, bool).pane  # type: ignore[union-attr]
    wait_until(lambda: tmux("capture-pane", "-p", "-t", pane), lambda screen: "     full" in screen)
    jobs.interact(job_id, "x")
    assert ended(jobs, job_id).exit_code == 4


def test_terminal_left_in_raw_mode_ends_all_the_same(jobs: Jobs) -> None:
    status = ended(jobs, jobs.execute("stty raw -echo tostop; printf abc; exit 2").job_id)
    assert (status.exit_code, status.log, log_of(status)) == (2, "complete", b"abc")


HOSTILE = {
    "false as default-shell": "set -g default-shell /bin/false",
    "default-command": "set -g default-command 'exit 1'",
    "base-index": "set -g base-index 1\nset -g renumber-windows on\nsetw -g pane-base-index 1",
    "remain-on-exit": "setw -g remain-on-exit on",
    "no remain-on-exit": "setw -g remain-on-exit off",
    "destroy-unattached": "set -g destroy-unattached on",
    "renaming hook": "set-hook -g after-new-window 'rename-window renamed'\nsetw -g automatic-rename on",
    "blocking hook": "set-hook -g after-new-window 'run-shell \"sleep 2\"'",
    "splitting hook": "set-hook -g after-new-window 'split-window -d'",
    "hook that splits in front": "set-hook -g after-new-window 'split-window'",
    "no history": "set -g history-limit 0",
    "tiny": "set -g default-size 10x3",
    "read-only keys": "unbind -a\nset -g prefix None",
    "terminal": "set -g default-terminal vt100",
    "detached on destroy": "set -g detach-on-destroy off",
}


@pytest.mark.parametrize("config", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_configuration_changes_nothing(isolated: Path, config: str) -> None:
    (isolated / "home" / ".tmux.conf").write_text(config + "\n")
    jobs = Jobs.open()
    started = jobs.execute("seq 1 20000; exit 3")
    status = ended(jobs, started.job_id)
    assert (status.exit_code, status.log, log_of(status)) == (3, "complete", NUMBERS)
    asked = jobs.execute("read x; echo got $x")
    assert jobs.interact(asked.job_id, "it", wait=50, pattern="got").stdout == "got it\n"
    assert jobs.kill(jobs.execute("sleep 1000").job_id).status == "killed"


def test_exit_unattached_is_refused(isolated: Path) -> None:
    (isolated / "home" / ".tmux.conf").write_text("set -s exit-unattached on\n")
    jobs = Jobs.open()
    with pytest.raises(TmuxError, match="exit-unattached is on"):
        jobs.execute("true")
    assert jobs.list().total == 0


def test_exit_unattached_on_a_running_server_is_refused(tmux: Tmux, person: Callable[..., Person]) -> None:
    tmux("new-session", "-d", "-s", "mine")
    person("mine")
    tmux("set-option", "-s", "exit-unattached", "on")
    with pytest.raises(TmuxError, match="exit-unattached is on"):
        Jobs.open().execute("true")
    assert tmux("list-sessions", "-F", "#{session_name}").split() == ["mine"]


def test_stopped_tmux_server_bounds_every_call(jobs: Jobs, tmux: Tmux) -> None:
    job_id = jobs.execute("read x").job_id
    server = psutil.Process(int(tmux("display-message", "-p", "#{pid}")))
    jobs = with_timing(jobs, tmux=0.5)
    server.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(TmuxError, match="did not answer within"):
            jobs.interact(job_id, "x")
        assert jobs.status(job_id).status == "running"
        assert jobs.list().jobs[0].status == "running"
        assert jobs.wait(job_id, timeout=0.1).reason in ("timeout", "input")
        with pytest.raises(TmuxError, match="did not answer within"):
            jobs.execute("true")
    finally:
        server.send_signal(signal.SIGCONT)
    assert jobs.kill(job_id).status == "killed"
    assert jobs.list().total == 1


def test_server_killed_in_the_middle_of_a_job_is_followed_by_another(tmp_path: Path) -> None:
    script = (
        "from tmuxjobs import Jobs; import time\n"
        "print(Jobs.open().execute('seq 1 20000; sleep 1; exit 6').job_id, flush=True); time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        job_id = server.stdout.readline().strip()
        server.kill()
    jobs = Jobs.open()
    assert jobs.list().jobs[0].job_id == job_id
    status = ended(jobs, job_id)
    assert (status.exit_code, log_of(status)) == (6, NUMBERS)


@pytest.mark.timeout(600)
def test_two_managers_start_jobs_without_a_clash() -> None:
    script = (
        "from tmuxjobs import Jobs, Settings\n"
        "jobs = Jobs.open(Settings.load(max_jobs=200))\n"
        "print(*[jobs.execute(f'exit {code}').job_id for code in range(25)])"
    )
    both = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    ids = [manager.communicate(timeout=250)[0].split() for manager in both]
    jobs = Jobs.open()
    assert len({*ids[0], *ids[1]}) == 50
    for one in ids:
        assert [ended(jobs, job_id).exit_code for job_id in one] == list(range(25))


def test_starter_killed_at_any_moment_leaves_no_slot_and_no_window_behind(tmux: Tmux) -> None:
    script = "from tmuxjobs import Jobs; jobs = Jobs.open(); print(flush=True); jobs.execute('exit 2')"
    for milliseconds in range(0, 120, 8):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as starter:
            assert starter.stdout is not None
            starter.stdout.readline()
            time.sleep(milliseconds / 1000)
            starter.kill()
    jobs = Jobs.open(Settings.load(max_jobs=1))
    told = wait_until(
        lambda: jobs.list(), lambda found: all(job.status != "running" for job in found.jobs), timeout=200
    )
    assert {(job.status, job.exit_code) for job in told.jobs} <= {("failed", 2), ("lost", None)}
    assert ended(jobs, jobs.execute("true").job_id).status == "completed"


def test_state_dir_on_a_full_disk_is_told_and_loses_no_record(tmp_path: Path) -> None:
    if os.getuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", tmp_path]).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        jobs = Jobs.open(Settings.load(state_dir=tmp_path / "state"))
        started = jobs.execute("seq 1 400000; exit 3")
        status = ended(jobs, started.job_id)
        assert (status.exit_code, status.status) == (3, "failed")
        assert "bytes of output.log are gone (disk full)" in status.log
        assert status.log_bytes == sum(len(str(number)) + 2 for number in range(1, 400_001))
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)
