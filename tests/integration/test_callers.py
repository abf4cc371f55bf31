"""Whose jobs: each records who started it, and an agent leaves those of other projects alone."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from fastmcp.exceptions import ToolError
from mcp_types import Implementation
from support import Jobs, Screen, ended, record_of, server_of, wait_until

from tmuxjobs import Settings
from tmuxjobs.errors import LimitReached, OtherProject
from tmuxjobs.hosts.local import Host, own_environment
from tmuxjobs.models import Caller
from tmuxjobs.verbs import hold


@pytest.fixture
def at(tmp_path: Path) -> Callable[..., Jobs]:
    """The jobs as they are seen from a project: `at("api", max_jobs=3)`."""

    def open_there(project: str, **settings: Any) -> Jobs:
        folder = tmp_path / project / "src"
        folder.mkdir(parents=True, exist_ok=True)
        git = folder.parent / ".git"
        git.mkdir(exist_ok=True)
        (git / "HEAD").touch()
        host = Host(Settings.load(**{"max_jobs": 40} | settings), environ=own_environment(), cwd=folder)
        host.store.prepare()
        return Jobs(host)

    return open_there


def client(jobs: Jobs, name: str = "robot", mode: Any = "auto") -> Client[Any]:
    return Client(server_of(jobs), mode=mode, client_info=Implementation(name=name, version="1.2"))


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_job_records_its_caller(at: Callable[..., Jobs], tmp_path: Path, mode: Any) -> None:
    jobs = at("api")
    async with client(jobs, mode=mode) as robot:
        started = (await robot.call_tool("execute", {"command": "sleep 1000"})).structured_content or {}
        caller = record_of(jobs, started["job_id"]).job.caller
        assert (caller.kind, caller.client, caller.version) == ("agent", "robot", "1.2")
        assert caller.project == str(tmp_path / "api")
        status = await robot.call_tool("status", {"job_id": started["job_id"]})
        assert f"project: {tmp_path / 'api'}, started by robot 1.2" in status.content[0].text  # type: ignore[union-attr]
        again = (await robot.call_tool("execute", {"command": "sleep 1000"})).structured_content or {}
        assert record_of(jobs, again["job_id"]).job.caller == caller
    theirs = record_of(jobs, jobs.execute("sleep 1000").job_id).job.caller
    assert theirs == Caller(kind="person", project=str(tmp_path / "api"))


def test_agent_does_not_act_on_another_projects_job(at: Callable[..., Jobs], tmp_path: Path) -> None:
    job_id = at("api").execute("read x; echo got $x; sleep 1000").job_id
    agent = at("web").called_by("agent")
    acts: list[Callable[[], object]] = [
        lambda: agent.kill(job_id),
        lambda: agent.restart(job_id),
        lambda: agent.interact(job_id, "yes"),
    ]
    for act in acts:
        with pytest.raises(OtherProject, match=f"'{job_id}' belongs to another project, {tmp_path}/api: nothing"):
            act()
    assert agent.status(job_id).status == "running"
    assert at("web", scope="all").called_by("agent").interact(job_id, "yes", wait=30, pattern="got yes").stdout
    assert at("web").kill(job_id).status == "killed", "a person is free"


def test_agent_acts_on_a_persons_job_of_its_project(at: Callable[..., Jobs]) -> None:
    job_id = at("api").execute("sleep 1000").job_id
    assert at("api").called_by("agent").kill(job_id).status == "killed"


def test_restarted_job_stays_in_its_project(at: Callable[..., Jobs], tmp_path: Path) -> None:
    job_id = at("api").execute("sleep 1000").job_id
    new = at("web").restart(job_id).job_id
    assert record_of(at("api"), new).job.caller.project == str(tmp_path / "api")
    assert at("api").called_by("agent").kill(new).status == "killed"


def test_job_without_a_known_project_is_refused_to_nobody(at: Callable[..., Jobs]) -> None:
    jobs = at("api")
    job_id = jobs.execute("sleep 1000").job_id
    path = jobs.host.store.folder(job_id) / "job.json"
    spec = record_of(jobs, job_id).job
    path.write_text(spec.model_dump_json(exclude={"caller"}))  # as an older tmuxjobs wrote it
    (jobs.host.store.root / "callers").unlink()
    agent = at("web").called_by("agent")
    assert [job.job_id for job in agent.list().jobs] == [job_id]
    assert agent.kill(job_id).status == "killed"


def test_list_shows_an_agent_its_project_and_counts_the_others(at: Callable[..., Jobs]) -> None:
    api, web = at("api"), at("web")
    theirs = [api.execute("sleep 1000", name="theirs").job_id for _ in range(2)]
    mine = web.called_by("agent").execute("sleep 1000", name="mine").job_id
    persons = web.execute("sleep 1000", name="persons").job_id
    agent = web.called_by("agent")
    found = agent.list()
    assert ([job.job_id for job in found.jobs], found.total, found.other_projects) == ([persons, mine], 2, 2)
    assert found.text().endswith("\nand 2 in other projects")
    assert [job.job_id for job in agent.list(scope="mine").jobs] == [mine]
    whole = agent.list(scope="all")
    assert [job.job_id for job in whole.jobs] == [persons, mine, *reversed(theirs)]
    assert [job.project for job in whole.jobs] == ["web", "web", "api", "api"]
    assert at("web", scope="all").called_by("agent").list().total == 4
    assert agent.list(name="theirs").text() == "No jobs in this project, and 2 in other projects"
    assert agent.list(status="running", limit=1).other_projects == 2


def test_person_sees_all_with_their_projects(at: Callable[..., Jobs]) -> None:
    jobs = [at("api").execute("sleep 1000").job_id, at("web").execute("sleep 1000").job_id]
    found = at("web").list()
    assert [(job.job_id, job.project) for job in found.jobs] == [(jobs[1], "web"), (jobs[0], "api")]
    assert "  in api  sleep 1000" in found.text()
    assert [job.project for job in at("api").list(scope="project").jobs] == [None], "there is but one"


def test_slots_are_the_projects(at: Callable[..., Jobs]) -> None:
    api, web = at("api", max_jobs=1), at("web", max_jobs=1, max_jobs_total=2)
    job_id = api.execute("sleep 1000").job_id
    mine = web.execute("sleep 1000").job_id
    with pytest.raises(LimitReached, match=f"1 job runs in this project .* kill one of {mine}\\.$"):
        web.called_by("agent").execute("true")
    other = at("docs", max_jobs_total=2)
    with pytest.raises(LimitReached, match="TMUXJOBS_MAX_JOBS_TOTAL is 2: none of them is yours to end"):
        other.called_by("agent").execute("true")
    with pytest.raises(LimitReached, match=f"kill one of {', '.join(sorted([job_id, mine]))}\\."):
        other.execute("true")


def test_held_job_is_not_named_to_an_agent_as_one_to_kill(
    at: Callable[..., Jobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "TMUX_S", 30.0)
    jobs = at("api", max_jobs=2)
    ids = [jobs.execute("sleep 1000").job_id for _ in range(2)]
    jobs.hold(ids[0])
    with pytest.raises(LimitReached, match=f"kill one of {ids[1]}\\.$"):
        jobs.called_by("agent").execute("true")


async def test_end_is_told_in_its_project_alone(at: Callable[..., Jobs]) -> None:
    api, web = at("api"), at("web")
    other = api.execute("read x").job_id
    async with client(web) as robot:
        waited = await robot.call_tool("wait", {"job_id": other, "timeout": 0})
        assert (waited.structured_content or {})["reason"] in ("timeout", "input")
        ids = [ended(api, api.execute("false").job_id).job_id, ended(web, web.execute("false").job_id).job_id]
        api.interact(other, "go")
        ended(api, other)
        answer = (await robot.call_tool("list", {"name": "none-of-them"})).structured_content or {}
        assert sorted(one["job_id"] for one in answer["also_ended"]) == sorted([ids[1], other])
    wide = at("web", scope="all")
    async with client(wide) as robot:
        ended(api, (job_id := api.execute("false").job_id))
        answer = (await robot.call_tool("list", {"name": "none-of-them"})).structured_content or {}
        assert [one["job_id"] for one in answer["also_ended"]] == [job_id]


async def test_refusal_reaches_the_model_in_one_sentence(at: Callable[..., Jobs]) -> None:
    job_id = at("api").execute("sleep 1000").job_id
    async with client(at("web")) as robot:
        with pytest.raises(ToolError, match=f"^Job '{job_id}' belongs to another project, [^\n]*$"):
            await robot.call_tool("kill", {"job_id": job_id})


def test_windows_show_projects_when_there_are_several(
    at: Callable[..., Jobs], screen: Callable[..., Screen], tmux: Callable[..., str]
) -> None:
    def marks() -> set[str]:
        return set(tmux("list-windows", "-t", "=mcp-jobs", "-F", "#{@tmuxjobs_project}").split())

    first = at("api").execute("sleep 1000", name="one").job_id
    assert marks() == set()
    second = at("web").execute("sleep 1000", name="two").job_id
    wait_until(marks, lambda shown: shown == {"api", "web"})
    screen(columns=200).until(f"{first} api", f"{second} web")
    at("api", keep_windows=0).kill(first)
    jobs = at("web", keep_windows=0)

    def look() -> set[str]:
        jobs.prune()
        return marks()

    wait_until(look, lambda shown: not shown)


def test_welcome_page_shows_the_project_where_there_is_more_than_one(
    at: Callable[..., Jobs], screen: Callable[..., Screen]
) -> None:
    def shows(*rows: str) -> Callable[[str], bool]:
        return lambda text: all(re.search(rf"^[> ]▸ {row}", text, re.MULTILINE) for row in rows)

    at("api").execute("sleep 1000", name="one")
    person = screen(columns=150)
    wait_until(person.look, shows(r"one-\w{4} +running \w+ +sleep 1000"))
    at("web").execute("sleep 1000", name="two")
    wait_until(person.look, shows(r"one-\w{4} +running \w+ +api  sleep", r"two-\w{4} +running \w+ +web  sleep"))
