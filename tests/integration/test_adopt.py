"""A window that a person opened becomes a job like others, and says what is not known of it."""

import os
import secrets
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from support import (
    PYTHON,
    Jobs,
    Person,
    Screen,
    Tmux,
    change_pane,
    contents,
    ended,
    log_of,
    record_of,
    sleeping,
    wait_until,
)

from tmuxjobs.errors import InvalidInput, LimitReached, NotStarted, TmuxjobsError
from tmuxjobs.hosts.local import Host
from tmuxjobs.settings import Settings
from tmuxjobs.system import job_processes
from tmuxjobs.verbs import prune

PROMPT = "PS1='> ' exec sh -i"
"""A person's shell, with a prompt to wait for."""


@pytest.fixture(autouse=True)
def session(jobs: Jobs) -> None:
    jobs.host.ensure_session()


def opened(tmux: Tmux, command: str = PROMPT, *, name: str = "mine") -> str:
    """The pane of a window that a person opened among the jobs, once it has printed something."""
    where = ("-t", "=mcp-jobs:", "-c", os.environ["HOME"])
    made = tmux("new-window", "-d", "-P", "-F", "#{pane_id}", *where, "-n", name, command).strip()
    wait_until(lambda: tmux("capture-pane", "-p", "-t", made).strip())
    return made


def typed(tmux: Tmux, pane: str, line: str) -> None:
    tmux("send-keys", "-t", pane, line, "Enter")


def started_anew(tmux: Tmux, pane: str, seconds: int) -> None:
    """A person starts another process in the pane, and the one before has ended: its hang-up may take a moment."""
    before = int(tmux("display-message", "-p", "-t", pane, "#{pane_pid}"))
    start = job_processes.start_of(before)
    tmux("respawn-pane", "-k", "-t", pane, f"sleep {seconds}; :")
    wait_until(lambda: job_processes.start_of(before), lambda found: found != start)


def with_a_tree(jobs: Jobs, tmux: Tmux) -> tuple[str, int]:
    """An adopted shell, and for how long each of the five that it started sleeps."""
    seconds = 1000 + secrets.randbelow(10**8)
    pane = opened(tmux)
    job_id = jobs.adopt("mine").job_id
    typed(tmux, pane, f"sleep {seconds} & nohup sleep {seconds} & setsid sleep {seconds} & setsid -f sleep {seconds}")
    typed(tmux, pane, f"sh -c 'trap \"\" TERM HUP; sleep {seconds}; :'")
    wait_until(lambda: sleeping(seconds), lambda found: len(found) == 5)
    return job_id, seconds


# How it ends


@pytest.mark.parametrize(
    ("line", "status", "code", "name"),
    [("exit 7", "failed", 7, None), ("exit 0", "completed", 0, None), ("kill -9 $$", "killed", None, "SIGKILL")],
)
def test_its_end_is_the_one_the_kernel_told(
    jobs: Jobs, tmux: Tmux, line: str, status: str, code: int | None, name: str | None
) -> None:
    pane = opened(tmux)
    job_id = jobs.adopt("mine").job_id
    assert jobs.status(job_id).status == "running"
    typed(tmux, pane, line)
    end = ended(jobs, job_id)
    assert (end.status, end.exit_code, end.signal) == (status, code, name)
    assert end.log.startswith("not known whether complete: ")


def test_kill_leaves_nothing_of_its_tree(jobs: Jobs, tmux: Tmux) -> None:
    job_id, seconds = with_a_tree(jobs, tmux)
    answer = jobs.kill(job_id, grace=0.5)
    assert (answer.status, answer.survivors) == ("killed", ())
    assert sleeping(seconds) == []
    assert jobs.status(job_id).reason == "kill"


def test_kill_ends_a_shell_so_that_it_keeps_its_history(jobs: Jobs, tmux: Tmux) -> None:
    opened(tmux, "PS1='> ' exec bash --norc -i")
    job_id = jobs.adopt("mine").job_id
    jobs.kill(job_id, grace=30.0)
    assert jobs.status(job_id).signal == "SIGHUP"


