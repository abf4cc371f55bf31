"""A job that runs its command again: one id, numbered attempts, each with its own end and its own part of the log."""

import json
import os
import secrets
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from support import Jobs, Person, Tmux, change_pane, ended, log_of, record_of, sleeping, wait_until

from tmuxjobs import Settings
from tmuxjobs.errors import InvalidInput
from tmuxjobs.job_answers import JobStatus

COUNTS = 'n=$(cat n 2>/dev/null || echo 0); n=$((n+1)); echo $n > n; echo "run $n"'
"""The beginning of a command that knows in `n` how often it has run."""


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Jobs:
    """Jobs whose pauses are short."""
    folder = tmp_path / "changed"
    change_pane(monkeypatch, folder, "attempts.py", lambda text: text.replace("= 1.0, 60.0", "= 0.05, 0.1"))
    return Jobs.open(Settings.load(max_jobs=40))


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Jobs:
    """Jobs whose first pause is long: what is done within it may take its time."""
    folder = tmp_path / "changed"
    change_pane(monkeypatch, folder, "attempts.py", lambda text: text.replace("= 1.0, 60.0", "= 60.0, 60.0"))
    return Jobs.open(Settings.load(max_jobs=40))


def rests(jobs: Jobs, job_id: str) -> JobStatus:
    """The job's status once it waits for its next attempt."""
    return wait_until(lambda: jobs.status(job_id), lambda status: "begins in" in status.detail)


def test_failure_runs_again_until_it_succeeds(soon: Jobs, tmp_path: Path) -> None:
    job_id = soon.execute(f"{COUNTS}; [ $n = 3 ]", cwd=str(tmp_path), retry=5).job_id
    status = ended(soon, job_id)
    assert (status.status, status.exit_code, status.attempts) == ("completed", 0, 3)
    assert status.detail == "exit code 0, at attempt 3"
    assert [one.partition(" after ")[0] for one in status.earlier] == [
        "attempt 1: exit code 1",
        "attempt 2: exit code 1",
        "attempt 3: exit code 0",
    ]
    assert soon.output(job_id).stdout == "run 1\nrun 2\nrun 3\n"


def test_last_attempt_that_fails_is_the_end_of_the_job(soon: Jobs) -> None:
    status = ended(soon, soon.execute("exit 7", retry=1).job_id)
    assert (status.status, status.exit_code, status.attempts) == ("failed", 7, 2)
    assert status.detail == "exit code 7, the last of 2 attempts"


def test_each_attempt_has_its_own_output(soon: Jobs, tmp_path: Path) -> None:
    command = f"{COUNTS}; echo err$n >&2; [ $n = 3 ]"
    job_id = soon.execute(command, cwd=str(tmp_path), retry=2, separate_stderr=True).job_id
    ended(soon, job_id)
    for number in (1, 2, 3):
        answer = soon.output(job_id, attempt=number)
        assert (answer.stdout, answer.stderr) == (f"run {number}\n", f"err{number}\n")
        whole = soon.whole(job_id, attempt=number)
        assert ("".join(map(str, whole.stdout)), "".join(map(str, whole.stderr))) == (
            f"run {number}\n",
            f"err{number}\n",
        )
    with pytest.raises(InvalidInput, match="has no attempt 4; 1 to 3 are known"):
        soon.output(job_id, attempt=4)


def test_job_that_ran_once_has_its_first_attempt_alone(jobs: Jobs) -> None:
    job_id = jobs.execute("echo once").job_id
    ended(jobs, job_id)
    assert jobs.output(job_id, attempt=1).stdout == "once\n"
    with pytest.raises(InvalidInput, match="has no attempt 2; it has had one alone"):
        jobs.output(job_id, attempt=2)


def test_pause_before_the_next_attempt_doubles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    change_pane(monkeypatch, folder, "attempts.py", lambda text: text.replace("= 1.0, 60.0", "= 0.3, 60.0"))
    jobs = Jobs.open(Settings.load())
    job_id = jobs.execute("exit 1", retry=3).job_id
    ended(jobs, job_id)
    attempts = json.loads((jobs.host.store.folder(job_id) / "attempts.json").read_text())["attempts"]
    begun, over = ([datetime.fromisoformat(one[name]) for one in attempts] for name in ("started_at", "ended_at"))
    pauses = [(begin - end).total_seconds() for begin, end in zip(begun[1:], over, strict=False)]
    assert len(pauses) == 3
    assert all(pause >= least - 0.01 for pause, least in zip(pauses, (0.3, 0.6, 1.2), strict=True)), pauses


