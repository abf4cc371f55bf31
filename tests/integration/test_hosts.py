"""Jobs on another host over ssh: they run there, are found here by their ids, and a cut connection loses nothing."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest
from far import Far
from support import Jobs, Person, Screen, change_pane, ended, wait_until

from tmuxjobs import Settings
from tmuxjobs.errors import Held, HostError, InvalidInput, JobEnded, JobNotFound, NotAllowed, StateError, TmuxError
from tmuxjobs.hosts.connection import Connection
from tmuxjobs.hosts.local import Host
from tmuxjobs.states import Job
from tmuxjobs.store import units
from tmuxjobs.system import terminals
from tmuxjobs.verbs import prompts

PRINTS = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; [ $((i % 100)) -gt 0 ] || sleep 0.05; done"
PRINTED = "".join(f"line {number}\n" for number in range(1, 3001))


def raw(jobs: Jobs, job_id: str) -> str:
    return jobs.output(job_id, max_bytes=400_000).stdout


def test_job_runs_on_the_host_by_the_same_programs(far: Far, far_jobs: Jobs) -> None:
    started = far_jobs.execute("hostname; pwd")
    waited = far_jobs.wait(started.job_id, timeout=30)
    assert (waited.status, waited.stdout) == ("completed", f"gpu1\n{far.home}\n")
    log = Path(started.log_path)
    assert (started.host, log.parents[2]) == ("gpu1", far.state)
    assert log.read_bytes() == f"gpu1\r\n{far.home}\r\n".encode()
    assert {path.stat().st_mode & 0o777 for path in (far.state, log.parent)} == {0o700}
    assert not (far_jobs.host.settings.state_dir / "jobs" / started.job_id).exists()


def lose(far: Far, jobs: Jobs) -> None:
    """Cut the connection, and be told of it; a clean-up may have made another by then."""
    connection = jobs._hosts.used()[0].connection()  # type: ignore[attr-defined]
    far.cut()
    assert connection.lost.wait(30)


def test_unit_is_sent_once_and_again_when_it_was_changed(far: Far, far_jobs: Jobs) -> None:
    far_jobs.execute("true", wait=30)
    [unit] = [path for path in (far.state / "pane").iterdir() if path.name != "installed.json"]
    runner = unit / "tmuxjobs" / "pane" / "runner.py"
    text, inode = runner.read_text(), runner.stat().st_ino
    lose(far, far_jobs)
    far_jobs.execute("true", wait=30)
    assert runner.stat().st_ino == inode
    runner.write_text(text.replace("import", "IMPORT", 1))
    lose(far, far_jobs)
    assert far_jobs.execute("true", wait=30).status == "completed"
    assert runner.read_text() == text
    assert [path.name for path in (far.state / "pane").iterdir()] == [unit.name]


def test_list_has_the_jobs_of_all_hosts_newest_first(far_jobs: Jobs) -> None:
    ids = [far_jobs.execute("true", host=host, wait=30).job_id for host in ("", "gpu1", "", "gpu1")]
    found = far_jobs.list()
    assert [job.job_id for job in found.jobs] == ids[::-1]
    assert [job.host for job in found.jobs] == ["gpu1", None, "gpu1", None]
    assert found.total == 4
    assert [job.job_id for job in far_jobs.list(limit=1).jobs] == ids[-1:]


def test_each_line_of_a_text_is_a_line_to_a_script_there(far_jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminals, "reads_by_script", None)  # only that machine can tell
    job_id = far_jobs.execute('for n in 1 2; do read -e -p "$n? " x; echo "<$x>"; done').job_id
    wait_until(lambda: far_jobs.status(job_id), lambda status: status.waits_for and str(status.prompt).startswith("1?"))
    far_jobs.interact(job_id, "left\nright")
    wait_until(lambda: far_jobs.output(job_id).stdout, lambda shown: "<left>" in shown and "<right>" in shown)


def test_any_process_finds_a_job_by_its_id(far: Far, far_jobs: Jobs) -> None:
    job_id = far_jobs.execute("read x; echo got $x", name="asks").job_id
    other = Jobs.open(Settings.load(ssh=far.ssh))
    assert other.status(job_id).host == "gpu1"
    assert other.interact(job_id, "it", wait=30, pattern="got it").stdout == "got it\n"
    other._hosts.close()
    assert far_jobs.wait(job_id, timeout=30).status == "completed"


def test_job_of_another_user_of_the_host_s_state_is_seen(far: Far, far_jobs: Jobs) -> None:
    far_jobs.execute("true", wait=30)
    new = Jobs.open(Settings.load(ssh=far.ssh, state_dir=far.folder / "other", hosts="gpu1"))
    job_id = new.execute("echo there; sleep 1000", host="gpu1").job_id
    assert far_jobs.status(job_id).status == "running"
    assert new.kill(job_id).status == "killed"
    assert far_jobs.status(job_id).status == "killed"
    new._hosts.close()


def test_kill_ends_the_whole_tree_there(far: Far, far_jobs: Jobs) -> None:
    job_id = far_jobs.execute("setsid -f sleep 1000; sleep 1000").job_id
    wait_until(lambda: len(far.processes("sleep")) == 2)
    killed = far_jobs.kill(job_id)
    assert (killed.status, killed.survivors) == ("killed", ())
    assert far.processes("sleep") == []


def test_what_a_killed_runner_left_is_known_and_ended(far: Far, far_jobs: Jobs) -> None:
    job_id = far_jobs.execute("trap '' HUP; sleep 1000").job_id
    wait_until(lambda: far.processes("sleep"))
    runners = []
    for one in far.processes("tmuxjobs-job"):
        with contextlib.suppress(psutil.Error):  # it ended since
            if "runner" in one.cmdline():
                runners.append(one)
    runners[0].kill()  # what it has just forked comes after it
    status = wait_until(lambda: far_jobs.status(job_id), lambda status: status.status == "lost")
    assert "sleep" in {one.name for one in status.survivors}
    assert far_jobs.kill(job_id, grace=0).status == "killed"
    assert far.processes("sleep") == []


def test_cut_connection_loses_no_byte_and_no_end(far: Far, far_jobs: Jobs) -> None:
    job_id = far_jobs.execute(PRINTS).job_id
    for number in (500, 1500):
        far_jobs.wait(job_id, pattern=f"line {number}$", timeout=30)
        far.cut()
    waited = far_jobs.wait(job_id, timeout=50)
    assert (waited.reason, waited.status, waited.exit_code) == ("exit", "completed", 0)
    assert raw(far_jobs, job_id) == PRINTED
    assert far_jobs.status(job_id).log == "complete"


def test_job_of_a_host_out_of_reach_is_unknown_and_then_exact(far: Far, far_jobs: Jobs) -> None:
    job_id = far_jobs.execute("echo before; until [ -e go ]; do sleep 0.1; done; echo after; exit 3").job_id
    far_jobs.wait(job_id, pattern="before", timeout=30)
    far.down()
    status = wait_until(lambda: far_jobs.status(job_id), lambda status: status.status == "unknown")
    assert re.search(r"unknown \(host gpu1 unreachable since \d\d:\d\d\)", status.text())
    assert [(job.job_id, job.status) for job in far_jobs.list().jobs] == [(job_id, "unknown")]
    with pytest.raises(HostError, match="gpu1"):
        far_jobs.kill(job_id)
    with pytest.raises(HostError, match="gpu1"):
        far_jobs.execute("true")
    assert far_jobs.execute("echo here", host="", wait=30).stdout == "here\n"
    (far.home / "go").touch()
    wait_until((far.state / "jobs" / job_id / "exit.json").exists)
    far.up()
    ended = wait_until(lambda: far_jobs.status(job_id), lambda status: status.status == "failed")
    assert (ended.exit_code, ended.log) == (3, "complete")
    assert raw(far_jobs, job_id) == "before\nafter\n"


def test_host_that_is_lost_again_and_again_meanwhile_is_asked_until_it_answers(
    far_jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = far_jobs.execute("read x").job_id
    losses, real = [HostError("The connection to host 'gpu1' is lost: ssh has ended.")] * 4, prompts.prompt

    def prompt(host: Host, job: Job) -> prompts.Prompt | None:
        if losses:
            raise losses.pop()
        return real(host, job)

    monkeypatch.setattr(prompts, "prompt", prompt)
    assert far_jobs.status(job_id).status == "running"
    assert losses == []


def test_wait_goes_on_over_a_cut(far: Far, far_jobs: Jobs) -> None:
    job_id = far_jobs.execute("sleep 1; echo done").job_id
    far.cut()
    waited = far_jobs.wait(job_id, timeout=50)
    assert (waited.reason, waited.stdout) == ("exit", "done\n")


def test_who_is_cut_off_knows_that_the_connection_is_lost(far: Far, far_jobs: Jobs) -> None:
    far_jobs.execute("true", wait=30)
    connection = far_jobs._hosts.used()[0].connection()  # type: ignore[attr-defined]
    known: list[bool] = []

    def asks() -> None:
        with pytest.raises(HostError):
            connection.ask("run", argv=["sleep", "1000"], env={}, timeout=60, bound_s=60)
        known.append(connection.lost.is_set())

    threads = [threading.Thread(target=asks) for _ in range(10)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(far.processes("sleep")) == len(threads))
    far.cut()
    for thread in threads:
        thread.join()
    assert known == [True] * len(threads)
    for process in far.processes("sleep"):
        with contextlib.suppress(psutil.Error):
            process.kill()


def test_wait_that_begins_while_the_host_is_out_of_reach_hears_of_the_end(far: Far, far_jobs: Jobs) -> None:
    job_id = far_jobs.execute("until [ -e go ]; do sleep 0.1; done; echo done").job_id
    far.down()
    wait_until(lambda: far_jobs.status(job_id).status, lambda status: status == "unknown")
    far_jobs._hosts.close()
    other = Jobs.open(far_jobs.host.settings)
    assert other.status(job_id).status == "unknown"
    found = list[Any]()
    waiting = threading.Thread(target=lambda: found.append(other.wait(job_id, timeout=60)))
    waiting.start()
    (far.home / "go").touch()
    far.up()
    waiting.join()
    assert [(one.reason, one.stdout) for one in found] == [("exit", "done\n")]
    other._hosts.close()


def test_events_of_all_hosts_are_in_one_order(far_jobs: Jobs) -> None:
    ids = [far_jobs.execute("true", host=host, wait=30).job_id for host in ("gpu1", "", "gpu1")]
    wait_until(lambda: [(one.event, one.job_id) for one in far_jobs.events()], lambda seen: len(seen) == 6)
    entries = far_jobs.events()
    assert [one.n for one in entries] == list(range(1, 7))
    assert [one.job_id for one in entries if one.event == "start"] == ids
    assert [one.job_id for one in entries if one.event == "end"] == ids
    assert {one.status for one in entries if one.event == "end"} == {"completed"}


def test_readiness_of_a_far_job_is_an_event(far_jobs: Jobs) -> None:
    job_id = far_jobs.execute("echo up; sleep 1000", ready_when="pattern up").job_id
    seen = wait_until(lambda: [(one.event, one.job_id) for one in far_jobs.events()], lambda seen: len(seen) == 2)
    assert seen == [("start", job_id), ("ready", job_id)]


def test_new_connection_forgets_no_job_that_another_process_starts_meanwhile(
    far: Far, far_jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    far_jobs.execute("true", wait=30)
    other = Jobs.open(Settings.load(ssh=far.ssh, hosts="gpu1"))
    ask, ids = Connection.ask, list[str]()

    def asked(self: Connection, do: str, *args: Any, **given: Any) -> Any:
        answer = ask(self, do, *args, **given)
        if do == "begin":
            ids.append(far_jobs.execute("true").job_id)
        return answer

    with monkeypatch.context() as patched:
        patched.setattr(Connection, "ask", asked)
        assert ids == [job.job_id for job in other.list().jobs][: len(ids)]
    assert far_jobs.wait(ids[0], timeout=30).status == "completed"
    other._hosts.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What this thread has asked over the wire, each of it a round trip; clean-ups have threads of their own."""
    ask, mine, seen = Connection.ask, threading.get_ident(), list[str]()

    def noted(self: Connection, do: str, *args: Any, **given: Any) -> Any:
        if threading.get_ident() == mine:
            seen.append(do)
        return ask(self, do, *args, **given)

    monkeypatch.setattr(Connection, "ask", noted)
    # A start that takes longer, on a busy machine, is looked at meanwhile: does its window's process live?
    monkeypatch.setattr("tmuxjobs.verbs.launch.ASK_S", 60.0)
    return seen