def test_what_had_left_the_tree_before_is_a_persons_own(jobs: Jobs, tmux: Tmux) -> None:
    seconds = 1000 + secrets.randbelow(10**8)
    opened(tmux, f"setsid -f sleep {seconds}; {PROMPT}")
    wait_until(lambda: sleeping(seconds), lambda found: found and found[0].ppid() == 1)
    job_id = jobs.adopt("mine").job_id
    assert jobs.kill(job_id, grace=0.5).survivors == ()
    (own,) = sleeping(seconds)
    own.kill()


def test_closing_its_window_ends_it_with_its_tree(jobs: Jobs, tmux: Tmux) -> None:
    job_id, seconds = with_a_tree(jobs, tmux)
    tmux("kill-window", "-t", f"=mcp-jobs:{job_id}")
    assert ended(jobs, job_id).reason == "window-closed"
    assert sleeping(seconds) == []


def test_killed_tmux_server_is_told_as_its_end(jobs: Jobs, tmux: Tmux) -> None:
    job_id, seconds = with_a_tree(jobs, tmux)
    os.kill(int(tmux("display-message", "-p", "#{pid}")), signal.SIGKILL)
    end = ended(jobs, job_id)
    assert (end.status, end.reason, end.exit_code) == ("killed", "tmux-ended", None)
    assert sleeping(seconds) == []