def test_line_between_attempts_is_in_the_window_and_not_in_the_log(soon: Jobs, tmux: Tmux, tmp_path: Path) -> None:
    started = soon.execute(f"{COUNTS}; [ $n = 3 ]", cwd=str(tmp_path), retry=2)
    ended(soon, started.job_id)
    shown = wait_until(
        lambda: tmux("capture-pane", "-p", "-t", f"=mcp-jobs:{started.job_id}"), lambda it: "close" in it
    )
    assert "run 1" in shown
    assert f"[{started.job_id}: attempt 1 ended with exit code 1; attempt 2 begins in" in shown
    assert log_of(started) == b"run 1\r\nrun 2\r\nrun 3\r\n"


def test_what_an_attempt_left_behind_is_ended_before_the_next(soon: Jobs, tmp_path: Path) -> None:
    seconds = 1000 + secrets.randbelow(10**8)
    left = f"setsid sleep {seconds} < /dev/null > /dev/null 2>&1 & sleep {seconds} &"
    command = f"{COUNTS}; [ $n = 2 ] && {{ pgrep -fc '[s]leep {seconds}'; exit 0; }}; {left} sleep 0.2; exit 1"
    job_id = soon.execute(command, cwd=str(tmp_path), retry=1, env={"n": ""}).job_id
    status = ended(soon, job_id)
    assert (status.attempts, soon.output(job_id, attempt=2).stdout) == (2, "run 2\n1\n")  # the shell's own line
    assert not sleeping(seconds)


def test_timeout_ends_an_attempt_and_counts_as_its_failure(soon: Jobs, tmp_path: Path) -> None:
    job_id = soon.execute(f"{COUNTS}; [ $n = 2 ] || sleep 1000", cwd=str(tmp_path), retry=1, timeout=3.0).job_id
    status = ended(soon, job_id)
    assert (status.status, status.attempts) == ("completed", 2)
    assert status.earlier[0].startswith("attempt 1: by its timeout (SIGTERM)")


def test_last_attempt_that_takes_too_long_is_killed_by_its_timeout(soon: Jobs) -> None:
    status = ended(soon, soon.execute("sleep 1000", retry=1, timeout=0.3).job_id)
    assert (status.status, status.reason, status.attempts) == ("killed", "timeout", 2)


def test_kill_ends_all_attempts(jobs: Jobs) -> None:
    job_id = jobs.execute("sleep 1000", retry=5).job_id
    assert jobs.kill(job_id).status == "killed"
    status = jobs.status(job_id)
    assert (status.status, status.reason, status.attempts) == ("killed", "kill", 1)


def test_kill_between_two_attempts_ends_the_job_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The second pause is a minute.
    change = lambda text: text.replace("= 1.0, 60.0", "= 0.05, 60.0").replace("FIRST_S * 2 **", "FIRST_S * 1200 **")  # noqa: E731
    change_pane(monkeypatch, tmp_path / "changed", "attempts.py", change)
    jobs = Jobs.open(Settings.load())
    job_id = jobs.execute(f"{COUNTS}; exit 3", cwd=str(tmp_path), retry=9).job_id
    wait_until(lambda: jobs.status(job_id).detail, lambda detail: detail.startswith("attempt 2 ended"))
    assert jobs.kill(job_id).status == "killed"
    status = jobs.status(job_id)
    assert (status.status, status.reason, status.exit_code, status.attempts) == ("killed", "kill", 3, 2)
    assert (tmp_path / "n").read_text() == "2\n"


def test_kill_while_a_timeout_ends_an_attempt_ends_the_job(soon: Jobs) -> None:
    job_id = soon.execute("trap 'echo asked' TERM; while :; do sleep 0.1; done", retry=5, timeout=4.0).job_id
    wait_until(lambda: soon.output(job_id).stdout)
    soon.kill(job_id, grace=0.1)
    status = soon.status(job_id)
    assert (status.status, status.reason, status.attempts) == ("killed", "kill", 1)