@pytest.mark.parametrize("kind", ["person", "agent"])
def test_start_there_takes_one_round_trip(far_jobs: Jobs, asked: list[str], kind: Literal["person", "agent"]) -> None:
    jobs = far_jobs.called_by(kind)
    jobs.execute("true")
    asked.clear()
    job_id = jobs.execute("sleep 1000").job_id
    assert asked == ["start"]
    assert jobs.status(job_id).status == "running"


def test_first_start_of_a_process_asks_for_the_session_too(far_jobs: Jobs, asked: list[str]) -> None:
    far_jobs.execute("true", wait=30)
    other = Jobs.open(far_jobs.host.settings)
    asked.clear()
    other.execute("sleep 1000")
    assert asked == ["begin", "run", "start"]
    other._hosts.close()


def test_folder_and_shell_are_asked_for_once(far: Far, far_jobs: Jobs, asked: list[str]) -> None:
    place = far.home / "place"
    place.mkdir()
    far_jobs.execute("true", cwd=str(place), shell="sh", wait=30)
    asked.clear()
    job_id = far_jobs.execute("cd; exec sleep 1000", cwd=str(place), shell="sh").job_id
    assert asked == ["start"]
    far_jobs.kill(job_id)
    place.rmdir()
    with pytest.raises(HostError, match=r"'gpu1' refused it: cwd '.*/place' is not a directory"):
        far_jobs.execute("true", cwd=str(place))
    with pytest.raises(InvalidInput, match="is not a directory on host 'gpu1'"):
        far_jobs.execute("true", cwd=str(place))
    assert len(far_jobs.list().jobs) == 2


