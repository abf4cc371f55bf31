"""How a job stands is told as it is, whoever died meanwhile."""

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support import PYTHON, Jobs, Tmux, ended, in_panes, log_of, own_seconds, record_of, sleeping, wait_until

from tmuxjobs.errors import JobNotFound
from tmuxjobs.hosts.local import trace_of
from tmuxjobs.pane.board import Board
from tmuxjobs.system import job_processes


def running(jobs: Jobs, command: str, *, first: str = ":", cwd: str | None = None) -> str:
    """A job that has printed `ready`, after the first command."""
    job_id = jobs.execute(f"{first}; echo ready; {command}", cwd=cwd).job_id
    wait_until(lambda: jobs.output(job_id).stdout, lambda text: "ready\n" in text)
    return job_id


def run_of(jobs: Jobs, job_id: str):  # type: ignore[no-untyped-def]
    run = record_of(jobs, job_id).run
    assert run is not None
    return run


@pytest.mark.parametrize(
    ("command", "status", "code", "signal_name", "reason"),
    [
        ("true", "completed", 0, None, "exit"),
        ("exit 255", "failed", 255, None, "exit"),
        ("kill -SEGV $$", "killed", None, "SIGSEGV", "signal"),
        ("kill -KILL $$", "killed", None, "SIGKILL", "signal"),
        ("sh -c 'kill -SEGV $$'; exit $?", "failed", 139, None, "exit"),
        ("nosuchcommand", "failed", 127, None, "exit"),
    ],
)
def test_end_is_told_exactly(
    jobs: Jobs, command: str, status: str, code: int | None, signal_name: str | None, reason: str
) -> None:
    told = ended(jobs, jobs.execute(command).job_id)
    assert (told.status, told.exit_code, told.signal, told.reason) == (status, code, signal_name, reason)


def test_code_that_a_shell_gives_for_a_signal_is_explained(jobs: Jobs) -> None:
    told = ended(jobs, jobs.execute("sh -c 'kill -SEGV $$'; exit $?").job_id)
    assert told.detail == "exit code 139 (a shell says so for signal 11)"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("kill -BUS $$", "killed by SIGBUS (bus error), which the kernel sends to a program that crashes"),
        ("kill -ABRT $$", "killed by SIGABRT, by which a program ends itself (abort)"),
        ("kill -HUP $$", "killed by SIGHUP, sent by the job itself or by another program"),
        ("kill -INT $$", "killed by SIGINT, as Ctrl-C in its window sends it"),
        ("nosuchcommand", "exit code 127 (a shell says so when it finds no such command: a job's PATH is that of"),
        ("/etc/passwd", "exit code 126 (a shell says so for a file that it cannot run)"),
        ("false | cat", "exit code 0, of the last command of the pipeline"),
        ("echo 'a|b'", "exit code 0"),
    ],
)
def test_end_is_told_with_what_is_known_of_its_cause(jobs: Jobs, command: str, said: str) -> None:
    status = ended(jobs, jobs.execute(command).job_id)
    assert status.detail == said or status.detail.startswith(f"{said} "), status.detail
    assert said in jobs.wait(status.job_id).text()


@pytest.mark.parametrize(
    ("first", "keys", "said"),
    [
        (":", ["C-c"], "killed by SIGINT, {} after `interact` pressed C-c"),
        (":", ["C-\\"], "killed by SIGQUIT, {} after `interact` pressed C-\\"),
        (
            "trap 'exit 130' INT",
            ["C-c"],
            "exit code 130 (a shell says so for signal 2), {} after `interact` pressed C-c",
        ),
    ],
)
def test_end_by_a_key_that_was_pressed_for_an_agent_is_told_so(
    jobs: Jobs, first: str, keys: list[str], said: str
) -> None:
    seconds = own_seconds()
    job_id = running(jobs, "while :; do sleep 0.01; done" if "trap" in first else f"sleep {seconds}", first=first)
    wait_until(lambda: "trap" in first or sleeping(seconds))  # a shell itself may ignore the key
    jobs.interact(job_id, keys=keys)
    detail = ended(jobs, job_id).detail
    assert re.search(re.escape(said).replace(r"\{\}", r"\d\.\ds"), detail), detail


def test_signal_from_elsewhere_is_not_taken_for_an_agents_key(jobs: Jobs) -> None:
    job_id = running(jobs, "while :; do sleep 0.01; done", first="trap : INT")
    jobs.interact(job_id, keys=["C-c"])
    os.kill(run_of(jobs, job_id).command_pid, signal.SIGTERM)
    assert ended(jobs, job_id).detail == "killed by SIGTERM, sent by the job itself or by another program"


def test_lost_job_tells_how_long_it_ran(jobs: Jobs) -> None:
    job_id = running(jobs, "sleep 1000")
    wait_until(lambda: jobs.status(job_id).runtime > 1.5)
    os.kill(run_of(jobs, job_id).pid, signal.SIGKILL)
    wait_until(lambda: ended(jobs, job_id).runtime, lambda runtime: runtime >= 1.5)
    status = jobs.status(job_id)
    assert status.runtime_is_exact
    assert jobs.status(job_id).runtime == status.runtime


