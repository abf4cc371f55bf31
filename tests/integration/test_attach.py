"""What a person sees in tmux, and the keys they have there."""

import os
import re
import signal
import socketserver
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support import PYTHON, Jobs, Person, Screen, Tmux, ended, record_of, wait_until

from tmuxjobs.contract import STATES
from tmuxjobs.errors import TmuxError
from tmuxjobs.hosts.local import Host
from tmuxjobs.settings import Settings

SIZES = [(24, 80), (50, 200)]
PLAIN = ""
CUSTOM = """
set -g prefix C-a
unbind C-b
bind C-a send-prefix
set -g base-index 1
set -g pane-base-index 1
set -g renumber-windows on
set -g status-position top
set -g status off
set -g status-interval 0
set -g status-left '#[fg=red]MINE '
set -g status-format[0] 'ALL MINE'
set -g window-status-format 'MINE #W'
set -g mode-keys vi
set -g mouse on
set -g remain-on-exit on
set -g monitor-activity on
set -g visual-activity on
set -g visual-bell on
set -g pane-border-status top
set -g default-command 'echo mine; exec sh'
set -g status-style bg=red
"""
Open = Callable[..., Screen]


@pytest.fixture(params=[PLAIN, CUSTOM], ids=["plain", "customised"])
def config(request: pytest.FixtureRequest, isolated: Path) -> str:
    (isolated / "home" / ".tmux.conf").write_text(request.param)
    return str(request.param)


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_first_window_says_what_this_is(jobs: Jobs, screen: Open, config: str, rows: int, columns: int) -> None:
    job_id = jobs.execute("sleep 1000", name="build").job_id
    person = screen(rows=rows, columns=columns)
    prefix = "C-a" if config else "C-b"
    keys = f"{prefix} {1 if config else 0} jobs  {prefix} n next"
    seen = person.until("Commands that a coding agent started run here", job_id, "sleep 1000", "Enter go to it", keys)
    assert ("ALL MINE" in seen, "MINE" in seen) == (False, False)


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_states_are_told_in_the_status_lines(jobs: Jobs, screen: Open, config: str, rows: int, columns: int) -> None:
    running = jobs.execute("sleep 1000", name="r").job_id
    done = jobs.execute("true", name="d").job_id
    failed = jobs.execute("exit 7", name="f").job_id
    killed = jobs.execute("sleep 1000", name="k").job_id
    jobs.kill(killed)
    person = screen(rows=rows, columns=columns)
    person.until(f"▸{running}", f"✓{done}", f"✗{failed} exit 7", f"!{killed[:4]}")
    if columns > 80:
        person.until("1 running  1 completed  1 failed  1 killed")


def test_job_that_waits_is_counted_once(jobs: Jobs, screen: Open) -> None:
    jobs.execute("sleep 1000")
    asks = jobs.execute("printf 'name? '; read x").job_id
    wait_until(lambda: jobs.status(asks).waiting_for_input)
    narrow, wide = screen(), screen(rows=50, columns=200)
    jobs.notice_prompts()
    narrow.until("mcp-jobs  ▸1  ?1 ")
    wide.until("mcp-jobs  1 running  1 waits ")


def test_list_begins_with_who_waits_and_ends_with_what_has_ended(jobs: Jobs, screen: Open) -> None:
    asks = jobs.execute("printf 'name? '; read x", name="asks").job_id
    runs = jobs.execute("sleep 1000", name="runs").job_id
    over = ended(jobs, jobs.execute("true", name="over").job_id).job_id
    newer = jobs.execute("sleep 1000", name="newer").job_id
    person = screen(columns=150)
    wait_until(
        person.look,
        lambda text: re.findall(r"^[> ][?▸✓] ([\w-]+)  ", text, re.MULTILINE) == [asks, newer, runs, over],
    )

    def tabs(text: str) -> list[str]:
        return re.findall(r"[?▸✓]([\w-]+) ", next((one for one in text.splitlines() if one.startswith(" 0 jobs")), ""))

    wait_until(person.look, lambda text: tabs(text) == [asks, runs, newer, over])


def has_left(text: str) -> bool:
    """tmux may drop what its client printed last, and may miss that the client ended."""
    return "[detached" in text or "Pane is dead" in text


def test_fresh_attach_begins_at_the_top(jobs: Jobs, screen: Open) -> None:
    first, second = (jobs.execute("sleep 1000", name=name).job_id for name in ("one", "two"))
    person = screen()
    person.until(f">▸ {second}")
    person.press("j")
    person.until(f">▸ {first}")
    person.press("C-b", "d")
    wait_until(person.look, has_left)
    screen(rows=30).until(f">▸ {second}")