@pytest.mark.parametrize("alive", [True, False])
def test_report_that_comes_late_takes_no_end_back(far_jobs: Jobs, alive: bool) -> None:
    """As when another of our processes, which writes into the same mirror, has heard of the end before."""
    job_id = far_jobs.execute("echo x; exit 3", wait=30).job_id
    host = far_jobs._hosts.used()[0]
    folder = host.store.folder(job_id)
    early = {name: (folder / name).read_bytes() for name in ("job.json", "run.json")}
    files = {name: ((folder / name).stat().st_mtime_ns, len(data), len(data)) for name, data in early.items()}
    stands = {"runner": host.living[job_id][0], "alive": alive, "stopped": False, "ended": False, "at": 0}
    report = {"job": job_id, "files": files, "whole": True, "without": [], **stands}
    host.on_report(report, b"".join(early.values()))
    status = far_jobs.status(job_id)
    assert (status.status, status.exit_code, status.log) == ("failed", 3, "complete")


def test_report_that_comes_late_makes_no_log_shorter(far_jobs: Jobs) -> None:
    job_id = far_jobs.execute("echo x; read y; echo z; read y").job_id
    wait_until(lambda: far_jobs.status(job_id).log_bytes, lambda size: size == 3)
    host = far_jobs._hosts.used()[0]
    mirror = host.mirror
    log = mirror.jobs / job_id / "output.log"
    early, mtime_ns = log.stat().st_mtime_ns - 10**6, log.stat().st_mtime_ns + mirror.skew_ns
    mirror.lay(log, early + mirror.skew_ns, 0, None)
    assert far_jobs.status(job_id).log_bytes == 3
    stands = {"runner": host.living[job_id][0], "alive": True, "stopped": False, "ended": False}
    before = {"job": job_id, "files": {}, "whole": False, "without": ["output.log"], **stands, "at": mtime_ns - 10**6}
    host.on_report(before, b"")
    assert far_jobs.status(job_id).log_bytes == 3
    far_jobs.interact(job_id, "", wait=10)
    assert wait_until(lambda: far_jobs.status(job_id).log_bytes, lambda size: size > 3)
    mirror.lay(log, mtime_ns + 10**10, 0, None)  # as when somebody there has cut it
    assert log.stat().st_size == 0
    host.on_report(before | {"at": mtime_ns + 10**11}, b"")
    assert not log.exists()


