"""A job that a person must approve: nothing runs before, the first answer counts, and no agent gives it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from fastmcp.client.elicitation import ElicitResult
from mcp_types import Implementation
from support import Jobs, Screen, Tmux, ended, in_panes, server_of, wait_until

from tmuxjobs import Settings
from tmuxjobs.answers import Ran, Started
from tmuxjobs.errors import InvalidInput, JobEnded, NotAllowed
from tmuxjobs.models import Caller
from tmuxjobs.server import approval
from tmuxjobs.server.approval import AsksPerson

Agent = Callable[..., Jobs]
CALLER = Caller(kind="agent", client="claude-code", version="2.1")
POLICY = {"allow": ["{cat,echo,ls,true}"], "ask": ["{make,touch}"], "deny": ["rm"]}


@pytest.fixture(name="project")
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    project = tmp_path / "project"
    (project / ".git").mkdir(parents=True)
    (project / ".git" / "HEAD").touch()
    monkeypatch.chdir(project)
    return project


@pytest.fixture(name="agent")
def _agent(project: Path) -> Agent:
    return lambda **policy: Jobs.open(Settings.load(policy=POLICY | policy)).called_by(lambda: CALLER)


def asked(tmux: Tmux, jobs: Jobs, command: str = "touch x") -> str:
    """The id of a job whose window asks a person."""
    job_id = jobs.execute(command).job_id
    wait_until(lambda: page(tmux, job_id), lambda text: "run it" in text)
    return job_id


def page(tmux: Tmux, job_id: str) -> str:
    return tmux("capture-pane", "-p", "-t", f"=mcp-jobs:{job_id}")


def press(tmux: Tmux, job_id: str, key: str) -> None:
    tmux("send-keys", "-t", f"=mcp-jobs:{job_id}", key)


def person(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tmuxjobs", *arguments]
    return subprocess.run(argv, env=os.environ | variables, capture_output=True, text=True, timeout=60)


def test_execute_answers_at_once_and_nothing_runs_before_the_answer(agent: Agent, tmux: Tmux, project: Path) -> None:
    jobs = agent()
    started = jobs.execute("touch x; cat", env={"CI": "1"})
    assert (type(started), started.status, started.waits_for) == (Started, "running", "approval")
    assert started.text().startswith(f"{started.job_id} waits for approval.\n")
    assert "`touch x`: rule '{make,touch}'" in started.note
    assert isinstance(jobs.execute("touch y", wait=30), Ran)
    row = jobs.list().jobs[-1]
    assert (row.job_id, row.waits_for) == (started.job_id, "approval")
    assert ", waits for approval" in row.text()
    assert "running (waits for approval by a person: " in jobs.status(started.job_id).text()
    waited = jobs.wait(started.job_id, until="input", timeout=0.2)
    assert (waited.reason, waited.waits_for) == ("timeout", "approval")
    assert "waits for approval by a person" in waited.text()
    assert not any(path.name in ("x", "y") for path in project.iterdir())


def test_events_tell_who_waits_for_approval(agent: Agent) -> None:
    jobs = agent()
    job_id = jobs.execute("touch x").job_id
    person = jobs.called_by("person")
    entry = person.events()[-1]
    assert (entry.event, entry.job_id, entry.waits_for, entry.prompt) == ("prompt", job_id, "approval", "touch x")
    assert f"{job_id} waits for approval by a person" in person.event_line(entry)
    person.refuse(job_id)
    assert (ended(jobs, job_id).status, person.events()[-1].status) == ("failed", "failed")


def test_window_shows_what_is_asked_and_y_runs_it(
    agent: Agent, tmux: Tmux, project: Path, screen: Callable[..., Screen]
) -> None:
    jobs = agent()
    job_id = jobs.execute("touch x &&\n echo 'a\tb' | cat", env={"CI": "secret"}).job_id
    screen(rows=24, columns=140).until("1 to approve", f"?{job_id} waits for approval")
    terminal = screen(rows=24, columns=80)
    tmux("select-window", "-t", f"=mcp-jobs:{job_id}")
    shown = terminal.until("y run it", "claude-code 2.1 asks to run this command. Nothing has run yet.")
    for part in (
        " $ touch x &&\n >  echo 'a\\tb' | cat\n",
        f" folder     {project}",
        " variables  CI",
        " why  ",
    ):
        assert part in shown
    assert "secret" not in shown
    terminal.press("y")
    waited = jobs.wait(job_id, timeout=30)
    assert (waited.status, waited.stdout) == ("completed", "a\tb\n")
    assert "approved by a person in its window" in waited.note
    assert "approved" not in jobs.wait(job_id, timeout=30).note
    assert "asks to run" not in jobs.output(job_id).stdout
    assert (project / "x").exists()


def test_all_that_it_runs_is_read_before_y_counts(agent: Agent, tmux: Tmux, screen: Callable[..., Screen]) -> None:
    jobs = agent()
    command = "\n".join([*(f"echo {number}" for number in range(16)), "touch x"])
    more: dict[str, Any] = {"ready_when": "command make hidden", "restart_policy": "always", "retry": 3}
    job_id = jobs.execute(command, **more).job_id
    terminal = screen(rows=24, columns=80)
    tmux("select-window", "-t", f"=mcp-jobs:{job_id}")
    shown = terminal.until("$ echo 0", "y run it", "runs again always, up to 3 times in a row")
    assert "make hidden" not in shown
    terminal.press("y")
    terminal.until("Read it all first")
    for _ in range(19):
        tmux("send-keys", "-t", f"=mcp-jobs:{job_id}", "Down")
    terminal.until("again and again, to know when it is ready: make hidden")
    assert jobs.status(job_id).waits_for == "approval"


def test_n_refuses_it_and_the_window_says_so(agent: Agent, tmux: Tmux, project: Path) -> None:
    jobs = agent()
    job_id = asked(tmux, jobs)
    press(tmux, job_id, "n")
    waited = jobs.wait(job_id, timeout=30)
    assert (waited.reason, waited.status) == ("exit", "failed")
    assert "not started: refused by a person in its window" in waited.text()
    status = jobs.status(job_id)
    assert (status.reason, status.exit_code, status.log) == ("refused", None, "nothing has run")
    assert "failed refused" in jobs.list().text()
    wait_until(
        lambda: page(tmux, job_id), lambda text: "not started: refused by a person" in text and "x close" in text
    )
    assert not (project / "x").exists()
    wait_until(lambda: in_panes(jobs, "finished", job_id))
    press(tmux, job_id, "r")
    again = wait_until(lambda: jobs.list().jobs, lambda found: len(found) == 2)[0].job_id
    assert ended(jobs, again).status == "completed"
    press(tmux, job_id, "x")
    wait_until(lambda: job_id not in jobs.with_window())


def test_several_keys_at_once_answer_nothing(agent: Agent, tmux: Tmux) -> None:
    jobs = agent()
    job_id = asked(tmux, jobs)
    tmux("send-keys", "-t", f"=mcp-jobs:{job_id}", "-l", "yes")
    press(tmux, job_id, "Enter")
    press(tmux, job_id, "a")
    with pytest.raises(JobEnded, match="takes no input: waits for approval"):
        jobs.interact(job_id, "y")
    assert jobs.status(job_id).waits_for == "approval"


def test_long_command_is_read_to_its_end_before_y_counts(
    agent: Agent, tmux: Tmux, screen: Callable[..., Screen]
) -> None:
    jobs = agent()
    job_id = jobs.execute("\n".join([*(f"echo {number}" for number in range(40)), "touch x"])).job_id
    terminal = screen(rows=24, columns=80)
    tmux("select-window", "-t", f"=mcp-jobs:{job_id}")
    terminal.until("$ echo 0", "y run it", "of 41")
    terminal.press("y")
    shown, first = terminal.until("Read it all first"), 1
    while "touch x" not in shown.split("folder")[0]:
        terminal.press("Down")
        first += 1
        shown = terminal.until(f"lines {first} to ")  # a `y` that is read together with other keys does not count
    terminal.press("y")
    assert ended(jobs, job_id).status == "completed"


def test_person_approves_and_refuses_by_command(agent: Agent, tmux: Tmux, project: Path) -> None:
    jobs = agent()
    yes, no = jobs.execute("touch x").job_id, jobs.execute("touch y").job_id
    done = person("approve", yes)
    assert (done.returncode, done.stdout) == (0, f"{yes}: approved, and starts.\n")
    assert ended(jobs, yes).status == "completed"
    done = person("refuse", no, "--why", "not on\x1b a Friday")
    assert (done.returncode, done.stdout) == (0, f"{no}: refused: not on\\x1b a Friday.\n")
    assert "refused by a person with `tmuxjobs refuse`: not on\\x1b a Friday" in jobs.wait(no, timeout=30).note
    done = person("approve", no)
    assert done.returncode == 1
    assert "does not wait for approval: not started: refused by a person" in done.stderr
    assert sorted(path.name for path in project.iterdir()) == [".git", "x"]


def test_who_follows_a_job_is_told_what_it_waits_for(agent: Agent, project: Path) -> None:
    jobs = agent()
    job_id = jobs.execute("touch x; echo done").job_id
    argv = [sys.executable, "-m", "tmuxjobs", "tail", "-f", job_id]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
        assert follower.stderr is not None
        assert follower.stdout is not None
        assert f"{job_id} waits for approval by a person" in follower.stderr.readline()
        assert person("approve", job_id).returncode == 0
        assert follower.stdout.read() == "done\n"
        assert follower.wait(30) == 0


def test_first_of_many_answers_counts(agent: Agent) -> None:
    jobs = agent()
    everyone = jobs.called_by("person")
    for _ in range(3):
        job_id = jobs.execute("touch x").job_id
        said: list[bool] = []
        late: list[str] = []

        def answer(verb: Callable[..., object], said: list[bool], late: list[str], job_id: str) -> None:
            try:
                said.append(verb(job_id).approved)  # type: ignore[attr-defined]
            except JobEnded as error:
                late.append(str(error))

        verbs = [everyone.approve, everyone.refuse] * 3
        threads = [threading.Thread(target=answer, args=(verb, said, late, job_id)) for verb in verbs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(said), len(late)) == (1, 5)
        assert ended(jobs, job_id).status == ("completed" if said[0] else "failed")


def test_without_an_answer_it_is_refused_after_the_bound(agent: Agent, project: Path) -> None:
    jobs = agent(ask_for="1s")
    job_id = jobs.execute("touch x").job_id
    assert "not started: nobody approved it within 1s" in jobs.wait(job_id, timeout=30).note
    assert jobs.status(job_id).reason == "refused"
    assert not (project / "x").exists()


def test_server_that_asked_may_be_killed_meanwhile(agent: Agent, project: Path) -> None:
    jobs = agent()
    code = "from tmuxjobs import Jobs, Settings; import json, os, signal, sys\n"
    code += "jobs = Jobs.open(Settings.load(policy=json.loads(sys.argv[1])), caller='agent')\n"
    code += "print(jobs.execute('touch x').job_id, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", code, json.dumps(POLICY)], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    job_id = done.stdout.strip()
    assert jobs.status(job_id).waits_for == "approval"
    assert person("approve", job_id).returncode == 0
    assert ended(jobs, job_id).status == "completed"


def test_no_agent_approves(agent: Agent, tmux: Tmux, project: Path) -> None:
    jobs = agent()
    job_id = asked(tmux, jobs)
    for verb in (jobs.approve, jobs.refuse):
        with pytest.raises(NotAllowed, match="Only a person may approve"):
            verb(job_id)
    command = f"{sys.executable} -m tmuxjobs approve {job_id}"
    inside = jobs.called_by("person")
    plain = inside.execute(command, wait=30)
    assert plain.exit_code == 1
    assert f"This command runs in job '{plain.job_id}'. Nothing was answered." in plain.stdout
    bare = "env -u TMUXJOBS_JOB_ID -u TMUXJOBS_JOB_MARK"
    for away in (bare, f"setsid -w {bare}", f"{bare} sh -c 'setsid -f \"$@\" 2>&1 | cat' sh"):
        assert "Only a person may approve" in inside.execute(f"{away} {command}", wait=30).stdout
    assert jobs.status(job_id).waits_for == "approval"
    assert not (project / "x").exists()


async def test_no_tool_approves(agent: Agent) -> None:
    async with Client(server_of(agent())) as client:
        assert not {"approve", "refuse", "answer", "history"} & {tool.name for tool in await client.list_tools()}
        result = await client.call_tool("execute", {"command": "touch x", "wait": 30})
        assert result.structured_content["waits_for"] == "approval"
        waiting = await client.call_tool(
            "interact", {"job_id": result.structured_content["job_id"], "keys": ["y"]}, raise_on_error=False
        )
        assert waiting.is_error
        assert "takes no input: waits for approval" in waiting.content[0].text  # type: ignore[union-attr]


def test_approved_job_takes_input_and_another_of_its_kind_does_not(agent: Agent) -> None:
    jobs = agent(ask=["cat"], allow=["echo"])
    job_id = jobs.execute("cat").job_id
    jobs.called_by("person").approve(job_id)
    assert jobs.wait(job_id, until="input", timeout=30).reason == "input"
    assert jobs.interact(job_id, "hello").stdout == "hello\n"
    theirs = jobs.called_by("person").execute("cat").job_id
    with pytest.raises(NotAllowed, match="nothing was typed"):
        jobs.interact(theirs, "hello")
    with pytest.raises(NotAllowed, match=f"Job '{job_id}' was not ended. `kill` it, then `restart` asks"):
        jobs.restart(job_id)
    jobs.kill(job_id)
    assert jobs.restart(job_id).waits_for == "approval"


def test_always_shows_the_rule_writes_it_and_runs_the_job(
    agent: Agent, tmux: Tmux, project: Path, tmp_path: Path
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('# mine\n[policy]  # all of it\nask = ["{make,touch}"]\nallow = ["echo"]\n')
    path.chmod(0o640)
    jobs = Jobs.open(Settings.load(policy=str(path))).called_by(lambda: CALLER)
    job_id = asked(tmux, jobs, "touch 'a b'; echo $((1 + 1))")
    press(tmux, job_id, "a")
    shown = wait_until(lambda: page(tmux, job_id), lambda text: "y add it" in text)
    assert f"This rule is added to {path}" in shown
    assert "always  touch 'a b' $" in shown
    press(tmux, job_id, "y")
    assert ended(jobs, job_id).status == "completed"
    assert path.read_text().splitlines() == [
        "# mine", "[policy]  # all of it", "always = [\"touch 'a b' $\"]", 'ask = ["{make,touch}"]', 'allow = ["echo"]',
    ]  # fmt: skip
    assert path.stat().st_mode & 0o777 == 0o640
    assert jobs.execute("touch 'a b'", wait=30).status == "completed"
    other = jobs.execute("touch c").job_id
    assert jobs.called_by("person").approve(other, always=True).approved
    assert "always = ['touch c $', \"touch 'a b' $\"]" in path.read_text()
    assert jobs.execute("touch 'a b' c").waits_for == "approval"


def test_policy_where_the_agent_may_write_is_not_read_anew(project: Path) -> None:
    path = project / "policy.toml"
    path.write_text('[policy]\nallow = ["{echo,tee,cp}"]\nask = ["touch"]\n')
    (project / "other").write_text('[policy]\ndefault = "allow"\n')
    jobs = Jobs.open(Settings.load(policy=str(path))).called_by(lambda: CALLER)
    for command in ("echo a > policy.toml", "echo a >> tmuxjobs.toml", "echo a | tee policy.toml"):
        with pytest.raises(NotAllowed, match="it writes to a file that says what may run"):
            jobs.execute(command)
    assert jobs.execute("cp other policy.toml", wait=30).status == "completed"
    assert jobs.execute("touch x").waits_for == "approval"


def test_no_rule_is_offered_that_would_not_do(agent: Agent, tmux: Tmux) -> None:
    jobs = agent()
    job_id = asked(tmux, jobs)  # its policy is in no file
    assert "always" not in page(tmux, job_id)
    with pytest.raises(InvalidInput, match="nothing was approved"):
        jobs.called_by("person").approve(job_id, always=True)
    assert jobs.status(job_id).waits_for == "approval"


@pytest.mark.parametrize("how", ["kill", "window", "runner"])
def test_what_ends_while_it_waits_never_ran(agent: Agent, tmux: Tmux, project: Path, how: str) -> None:
    jobs = agent()
    job_id = asked(tmux, jobs)
    if how == "kill":
        assert jobs.kill(job_id).status == "killed"
    elif how == "window":
        tmux("kill-window", "-t", f"=mcp-jobs:{job_id}")
    else:
        in_panes(jobs, "runner", job_id)[0].kill()
    status = ended(jobs, job_id)
    assert (status.status, status.reason) == (("lost", "runner-died") if how == "runner" else ("failed", "refused"))
    assert "approv" in status.detail
    assert not (project / "x").exists()
    wait_until(lambda: in_panes(jobs, "runner", job_id), lambda found: not found)
    with pytest.raises(JobEnded, match="does not wait for approval"):
        jobs.called_by("person").approve(job_id)


def test_page_of_all_jobs_says_who_waits_for_approval(agent: Agent, tmux: Tmux, screen: Callable[..., Screen]) -> None:
    jobs = agent()
    job_id = asked(tmux, jobs)
    terminal = screen(rows=24, columns=100)
    shown = terminal.until(f"{job_id}  waits for approval")
    assert f"? {job_id}" in shown
    jobs.called_by("person").approve(job_id)
    terminal.until(f"✓ {job_id}")


# In the client


def asking_client(jobs: Jobs, mode: Any, answer: Callable[[str], Any]) -> Client[Any]:
    async def handler(message: str, *_: object) -> Any:
        return await asyncio.to_thread(answer, message)

    return Client(server_of(jobs), mode=mode, elicitation_handler=handler)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("action", ["accept", "decline"])
async def test_client_asks_the_person(agent: Agent, project: Path, mode: Any, action: Any) -> None:
    jobs, asked = agent(), []

    def answer(message: str) -> ElicitResult[Any]:
        assert not (project / "x").exists()
        asked.append(message)
        return ElicitResult(action=action, content={"approve": True} if action == "accept" else None)

    async with asking_client(jobs, mode, answer) as client:
        started = (await client.call_tool("execute", {"command": "touch x"})).structured_content or {}
        waited = await client.call_tool("wait", {"job_id": started["job_id"], "timeout": 30})
        fields = waited.structured_content or {}
    assert fields["status"] == ("completed" if action == "accept" else "failed")
    said = f"{started.get('note')}; {fields.get('note')}"  # in the answer that was the first to wait for it
    assert ("approved in the client" if action == "accept" else "refused in the client") in said
    assert len(asked) == 1
    assert "\n\ntouch x\n\n" in asked[0]
    assert f"in {project}" in asked[0]
    assert (project / "x").exists() == (action == "accept")


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_answer_in_tmux_counts_when_it_is_first(agent: Agent, project: Path, mode: Any) -> None:
    jobs, release = agent(), threading.Event()
    everyone = jobs.called_by("person")

    def answer(_: str) -> ElicitResult[Any]:
        everyone.refuse(everyone.list().jobs[0].job_id, why="I was first")
        release.wait(30 if mode == "legacy" else 0)
        return ElicitResult(action="accept", content={"approve": True})

    async with asking_client(jobs, mode, answer) as client:
        started = (await client.call_tool("execute", {"command": "touch x", "wait": 30})).structured_content or {}
        waited = (await client.call_tool("wait", {"job_id": started["job_id"], "timeout": 30})).structured_content or {}
        release.set()
    assert (waited["status"], "I was first" in waited["note"]) == ("failed", True)
    assert not (project / "x").exists()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_reason_given_in_the_client_is_told(agent: Agent, project: Path, mode: Any) -> None:
    jobs = agent()
    no = ElicitResult[Any](action="accept", content={"approve": False, "why": "make first"})
    async with asking_client(jobs, mode, lambda _: no) as client:
        started = (await client.call_tool("execute", {"command": "touch x"})).structured_content or {}
        waited = await client.call_tool("wait", {"job_id": started["job_id"], "timeout": 30})
        assert "refused in the client: make first" in (waited.structured_content or {})["note"]
    assert not (project / "x").exists()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_question_that_is_closed_is_no_answer(agent: Agent, mode: Any) -> None:
    jobs = agent()
    async with asking_client(jobs, mode, lambda _: ElicitResult(action="cancel")) as client:
        started = (await client.call_tool("execute", {"command": "touch x", "wait": 30})).structured_content or {}
        assert started["waits_for"] == "approval"
        assert jobs.status(started["job_id"]).waits_for == "approval"
        await asyncio.to_thread(jobs.called_by("person").approve, started["job_id"])
        waited = await client.call_tool("wait", {"job_id": started["job_id"], "timeout": 30})
        assert (waited.structured_content or {})["status"] == "completed"


async def test_client_that_declines_by_itself_has_not_answered(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, looked, waits = agent(), threading.Event(), AsksPerson._waits

    def slowly(asks: AsksPerson, job_id: str) -> bool:
        time.sleep(0.0 if looked.is_set() else 3.2)
        looked.set()
        return waits(asks, job_id)

    monkeypatch.setattr(AsksPerson, "_waits", slowly)
    monkeypatch.setattr(approval, "AT_ONCE_S", 3.0)

    async def decline(*_: object) -> ElicitResult[Any]:
        return ElicitResult(action="decline")

    codex = Implementation(name="codex-mcp-client", version="0.171.0")
    async with Client(server_of(jobs), mode="legacy", elicitation_handler=decline, client_info=codex) as client:
        started = (await client.call_tool("execute", {"command": "touch x"})).structured_content or {}
        await asyncio.to_thread(looked.wait, 30)
        waited = await client.call_tool("wait", {"job_id": started["job_id"], "timeout": 1})
        assert (waited.structured_content or {})["waits_for"] == "approval"
        await asyncio.to_thread(jobs.called_by("person").approve, started["job_id"])
        assert (await asyncio.to_thread(ended, jobs, started["job_id"])).status == "completed"


async def test_call_that_waits_goes_on_with_the_answer(agent: Agent) -> None:
    jobs = agent()
    accept = ElicitResult[Any](action="accept", content={"approve": True})
    async with asking_client(jobs, "auto", lambda _: accept) as client:
        ran = await client.call_tool("execute", {"command": "touch x; echo done", "wait": 30})
        fields = ran.structured_content or {}
        assert (fields["reason"], fields["exit_code"], fields["stdout"]) == ("exit", 0, "done\n")
        again = await client.call_tool("restart", {"job_id": fields["job_id"]})
        assert (again.structured_content or {})["restarted"] == fields["job_id"]
    assert jobs.list().total == 2
    assert all(ended(jobs, job.job_id).status == "completed" for job in jobs.list().jobs)
