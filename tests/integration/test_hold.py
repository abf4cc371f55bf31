"""A person takes a job over, and the agent keeps its hands off until they let go."""

import os
import re
import signal
from collections.abc import Callable

import pytest
from fastmcp import Client
from fastmcp.exceptions import ToolError
from support import Jobs, Person, Screen, Tmux, record_of, server_of, wait_until

from tmuxjobs.contract import OPEN
from tmuxjobs.errors import Held, JobEnded, StateError
from tmuxjobs.settings import Settings
from tmuxjobs.store import disk
from tmuxjobs.tmux.session import Tmux as Server
from tmuxjobs.verbs import hold

Attach = Callable[..., Person]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tmux that is slow to tell is waited for: without its answer nobody is known to hold a job."""
    monkeypatch.setattr(hold, "TMUX_S", 30.0)


def asking(jobs: Jobs) -> str:
    job_id = jobs.execute("echo ready; read x; echo got $x; sleep 1000").job_id
    wait_until(lambda: jobs.output(job_id).stdout, lambda text: "ready" in text)
    return job_id


async def refused(jobs: Jobs, tool: str, job_id: str) -> str:
    """What the agent is told; empty when it was let."""
    async with Client(server_of(jobs)) as agent:
        try:
            await agent.call_tool(tool, {"job_id": job_id} | ({"input": ""} if tool == "interact" else {}))
        except ToolError as error:
            return str(error)
        return ""


@pytest.mark.parametrize("tool", ["interact", "kill"])
async def test_agent_is_refused_while_a_person_holds(jobs: Jobs, tool: str) -> None:
    job_id = asking(jobs)
    jobs.hold(job_id)
    said = await refused(jobs, tool, job_id)
    assert said.startswith(f"A person has held '{job_id}' since ")
    assert "nothing was done to it" in said
    assert jobs.status(job_id).status == "running"
    jobs.release(job_id)
    assert await refused(jobs, tool, job_id) == ""


async def test_agent_may_read_what_a_person_holds(jobs: Jobs) -> None:
    job_id = asking(jobs)
    jobs.hold(job_id)
    assert await refused(jobs, "tail", job_id) == ""
    status = jobs.status(job_id)
    assert status.held_since is not None
    assert "A person has held it since" in status.text()


def test_person_is_not_held_back_by_their_own_hold(jobs: Jobs) -> None:
    job_id = asking(jobs)
    jobs.hold(job_id)
    assert "got mine" in jobs.interact(job_id, "mine", wait=30, pattern="got").stdout
    assert jobs.kill(job_id).status == "killed"


@pytest.mark.parametrize("runner_dies", [False, True])
def test_hold_is_not_shown_any_more_once_the_job_has_ended(
    jobs: Jobs, screen: Callable[..., Screen], tmux: Tmux, *, runner_dies: bool
) -> None:
    job_id = asking(jobs)
    terminal = screen(rows=30, columns=140)
    jobs.hold(job_id)
    terminal.until(f"{job_id} waits yours")
    run = record_of(jobs, job_id).run
    assert run is not None
    os.kill(run.pid if runner_dies else run.command_pid or 0, signal.SIGKILL)
    terminal.until(f"{job_id} lost" if runner_dies else f"{job_id} SIGKILL")
    wait_until(terminal.look, lambda text: job_id in text and "yours" not in "".join(text.splitlines()[-2:]))
    if not runner_dies:
        marks = wait_until(lambda: tmux("show-options", "-wv", "-t", run.pane, "@tmuxjobs_end"))
        assert marks
        assert tmux("show-options", "-wqv", "-t", run.pane, "@tmuxjobs_held") == ""


def test_hold_ends_when_its_person_detaches(jobs: Jobs, person: Attach) -> None:
    job_id = asking(jobs)
    someone = person()
    jobs.hold(job_id)
    assert jobs.status(job_id).held_since is not None
    someone.detach()
    assert jobs.status(job_id).held_since is None
    hold.refuse_if_held(jobs.host, job_id)


def test_hold_that_is_over_is_not_shown_to_who_attaches_next(jobs: Jobs, screen: Callable[..., Screen]) -> None:
    job_id = asking(jobs)
    first = screen()
    jobs.hold(job_id)
    first.until("waits yours")
    first.press("C-b", "d")
    wait_until(lambda: jobs.status(job_id).held_since is None)
    second = screen()
    second.until(job_id)
    assert "waits yours" not in second.look()


def test_other_person_who_stays_does_not_keep_the_hold(jobs: Jobs, person: Attach) -> None:
    job_id = asking(jobs)
    someone = person()
    jobs.hold(job_id)
    person()
    someone.detach()
    assert jobs.status(job_id).held_since is None


def test_hold_ends_after_a_time_without_a_key(isolated: object) -> None:
    jobs = Jobs.open(Settings.load(hold_for=1))
    job_id = asking(jobs)
    jobs.hold(job_id)
    wait_until(lambda: jobs.status(job_id).held_since, lambda since: since is None)
    hold.refuse_if_held(jobs.host, job_id)


def test_finished_job_cannot_be_held(jobs: Jobs) -> None:
    job_id = jobs.execute("true").job_id
    wait_until(lambda: jobs.status(job_id).status, lambda status: status == "completed")
    with pytest.raises(JobEnded, match=r"has ended \(completed\): there is nothing to hold"):
        jobs.hold(job_id)


def test_status_tells_who_watches(jobs: Jobs, person: Attach) -> None:
    job_id = asking(jobs)
    assert (jobs.status(job_id).watchers, jobs.status(job_id).typed_ago) == (0, None)
    someone = person()
    assert jobs.status(job_id).watchers == 0
    someone.type("\x02n")
    status = wait_until(lambda: jobs.status(job_id), lambda status: status.watchers == 1)
    assert status.typed_ago is not None
    assert "A person watches it; last key" in status.text()


def test_typing_into_the_window_reaches_the_job(jobs: Jobs, person: Attach) -> None:
    job_id = asking(jobs)
    someone = person()
    someone.type("\x02n")
    wait_until(lambda: jobs.status(job_id).watchers)
    someone.type("by hand\r")
    wait_until(lambda: jobs.output(job_id).stdout, lambda text: "got by hand" in text)


async def test_key_on_the_welcome_page_holds_and_releases(jobs: Jobs, screen: Callable[..., Screen]) -> None:
    job_id = asking(jobs)
    terminal = screen()
    terminal.until("Enter go to it", job_id)
    terminal.press("h")
    terminal.until(f"{job_id}: yours until you release it, detach or idle for 15m")
    terminal.until(" yours ")
    assert "A person has held" in await refused(jobs, "interact", job_id)
    terminal.press("h")
    terminal.until("released")
    hold.refuse_if_held(jobs.host, job_id)


async def test_keys_in_the_window_of_a_job_hold_that_job(jobs: Jobs, screen: Callable[..., Screen]) -> None:
    job_id, newer = asking(jobs), asking(jobs)
    terminal = screen()
    terminal.until("Enter go to it", newer)
    terminal.press("C-b", "n")
    terminal.until("C-b 0 h hold")
    terminal.press("C-b", "0")
    # The mark tells when it was noticed that the job asks.
    wait_until(terminal.look, lambda text: re.search(f">[▸?] {job_id}", text))
    terminal.press("h")
    terminal.until(f"{job_id}: yours")
    terminal.press("C-b", "n")
    terminal.until("C-b 0 h release")
    assert "A person has held" in await refused(jobs, "kill", job_id)
    assert await refused(jobs, "kill", newer) == ""


@pytest.mark.parametrize("job_id", ["nosuch-1", "#{pid}", "x},#(touch pwned)", ""])
async def test_unknown_job_is_told_as_such(jobs: Jobs, tmux: Tmux, job_id: str) -> None:
    asking(jobs)
    assert "No job" in await refused(jobs, "interact", job_id)


def test_tmux_is_asked_who_is_there_only_where_somebody_may_be(
    jobs: Jobs, person: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    around = Server.around

    def counted(tmux: Server, job_id: str, **given: float | None) -> object:
        asked.append(job_id)
        return around(tmux, job_id, **given)

    monkeypatch.setattr(Server, "around", counted)
    job_id = asking(jobs)
    agent = jobs.called_by("agent")
    assert (agent.status(job_id).watchers, asked) == (0, [])
    someone = person(f"=mcp-jobs:{job_id}")
    assert (wait_until(lambda: agent.status(job_id).watchers), asked[-1:]) == (1, [job_id])
    someone.detach()
    wait_until(lambda: not jobs.host.tmux.has_clients())
    asked.clear()
    assert (agent.status(job_id).held_since, asked) == (None, [])
    jobs.hold(job_id)
    assert agent.status(job_id).held_since is not None
    jobs.release(job_id)
    asked.clear()
    assert (agent.status(job_id).held_since, asked) == (None, [])


def test_hold_that_cannot_be_noted_is_refused(jobs: Jobs) -> None:
    job_id = asking(jobs)
    place = jobs.host.store.folder(job_id) / disk.HELD
    place.mkdir()
    with pytest.raises(StateError, match=r"cannot be held: .*/held' cannot be made: it is a directory"):
        jobs.hold(job_id)
    place.rmdir()
    assert jobs.called_by("agent").kill(job_id).status == "killed"


def test_nothing_of_a_hold_is_left_with_an_ended_job(jobs: Jobs) -> None:
    job_id = asking(jobs)
    jobs.hold(job_id)
    jobs.kill(job_id)
    assert not (jobs.host.store.folder(job_id) / disk.HELD).exists()


def test_list_tells_which_job_a_person_holds(jobs: Jobs) -> None:
    held, other = asking(jobs), asking(jobs)
    wait_until(lambda: jobs.list().jobs, lambda found: all(job.waits_for for job in found))
    jobs.hold(held)
    assert {job.job_id: job.reason for job in jobs.called_by("agent").list().jobs} == {
        held: "held by a person",
        other: None,
    }
    assert f"{held}  running held by a person, waits for input" in jobs.list().text()
    jobs.release(held)
    assert "held" not in jobs.list().text()


def test_hold_of_a_job_that_ends_meanwhile_is_refused_and_leaves_nothing(
    jobs: Jobs, tmux: Tmux, person: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = asking(jobs)
    person()
    wait_until(lambda: tmux("list-clients"))
    mark = Server.mark_window

    def late(self: Server, pane: str, marks: dict[str, str | None]) -> None:
        monkeypatch.undo()
        jobs.kill(job_id)
        mark(self, pane, marks)

    monkeypatch.setattr(Server, "mark_window", late)
    with pytest.raises(JobEnded, match=r"has ended \(killed\): there is nothing to hold"):
        jobs.hold(job_id)
    assert not (jobs.host.store.folder(job_id) / disk.HELD).exists()
    assert tmux("list-panes", "-a", "-F", "#{@tmuxjobs_held}").split() == []
    assert jobs.called_by("agent").restart(job_id).status == "running"


def test_hold_goes_with_the_end_of_its_job(jobs: Jobs, person: Attach, tmux: Tmux) -> None:
    job_id = asking(jobs)
    person()
    wait_until(lambda: tmux("list-clients"))
    jobs.hold(job_id)
    with pytest.raises(Held):
        jobs.called_by("agent").restart(job_id)
    jobs.interact(job_id, keys=["C-c"], wait=0)
    wait_until(lambda: jobs.status(job_id).status not in OPEN)
    assert jobs.called_by("agent").restart(job_id).status == "running"