def test_end_that_nobody_tells_is_lost_and_a_new_process_there_is_no_job(
    jobs: Jobs, tmux: Tmux, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def on_older_linux(text: str) -> str:
        return text.replace("0xC040FF0B", "0").replace("TELL_S = 5.0", "TELL_S = 0.1").replace('b"Z"', 'b"-"')

    change_pane(monkeypatch, tmp_path, "adopter.py", on_older_linux)
    jobs = Jobs.open(Settings.load())
    pane = opened(tmux)
    job_id = jobs.adopt("mine").job_id
    tmux("set-hook", "-w", "-t", pane, "pane-died", f"respawn-pane -t {pane} 'sleep 1000'")
    typed(tmux, pane, "exit 0")
    end = ended(jobs, job_id)
    assert (end.status, end.reason, end.exit_code) == ("lost", "unknown", None)
    assert "did not report its exit code" in end.text()
    look = "#{pane_dead} #{@tmuxjobs_job}#{@tmuxjobs_end}"
    wait_until(lambda: tmux("display-message", "-p", "-t", pane, look), lambda text: text == "0 \n")
    assert jobs.events(0)[-1].status == "lost"


def test_adopter_that_is_killed_leaves_a_lost_job_whose_tree_can_be_ended(jobs: Jobs, tmux: Tmux) -> None:
    job_id, seconds = with_a_tree(jobs, tmux)
    os.kill(record_of(jobs, job_id).run.pid, signal.SIGKILL)  # type: ignore[union-attr]
    status = ended(jobs, job_id)
    assert status.status == "lost"
    assert len([one for one in status.survivors if one.name == "sleep"]) == 5
    assert not [one for one in jobs.doctor(fix=True).fixed if "lost job" in one]
    assert Jobs(Host(Settings.load(keep_jobs=0), environ=jobs.host.environ, cwd=jobs.host.cwd)).prune() == []
    assert len(sleeping(seconds)) == 5
    assert jobs.kill(job_id, grace=0.5).status == "killed"
    assert sleeping(seconds) == []


def test_what_a_person_starts_anew_in_its_window_is_not_of_the_job(jobs: Jobs, tmux: Tmux) -> None:
    seconds = 1000 + secrets.randbelow(10**8)
    pane = opened(tmux)
    job_id = jobs.adopt("mine").job_id
    tmux("respawn-pane", "-k", "-t", pane, f"sleep {seconds}; :")
    end = ended(jobs, job_id)
    assert (end.left_running, end.survivors) == ((), ())
    jobs.kill(job_id, grace=0)
    assert len(wait_until(lambda: sleeping(seconds))) == 1


def test_what_a_person_starts_anew_after_its_adopter_was_killed_is_not_of_the_job(jobs: Jobs, tmux: Tmux) -> None:
    seconds = 1000 + secrets.randbelow(10**8)
    pane = opened(tmux)
    job_id = jobs.adopt("mine").job_id
    typed(tmux, pane, f"setsid -f sleep {seconds}")
    (left,) = wait_until(lambda: sleeping(seconds))
    os.kill(record_of(jobs, job_id).run.pid, signal.SIGKILL)  # type: ignore[union-attr]
    assert ended(jobs, job_id).status == "lost"
    started_anew(tmux, pane, seconds)
    wait_until(lambda: sleeping(seconds), lambda found: len(found) == 2)
    status = jobs.status(job_id)
    assert status.survivors == ()
    assert [one.pid for one in status.not_touched] == [left.pid]
    assert jobs.kill(job_id, grace=0).status == "already_terminated"
    assert len(sleeping(seconds)) == 2
    left.kill()


def test_pane_of_that_name_of_another_tmux_server_is_a_strangers(jobs: Jobs, tmux: Tmux) -> None:
    """As after a restart of a container: socket, pid of the server and pane are the same again."""
    seconds = 1000 + secrets.randbelow(10**8)
    pane = opened(tmux)
    job_id = jobs.adopt("mine").job_id
    run = record_of(jobs, job_id).run
    assert run is not None
    os.kill(run.pid, signal.SIGKILL)
    started_anew(tmux, pane, seconds)
    wait_until(lambda: sleeping(seconds))
    path = jobs.host.store.folder(job_id) / "run.json"
    path.write_text(run.model_copy(update={"server_start": "1"}).model_dump_json())
    assert ended(jobs, job_id).survivors == ()
    assert jobs.kill(job_id, grace=0).status == "already_terminated"
    assert len(sleeping(seconds)) == 1


# What is recorded


def test_much_output_is_recorded_to_where_tmux_read_it(jobs: Jobs, tmux: Tmux) -> None:
    opened(tmux, "echo ready; read x; exec seq 1 285000")
    started = jobs.adopt("mine")
    jobs.interact(started.job_id, "go", wait=0)
    end = ended(jobs, started.job_id)
    truth = b"go\r\n" + b"".join(b"%d\r\n" % number for number in range(1, 285001))
    log = log_of(end)
    assert truth.startswith(log)
    assert len(truth) - len(log) < 65536
    assert (end.exit_code, end.log_bytes) == (0, len(log))
    assert end.log.startswith("not known whether complete: ")


def test_its_log_begins_with_its_adoption_and_says_so(jobs: Jobs, tmux: Tmux) -> None:
    pane = opened(tmux)
    typed(tmux, pane, "echo be''fore")
    wait_until(lambda: tmux("capture-pane", "-p", "-t", pane), lambda text: "\nbefore" in text)
    job_id = jobs.adopt("mine").job_id
    typed(tmux, pane, "echo af''ter")
    output = wait_until(lambda: jobs.output(job_id).stdout, lambda text: "\nafter" in text)
    assert "before" not in output
    assert "before" in jobs.screen(job_id).screen
    assert "its log begins there" in jobs.status(job_id).text()
    assert ", adopted" in jobs.list().text()


def test_it_has_run_since_its_process_began(jobs: Jobs, tmux: Tmux) -> None:
    pid = int(tmux("display-message", "-p", "-t", opened(tmux), "#{pane_pid}"))
    status = jobs.status(jobs.adopt("mine").job_id)
    assert status.pid == pid
    assert abs(status.started.timestamp() - psutil.Process(pid).create_time()) < 0.01
    assert status.adopted is not None
    assert status.adopted > status.started


def test_no_environment_is_kept(jobs: Jobs, tmux: Tmux) -> None:
    secret = secrets.token_hex(8)
    jobs.host.environ["TOKEN"] = secret
    tmux("set-environment", "-t", "=mcp-jobs", "TOKEN", secret)
    opened(tmux)
    jobs.adopt("mine")
    files = contents(jobs.host.store.root)
    assert files
    assert not [path for path, content in files.items() if secret.encode() in content]


# A job like others


def test_agent_uses_it_as_any_job(jobs: Jobs, tmux: Tmux) -> None:
    opened(tmux)
    job_id = jobs.adopt("mine", name="shell").job_id
    assert job_id.startswith("shell-")
    assert tmux("list-windows", "-t", "=mcp-jobs", "-F", "#W").split() == ["jobs", job_id]
    # The prompt is on the screen alone, which tmux may be slow to tell.
    asks = wait_until(lambda: jobs.status(job_id), lambda status: status.waiting_for_input and status.prompt)
    assert asks.prompt == ">"
    assert "got 42" in jobs.interact(job_id, "echo got $((6 * 7))", wait=30, pattern="got 42").stdout
    assert jobs.search(job_id, "^got").total == 1
    assert "got 42" in jobs.tail(job_id, lines=5).stdout
    assert jobs.wait(job_id, until="input", timeout=30).reason == "input"


def test_prompt_of_a_persons_own_shell_rings_for_nobody(jobs: Jobs, tmux: Tmux, person: Callable[..., Person]) -> None:
    opened(tmux)
    job_id = jobs.adopt("mine").job_id
    person()
    wait_until(lambda: jobs.status(job_id).waiting_for_input)
    jobs.notice_prompts()
    assert tmux("show-options", "-wqv", "-t", f"=mcp-jobs:{job_id}", "@tmuxjobs_input").strip()
    assert tmux("show-options", "-qv", "-t", "=mcp-jobs:", "@tmuxjobs_notice") == ""


def test_port_that_its_own_process_listens_on_is_found(jobs: Jobs, tmux: Tmux) -> None:
    listen = "import socket; s = socket.create_server(('127.0.0.1', 0)); print('ready', flush=True); s.accept()"
    opened(tmux, f'exec {PYTHON} -c "{listen}"')
    assert jobs.wait(jobs.adopt("mine").job_id, port=0, timeout=30).reason == "port"


def test_it_cannot_be_run_again(jobs: Jobs, tmux: Tmux) -> None:
    opened(tmux)
    job_id = jobs.adopt("mine").job_id
    with pytest.raises(InvalidInput, match="was adopted, so its environment is not known"):
        jobs.restart(job_id)
    assert jobs.status(job_id).status == "running"


def test_finished_window_keeps_its_screen_says_how_it_ended_and_closes_by_x(
    jobs: Jobs, tmux: Tmux, screen: Callable[..., Screen]
) -> None:
    pane = opened(tmux)
    person = screen()
    person.press("C-b", "n")
    person.until(">", "no job: tmuxjobs adopt")
    job_id = jobs.adopt("mine").job_id
    wait_until(person.look, lambda text: f"▸{job_id}" in text and "no job" not in text)
    typed(tmux, pane, "echo its output; exit 3")
    seen = person.until("its output", "failed after", "exit code 3", "x close", f"✗{job_id} exit 3")
    assert "run again" not in seen
    assert "Pane is dead" not in seen
    person.press("x")
    wait_until(lambda: tmux("list-windows", "-t", "=mcp-jobs", "-F", "#W").split(), lambda names: names == ["jobs"])


def test_finished_window_is_closed_like_others(jobs: Jobs, tmux: Tmux) -> None:
    pane = opened(tmux)
    job_id = jobs.adopt("mine").job_id
    typed(tmux, pane, "exit")
    ended(jobs, job_id)
    few = Jobs(Host(Settings.load(keep_windows=0), environ=jobs.host.environ, cwd=jobs.host.cwd))
    wait_until(
        lambda: prune.prune_windows(few.host) or tmux("list-windows", "-t", "=mcp-jobs", "-F", "#W").split(),
        lambda names: names == ["jobs"],
    )
    wait_until(lambda: [path.name for path in jobs.host.store.transient(job_id)], lambda left: not left)


# What is refused


def test_window_is_found_by_index_name_and_ids(jobs: Jobs, tmux: Tmux) -> None:
    for name, form in (("a", "#{window_index}"), ("b", "#W"), ("c", "#{window_id}"), ("d", "#{pane_id}")):
        which = tmux("display-message", "-p", "-t", opened(tmux, name=name), form).strip()
        assert jobs.adopt(which).job_id.startswith(f"{name}-")


def test_window_without_a_name_of_its_own_has_its_commands(jobs: Jobs, tmux: Tmux) -> None:
    tmux("set-option", "-w", "-t", opened(tmux), "automatic-rename", "on")
    answer = jobs.adopt()
    assert answer.job_id.startswith("sh-")
    assert answer.text().startswith(f"Adopted window 1 as {answer.job_id} (running).")


def test_window_is_the_one_we_are_in_or_the_only_one(jobs: Jobs, tmux: Tmux) -> None:
    with pytest.raises(InvalidInput, match="There is no window to adopt"):
        jobs.adopt()
    opened(tmux, name="one")
    assert jobs.adopt().job_id.startswith("one-")
    pane = opened(tmux, name="two")
    opened(tmux, name="three")
    with pytest.raises(InvalidInput, match="Which window\\? window 2 'two', window 3 'three' are not jobs"):
        jobs.adopt()
    jobs.host.environ |= {"TMUX": tmux("display-message", "-p", "#{socket_path},#{pid},0").strip(), "TMUX_PANE": pane}
    assert jobs.adopt().job_id.startswith("two-")


def test_what_cannot_be_adopted_is_refused_and_left_alone(jobs: Jobs, tmux: Tmux) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    opened(tmux, name="a")
    opened(tmux, name="a")
    pane = opened(tmux, name="piped")
    tmux("pipe-pane", "-t", pane, "cat > /dev/null")
    dead = opened(tmux, "echo over; read x", name="dead")
    tmux("set-option", "-w", "-t", dead, "remain-on-exit", "on", ";", "send-keys", "-t", dead, "Enter")
    wait_until(lambda: tmux("display-message", "-p", "-t", dead, "#{pane_dead}").strip() == "1")
    tmux("new-session", "-d", "-s", "own", "-n", "there", "sleep 1000")
    refusals = {
        job_id: f"is job '{job_id}' already",
        "jobs": "is the page with the jobs",
        "a": r"'a' may be window 2 'a' \(@\d+\) or window 3",
        "piped": f"`tmux pipe-pane -t {pane}` ends it",
        "dead": "has ended",
        "there": r"session 'own'; bring it over first: tmux move-window -s @\d+ -t mcp-jobs:",
        "nosuch": "There is no window 'nosuch' in session mcp-jobs; there are 0 jobs, 1 ",
    }
    for window, words in refusals.items():
        with pytest.raises(InvalidInput, match=words):
            jobs.adopt(window)
    assert jobs.list().total == 1


def test_of_several_panes_the_active_one_is_taken(jobs: Jobs, tmux: Tmux) -> None:
    first = opened(tmux)
    second = tmux("split-window", "-P", "-F", "#{pane_id}", "-t", first, "sleep", "1000").strip()
    answer = jobs.adopt("mine")
    assert answer.note == "of its 2 panes the active one was taken"
    assert record_of(jobs, answer.job_id).run.pane == second  # type: ignore[union-attr]
    other = jobs.adopt(first, name="other").job_id
    jobs.kill(answer.job_id, grace=0.5)
    assert jobs.status(other).status == "running"


def test_adopted_window_takes_a_slot(jobs: Jobs, tmux: Tmux) -> None:
    opened(tmux)
    few = Jobs(Host(Settings.load(max_jobs=1), environ=jobs.host.environ, cwd=jobs.host.cwd))
    few.execute("sleep 1000")
    with pytest.raises(LimitReached, match="TMUXJOBS_MAX_JOBS is 1"):
        few.adopt("mine")


def test_window_whose_output_cannot_be_recorded_is_as_it_was(
    jobs: Jobs, tmux: Tmux, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pane = opened(tmux)
    look = "#W #{pane_pid} #{pane_pipe} #{remain-on-exit} #{automatic-rename} #{@tmuxjobs_job}#{@tmuxjobs_state}"
    tmux("rename-window", "-t", pane, "##(touch pwned) 'x'\\;")
    before = tmux("display-message", "-p", "-t", pane, look)
    assert before.startswith("#(touch pwned) 'x'; ")
    change_pane(monkeypatch, tmp_path, "recorder.py", lambda _: "raise SystemExit(1)")
    with pytest.raises(NotStarted, match="was not adopted, and is as it was: the recorder"):
        Jobs.open(Settings.load()).adopt(pane)
    assert tmux("display-message", "-p", "-t", pane, look) == before
    assert jobs.list().total == 0
    monkeypatch.undo()
    assert jobs.adopt(pane).status == "running"


def test_window_stays_when_the_adoption_is_given_up_before_the_adopter_has_said_why(
    jobs: Jobs, tmux: Tmux, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pane = opened(tmux)
    pid = tmp_path / "pid"
    told = "        from tmuxjobs.visible import visible  # its patterns"
    late = f"        open({str(pid)!r}, 'w').write(str(os.getpid()))\n"
    late += "        while os.path.lexists(self.path('job.json')): time.sleep(0.01)\n"
    change_pane(monkeypatch, tmp_path, "runner.py", lambda text: text.replace(told, late + told))
    (tmp_path / "tmuxjobs" / "pane" / "recorder.py").write_text("raise SystemExit(1)")
    with pytest.raises(NotStarted, match="was not adopted, and is as it was"):
        Jobs.open(Settings.load()).adopt(pane)
    wait_until(lambda: pid.exists() and pid.read_text())
    wait_until(lambda: not psutil.pid_exists(int(pid.read_text())))
    assert pane in tmux("list-panes", "-s", "-t", "=mcp-jobs", "-F", "#{pane_id}").split()


def test_of_two_who_adopt_a_window_one_does(jobs: Jobs, tmux: Tmux) -> None:
    opened(tmux)
    said: list[str] = []

    def adopt() -> None:
        try:
            said.append(jobs.adopt("mine").job_id)
        except TmuxjobsError as error:
            said.append(str(error))

    threads = [threading.Thread(target=adopt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (job_id,) = [job.job_id for job in jobs.list().jobs]
    assert said.count(job_id) == 1
    assert jobs.status(job_id).log == "recording"


def test_program_that_begins_just_now_is_awaited(jobs: Jobs, tmux: Tmux, monkeypatch: pytest.MonkeyPatch) -> None:
    """While execve(2) is carried out a process has no arguments, as is so here at the first three looks."""
    jobs.execute("true")
    tmux("new-window", "-d", "-t", "=mcp-jobs:", "-n", "begins", "exec sleep 1000")
    wait_until(
        lambda: tmux("list-panes", "-s", "-t", "=mcp-jobs:", "-F", "#{pane_current_command}"),
        lambda seen: "sleep" in seen,
    )
    looks, real = [list[str]()] * 3, psutil.Process.cmdline
    monkeypatch.setattr(psutil.Process, "cmdline", lambda process: looks.pop() if looks else real(process))
    job_id = jobs.adopt("begins").job_id
    assert jobs.status(job_id).command == "sleep 1000"