def test_next_attempt_of_a_paused_job_waits_until_it_is_resumed(soon: Jobs, tmp_path: Path) -> None:
    command = f"{COUNTS}; [ $n = 1 ] || exit 0; until [ -e go ]; do sleep 0.05; done; exit 1"
    job_id = soon.execute(command, cwd=str(tmp_path), retry=1).job_id
    wait_until(lambda: soon.output(job_id).stdout)
    soon.pause(job_id)
    (tmp_path / "go").touch()
    assert soon.status(job_id).status == "paused"
    soon.resume(job_id)
    status = ended(soon, job_id)
    assert (status.status, status.attempts) == ("completed", 2)


def test_paused_job_between_two_attempts_is_ended_by_kill(late: Jobs) -> None:
    job_id = late.execute("exit 3", retry=9).job_id
    rests(late, job_id)
    late.pause(job_id)
    attempts = late.status(job_id).attempts
    assert late.status(job_id).status == "paused"
    assert late.kill(job_id).status == "killed"
    assert late.status(job_id).attempts == attempts


def test_closed_window_ends_a_job_between_two_attempts(late: Jobs, tmux: Tmux) -> None:
    job_id = late.execute("exit 3", retry=9).job_id
    rests(late, job_id)
    tmux("kill-window", "-t", f"=mcp-jobs:{job_id}")
    assert ended(late, job_id).reason == "window-closed"


def test_ctrl_c_in_the_window_ends_all_attempts(jobs: Jobs, person: Callable[..., Person]) -> None:
    job_id = jobs.execute("echo here; sleep 1000", restart_policy="always").job_id
    wait_until(lambda: jobs.output(job_id).stdout)
    person(f"=mcp-jobs:{job_id}").type("\x03")
    status = ended(jobs, job_id)
    assert (status.status, status.signal, status.attempts) == ("killed", "SIGINT", 1)


def test_policy_always_runs_again_after_success_too(soon: Jobs) -> None:
    status = ended(soon, soon.execute("true", restart_policy="always", retry=3).job_id)
    assert (status.status, status.attempts) == ("completed", 4)


def test_policy_on_failure_ends_with_success_and_gives_up_after_so_many_in_a_row(soon: Jobs) -> None:
    good = soon.execute("true", restart_policy="on-failure").job_id
    bad = soon.execute("exit 1", restart_policy="on-failure").job_id
    assert (ended(soon, good).status, soon.status(good).attempts) == ("completed", 1)
    assert (ended(soon, bad).status, soon.status(bad).attempts) == ("failed", 11)


def test_attempt_that_ran_long_begins_the_count_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    change = lambda text: text.replace("= 1.0, 60.0", "= 0.05, 0.1").replace("STEADY_S = 60.0", "STEADY_S = 2.0")  # noqa: E731
    change_pane(monkeypatch, tmp_path / "changed", "attempts.py", change)
    jobs = Jobs.open(Settings.load())
    command = f"{COUNTS}; [ $n -gt 2 ] || sleep 2.1; exit 1"
    status = ended(jobs, jobs.execute(command, cwd=str(tmp_path), restart_policy="on-failure", retry=1).job_id)
    assert status.attempts == 3  # each of two that ran long is followed by one


def test_given_codes_mean_success(soon: Jobs) -> None:
    job_id = soon.execute("exit 3", success_codes=[0, 3], retry=5).job_id
    status = ended(soon, job_id)
    assert (status.status, status.exit_code, status.attempts) == ("completed", 3, 1)
    waited = soon.wait([job_id, soon.execute("exit 4", success_codes=[3]).job_id], mode="all", timeout=40)
    assert len(waited.failed) == 1
    assert job_id not in waited.failed


def test_environment_is_the_same_for_each_attempt_and_kept_nowhere(soon: Jobs, tmp_path: Path) -> None:
    job_id = soon.execute(
        f"{COUNTS}; echo $TOKEN; [ $n = 2 ]", cwd=str(tmp_path), retry=2, env={"TOKEN": "hid-den"}
    ).job_id
    ended(soon, job_id)
    assert soon.output(job_id, attempt=2).stdout == "run 2\nhid-den\n"
    for path in soon.host.store.folder(job_id).glob("*.json"):
        assert "hid-den" not in path.read_text()