def test_lost_job_without_a_witness_tells_the_least(jobs: Jobs) -> None:
    job_id = running(jobs, "sleep 1000")
    [recorder] = wait_until(lambda: in_panes(jobs, "recorder", job_id))
    recorder.suspend()
    os.kill(run_of(jobs, job_id).pid, signal.SIGKILL)
    recorder.kill()
    status = ended(jobs, job_id)
    assert not status.runtime_is_exact
    assert re.search(r", at least \d", status.text())
    assert re.search(r"  at least \d", jobs.list().text())


def test_job_runs_while_its_children_still_write(jobs: Jobs, tmp_path: Path) -> None:
    late = "until [ -e early ]; do sleep 0.1; done; sleep 0.3; echo late"
    started = jobs.execute(f"({late}) & echo early; touch early; exit 0", cwd=str(tmp_path))
    status = ended(jobs, started.job_id)
    assert log_of(status) == b"early\r\nlate\r\n"
    assert (status.status, status.exit_code) == ("completed", 0)


def test_command_that_left_a_server_in_the_background_is_told(jobs: Jobs) -> None:
    job_id = running(jobs, "sleep 1000 & exit 3")
    status = wait_until(lambda: jobs.status(job_id), lambda status: "ended" in status.detail)
    assert status.detail == "the command ended with exit code 3, and processes that it started can still print"
    assert (status.status, status.exit_code) == ("running", None)
    assert jobs.kill(job_id).status == "killed"


def test_process_that_left_the_terminal_is_named_and_can_be_killed(jobs: Jobs) -> None:
    started = jobs.execute("setsid sleep 1000 </dev/null >/dev/null 2>&1 & sleep 0.2")
    ended(jobs, started.job_id)
    left = lambda: [process.name for process in jobs.status(started.job_id).left_running]  # noqa: E731
    wait_until(left, lambda names: names == ["sleep"])
    assert jobs.kill(started.job_id).status == "already_terminated"
    assert jobs.status(started.job_id).left_running == ()


def test_timeout_ends_the_job(jobs: Jobs) -> None:
    status = ended(jobs, jobs.execute("sleep 1000", timeout=0.3).job_id)
    assert (status.status, status.reason, status.signal) == ("killed", "timeout", "SIGTERM")


def test_closed_window_ends_the_job_and_is_told(jobs: Jobs, tmux: Tmux) -> None:
    job_id = running(jobs, "sleep 1000")
    tmux("kill-window", "-t", f"=mcp-jobs:{job_id}")
    status = ended(jobs, job_id)
    assert (status.status, status.reason) == ("killed", "window-closed")


def test_killed_tmux_server_ends_the_job_and_is_told(jobs: Jobs, tmux: Tmux) -> None:
    job_id = running(jobs, "setsid -f sleep 1000; sleep 1000", first="trap '' HUP")
    os.kill(int(tmux("display-message", "-p", "#{pid}")), signal.SIGKILL)
    status = ended(jobs, job_id)
    assert (status.status, status.reason) == ("killed", "tmux-ended")
    trace = trace_of(record_of(jobs, job_id).job, run_of(jobs, job_id))
    wait_until(
        lambda: job_processes.of_jobs({job_id: trace}), lambda left: left == {}
    )  # its runner ends a moment later


def test_next_job_runs_after_the_tmux_server_was_killed(jobs: Jobs, tmux: Tmux) -> None:
    ended(jobs, jobs.execute("true").job_id)
    os.kill(int(tmux("display-message", "-p", "#{pid}")), signal.SIGKILL)
    assert ended(jobs, jobs.execute("exit 5").job_id).exit_code == 5


def test_job_whose_runner_was_killed_is_lost(jobs: Jobs) -> None:
    job_id = running(jobs, "while :; do sleep 1; done", first="trap '' HUP")
    os.kill(run_of(jobs, job_id).pid, signal.SIGKILL)
    status = ended(jobs, job_id)
    assert (status.status, status.reason, status.exit_code) == ("lost", "runner-died", None)
    assert status.survivors
    assert jobs.kill(job_id, grace=0.2).status == "killed"
    assert jobs.status(job_id).survivors == ()


def test_kill_of_a_lost_job_reaches_what_is_born_meanwhile(jobs: Jobs) -> None:
    job_id = running(jobs, "while :; do sleep 1000 & sleep 0.01; done", first="trap '' HUP")
    os.kill(run_of(jobs, job_id).pid, signal.SIGKILL)
    ended(jobs, job_id)
    assert jobs.kill(job_id, grace=0.1).survivors == ()
    assert jobs.status(job_id).survivors == ()


def test_job_of_an_earlier_boot_is_lost(jobs: Jobs) -> None:
    job_id = running(jobs, "sleep 1000")
    folder = Path(jobs.status(job_id).log_path).parent
    for name in ("job.json", "run.json"):
        record = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(record | {"boot": "an-earlier-one"}))
    status = jobs.status(job_id)
    assert (status.status, status.reason) == ("lost", "reboot")