def test_start_whose_answer_is_lost_is_not_made_twice(
    far: Far, far_jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    far_jobs.execute("true", wait=30)
    ask, lost = Connection.ask, list[str]()

    def cut(self: Connection, do: str, *args: Any, **given: Any) -> Any:
        answer = ask(self, do, *args, **given)
        if do == "start" and not lost:
            lost.append(answer[0]["job_id"])
            wait_until((far.state / "jobs" / lost[0] / "run.json").exists)
            far.cut()
            self.lost.wait(30)
            raise HostError("The connection is lost.")
        return answer

    with monkeypatch.context() as patched:
        patched.setattr(Connection, "ask", cut)
        job_id = far_jobs.execute(f"echo ran >> {far.home}/ran").job_id
    assert [job_id] == lost
    assert far_jobs.wait(job_id, timeout=30).status == "completed"
    assert (far.home / "ran").read_text() == "ran\n"
    assert len(far_jobs.list().jobs) == 2


@pytest.fixture
def without_window(monkeypatch: pytest.MonkeyPatch, isolated: Path) -> None:
    """An agent that is cut off between a job's folder and its window."""
    change_pane(monkeypatch, isolated, "../far/agent.py", lambda text: text.replace("outcome(then)", "os._exit(1)"))


@pytest.mark.usefixtures("without_window")
def test_environment_of_a_job_whose_start_was_cut_off_does_not_stay_there(
    far: Far, far_jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HostError, match=r"once the host is reached `status .*` tells whether it runs"):
        far_jobs.execute("true", env={"TOKEN": "secret"})
    [folder] = (far.state / "jobs").iterdir()
    assert (folder / "env").exists()
    monkeypatch.setattr("tmuxjobs.outcome.LAUNCH_S", 0.0)
    wait_until(lambda: far_jobs.status(folder.name).status == "lost" and not (folder / "env").exists())


def test_start_that_cannot_be_written_down_leaves_nothing(far: Far, far_jobs: Jobs) -> None:
    far_jobs.execute("true", wait=30)
    journal = far_jobs.host.settings.state_dir / "journal"
    journal.unlink()
    journal.mkdir()
    with pytest.raises(StateError):
        far_jobs.execute("sleep 1000")
    assert far.processes("sleep") == []
    assert len(list((far.state / "jobs").iterdir())) == 1


@pytest.mark.parametrize("beat_s", [0.2, 1000.0])
def test_agent_lives_as_long_as_it_hears_of_us(
    far: Far, far_jobs: Jobs, monkeypatch: pytest.MonkeyPatch, isolated: Path, beat_s: float
) -> None:
    change_pane(
        monkeypatch, isolated, "../far/agent.py", lambda text: text.replace("SILENT_S = 120.0", "SILENT_S = 5.0")
    )
    monkeypatch.setattr("tmuxjobs.hosts.connection.BEAT_S", beat_s)
    far_jobs.execute("true", wait=30)
    connection = far_jobs._hosts.used()[0].connection()  # type: ignore[attr-defined]
    assert connection.lost.wait(7 if beat_s < 1 else 60) == (beat_s > 1)


def test_what_a_killed_agent_left_half_made_goes_at_the_next_start(far: Far, far_jobs: Jobs) -> None:
    job_id = far_jobs.execute("true", wait=30).job_id
    making = far.state / "jobs" / ".new-cut-0000"
    making.mkdir()
    (making / "env").write_text("TOKEN=secret")
    [machine] = (far.state / "open").iterdir()
    (machine / "cut-0000").touch()
    far_jobs.execute("true", wait=30)
    assert not making.exists()
    assert not (machine / "cut-0000").exists()
    mirror = far_jobs.host.settings.state_dir / "hosts" / "gpu1"
    left = [far.state / "sequence.11.0123abcd", far.state / "starts.11.0123abcd", mirror / "hello.json.11.0123abcd"]
    left += [mirror / "jobs" / job_id / f"{name}.11.0123abcd" for name in ("exit.json", "output.gaps")]
    for path in left:
        path.touch()
        os.utime(path, (0, 0))
    far_jobs.prune(everywhere=True)
    assert not any(path.exists() for path in left)
    assert (mirror / "hello.json").exists()


def test_job_waits_for_its_turn_there_and_starts_without_us(far: Far, far_jobs: Jobs) -> None:
    first = far_jobs.execute("read x", name="first", group="one").job_id
    assert far_jobs.group("one", limit=1).limit == 1
    waits = far_jobs.execute("true", name="waits", group="one")
    behind = far_jobs.execute("true", name="behind", after=[waits.job_id])
    assert "place 1 of 1: 1 job runs in group one, and its limit is 1" in waits.text()
    assert behind.status == "queued"
    gone = far_jobs.execute("true", name="gone", group="one").job_id
    assert far_jobs.kill(gone).status == "killed"
    changed = far_jobs.queue(waits.job_id, command="hostname")
    assert changed.status == "queued"
    far_jobs.interact(first, "", wait=0)
    far.down()
    for job_id in (waits.job_id, behind.job_id):  # who ends there moves the queue on
        wait_until((far.state / "jobs" / job_id / "exit.json").exists)
    far.up()
    assert wait_until(lambda: far_jobs.status(behind.job_id), lambda job: job.status != "unknown").status == "completed"
    assert far_jobs.output(waits.job_id).stdout == "gpu1\n"
    events = [one.event for one in far_jobs.events() if one.job_id == waits.job_id]
    assert events == ["queued", "start", "end"]


def test_job_comes_after_jobs_of_its_own_machine_alone(far_jobs: Jobs) -> None:
    here = far_jobs.execute("true", host="").job_id
    with pytest.raises(InvalidInput, match="is on another machine"):
        far_jobs.execute("true", after=[here])


def test_old_jobs_go_there_at_a_start(far: Far) -> None:
    jobs = Jobs.open(Settings.load(max_jobs=40, ssh=far.ssh, host="gpu1", keep_jobs=2, keep_windows=1))
    ids = [jobs.execute("true", wait=30).job_id for _ in range(5)]

    def left() -> list[str]:
        jobs.execute("true", wait=30)
        return [job_id for job_id in ids if (far.state / "jobs" / job_id).exists()]

    wait_until(left, lambda found: found == [])
    assert jobs.prune(everywhere=True) is not None
    assert len(list((far.state / "jobs").iterdir())) == 2
    jobs._hosts.close()


def test_clean_up_takes_a_request_that_came_after_the_end(far: Far, far_jobs: Jobs) -> None:
    ended_id, running_id = (far_jobs.execute(command).job_id for command in ("true", "sleep 1000"))
    wait_until(lambda: far_jobs.status(ended_id).status, lambda status: status == "completed")
    requests = [far.state / "jobs" / one / "stop.json" for one in (ended_id, running_id)]
    for path in requests:
        path.write_text("{}")
    far_jobs.prune(everywhere=True)
    assert [path.exists() for path in requests] == [False, True]
    requests[1].unlink()


def test_jobs_of_a_machine_that_is_gone_can_be_forgotten(far: Far, far_jobs: Jobs) -> None:
    job_id = far_jobs.execute("sleep 1000").job_id
    far.down()
    wait_until(lambda: far_jobs.status(job_id).status, lambda status: status == "unknown")
    (far_jobs.host.settings.state_dir / "hosts" / "gpu1" / "unreachable").touch()
    os.utime(far_jobs.host.settings.state_dir / "hosts" / "gpu1" / "unreachable", (0, 0))
    assert "`tmuxjobs prune --forget gpu1` drops its jobs here" in far_jobs.status(job_id).text()
    assert far_jobs.prune(forget="gpu1") == [job_id]
    with pytest.raises(JobNotFound):
        far_jobs.status(job_id)
    with pytest.raises(InvalidInput, match="Nothing is known here of a host 'gpu1'"):
        far_jobs.prune(forget="gpu1")


def test_key_that_runs_a_far_job_again_says_what_is_in_the_way(
    far: Far, far_jobs: Jobs, screen: Callable[..., Screen]
) -> None:
    folder = far.home / "gone"
    folder.mkdir()
    job_id = ended(far_jobs, far_jobs.execute("true", cwd=str(folder)).job_id).job_id
    folder.rmdir()
    terminal = screen(*far_jobs.attach(job_id))
    terminal.until("r run again")
    terminal.press("r")
    terminal.until(f"cwd '{folder}' is not a directory")
    assert far_jobs.list().total == 1


def test_person_attaches_to_a_far_job_and_inside_tmux_in_a_window(
    far: Far, far_jobs: Jobs, screen: Callable[..., Screen], monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = far_jobs.execute("read x; echo got $x", name="asks").job_id
    terminal = screen(*far_jobs.attach(job_id))
    terminal.press("it", "Enter")
    terminal.until("got it", "r run again")
    terminal.press("r")
    again = wait_until(lambda: [job.job_id for job in far_jobs.list().jobs if job.job_id != job_id])[0]
    far_jobs.interact(again, "more")
    terminal.until("got more", "r run again")
    status = far_jobs.status(again)
    assert (status.status, status.command, status.host) == ("completed", far_jobs.status(job_id).command, "gpu1")
    terminal.press("x")
    wait_until(lambda: far_jobs._hosts.used()[0].tmux.panes(), lambda panes: again not in panes)
    far_jobs._hosts.used()[0].tmux.server.cmd("kill-window", "-t", f"=mcp-jobs:{job_id}")
    with pytest.raises(TmuxError, match="is closed"):
        far_jobs.attach(job_id)
    job_id = far_jobs.execute("sleep 1000").job_id
    monkeypatch.setitem(far_jobs.host.environ, "TMUX", "/tmp/other,1,0")
    assert far_jobs.attach(job_id)[1:4] == ["new-window", "-n", job_id]


def test_agent_uses_only_hosts_that_are_allowed(far: Far) -> None:
    jobs = Jobs.open(Settings.load(ssh=far.ssh))
    job_id = jobs.execute("sleep 1000", host="gpu1").job_id
    agent = jobs.called_by("agent")
    with pytest.raises(NotAllowed, match="TMUXJOBS_HOSTS"):
        agent.execute("true", host="gpu1")
    with pytest.raises(JobNotFound):
        agent.status(job_id)
    assert agent.list().jobs == ()
    jobs.kill(job_id)
    jobs._hosts.close()


def test_end_there_runs_the_hook_here_once_and_is_shown(
    far: Far, isolated: Path, person: Callable[..., Person], screen: Callable[..., Screen]
) -> None:
    out = isolated / "told"
    facts = "$TMUXJOBS_SUMMARY|$TMUXJOBS_LOG_PATH|$TMUXJOBS_STATE_DIR"
    jobs = Jobs.open(Settings.load(ssh=far.ssh, host="gpu1", hosts="gpu1", on_end=f'echo "{facts}" >> {out}'))
    jobs.execute("sleep 1000", host="")
    someone, terminal = person(), screen(rows=50, columns=200)
    before = someone.seen.count("\a")
    started = jobs.execute("exit 3")

    def told(jobs: Jobs) -> None:
        wait_until(lambda: [one.event for one in jobs.events() if one.job_id == started.job_id][-1:] == ["end"])

    told(jobs)
    terminal.until(f"{started.job_id}: failed after", "exit code 3")  # for some seconds
    jobs.execute("true", notify="never", wait=30)
    other = Jobs.open(jobs.host.settings)
    for one in (other, jobs):
        told(one)
    wait_until(lambda: out.exists() and out.read_text())
    wait_until(lambda: someone.seen.count("\a"), lambda rings: rings > before)
    [line] = out.read_text().splitlines()
    summary, log, state = line.split("|")
    assert summary.startswith(f"{started.job_id}: failed after ")
    assert (log, state) == (started.log_path, str(jobs.host.settings.state_dir))
    for one in (jobs, other):
        one._hosts.close()


@pytest.mark.parametrize("how", ["approve", "refuse", "key", "settle"])
def test_person_here_answers_for_a_job_there(far: Far, far_jobs: Jobs, screen: Callable[..., Screen], how: str) -> None:
    policy = {"ask": ["touch *"], "roots": [str(far.home)]}
    jobs = Jobs.open(Settings.load(ssh=far.ssh, host="gpu1", hosts="gpu1", policy=policy))
    started = jobs.called_by("agent").execute("touch x")
    job_id = started.job_id
    assert (started.waits_for, (far.home / "x").exists()) == ("approval", False)
    with pytest.raises(NotAllowed, match="Only a person"):
        jobs.called_by("agent").approve(job_id)
    if how == "key":
        terminal = screen(*jobs.attach(job_id))
        terminal.until("asks to run this command", "y run it")
        terminal.press("y")
    elif how == "settle":
        assert jobs.settle(job_id, approved=True, how="in the client").approved
    else:
        assert getattr(jobs, how)(job_id).approved == (how == "approve")
    status = wait_until(lambda: jobs.status(job_id), lambda status: status.status != "running")
    assert (status.status, (far.home / "x").exists()) == (("failed", False) if how == "refuse" else ("completed", True))
    with pytest.raises(JobEnded):
        jobs.approve(job_id)
    jobs._hosts.close()


def test_rule_for_a_job_there_is_added_here(far: Far, isolated: Path) -> None:
    file = isolated / "policy.toml"
    file.write_text('[policy]\nallow = []\nask = ["touch *"]\n' + f'roots = ["{far.home}"]\n')
    jobs = Jobs.open(Settings.load(ssh=far.ssh, host="gpu1", hosts="gpu1", policy=str(file)))
    job_id = jobs.called_by("agent").execute("touch x").job_id
    jobs.approve(job_id, always=True)
    assert jobs.wait(job_id, timeout=30).status == "completed"
    assert "touch x" in file.read_text()
    jobs._hosts.close()


def test_window_there_is_adopted(far: Far, far_jobs: Jobs) -> None:
    far_jobs.execute("true", wait=30)
    tmux = far_jobs._hosts.used()[0].tmux
    tmux.run("new-window", "-d", "-t", "=mcp-jobs:", "-n", "mine", "sh", "-c", "read x; echo got $x; sleep 1; exit 3")
    adopted = far_jobs.adopt("mine", host="gpu1")
    assert (adopted.status, Path(adopted.log_path).parents[2]) == ("running", far.state)
    assert 0 <= far_jobs.status(adopted.job_id).runtime < 100
    assert "got it" in far_jobs.interact(adopted.job_id, "it", wait=30, pattern="got it").stdout
    status = wait_until(lambda: far_jobs.status(adopted.job_id), lambda status: status.status != "running")
    assert (status.status, status.exit_code) == ("failed", 3)
    with pytest.raises(InvalidInput, match="There is no window 'nope'"):
        far_jobs.adopt("nope", host="gpu1")


def test_hold_keeps_an_agent_from_a_job_there(far_jobs: Jobs) -> None:
    job_id = far_jobs.execute("read x; echo got $x").job_id
    assert far_jobs.hold(job_id).held
    for act in (far_jobs.called_by("agent").kill, lambda one: far_jobs.called_by("agent").interact(one, "x")):
        with pytest.raises(Held):
            act(job_id)
    far_jobs.release(job_id)
    assert far_jobs.called_by("agent").kill(job_id).status == "killed"


def change(far: Far, name: str, before: str, after: str) -> None:
    path = far.folder / name
    path.write_text(path.read_text().replace(before, after))


def only(far: Far, *programs: str) -> str:
    """A PATH there with these alone; our own additions lead nowhere."""
    place = far.folder / "bin"
    place.mkdir()
    for program in programs:
        (place / program).symlink_to(sys.executable if program == "python3" else str(shutil.which(program)))
    return str(place)


@pytest.mark.parametrize(
    ("breaks", "said"),
    [
        (lambda far: change(far, "config", "Host gpu1", "Host gpu2"), "no host of that name"),
        (lambda far: change(far, "known", "ssh-", "no-"), "its host key is not known here"),
        (lambda far: (far.folder / "key.pub").write_text(""), "it accepts none of our keys"),
        (lambda far: far.down(), "nothing answers there"),
        (lambda far: change(far, "enter", "cd\n", f"PATH={only(far, 'sh')}\ncd\n"), "python3"),
        (lambda far: change(far, "enter", "cd\n", "echo noise; exit 7\ncd\n"), "ended"),
    ],
    ids=["name", "host key", "key", "down", "python3", "login"],
)
def test_host_that_cannot_be_used_is_told_in_one_sentence(
    far: Far, far_jobs: Jobs, breaks: Callable[[Far], object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tmuxjobs.hosts.connection.PATHS", "/nowhere")
    breaks(far)
    with pytest.raises(HostError) as error:
        far_jobs.execute("true")
    assert "'gpu1'" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


OLD = Path("/root/.pyenv/versions/3.7.16/bin/python3.7")


def test_python_that_is_too_old_is_told(far: Far, far_jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tmuxjobs.hosts.connection.PATHS", "/nowhere")
    place = far.folder / "old"
    place.mkdir()
    script = "#!/bin/sh\n" + r"""printf '\n%s {"python":[3,7]}\n' "$6"; exec cat > /dev/null""" + "\n"
    (place / "python3").write_text(f'#!/bin/sh\nexec {OLD} "$@"\n' if os.access(OLD, os.X_OK) else script)
    (place / "python3").chmod(0o755)
    change(far, "enter", "cd\n", f"PATH={place}:$PATH\ncd\n")
    with pytest.raises(HostError, match=r"Host 'gpu1' has Python 3.7: jobs need 3.8 or newer there"):
        far_jobs.execute("true")


@contextlib.contextmanager
def mounted_inside(far: Far, options: str) -> Iterator[Path]:
    """In place of its home a small disk that only that machine sees; where it is for us."""
    [inner] = psutil.Process(far._process.pid).children()
    inside = ["nsenter", "-t", str(inner.pid), "-m", "-p", "--"]
    subprocess.run([*inside, "mount", "-t", "tmpfs", "-o", options, "tmpfs", far.home], check=True)
    try:
        yield Path(f"/proc/{inner.pid}/root{far.home}")
    finally:
        subprocess.run([*inside, "umount", "-l", far.home], check=True)


def fill(place: Path) -> None:
    with contextlib.suppress(OSError), open(place / "fill", "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def said_by(far_jobs: Jobs, **more: Any) -> str:
    """The one sentence by which a start is refused."""
    with pytest.raises(HostError) as error:
        far_jobs.execute("true", **more)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_home_that_cannot_be_written_to_is_told(far: Far, far_jobs: Jobs) -> None:
    with mounted_inside(far, "ro,size=1m"):
        said = said_by(far_jobs)
    assert said.startswith("Host 'gpu1' cannot hold jobs: '")
    assert said.endswith("state' Read-only file system.")


@pytest.mark.parametrize("at_first", [True, False])
def test_full_disk_there_is_told_and_loses_no_job(far: Far, far_jobs: Jobs, at_first: bool) -> None:
    with mounted_inside(far, "size=16m") as place:
        if not at_first:
            runs = far_jobs.execute("echo before; read x; echo after").job_id
            far_jobs.wait(runs, pattern="before", timeout=30)
        fill(place)
        said = said_by(far_jobs)
        assert "'gpu1'" in said
        assert re.search("No space left on device|is full", said)
        if not at_first:
            far_jobs.interact(runs, "", wait=0)
            assert far_jobs.wait(runs, timeout=30).status == "completed"
            assert raw(far_jobs, runs).startswith("before\n")


@pytest.fixture(params=[3630, -3630], ids=["ahead", "behind"])
def skewed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, isolated: Path) -> None:
    """What runs there has a clock that is an hour and half a minute off: a slow answer makes it seem a little less."""
    change_pane(monkeypatch, isolated, "__main__.py", str)
    for path in units.PACKAGE.rglob("*.py"):
        path.write_text(path.read_text().replace("time.time()", f"(time.time() + {request.param})"))


@pytest.mark.usefixtures("skewed")
def test_clock_that_is_an_hour_off_is_no_harm(far_jobs: Jobs) -> None:
    ids = [far_jobs.execute("sleep 1", host=host, wait=30).job_id for host in ("gpu1", "", "gpu1")][::2]
    assert [job.job_id for job in far_jobs.list().jobs if job.host] == ids[::-1]
    assert 0 < far_jobs.status(ids[0]).runtime < 100
    delayed = far_jobs.execute("echo late", delay=3)
    assert delayed.status == "queued"
    assert far_jobs.wait(delayed.job_id, timeout=50).stdout == "late\n"
    assert "its clock is 1h00m" in far_jobs.doctor(host="gpu1").text()
    job_id = far_jobs.execute("read x").job_id
    far_jobs.hold(job_id)
    with pytest.raises(Held, match=r"\(for \d s\)"):
        far_jobs.called_by("agent").kill(job_id)


def test_hello_that_comes_late_is_no_clock_that_is_behind(far_jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    arrive = Connection._arrive

    def late(self: Connection, state: str) -> None:
        arrive(self, state)
        time.sleep(1.5)

    monkeypatch.setattr(Connection, "_arrive", late)
    ids = [far_jobs.execute("true", host=host, wait=30).job_id for host in ("gpu1", "", "gpu1")]
    assert [job.job_id for job in far_jobs.list().jobs] == ids[::-1]
    assert "its clock" not in far_jobs.doctor(host="gpu1").text()


def test_host_without_tmux_is_told(far: Far, far_jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tmuxjobs.hosts.connection.PATHS", "/nowhere")
    change(far, "enter", "cd\n", f"PATH={only(far, 'sh', 'python3')}\ncd\n")
    with pytest.raises(HostError, match="has no tmux: install tmux"):
        far_jobs.execute("true")


def test_login_that_prints_and_a_bare_environment_do_no_harm(far: Far, far_jobs: Jobs) -> None:
    change(far, "enter", "cd\n", "unset LANG; PATH=/bin:/usr/bin; echo Welcome to gpu1; cd\n")
    answer = far_jobs.execute("echo ä; locale charmap", wait=30)
    assert answer.stdout == "ä\nUTF-8\n"


def test_tail_of_a_large_log_reads_its_end_alone(far: Far, far_jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = far_jobs.execute("yes 0123456789abcdef | head -c 8000000; echo; echo end", wait=50).job_id
    host = far_jobs._hosts.used()[0]
    read: list[int] = []
    reads = host.read_log

    def counted(path: Path, at: int, size: int) -> bytes:
        data = reads(path, at, size)
        read.append(len(data))
        return data

    monkeypatch.setitem(__import__("tmuxjobs.text.log", fromlist=["readers"]).readers, host.store.root, counted)
    assert far_jobs.tail(job_id, lines=1).stdout.strip() == "end"
    assert 0 < sum(read) < 1_000_000


def test_connection_that_was_closed_is_not_made_anew(far: Far, far_jobs: Jobs) -> None:
    far_jobs.execute("true", wait=30)
    [host] = far_jobs._hosts.used()
    host.close()
    with pytest.raises(HostError, match="is closed"):
        host.reached()
    assert not host.is_reached


def test_pipe_is_text_for_a_job_on_another_host_too(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMUXJOBS_SSH", far.ssh)
    monkeypatch.setenv("TMUXJOBS_HOST", "gpu1")
    got = far.home / "got"
    given = b"beta\n\x03alpha\tgamma\n"
    argv = [sys.executable, "-m", "tmuxjobs", "execute", "--wait", "--", f"sort > {got}; echo sorted"]
    done = subprocess.run(argv, input=given, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"sorted\n")
    assert got.read_bytes() == b"\x03alpha\tgamma\nbeta\n"