def test_key_ends_a_job_after_one_question(jobs: Jobs, screen: Open) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    person = screen()
    person.until(f">▸ {job_id}")
    person.press("x")
    person.until(f"End {job_id} with all that it started? y ends it.")
    person.press("n")
    wait_until(person.look, lambda text: "with all that" not in text)
    person.press("y")
    assert jobs.status(job_id).status == "running"
    person.press("x")
    person.until(f"End {job_id} ")
    person.press("y")
    person.until(f"{job_id}: killed on request", f">! {job_id}")
    assert jobs.status(job_id).reason == "kill"


def test_key_closes_the_window_of_a_job_that_has_ended(jobs: Jobs, screen: Open) -> None:
    jobs.execute("sleep 1000")
    job_id = ended(jobs, jobs.execute("exit 3", name="over").job_id).job_id
    person = screen()
    person.until(f"✗ {job_id}")
    person.press("j", "x")
    wait_until(lambda: job_id not in jobs.host.tmux.panes())
    person.press("Enter")
    person.until("its window is closed")


def test_question_mark_helps_and_q_leaves(jobs: Jobs, screen: Open) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    person = screen()
    person.until(f">▸ {job_id}")
    person.press("?")
    seen = person.until("leave; the jobs keep running", "✓ completed", "tmuxjobs list")
    assert job_id not in "\n".join(line for line in seen.splitlines() if not line.startswith(" 0 "))
    person.press("q")
    person.until(f">▸ {job_id}")
    person.press("q")
    wait_until(person.look, has_left)
    assert jobs.status(job_id).status == "running"


def test_help_is_whole_on_a_small_terminal(jobs: Jobs, screen: Open) -> None:
    jobs.execute("sleep 1000")
    person = screen(rows=24, columns=80)
    person.until("choose")
    person.press("?")
    person.until("Home and End", "tmuxjobs list", *(f" {state}" for state in STATES))


def test_long_list_is_gone_through_by_pages_and_ends(jobs: Jobs, screen: Open) -> None:
    ids = [jobs.execute("true", name=f"n{number:02}", delay=1000).job_id for number in range(40)]
    person = screen(rows=24, columns=80)
    person.until(f">· {ids[0]}")
    person.press("NPage")
    person.until(f">· {ids[11]}")
    person.press("End")
    person.until(f">· {ids[-1]}")
    person.press("PPage")
    person.until(f">· {ids[28]}")
    person.press("Home")
    person.until(f">· {ids[0]}")


def test_q_leads_back_to_the_session_a_person_came_from(jobs: Jobs, screen: Open, tmux: Tmux) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    tmux("new-session", "-d", "-s", "mine", "sh")
    person = screen("tmux", "-u", "attach", "-t", "mine")
    wait_until(lambda: tmux("list-clients", "-t", "=mine:").strip())
    tmux("switch-client", "-c", tmux("list-clients", "-F", "#{client_name}").strip(), "-t", "=mcp-jobs:")
    person.until(f">▸ {job_id}")
    person.press("q")
    assert wait_until(lambda: tmux("list-clients", "-t", "=mine:").strip())


def test_lost_job_is_told_as_lost(jobs: Jobs, screen: Open) -> None:
    job_id = jobs.execute("sleep 1000", name="l").job_id
    person = screen(columns=200)
    person.until(f"▸{job_id}")
    os.kill(record_of(jobs, job_id).run.pid, signal.SIGKILL)  # type: ignore[union-attr]
    person.until(f"~{job_id} lost", "1 lost", "lost end not known")
    jobs.kill(job_id)
    ended(jobs, jobs.execute("true").job_id)
    person.until(f"~{job_id} lost", "1 lost")


def test_adopted_window_whose_adopter_was_killed_is_told_as_lost(jobs: Jobs, screen: Open, tmux: Tmux) -> None:
    ended(jobs, jobs.execute("true").job_id)
    person = screen(columns=200)
    tmux("new-window", "-d", "-n", "mine", "-t", "=mcp-jobs:", "sleep", "1000")
    job_id = jobs.adopt("mine", name="l").job_id
    person.until(f"▸{job_id}", "1 running")
    os.kill(record_of(jobs, job_id).run.pid, signal.SIGKILL)  # type: ignore[union-attr]
    person.until(f"~{job_id} lost", "1 lost", "lost end not known")