def test_folder_that_is_gone_fails_an_attempt_and_not_the_runner(soon: Jobs, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    job_id = soon.execute("sleep 0.2; rmdir $PWD; exit 1", cwd=str(tmp_path / "gone"), retry=1).job_id
    status = ended(soon, job_id)
    assert (status.status, status.exit_code, status.attempts) == ("failed", 127, 2)
    assert "No such file or directory" in status.detail


def test_terminal_of_the_next_attempt_is_as_at_the_start(soon: Jobs, tmp_path: Path) -> None:
    command = f"{COUNTS}; [ $n = 2 ] && {{ stty -a; exit; }}; stty raw -echo; exit 1"
    job_id = soon.execute(command, cwd=str(tmp_path), retry=1).job_id
    ended(soon, job_id)
    words = soon.output(job_id, attempt=2).stdout.split()
    assert {"icanon", "echo", "opost"} <= {word.strip(";") for word in words}


def test_list_tells_which_attempt_runs(soon: Jobs, tmp_path: Path) -> None:
    job_id = soon.execute(f"{COUNTS}; [ $n = 2 ] && sleep 1000; exit 1", cwd=str(tmp_path), retry=1).job_id
    wait_until(lambda: soon.output(job_id).stdout, lambda text: "run 2" in text)
    assert f"{job_id}  running attempt 2" in soon.list().text()
    status = soon.status(job_id)
    assert (status.attempts, [one.partition(" after ")[0] for one in status.earlier]) == (2, ["attempt 1: exit code 1"])
    assert soon.output(job_id, attempt=2).stdout == "run 2\n"


def test_job_between_two_attempts_is_running_and_says_when_it_goes_on(late: Jobs) -> None:
    job_id = late.execute("exit 3", retry=9).job_id
    status = rests(late, job_id)
    assert status.status == "running"
    assert status.detail.startswith("attempt 1 ended with exit code 3; attempt 2 begins in")
    assert job_id in [job.job_id for job in late.list(status="running").jobs]


def test_crash_loop_is_told_as_one_event_and_its_end_with_the_count(soon: Jobs) -> None:
    job_id = soon.execute("exit 2", restart_policy="on-failure").job_id
    seen = [one for one in soon.events() if one.job_id == job_id]
    ended(soon, job_id)
    wait_until(lambda: [one.event for one in soon.events() if one.job_id == job_id][-1], lambda event: event == "end")
    told = [one for one in soon.events() if one.job_id == job_id]
    assert [one.event for one in told if one.event != "again"] == ["start", "end"]
    assert [one.event for one in told].count("again") <= 1
    assert "the last of 11 attempts" in soon.event_line(told[-1])
    assert seen == told[: len(seen)]


def test_wait_for_the_end_goes_on_over_all_attempts(soon: Jobs, tmp_path: Path) -> None:
    job_id = soon.execute(f"{COUNTS}; [ $n = 3 ]", cwd=str(tmp_path), retry=5).job_id
    waited = soon.wait(job_id, timeout=40)
    assert (waited.reason, waited.status) == ("exit", "completed")


def test_restart_takes_over_how_often_it_runs(soon: Jobs) -> None:
    job_id = soon.execute("exit 1", retry=2, success_codes=[0, 5], ready_when="port 5000", ready_timeout=7).job_id
    ended(soon, job_id)
    spec = record_of(soon, soon.restart(job_id).job_id).job
    assert (spec.retry, spec.success_codes, spec.ready_when, spec.ready_timeout_s) == (2, (0, 5), "port 5000", 7.0)


def test_killed_runner_between_two_attempts_leaves_a_lost_job(late: Jobs) -> None:
    job_id = late.execute("exit 3", retry=9).job_id
    rests(late, job_id)
    os.kill(record_of(late, job_id).run.pid, signal.SIGKILL)  # type: ignore[union-attr]
    assert ended(late, job_id).status == "lost"


def test_damaged_list_of_attempts_is_passed_over(soon: Jobs) -> None:
    job_id = soon.execute("echo once; exit 3", retry=1).job_id
    ended(soon, job_id)
    (soon.host.store.folder(job_id) / "attempts.json").write_text('{"format": 1, "attempts": [{"attempt"')
    status = soon.status(job_id)
    assert (status.attempts, status.earlier) == (2, ())
    assert soon.output(job_id).stdout == "once\nonce\n"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"retry": -1}, "retry must be 0 to 1000, not -1"),
        ({"restart_policy": "never"}, "restart_policy is on-failure or always, not 'never'"),
        ({"success_codes": []}, "success_codes are one or more exit codes"),
        ({"success_codes": [300]}, "success_codes are one or more exit codes"),
    ],
)
def test_wrong_wishes_are_refused_and_nothing_is_started(jobs: Jobs, asked: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        jobs.execute("true", **asked)  # type: ignore[arg-type]
    assert not jobs.list().jobs
