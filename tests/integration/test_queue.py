"""Jobs that wait for their turn: limits, order, dependencies, the clock, and what is said of them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pytest
from support import Jobs, Screen, Tmux, ended, in_panes, record_of, wait_until

from tmuxjobs import Settings, files
from tmuxjobs.errors import InvalidInput, JobEnded, JobNotFound, LimitReached
from tmuxjobs.pane import queue, turns


def small(most: int = 1, **more: object) -> Jobs:
    """Jobs of which so many may run at once."""
    return Jobs.open(Settings.load(max_jobs=most, **more))


def noting(path: Path, word: str) -> str:
    return f"echo {word} >> {path}"


# Limits


def test_job_beyond_the_limit_waits_and_starts_once_there_is_room() -> None:
    jobs = small()
    first = jobs.execute("sleep 1000").job_id
    with pytest.raises(LimitReached):
        jobs.execute("true")
    waiting = jobs.execute("echo done", queue=True)
    assert waiting.status == "queued"
    assert "place 1 of 1: 1 job runs in its project, and TMUXJOBS_MAX_JOBS is 1" in waiting.text()
    status = jobs.status(waiting.job_id)
    assert (status.status, status.place) == ("queued", 1)
    jobs.kill(first)
    assert ended(jobs, waiting.job_id).exit_code == 0
    assert jobs.tail(waiting.job_id).stdout == "done\n"


def test_setting_lets_every_job_wait_that_does_not_say_otherwise() -> None:
    jobs = small(queue=True)
    jobs.execute("sleep 1000")
    assert jobs.execute("true").status == "queued"
    with pytest.raises(LimitReached):
        jobs.execute("true", queue=False)


def test_waiting_job_has_no_process_and_no_window(tmux: Tmux) -> None:
    jobs = small()
    jobs.execute("sleep 1000")
    waiting = [jobs.execute("true", queue=True).job_id for _ in range(5)]
    names = tmux("list-windows", "-t", "=mcp-jobs", "-F", "#{window_name}").split()
    assert not set(names) & set(waiting)
    # What a runner has just forked has its arguments too.
    wait_until(lambda: in_panes(jobs, "runner"), lambda found: len(found) == 1)


def test_end_of_a_job_starts_the_next_though_nobody_calls(tmp_path: Path) -> None:
    jobs = small()
    out = tmp_path / "out"
    jobs.execute(noting(out, "first"))
    for word in ("second", "third", "fourth"):
        jobs.execute(noting(out, word), queue=True)
    wait_until(lambda: out.read_text().split() if out.exists() else [], lambda words: len(words) == 4)
    assert out.read_text().split() == ["first", "second", "third", "fourth"]


def test_slot_of_a_killed_runner_is_free_at_the_next_call() -> None:
    jobs = small()
    first = jobs.execute("sleep 1000").job_id
    waiting = jobs.execute("true", queue=True).job_id
    run = record_of(jobs, first).run
    assert run is not None
    os.kill(run.pid, signal.SIGKILL)
    assert ended(jobs, waiting).status == "completed"


def test_welcome_page_moves_the_queue_on_when_nobody_else_lives(tmp_path: Path) -> None:
    jobs = small()
    first = jobs.execute("sleep 1000").job_id
    jobs.execute(f"touch {tmp_path}/ran", queue=True)
    run = record_of(jobs, first).run
    assert run is not None
    os.kill(run.pid, signal.SIGKILL)
    wait_until((tmp_path / "ran").exists)


def test_groups_limit_holds_beside_the_common_one() -> None:
    jobs = small(20, groups={"tests": 2})
    ids = [jobs.execute("sleep 1000", group="tests").job_id for _ in range(4)]
    assert [jobs.status(one).status for one in ids] == ["running", "running", "queued", "queued"]
    assert "2 jobs run in group tests, and its limit is 2" in jobs.status(ids[2]).text()
    assert jobs.execute("sleep 1000").status == "running"
    jobs.kill(ids[0])
    wait_until(lambda: jobs.status(ids[2]).status, lambda status: status == "running")
    assert jobs.status(ids[3]).status == "queued"


def test_limit_of_projects_is_each_ones_own(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()  # type: ignore[func-returns-value]
    both = [small(2, max_jobs_total=3, working_dir=folder) for folder in (one, two)]
    ids = [both[0].execute("sleep 1000", queue=True).job_id for _ in range(4)]
    others = [both[1].execute("sleep 1000", queue=True).job_id for _ in range(2)]
    states = [both[0].status(job_id).status for job_id in ids + others]
    assert states == ["running", "running", "queued", "queued", "running", "queued"]
    both[0].kill(ids[0])
    # The project of which less runs comes first, though it asked later.
    wait_until(lambda: both[0].list(status="running").total, lambda total: total == 3)
    assert [both[0].status(one).status for one in (ids[2], others[1])] == ["running", "queued"]


def test_limit_of_a_group_that_a_person_sets_counts_at_once_and_wins_over_the_settings() -> None:
    jobs = small(20, groups={"tests": 1})
    ids = [jobs.execute("sleep 1000", group="tests").job_id for _ in range(3)]
    assert [jobs.status(one).status for one in ids] == ["running", "queued", "queued"]
    assert "group tests: 2 running, 1 queued, 2 may run at once" in jobs.group("tests", limit=2).text()
    assert [jobs.status(one).status for one in ids] == ["running", "running", "queued"]
    jobs.group("tests", limit=0)
    assert jobs.status(ids[2]).status == "running"


def test_paused_group_starts_nothing_and_its_running_jobs_go_on() -> None:
    jobs = small(20)
    first = jobs.execute("sleep 1000", group="tests").job_id
    assert jobs.group("tests", pause=True).paused
    waiting = jobs.execute("true", group="tests")
    assert "group tests is paused" in waiting.text()
    assert jobs.status(first).status == "running"
    assert not jobs.group("tests", resume=True).paused
    assert ended(jobs, waiting.job_id).status == "completed"


def test_start_and_kill_answer_after_it_has_happened() -> None:
    jobs = small(20)
    first = jobs.execute("sleep 1000", group="tests").job_id
    run = record_of(jobs, first).run
    assert run is not None
    assert run.command_pid is not None
    jobs.group("tests", pause=True)
    waiting = jobs.execute("sleep 1000", group="tests").job_id
    assert jobs.group("tests", resume=True).running == 2
    assert record_of(jobs, waiting).run is not None
    assert jobs.kill(first).status == "killed"
    assert not psutil.pid_exists(run.command_pid)
    assert jobs.group("tests").running == 1


def test_group_that_nobody_has_named_is_refused_and_one_that_ran_is_known() -> None:
    jobs = small(20, groups={"web": 2})
    with pytest.raises(InvalidInput, match="There is no group 'tset'; there are web"):
        jobs.group("tset", resume=True)
    ended(jobs, jobs.execute("true", group="tests").job_id)
    assert "group tests: 0 running, 0 queued" in jobs.group("tests").text()
    assert jobs.group("later", pause=True).paused


def test_resumed_group_lets_those_alone_go_on_that_its_pause_has_stopped() -> None:
    jobs = small(20)
    by_person, by_group = (jobs.execute("sleep 1000", group="tests").job_id for _ in range(2))
    jobs.pause(by_person)
    assert jobs.group("tests", pause=True, jobs=True).paused_jobs == (by_group,)
    assert [jobs.status(one).status for one in (by_person, by_group)] == ["paused", "paused"]
    jobs.group("tests", resume=True)
    assert [jobs.status(one).status for one in (by_person, by_group)] == ["paused", "running"]


# Order


def test_higher_priority_goes_first_and_then_who_asked_first(tmp_path: Path) -> None:
    jobs = small()
    out = tmp_path / "out"
    first = jobs.execute("sleep 1000").job_id
    for word, priority in (("low", -1), ("plain", 0), ("high", 5), ("later", 0)):
        jobs.execute(noting(out, word), queue=True, priority=priority)
    jobs.kill(first)
    wait_until(lambda: out.read_text().split() if out.exists() else [], lambda words: len(words) == 4)
    assert out.read_text().split() == ["high", "plain", "later", "low"]


def test_priority_alone_lets_a_job_wait() -> None:
    jobs = small()
    jobs.execute("sleep 1000")
    assert jobs.execute("true", priority=1).status == "queued"
    with pytest.raises(InvalidInput, match="at most 1000000"):
        jobs.execute("true", priority=99_999_999)


def test_waiting_job_is_moved_to_the_front_and_given_another_command(tmp_path: Path) -> None:
    jobs = small()
    out = tmp_path / "out"
    first = jobs.execute("sleep 1000").job_id
    ids = [jobs.execute(noting(out, word), queue=True).job_id for word in ("one", "two", "three")]
    assert jobs.queue(ids[2], first=True).detail.startswith("queued, place 1 of 3")
    jobs.queue(ids[1], command=noting(out, "changed"))
    assert [job.job_id for job in jobs.list(status="queued").jobs if job.place == 1] == [ids[2]]
    jobs.kill(first)
    wait_until(lambda: out.read_text().split() if out.exists() else [], lambda words: len(words) == 3)
    assert out.read_text().split() == ["three", "one", "changed"]
    with pytest.raises(InvalidInput, match="does not wait for its turn"):
        jobs.queue(ids[0], first=True)


# Jobs that come after others


def test_job_starts_once_the_one_before_it_has_succeeded() -> None:
    jobs = small(5)
    before = jobs.execute("read line", name="build").job_id
    behind = jobs.execute("true", after=[before])
    assert behind.status == "queued"
    assert f"after {before}, which runs" in behind.text()
    jobs.interact(before, "go", wait=0)
    assert ended(jobs, behind.job_id).status == "completed"


def test_those_behind_a_failed_job_are_skipped_at_once_and_say_why(tmp_path: Path) -> None:
    jobs = small(5)
    before = jobs.execute("read line; exit 2", name="build").job_id
    behind = jobs.execute(f"touch {tmp_path}/ran", after=[before]).job_id
    last = jobs.execute("true", after=[behind]).job_id
    always = jobs.execute("true", after=[f"{before}:any"]).job_id
    jobs.interact(before, "go", wait=0)
    waited = jobs.wait([behind, last], mode="all")
    assert [(one.job_id, one.status) for one in waited.jobs] == [(behind, "skipped"), (last, "skipped")]
    assert waited.failed == (behind, last)
    assert jobs.status(behind).detail == f"skipped: {before} failed with exit code 2"
    assert jobs.status(last).detail == f"skipped: {behind} was skipped"
    assert ended(jobs, always).status == "completed"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda jobs, one: jobs.kill(one), "was killed on request"),
        (lambda jobs, one: os.kill(record_of(jobs, one).run.pid, signal.SIGKILL), "was lost"),
    ],
)
def test_those_behind_a_job_that_was_killed_or_lost_are_skipped(how: Callable[[Jobs, str], object], said: str) -> None:
    jobs = small(5)
    before = jobs.execute("sleep 1000").job_id
    behind = jobs.execute("true", after=before).job_id
    how(jobs, before)
    assert ended(jobs, behind).detail == f"skipped: {before} {said}"


def test_job_behind_one_that_has_failed_already_is_skipped_and_never_runs(tmp_path: Path) -> None:
    jobs = small(5)
    before = jobs.execute("exit 3").job_id
    ended(jobs, before)
    behind = jobs.execute(f"touch {tmp_path}/ran", after=[before])
    assert behind.status == "skipped"
    assert f"skipped: {before} failed with exit code 3" in behind.text()
    assert not (tmp_path / "ran").exists()


def test_job_comes_only_after_jobs_that_there_are() -> None:
    jobs = small()
    with pytest.raises(JobNotFound):
        jobs.execute("true", after=["build-1a2b"])
    with pytest.raises(InvalidInput, match="ID:any"):
        jobs.execute("true", after=["build-1a2b:soon"])
    assert jobs.list().total == 0


def test_job_waits_until_the_one_before_it_is_ready_and_not_for_its_end(tmp_path: Path) -> None:
    jobs = small(5)
    when = f"command [ -e {tmp_path}/up ]"
    before = jobs.execute("sleep 1000", name="db", ready_when=when)
    behind = jobs.execute("true", after=[f"{before.job_id}:ready"])
    assert "is not ready yet" in behind.text()
    (tmp_path / "up").touch()
    wait_until((jobs.host.store.folder(behind.job_id) / "exit.json").exists)  # nobody calls: who looks moves it on
    assert jobs.status(behind.job_id).status == "completed"
    assert jobs.status(before.job_id).status == "running"


def test_job_behind_one_that_was_ready_and_is_not_any_more_is_not_skipped(tmp_path: Path) -> None:
    jobs = small(5)
    (tmp_path / "up").touch()
    before = jobs.execute("sleep 1000", name="db", ready_when=f"command [ -e {tmp_path}/up ]", ready_timeout=1).job_id
    # On a slow machine it is ready later than it should.
    wait_until(lambda: jobs.wait(before, until="ready", timeout=40).reason, lambda reason: reason == "ready")
    # As it is told after a look that failed.
    ready = jobs.host.store.folder(before) / "ready.json"
    facts = json.loads(ready.read_text())
    ready.write_text(json.dumps({**facts, "ready": False, "why": "not ready any more"}))
    behind = jobs.execute("true", after=[f"{before}:ready"])
    assert behind.status == "queued"
    ready.write_text(json.dumps(facts))
    assert ended(jobs, behind.job_id).status == "completed"


def test_job_behind_one_that_is_never_ready_is_skipped() -> None:
    jobs = small(5)
    before = jobs.execute("sleep 1000", name="db", ready_when="port 1", ready_timeout=0.5)
    behind = jobs.execute("true", after=[f"{before.job_id}:ready"])
    wait_until((jobs.host.store.folder(behind.job_id) / "exit.json").exists)  # nobody calls
    said = f"skipped: {before.job_id} was not ready in time: not ready within 0.5 s: it does not listen on port 1"
    assert jobs.status(behind.job_id).detail == said


def test_job_behind_one_that_nobody_watches_for_being_ready_is_refused() -> None:
    jobs = small(5)
    before = jobs.execute("sleep 1000", name="db").job_id
    with pytest.raises(InvalidInput, match="was started without `ready_when`"):
        jobs.execute("true", after=[f"{before}:ready"])
    assert jobs.list().total == 1


def test_job_waits_over_all_attempts_of_the_one_before_it(tmp_path: Path) -> None:
    jobs = small(5)
    before = jobs.execute(f"[ -e {tmp_path}/n ] || {{ touch {tmp_path}/n; exit 1; }}", name="flaky", retry=1).job_id
    behind = jobs.execute("true", after=[before]).job_id
    assert ended(jobs, behind).status == "completed"
    assert jobs.status(before).attempts == 2


def test_job_that_another_comes_after_is_not_pruned() -> None:
    jobs = small(5, keep_jobs=0)
    before = jobs.execute("true").job_id
    ended(jobs, before)
    behind = jobs.execute("true", after=[before], delay=1000).job_id
    assert jobs.prune() == []
    jobs.kill(behind)
    assert set(jobs.prune()) == {before, behind}


# The clock


def test_delayed_job_starts_by_the_clock_though_nobody_calls(tmp_path: Path) -> None:
    jobs = small(5)
    ended(jobs, jobs.execute("true").job_id)  # the first start copies what runs in panes
    for delay in (2, 8):  # a slow machine answers later
        delayed = jobs.execute(f"touch {tmp_path}/ran", delay=delay)
        if delayed.status == "queued":
            break
        ended(jobs, delayed.job_id)
        (tmp_path / "ran").unlink()
    assert delayed.status == "queued"
    assert "not before " in delayed.text()
    wait_until((tmp_path / "ran").exists)


def test_job_starts_at_a_time() -> None:
    jobs = small(5)
    late = jobs.execute("true", at="2999-01-01T18:30").job_id
    assert "not before 2999-01-01 18:30:00" in jobs.status(late).text()
    minute = (datetime.now() - timedelta(minutes=1)).strftime("%H:%M")
    assert jobs.status(jobs.execute("true", at=minute).job_id).status == "queued"  # tomorrow
    assert ended(jobs, jobs.execute("true", at="2020-01-01T18:30").job_id).status == "completed"
    with pytest.raises(InvalidInput, match="at is a time"):
        jobs.execute("true", at="soon")


# Verbs


def test_waiting_job_is_cancelled_and_never_runs(tmp_path: Path) -> None:
    jobs = small()
    first = jobs.execute("sleep 1000").job_id
    waiting = jobs.execute(f"touch {tmp_path}/ran", queue=True, env={"SECRET": "x"}).job_id
    answer = jobs.kill(waiting)
    assert (answer.status, answer.detail) == ("killed", "killed on request, before its turn, so it never ran")
    jobs.kill(first)
    assert jobs.status(waiting).status == "killed"
    assert sorted(path.name for path in jobs.host.store.folder(waiting).iterdir()) == ["exit.json", "job.json"]
    assert jobs.kill(waiting).status == "already_terminated"
    assert not (tmp_path / "ran").exists()


def test_waiting_job_takes_no_signal_and_no_input() -> None:
    jobs = small()
    jobs.execute("sleep 1000")
    waiting = jobs.execute("true", queue=True).job_id
    with pytest.raises(JobEnded, match="waits for its turn"):
        jobs.kill(waiting, signal="HUP", end=False)
    with pytest.raises(JobEnded, match="waits for its turn"):
        jobs.interact(waiting, "x")
    assert jobs.output(waiting).stdout == ""


def test_restart_of_a_waiting_job_is_refused_and_changes_nothing() -> None:
    jobs = small()
    jobs.execute("sleep 1000")
    waiting = jobs.execute("true", queue=True).job_id
    with pytest.raises(InvalidInput, match="waits for its turn"):
        jobs.restart(waiting)
    assert jobs.status(waiting).status == "queued"
    assert jobs.list().total == 2


def test_restart_of_a_job_of_a_group_keeps_its_place_in_it() -> None:
    jobs = small(20, groups={"web": 1})
    first = jobs.execute("sleep 1000", group="web").job_id
    waiting = jobs.execute("sleep 1000", group="web").job_id
    again = jobs.restart(first).job_id
    assert [jobs.status(one).status for one in (first, again, waiting)] == ["killed", "running", "queued"]
    jobs.kill(again)
    wait_until(lambda: jobs.status(waiting).status, lambda status: status == "running")
    assert jobs.restart(again).status == "queued"


def test_wait_tells_the_end_of_a_job_that_had_to_wait() -> None:
    jobs = small()
    first = jobs.execute("sleep 0.2").job_id
    ran = jobs.execute("echo done", queue=True, wait=30)
    assert (ran.status, ran.exit_code, ran.stdout) == ("completed", 0, "done\n")
    assert jobs.status(first).status == "completed"


def test_wait_that_is_over_says_why_a_job_still_waits() -> None:
    jobs = small()
    jobs.execute("sleep 1000")
    ran = jobs.execute("true", queue=True, wait=0.1)
    assert (ran.status, ran.reason) == ("queued", "timeout")
    assert "queued, place 1 of 1: 1 job runs in its project" in ran.text()


def test_events_tell_that_a_job_was_queued_started_and_skipped() -> None:
    jobs = small(5)
    before = jobs.execute("read line; exit 1").job_id
    behind = jobs.execute("true", after=[before]).job_id
    late = jobs.execute("true", after=[f"{before}:any"]).job_id
    jobs.interact(before, "go", wait=0)
    ended(jobs, late)
    told = [(entry.job_id, entry.event, entry.status) for entry in jobs.events()]
    assert [one for one in told if one[0] == behind] == [(behind, "queued", None), (behind, "end", "skipped")]
    assert [one[1] for one in told if one[0] == late] == ["queued", "start", "end"]


def test_list_shows_place_and_reason_of_those_that_wait() -> None:
    jobs = small()
    jobs.execute("sleep 1000")
    ids = [jobs.execute("true", queue=True).job_id for _ in range(3)]
    found = jobs.list(status="queued")
    assert [(job.job_id, job.place) for job in found.jobs] == [(ids[2], 3), (ids[1], 2), (ids[0], 1)]
    assert "queued place 1: 1 job runs in its project" in found.text()


def test_first_window_tells_why_each_waits(screen: Callable[..., Screen]) -> None:
    jobs = small(5)
    before = jobs.execute("sleep 1000", name="db", ready_when="port 1").job_id
    behind = jobs.execute(": api", name="api", after=[f"{before}:ready"]).job_id
    jobs.group("tests", pause=True)
    held = jobs.execute(": test", name="test", group="tests").job_id
    terminal = screen(rows=30, columns=140)
    text = terminal.until("group tests is paused   : test", f"after {before}, which runs and is not ready yet   : api")
    assert [line.split()[1:4] for line in text.splitlines() if "queued" in line and "·" in line[:3]] == [
        [behind, "queued", "1"],
        [held, "queued", "2"],
    ]
    jobs.group("tests", resume=True)
    terminal.until(f"✓ {held}")
    jobs.kill(behind)
    terminal.until(f"! {behind}")


# What dies meanwhile


def test_job_whose_mover_was_killed_before_the_window_comes_back(tmp_path: Path) -> None:
    """A turn that nobody holds any more, as a kill right before the window leaves it."""
    jobs = small()
    first = jobs.execute("sleep 1000").job_id
    waiting = jobs.execute(noting(tmp_path / "out", "ran"), queue=True).job_id
    turn = f'{{"format": 1, "boot": "{record_of(jobs, waiting).job.boot}", "monotonic": {time.monotonic()}, "why": ""}}'
    (jobs.host.store.folder(waiting) / "turn.json").write_text(turn)
    jobs.kill(first)
    assert ended(jobs, waiting).status == "completed"
    assert (tmp_path / "out").read_text() == "ran\n"


def test_runner_whose_mover_was_killed_takes_no_room_that_another_job_has_got(tmux: Tmux) -> None:
    jobs = small()
    first = jobs.execute("sleep 1000").job_id
    waiting = jobs.execute("echo ran", queue=True).job_id
    state, folder = str(jobs.host.store.root), str(jobs.host.store.folder(waiting))
    job = queue.record(folder, "job.json", files.JOB)
    assert job is not None
    os.close(turns.give(state, job))
    start = turns.Start(state, job, os.open(folder, os.O_RDONLY), None)
    assert start.pid
    wait_until(
        lambda: tmux("list-windows", "-t", "=mcp-jobs", "-F", "#{window_name}").split(),
        lambda names: waiting not in names,
    )
    assert jobs.status(waiting).status == "queued"
    jobs.kill(first)
    assert ended(jobs, waiting).status == "completed"
    assert jobs.output(waiting).stdout == "ran\n"


def test_killed_movers_lose_no_job_and_run_none_twice(tmp_path: Path) -> None:
    jobs = small(3)
    out = tmp_path / "out"
    code = "from tmuxjobs import Jobs\njobs = Jobs.open()\nwhile 1: jobs.list()"
    first = [jobs.execute("sleep 1000").job_id for _ in range(3)]
    ids = [jobs.execute(noting(out, f"w{number}"), queue=True).job_id for number in range(12)]
    movers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    for one in first:
        jobs.kill(one)

    def end(mover: subprocess.Popen[bytes]) -> None:
        mover.kill()
        mover.wait()

    deadline = time.monotonic() + 60
    while any(jobs.host.look(one).running for one in ids) and time.monotonic() < deadline:
        movers.append(subprocess.Popen([sys.executable, "-c", code]))
        end(movers.pop(0))
    for mover in movers:
        end(mover)
    looked = lambda: {jobs.status(one).status for one in ids}  # noqa: E731
    wait_until(looked, lambda states: states == {"completed"}, timeout=60)
    assert sorted(out.read_text().split()) == sorted(f"w{number}" for number in range(12))


def test_job_waits_while_tmux_is_gone_and_starts_with_the_next_call(tmux: Tmux) -> None:
    jobs = small()
    first = jobs.execute("sleep 1000").job_id
    waiting = jobs.execute("true", queue=True).job_id
    tmux("kill-session", "-t", "=mcp-jobs")
    assert ended(jobs, first).status == "killed"
    assert ended(jobs, waiting).status == "completed"


def test_store_that_was_copied_without_its_queue_loses_no_job() -> None:
    jobs = small()
    first = jobs.execute("sleep 1000").job_id
    waiting = jobs.execute("true", queue=True).job_id
    shutil.rmtree(jobs.host.store.root / "queue")
    jobs.kill(first)
    jobs.prune()
    assert ended(jobs, waiting).status == "completed"