def test_killed_recorder_is_replaced_and_told(jobs: Jobs, tmux: Tmux) -> None:
    job_id = running(jobs, "read x; echo after; read x")
    pane = run_of(jobs, job_id).pane
    (recorder,) = wait_until(lambda: in_panes(jobs, "recorder", job_id))
    recorder.kill()
    wait_until(lambda: jobs.status(job_id).log, lambda log: "replaced 1 times" in log)
    tmux("send-keys", "-t", pane, "Enter")
    wait_until(lambda: jobs.output(job_id).stdout, lambda text: "after" in text)
    tmux("send-keys", "-t", pane, "Enter")
    status = ended(jobs, job_id)
    assert status.exit_code == 0
    assert status.log.startswith("incomplete: the recorder ended")


def test_usage_is_that_of_the_whole_tree(jobs: Jobs) -> None:
    burn = 'python3 -c "x = bytearray(50 << 20); [i for i in range(3_000_000)]"'
    status = ended(jobs, jobs.execute(f"({burn}) & ({burn}); wait").job_id)
    assert status.cpu is not None
    assert status.cpu > 0.05
    assert status.max_rss_bytes is not None
    assert status.max_rss_bytes > 50 << 20


def test_waiting_for_input_is_told_with_the_prompt(jobs: Jobs) -> None:
    started = jobs.execute("python3 -c \"input('Name? ')\"")
    status = wait_until(lambda: jobs.status(started.job_id), lambda status: status.prompt == "Name? ")
    assert status.waiting_for_input


def test_unknown_id_names_the_nearest(jobs: Jobs) -> None:
    job_id = jobs.execute("true", name="build").job_id
    with pytest.raises(JobNotFound, match=f"Did you mean '{job_id}'"):
        jobs.status(job_id.replace("build", "buidl"))


def test_respawned_window_does_not_run_the_job_again(jobs: Jobs, tmux: Tmux, tmp_path: Path) -> None:
    job_id = running(jobs, "sleep 1000", first="echo x >> count", cwd=str(tmp_path))
    tmux("respawn-pane", "-k", "-t", run_of(jobs, job_id).pane)
    assert ended(jobs, job_id).reason == "window-closed"
    assert (tmp_path / "count").read_text() == "x\n"


def test_respawned_window_adds_nothing_to_the_log(jobs: Jobs, tmux: Tmux) -> None:
    job_id = running(jobs, "sleep 1000")
    before = jobs.output(job_id).stdout
    pane = run_of(jobs, job_id).pane
    tmux("respawn-pane", "-k", "-t", pane)
    wait_until(lambda: tmux("capture-pane", "-p", "-S", "-", "-t", pane), lambda screen: "has already run" in screen)
    ended(jobs, job_id)
    wait_until(lambda: not jobs.host.tmux.panes()[job_id].piped)
    assert jobs.output(job_id).stdout == before


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("job.json", lambda job: job | {"boot": "another"}),
        ("job.json", lambda job: job | {"created_monotonic": job["created_monotonic"] - 61}),
        ("run.json", lambda run: run | {"namespace": "pid:[1]"}),
        ("run.json", lambda run: run | {"start": "1"}),
    ],
    ids=["boot", "never started", "namespace", "runner"],
)
def test_first_window_calls_lost_what_list_calls_lost(
    jobs: Jobs, file: str, change: Callable[[dict[str, object]], object]
) -> None:
    job_id = running(jobs, "sleep 1000")
    folder = jobs.host.store.folder(job_id)
    record = json.loads((folder / file).read_text())
    before = {path: path.read_bytes() for path in (folder / "job.json", folder / "run.json")}
    if "created_monotonic" in record:
        (folder / "run.json").unlink()
    (folder / file).write_text(json.dumps(change(record)))
    assert [job.status for job in jobs.list().jobs] == ["lost"]
    assert [job.state for job in Board(str(jobs.host.store.root)).refresh()] == ["lost"]
    for path, data in before.items():
        path.write_bytes(data)


def test_list_names_what_a_command_left_running_as_it_is_now(jobs: Jobs, tmp_path: Path) -> None:
    later = "import os, sys; sys.stdin.readline(); os.execlp('sleep', 'sleep', '1002')"
    holds = running(jobs, "sleep 1001 & exit 3")
    os.mkfifo(go := tmp_path / "go")
    daemon = jobs.execute(f'setsid {PYTHON} -c "{later}" 0<>{go} >/dev/null 2>&1 &')
    ended(jobs, daemon.job_id)
    go.write_text("\n")
    both = (holds, daemon.job_id)
    wait_until(lambda: all([one.name for one in jobs.status(job_id).left_running] == ["sleep"] for job_id in both))
    shown = jobs.list().text().splitlines()
    assert re.search(r"  running command ended with exit code 3, left running: sleep \(\d+\)  ", shown[1])
    assert re.search(r"  completed, left running: sleep \(\d+\)  ", shown[0])
    for job_id in both:
        jobs.kill(job_id)