def test_first_window_is_no_activity(isolated: Path, jobs: Jobs, person: Callable[..., Person], tmux: Tmux) -> None:
    (isolated / "home" / ".tmux.conf").write_text("set -wg monitor-activity on\nset -g visual-activity on\n")
    job_id = jobs.execute("sleep 1000").job_id
    page = wait_until(lambda: tmux("show-options", "-qv", "-t", "=mcp-jobs:", "@tmuxjobs_welcome").strip())
    someone = person()
    wait_until(someone.screen, lambda text: "Enter go to it" in text)
    someone.type("\x02n")
    wait_until(lambda: tmux("display-message", "-p", "-t", "=mcp-jobs:", "#W").strip(), lambda name: name == job_id)
    ended(jobs, jobs.execute("exit 3").job_id)
    wait_until(lambda: tmux("capture-pane", "-p", "-t", page), lambda text: "failed exit 3" in text)
    tmux("display-message", "-c", someone.tty, "that was all")
    wait_until(lambda: someone.seen, lambda seen: "that was all" in seen)
    assert "Activity in window 0" not in someone.seen


def test_options_elsewhere_stay_as_they_are(jobs: Jobs, tmux: Tmux, config: str) -> None:
    tmux("new-session", "-d", "-s", "own", "sleep 1000")
    look = [("show-options", "-g"), ("show-options", "-s"), ("show-options", "-gw"), ("list-keys",)]
    before = [tmux(*what) for what in look]
    ended(jobs, jobs.execute("true").job_id)
    assert [tmux(*what) for what in look] == before
    assert tmux("show-options", "-t", "=own:") == tmux("show-options", "-w", "-t", "=own:") == ""


def test_enter_on_the_welcome_page_goes_to_the_chosen_job(jobs: Jobs, screen: Open) -> None:
    older = jobs.execute("echo this is the older one; sleep 1000").job_id
    newer = jobs.execute("echo this is the newer one; sleep 1000").job_id
    person = screen()
    person.until(f">▸ {newer}", f" ▸ {older}", "Enter go to it")
    person.press("Down")
    person.press("Enter")
    wait_until(person.look, lambda text: text.startswith("this is the older one"))


def test_finished_window_says_how_it_ended_and_closes_by_x(jobs: Jobs, screen: Open, tmux: Tmux) -> None:
    job_id = jobs.execute("echo its output; exit 3").job_id
    ended(jobs, job_id)
    person = screen()
    person.press("C-b", "n")
    seen = person.until("its output", "failed after", "exit code 3", "r run again  x close")
    assert seen.index("its output") < seen.index("exit code 3")
    person.press("x")
    wait_until(lambda: tmux("list-windows", "-t", "=mcp-jobs", "-F", "#W").split(), lambda names: names == ["jobs"])
    assert jobs.status(job_id).exit_code == 3


def test_key_of_a_window_says_when_the_installation_is_gone(
    jobs: Jobs, screen: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, python = sys.executable, tmp_path / "python"
    python.symlink_to(real)
    monkeypatch.setattr(sys, "executable", str(python))
    jobs = Jobs.open(Settings.load())
    job_id = jobs.execute("true").job_id
    person = screen()
    person.until("Enter go to it", f"✓ {job_id}  completed")
    python.unlink()
    person.press("r")
    person.until("tmuxjobs was moved or removed: install it, run `tmuxjobs list`, press again", "r run again")
    monkeypatch.setattr(sys, "executable", real)
    Jobs.open(Settings.load())
    person.press("r")
    wait_until(lambda: jobs.list().total, lambda total: total == 2)


def test_text_typed_for_the_program_is_no_key_of_the_finished_window(jobs: Jobs, screen: Open, tmux: Tmux) -> None:
    job_id = jobs.execute("echo over").job_id
    ended(jobs, job_id)
    pane = record_of(jobs, job_id).run.pane  # type: ignore[union-attr]
    person = screen()
    person.press("C-b", "n")
    person.until("r run again")
    tmux("send-keys", "-t", pane, "-l", "exit\r")
    tmux("send-keys", "-t", pane, "-l", "rx\r")
    tmux("send-keys", "-t", pane, "q")
    assert [job.job_id for job in jobs.list().jobs] == [job_id]
    person.until("r run again")


def test_job_keeps_its_screen_on_another_size(jobs: Jobs, screen: Open) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    person = screen(rows=24, columns=80)
    person.until("Enter go to it", job_id)
    for rows, columns in [(50, 200), (10, 60), (24, 80)]:
        person.resize(rows, columns)
        seen = person.until("Enter go to it", job_id, "mcp-jobs  1 running" if columns > 120 else "mcp-jobs  ▸1")
        assert len(seen.splitlines()) <= rows


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("LANG", "en_US.utf8", "tmux attach -t mcp-jobs"),
        ("LANG", "", "tmux -u attach -t mcp-jobs"),
        ("LC_ALL", "C", "tmux -u attach -t mcp-jobs"),
        ("LC_CTYPE", "de_DE.ISO-8859-1", "tmux -u attach -t mcp-jobs"),
    ],
)
def test_line_to_attach_shows_our_marks_without_a_locale_too(
    monkeypatch: pytest.MonkeyPatch, screen: Open, name: str, value: str, line: str
) -> None:
    monkeypatch.setenv(name, value)
    job = Jobs.open().execute("sleep 1000")
    assert job.attach == f"{line}:{job.job_id}"
    screen("env", f"{name}={value}", *job.attach.split()).until("▸")


