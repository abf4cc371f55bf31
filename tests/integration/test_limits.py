"""Slots, the allow-list, and what is kept of finished jobs."""

import os
import re
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from support import Jobs, NotHere, Tmux, ended, record_of, wait_until, with_few_terminals

from tmuxjobs import Settings
from tmuxjobs.errors import InvalidInput, LimitReached, NotAllowed, NotStarted, SettingsError
from tmuxjobs.system import job_processes
from tmuxjobs.verbs import launch, prune


def test_limit_holds_over_two_servers_at_once() -> None:
    both = [Jobs.open(Settings.load(max_jobs=5)) for _ in range(2)]
    refused: list[str] = []

    def start(jobs: Jobs) -> None:
        for _ in range(6):
            try:
                jobs.execute("sleep 1000")
            except LimitReached as error:
                refused.append(str(error))

    threads = [threading.Thread(target=start, args=(jobs,)) for jobs in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert both[0].list(status="running").total == 5
    assert len(refused) == 7
    assert "TMUXJOBS_MAX_JOBS is 5" in refused[0]


def test_slot_is_free_once_the_job_ended() -> None:
    jobs = Jobs.open(Settings.load(max_jobs=1))
    for code in range(3):
        assert ended(jobs, jobs.execute(f"exit {code}").job_id).exit_code == code


def test_lost_job_takes_no_slot() -> None:
    jobs = Jobs.open(Settings.load(max_jobs=1))
    job_id = jobs.execute("sleep 1000").job_id
    run = record_of(jobs, job_id).run
    assert run is not None
    os.kill(run.pid, signal.SIGKILL)
    assert ended(jobs, job_id).status == "lost"
    assert ended(jobs, jobs.execute("true").job_id).status == "completed"


def test_command_that_matches_no_pattern_is_refused_with_the_list() -> None:
    jobs = Jobs.open(Settings.load(allowed_commands=("^git ", "^npm (run|test)")))
    with pytest.raises(NotAllowed, match=r"\^git , \^npm"):
        jobs.execute("rm -rf x")
    assert jobs.list().total == 0
    ended(jobs, jobs.execute("GIT --version").job_id)


def test_windows_of_finished_jobs_stay_and_are_bounded(tmux: Tmux) -> None:
    jobs = Jobs.open(Settings.load(keep_windows=2))
    ids = []
    for _ in range(4):
        ids.append(jobs.execute("true").job_id)
        ended(jobs, ids[-1])
        wait_until(
            lambda: tmux("list-panes", "-a", "-F", "#{@tmuxjobs_job} #{@tmuxjobs_state}").split("\n"),
            lambda lines: f"{ids[-1]} completed" in lines,
        )
    prune.prune_windows(jobs.host)
    names = tmux("list-windows", "-t", "=mcp-jobs", "-F", "#{window_name}").split()
    assert [name for name in names if name in ids] == ids[2:]


def test_start_closes_windows_beyond_the_bound_once_it_has_answered(jobs: Jobs, tmux: Tmux) -> None:
    first = jobs.execute("true").job_id
    windows = ["list-panes", "-a", "-F", "#{@tmuxjobs_job} #{@tmuxjobs_state}"]
    wait_until(lambda: tmux(*windows).split("\n"), lambda lines: f"{first} completed" in lines)
    second = Jobs.open(Settings.load(keep_windows=0)).execute("sleep 1000").job_id
    wait_until(lambda: tmux(*windows), lambda text: first not in text and f"{second} running" in text)


def test_start_after_the_first_asks_tmux_for_a_window_and_nothing_before(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "prune_windows_soon", lambda _: None)
    jobs.execute("true")
    asked = []
    cmd = jobs.host.tmux.server.cmd
    monkeypatch.setattr(jobs.host.tmux.server, "cmd", lambda *args, **more: asked.append(args[0]) or cmd(*args, **more))
    jobs.execute("true")
    assert asked == ["new-window"]


def test_finished_windows_make_room_when_no_terminal_is_free(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four are in use by a person, the page with the jobs, a job that runs, and another."""
    monkeypatch.setattr(launch, "FREED_S", 20.0)  # so long a slow machine may need to end what has the terminal
    try:
        with_few_terminals(isolated, 4, "tmux", "-L", "few", "new-session", "-d", "-s", "person", "cat")
    except NotHere as reason:
        pytest.skip(str(reason))
    jobs = Jobs.open(Settings.load(socket_name="few"))
    running = jobs.execute("sleep 1000").job_id
    for code in range(4):
        last = ended(jobs, jobs.execute(f"exit {code}").job_id)
        assert last.exit_code == code
        assert set(jobs.host.tmux.panes()) == {running, last.job_id}
    jobs.execute("sleep 1000")
    with pytest.raises(NotStarted, match="All pseudo-terminals are in use"):
        jobs.execute("sleep 1000")
    assert jobs.list(status="running").total == 2


def finished_window(jobs: Jobs) -> tuple[str, str]:
    """A job that has ended, and the pane of its window, which stays."""
    job_id = ended(jobs, jobs.execute("true", name="same").job_id).job_id
    pane = wait_until(lambda: jobs.host.tmux.panes()[job_id], lambda pane: pane.dead)
    return job_id, pane.pane_id


def panes(tmux: Tmux) -> list[str]:
    return tmux("list-panes", "-s", "-t", "=mcp-jobs", "-F", "#{pane_id}").split()


def test_finished_windows_of_another_state_directory_stay(tmux: Tmux, tmp_path: Path) -> None:
    one = Jobs.open(Settings.load(state_dir=tmp_path / "one"))
    two = Jobs.open(Settings.load(state_dir=tmp_path / "two"))
    (job_id, pane), (other, other_pane) = finished_window(one), finished_window(two)
    assert job_id != other
    assert set(one.host.tmux.panes()) == {job_id}
    assert one.doctor(fix=True).fixed == ()
    Jobs.open(Settings.load(state_dir=tmp_path / "one", keep_windows=0)).prune()
    assert other_pane in panes(tmux)
    assert pane not in panes(tmux)


@pytest.mark.parametrize("removed", [False, True])
def test_finished_window_of_0_1_0_stays_unless_the_record_names_it(
    tmux: Tmux, tmp_path: Path, *, removed: bool
) -> None:
    """Its ids were the same in every state directory, and its windows do not say which is theirs."""
    one = Jobs.open(Settings.load(state_dir=tmp_path / "one"))
    two = Jobs.open(Settings.load(state_dir=tmp_path / "two"))
    job_id, pane = finished_window(one)
    _, other_pane = finished_window(two)
    tmux("set-option", "-pu", "-t", pane, "@tmuxjobs_root")
    tmux("set-option", "-pu", "-t", other_pane, "@tmuxjobs_root")
    tmux("set-option", "-p", "-t", other_pane, "@tmuxjobs_job", job_id)
    tmux("set-option", "-p", "-t", pane, "@tmuxjobs_job", "moved-0000" if removed else job_id)
    if removed:
        one.host.store.remove(job_id)
    assert one.doctor(fix=True).fixed == ()
    Jobs.open(Settings.load(state_dir=tmp_path / "one", keep_windows=0)).prune()
    assert other_pane in panes(tmux)


def test_finished_window_of_0_1_0_is_closed_in_time(jobs: Jobs, tmux: Tmux) -> None:
    _, pane = finished_window(jobs)
    tmux("set-option", "-pu", "-t", pane, "@tmuxjobs_root")
    Jobs.open(Settings.load(keep_windows=0)).prune()
    assert pane not in panes(tmux)


def test_logs_together_stay_within_their_total_and_the_newest_are_kept() -> None:
    jobs = Jobs.open(Settings.load(max_output_size="128KB", max_total_size="1MB"))
    ids = [ended(jobs, jobs.execute("seq 1 12000").job_id).job_id for _ in range(14)]
    assert sum(jobs.host.store.size(job_id) for job_id in jobs.host.store.ids()) <= 1 << 20
    left = [job_id for job_id in ids if job_id in jobs.host.store.ids()]
    assert len(left) > 2
    assert left == ids[-len(left) :]


def test_end_of_a_job_that_made_room_is_in_the_journal() -> None:
    jobs = Jobs.open(Settings.load(max_output_size="128KB", max_total_size="1MB"))
    ids = []
    for _ in range(14):
        ids.append(jobs.execute("seq 1 12000; exit 3").job_id)
        wait_until(lambda: not jobs.host.store.folder(ids[-1]).exists() or jobs.host.store.has_ended(ids[-1]))
    gone = set(ids) - set(jobs.host.store.ids())
    ends = {entry.job_id: (entry.status, entry.exit_code) for entry in jobs.events() if entry.event == "end"}
    assert gone
    assert {ends[job_id] for job_id in gone} == {("failed", 3)}


def test_start_waits_for_no_look_at_the_processes_of_lost_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = Jobs.open(Settings.load(keep_jobs=0, keep_windows=0))
    lost = [jobs.execute("sleep 1000").job_id for _ in range(3)]
    for job_id in lost:
        os.kill(record_of(jobs, job_id).run.pid, signal.SIGKILL)  # type: ignore[union-attr]
        assert ended(jobs, job_id).status == "lost"
        jobs.kill(job_id, grace=0)
    look = job_processes.of_jobs
    looked: list[set[str]] = []

    def look_and_start(traces: Mapping[str, job_processes.Trace]) -> dict[str, job_processes.Left]:
        looked.append(set(traces))
        monkeypatch.setattr(jobs.host.machine, "of_jobs", look)
        Jobs.open().execute("sleep 1000")
        return look(traces)

    monkeypatch.setattr(jobs.host.machine, "of_jobs", look_and_start)
    assert set(jobs.prune()) == set(lost)
    assert looked == [set(lost)]


@pytest.mark.parametrize("days", [-30, 30])
def test_wall_clock_that_jumped_removes_no_new_job(days: int) -> None:
    """The clock's jump is the other side of a record that was written so long ago, or is yet to be written."""
    jobs = Jobs.open(Settings.load(keep_jobs=2))
    ids = [ended(jobs, jobs.execute("true").job_id).job_id for _ in range(3)]
    for place, job_id in enumerate(ids):
        at = time.time() - (days * place) * 86400
        os.utime(jobs.host.store.folder(job_id) / "exit.json", (at, at))
    assert jobs.prune() == [ids[0]]
    wait_until(lambda: set(jobs.host.tmux.panes()), lambda there: there == set(ids[1:]))


def test_running_job_is_never_removed_for_the_total() -> None:
    jobs = Jobs.open(Settings.load(max_output_size="256KB", max_total_size="1MB"))
    running = [jobs.execute("read x").job_id for _ in range(2)]
    with pytest.raises(LimitReached, match="TMUXJOBS_MAX_TOTAL_SIZE"):
        jobs.execute("true")
    jobs.prune()
    assert [jobs.status(job_id).status for job_id in running] == ["running", "running"]
    jobs.kill(running[0])
    assert ended(jobs, jobs.execute("exit 3").job_id).exit_code == 3


def test_running_jobs_whose_logs_are_small_leave_room_for_others() -> None:
    jobs = Jobs.open(Settings.load(max_jobs=4, max_total_size="4GB"))
    done = ended(jobs, jobs.execute("true").job_id).job_id
    ids = [jobs.execute("read x").job_id for _ in range(4)]
    assert {done, *ids} == set(jobs.host.store.ids())


def test_job_may_have_a_log_size_of_its_own_which_a_restart_keeps() -> None:
    jobs = Jobs.open(Settings.load())
    assert record_of(jobs, jobs.execute("true").job_id).job.max_output_bytes == 1 << 30
    job_id = jobs.execute("seq 1 100000", max_output_size="100KB").job_id
    status = ended(jobs, job_id)
    assert re.fullmatch(r"incomplete: \d+ bytes of output.log are gone \(limit\)", status.log)
    assert Path(status.log_path).stat().st_size < 100 << 10
    assert record_of(jobs, jobs.restart(job_id).job_id).job.max_output_bytes == 100 << 10
    for size in ("much", "1KB", 7):
        with pytest.raises(InvalidInput, match="max_output_size"):
            jobs.execute("true", max_output_size=size)


def test_total_that_cannot_hold_two_logs_is_refused() -> None:
    with pytest.raises(SettingsError, match="max_total_size cannot be used"):
        Settings.load(max_total_size="64MB", max_output_size="64MB")
    assert Settings.load(max_total_size="64MB").max_output_size == 32 << 20
