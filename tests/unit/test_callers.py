"""Projects, scopes and limits, by the rules alone."""

from pathlib import Path
from typing import Any

import pytest

from tmuxjobs.contract import labels
from tmuxjobs.errors import LimitReached
from tmuxjobs.models import Caller
from tmuxjobs.policy import callers
from tmuxjobs.settings import Settings


def agent(project: str, *, session: str = "s1") -> Caller:
    return Caller(kind="agent", client="robot", version="7", session=session, project=project)


def person(project: str = "") -> Caller:
    return Caller(project=project)


def limit(
    caller: Caller, running: dict[str, Caller], held: set[str] | None = None, *, most: int = 10, total: int = 50
) -> None:
    callers.refuse_beyond_limits(
        caller, running, lambda ids: (held or set()) & set(ids), allowed="project", most=most, total=total
    )


def refusal(*args: Any, **kwargs: int) -> str:
    with pytest.raises(LimitReached) as raised:
        limit(*args, **kwargs)
    return str(raised.value)


def test_project_is_the_git_root_or_the_folder(tmp_path: Path) -> None:
    inside = tmp_path / "repo" / "src" / "deep"
    inside.mkdir(parents=True)
    assert callers.project_of(inside) == str(inside)
    (tmp_path / "repo" / ".git").mkdir()
    assert callers.project_of(inside) == str(inside), "git takes a .git without HEAD for no repository"
    (tmp_path / "repo" / ".git" / "HEAD").touch()
    assert callers.project_of(inside) == str(tmp_path / "repo")
    (inside / ".git").write_text("gitdir: elsewhere")
    assert callers.project_of(inside) == str(inside), "a worktree is a project of its own"


def test_project_is_the_same_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert callers.project_of(tmp_path / "link") == callers.project_of(tmp_path / "real")


def test_unknown_project_is_nobody_elses() -> None:
    assert callers.may_act(agent("/a"), person(), "project")
    assert callers.is_within("project", agent("/a"), person())
    assert not callers.is_within("mine", agent("/a"), person())


def test_person_and_a_wide_scope_are_free() -> None:
    assert callers.may_act(person("/a"), agent("/b"), "project")
    assert not callers.may_act(agent("/a"), agent("/b"), "project")
    assert callers.may_act(agent("/a"), agent("/b"), "all")


def test_mine_are_those_of_the_session() -> None:
    assert callers.is_within("mine", agent("/a"), agent("/a"))
    assert not callers.is_within("mine", agent("/a"), agent("/a", session="s2"))


def test_limits_count_for_the_project_and_for_the_machine() -> None:
    running = {"mine-1": agent("/a"), "theirs-1": agent("/b"), "theirs-2": agent("/b")}
    assert refusal(agent("/a"), running, most=1) == (
        "1 job runs in this project and TMUXJOBS_MAX_JOBS is 1: wait for one or kill one of mine-1."
    )
    assert refusal(agent("/a"), running, most=2, total=3) == (
        "3 jobs run on this machine and TMUXJOBS_MAX_JOBS_TOTAL is 3: wait for one or kill one of mine-1."
    )
    limit(agent("/c"), running, most=1)


def test_refusal_names_only_what_the_caller_may_end() -> None:
    running = {"mine-1": agent("/a"), "mine-2": person("/a"), "theirs-1": agent("/b")}
    assert "kill one of mine-2." in refusal(agent("/a"), running, {"mine-1"}, total=3)
    assert "a person holds them" in refusal(agent("/a"), running, {"mine-1", "mine-2"}, total=3)
    assert "belong to other projects" in refusal(agent("/c"), running, total=3)
    assert "mine-1, mine-2, theirs-1." in refusal(person("/c"), running, {"mine-1"}, total=3)


def test_machine_takes_as_many_as_one_project() -> None:
    assert Settings().total_jobs == 50
    assert Settings(max_jobs=80).total_jobs == 80


def test_labels_tell_projects_apart() -> None:
    assert labels(["/home/you/api"]) == {}
    assert labels(["/x/api", "/x/web", ""]) == {"/x/api": "api", "/x/web": "web"}
    assert labels(["/x/api", "/y/api", "/"]) == {"/x/api": "x/api", "/y/api": "y/api", "/": "/"}


def test_label_in_tmux_has_nothing_that_tmux_would_run() -> None:
    assert callers.in_tmux("#(touch x)\t#[fg=red]a,b") == "__touch_x____fg_red_a_b"