def test_attach_from_a_window_of_the_same_server_switches_the_client(jobs: Jobs, screen: Open, tmux: Tmux) -> None:
    job_id = jobs.execute("echo there it is; sleep 1000").job_id
    # Not its default, a login shell: that may find another tmux on its PATH.
    tmux("new-session", "-d", "-s", "own", "-x", "80", "-y", "24", "sh")
    person = screen("tmux", "-u", "attach", "-t", "own")
    person.press(f"{PYTHON} -m tmuxjobs attach {job_id}", "Enter")
    wait_until(person.look, lambda text: text.startswith("there it is") and "mcp-jobs" in text)


def test_attach_from_another_tmux_server_says_what_to_do(isolated: Path, jobs: Jobs) -> None:
    jobs.host.environ["TMUX"] = f"{isolated}/elsewhere,1,0"
    jobs = Jobs(Host(Settings.load(), environ=jobs.host.environ, cwd=Path.cwd()))
    jobs.host.store.prepare()
    with pytest.raises(TmuxError, match=r"inside another tmux server .*: run `tmux attach -t mcp-jobs` in a terminal"):
        jobs.attach()


def test_server_that_drops_its_client_is_told_as_newer(isolated: Path, jobs: Jobs) -> None:
    folder = isolated / f"tmux-{os.getuid()}"
    folder.mkdir(mode=0o700)
    # What tmux 3.7 does to a client of 3.6 or before: it takes the connection and closes it.
    with socketserver.UnixStreamServer(str(folder / "default"), socketserver.BaseRequestHandler) as newer:
        threading.Thread(target=newer.serve_forever, daemon=True).start()
        with pytest.raises(TmuxError, match=r"it is newer than /.*/tmux \(tmux \S+\): put the tmux that started"):
            jobs.execute("true")
        newer.shutdown()
    (folder / "default").unlink()


def test_page_that_a_person_closed_is_not_offered_and_comes_back_beside_what_they_see(
    jobs: Jobs, screen: Open, tmux: Tmux
) -> None:
    job_id = jobs.execute("sleep 1000", name="build").job_id
    person = screen(rows=30, columns=200)
    person.until("C-b 0 jobs  C-b n next", "Enter go to it")
    tmux("select-window", "-t", f"=mcp-jobs:={job_id}")
    person.until("C-b 0 h hold")
    for at_once in (1, 4):
        page = wait_until(lambda: tmux("show-options", "-qv", "-t", "=mcp-jobs:", "@tmuxjobs_welcome").strip())
        tmux("kill-pane", "-t", page)
        wait_until(person.look, lambda text: "C-b 0" not in text and "C-b n next  C-b p previous" in text)
        before = windows(tmux)
        openers = [threading.Thread(target=Jobs.open().host.ensure_session) for _ in range(at_once)]
        for opener in openers:
            opener.start()
        for opener in openers:
            opener.join()
        jobs.host.ensure_session()
        after = windows(tmux)
        assert set(before) < set(after)
        assert [line.split()[0] for line in after] == ["0", "1"]
        person.until("C-b 0 h hold", "C-b 0 jobs  C-b n next")
    tmux("select-window", "-t", "=mcp-jobs:0")
    person.until("Commands that a coding agent started run here", job_id, "Enter go to it")


def windows(tmux: Tmux) -> list[str]:
    return tmux("list-windows", "-t", "=mcp-jobs", "-F", "#{window_index} #{window_id} #{window_active}").splitlines()
