"""The history: who called what, the verdict and the rule; never a value, never what was typed."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support import Jobs, ended

from tmuxjobs import Settings
from tmuxjobs.errors import Held, NotAllowed, StateError
from tmuxjobs.models import Caller, Deed
from tmuxjobs.store import journal

POLICY = {"allow": ["{cat,echo,sleep}"], "ask": ["make"], "deny": ["rm"]}


@pytest.fixture(name="agent")
def _agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    project = tmp_path / "project"
    (project / ".git").mkdir(parents=True)
    (project / ".git" / "HEAD").touch()
    monkeypatch.chdir(project)
    return Jobs.open(Settings.load(policy=POLICY)).called_by(
        lambda: Caller(kind="agent", client="robot", version="3", session="s1")
    )


def rows(jobs: Jobs, job_id: str | None = None) -> list[tuple[str, str, str, str]]:
    return [(one.caller, one.tool, one.job_id, one.verdict) for one in jobs.history(job_id)]


def test_each_act_is_written_down_with_its_verdict(agent: Jobs, tmp_path: Path) -> None:
    person = agent.called_by("person")
    job = agent.execute("cat").job_id
    agent.interact(job, "hello")
    person.hold(job)
    with pytest.raises(Held):
        agent.kill(job)
    person.release(job)
    with pytest.raises(NotAllowed):
        agent.execute("echo a; rm x")
    asked = agent.execute("make").job_id
    person.refuse(asked, why="later")
    ended(agent, asked)
    agent.kill(job)
    assert rows(agent) == [
        ("agent", "execute", job, "allow"),
        ("agent", "interact", job, "allow"),
        ("person", "hold", job, "allow"),
        ("agent", "kill", job, "deny"),
        ("person", "release", job, "allow"),
        ("agent", "execute", "", "deny"),
        ("agent", "execute", asked, "ask"),
        ("person", "", asked, "refused"),
        ("agent", "kill", job, "allow"),
    ]
    first = agent.history()[0]
    assert (first.client, first.session, first.project) == ("robot 3", "s1", str(tmp_path / "project"))
    assert "rule '{cat,echo,sleep}' (policy)" in first.why
    assert "`rm x`: rule 'rm' (policy)" in agent.history()[5].why
    assert "A person has held" in agent.history()[3].why
    assert "`tmuxjobs refuse`: later" in agent.history(asked)[-1].why
    assert rows(agent, asked) == [("agent", "execute", asked, "ask"), ("person", "", asked, "refused")]


def test_neither_values_nor_what_was_typed_are_in_it(agent: Jobs, isolated: Path) -> None:
    job = agent.execute("cat", env={"TOKEN": "s3cret-env"}).job_id
    agent.interact(job, "s3cret-typed")
    for command in ("K=s3cret-line rm x", "declare K=s3cret-line", "K='s3cret-line", "env K=s3cret-line reboot"):
        with pytest.raises(NotAllowed):
            agent.execute(command)
    with pytest.raises(NotAllowed):
        agent.execute("cat", env={"PATH": "s3cret-path"})
    agent.kill(job)
    path = agent.host.settings.state_dir / "history"
    assert "s3cret" not in path.read_text()
    assert len(path.read_text().splitlines()) == 8
    assert path.stat().st_mode & 0o777 == 0o600


def test_command_tells_it(agent: Jobs) -> None:
    job = agent.execute("echo hi", wait=30).job_id
    with pytest.raises(NotAllowed):
        agent.execute("rm x")

    def run(*arguments: str) -> str:
        argv = [sys.executable, "-m", "tmuxjobs", "history", *arguments]
        return subprocess.run(argv, env=os.environ, capture_output=True, text=True, timeout=60, check=True).stdout

    lines = run().splitlines()
    assert len(lines) == 2
    assert f"  robot 3  execute {job}  allow: `echo hi`: rule" in lines[0]
    assert "  robot 3  execute  deny: `rm x`: rule 'rm' (policy)" in lines[1]
    assert run(job).splitlines() == lines[:1]
    assert run("-n", "1").splitlines() == lines[1:]
    row = json.loads(run("--json"))["history"][0]
    assert (row["tool"], row["job_id"], row["verdict"]) == ("execute", job, "allow")


def test_it_keeps_two_files_and_every_line_whole(agent: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "HISTORY_BYTES", 4000)
    first = agent.host.history
    at = {"at": "2026-01-02T03:04:05Z", "caller": "person", "tool": "kill", "verdict": "allow"}

    def write(name: str) -> None:
        for number in range(40):
            first.append(Deed.model_validate_json(json.dumps(at | {"job_id": f"{name}-{number}"})))

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [one.job_id for one in agent.history(limit=1000)]
    assert len(found) == len(set(found)) >= 30
    assert {"a-39", "b-39", "c-39"} & set(found)
    for path in (first.path, first.older):
        assert path.stat().st_size < 6000
        assert path.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_written_holds_up_nothing_and_is_told_on_reading(agent: Jobs) -> None:
    path = agent.host.history.path
    os.mkfifo(path)
    assert agent.execute("echo a", wait=30).status == "completed"
    with pytest.raises(StateError, match="is not the history of tmuxjobs: it is a FIFO"):
        agent.history()
    path.unlink()
    agent.execute("echo a", wait=30)
    with path.open("a") as file:
        file.write('{"cut o')
    assert len(agent.history()) == 1
    agent.execute("echo b", wait=30)
    assert len(agent.history()) == 2
