"""Whose jobs they are: projects and scopes, what one caller may do to another's job, and how many may run."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_args

from tmuxjobs.arguments import Scope
from tmuxjobs.errors import InvalidInput, LimitReached, OtherProject
from tmuxjobs.models import Caller, JobSpec

NAMED = 10
"""Jobs that a refusal names at the most."""
TMUX_CHARS = 24
PROJECT_FILE = "tmuxjobs.toml"


def project_of(folder: Path) -> str:
    """The git root of the folder, else the folder itself; a worktree and a submodule are projects of their own."""
    here = os.path.realpath(folder)
    above = here
    while True:
        git = os.path.join(above, ".git")
        # A worktree's is a file; without HEAD git takes it for no repository either.
        if os.path.isfile(git) or os.path.exists(os.path.join(git, "HEAD")):
            return above
        if (parent := os.path.dirname(above)) == above:
            return here
        above = parent


def same_project(caller: Caller, other: Caller) -> bool:
    """Whether the other's jobs are of the caller's project; where one is not known, nothing speaks against it."""
    return not caller.project or not other.project or caller.project == other.project


def is_mine(caller: Caller, other: Caller) -> bool:
    """Whether it is the same agent in the same session, or a person as well."""
    return (caller.kind, caller.client, caller.session) == (other.kind, other.client, other.session)


def scope_of(caller: Caller, asked: Scope | None, allowed: Scope) -> Scope:
    """An agent looks at what it is allowed, a person at all, unless they ask otherwise. Raises InvalidInput."""
    if asked is not None and asked not in get_args(Scope):
        raise InvalidInput(f"scope is one of {', '.join(get_args(Scope))}, not '{asked}'.")
    return asked or ("all" if caller.kind == "person" else allowed)


def is_within(scope: Scope, caller: Caller, other: Caller) -> bool:
    return scope == "all" or (is_mine(caller, other) if scope == "mine" else same_project(caller, other))


def may_act(caller: Caller, other: Caller, allowed: Scope) -> bool:
    """Whether the caller may end, restart or type into a job of the other's: an agent within what it is allowed."""
    return caller.kind == "person" or is_within(allowed, caller, other)


def refuse_other_project(caller: Caller, job: JobSpec, allowed: Scope) -> None:
    """Raises OtherProject."""
    if not may_act(caller, job.caller, allowed):
        raise OtherProject(job.job_id, job.caller.project)


def refuse_beyond_limits(
    caller: Caller,
    running: Mapping[str, Caller],
    held: Callable[[Sequence[str]], set[str]],
    *,
    allowed: Scope,
    most: int,
    total: int,
) -> None:
    """For one more job beside those that run on this machine, {id: who started it}; raises LimitReached.

    As many as `most` may run in one project, `total` in all. The refusal names those alone that the caller may end:
    none of another project, and none that a person holds: `held` names those among some.
    """
    project = [job_id for job_id, other in running.items() if caller.project == other.project]
    endable = [job_id for job_id, other in running.items() if may_act(caller, other, allowed)]
    if len(project) >= most:
        said = f"{len(project)} jobs run in this project and TMUXJOBS_MAX_JOBS is {most}"
        endable = [job_id for job_id in endable if job_id in project]
    elif len(running) >= total:
        said = f"{len(running)} jobs run on this machine and TMUXJOBS_MAX_JOBS_TOTAL is {total}"
    else:
        return
    said = re.sub("^1 jobs run", "1 job runs", said)
    free = sorted(set(endable) - (held(endable) if caller.kind == "agent" else set()))
    if free:
        raise LimitReached(f"{said}: wait for one or kill one of {', '.join(free[:NAMED])}.")
    whose = "a person holds them" if endable else "all of them belong to other projects"
    raise LimitReached(f"{said}: none of them is yours to end, for {whose}; wait, or ask the person.")


def is_kept(caller: Caller, keep: bool | None, on_disconnect: str) -> bool:
    """Whether a job outlives the server that starts it; a person's does unless they say otherwise."""
    return keep if keep is not None else caller.kind == "person" or on_disconnect == "keep"


def in_tmux(label: str) -> str:
    """The label with nothing that tmux would take for a format, a style or the end of a field."""
    return re.sub(r"[^\w./@+-]", "_", label)[-TMUX_CHARS:]
