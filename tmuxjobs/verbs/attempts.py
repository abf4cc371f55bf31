"""A job's attempts and readiness: the arguments that ask for them, and what its folder says of them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from tmuxjobs import files
from tmuxjobs.arguments import checked_seconds
from tmuxjobs.errors import InvalidInput
from tmuxjobs.models import AttemptRecord, AttemptsRecord, Entry, Model, ReadyRecord
from tmuxjobs.outcome import KILLED_BY, seconds
from tmuxjobs.states import Job, Running
from tmuxjobs.system import probes
from tmuxjobs.text import patterns

RETRIES_MAX = 1000
IN_A_ROW = 10
"""Under a policy: so often a job runs again where no number is given."""
SHOWN = 5
T = TypeVar("T", bound=Model)


def asked_of(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The record's fields for retries and readiness, from the arguments of `execute`; raises InvalidInput."""
    policy, retry, codes = asked.get("restart_policy"), asked.get("retry"), asked.get("success_codes")
    if policy not in (None, "on-failure", "always"):
        raise InvalidInput(f"restart_policy is on-failure or always, not '{policy}'.")
    if retry is not None and not 0 <= retry <= RETRIES_MAX:
        raise InvalidInput(f"retry must be 0 to {RETRIES_MAX}, not {retry}.")
    if codes is not None and not (codes and all(0 <= code <= 255 for code in codes)):
        raise InvalidInput("success_codes are one or more exit codes, each 0 to 255.")
    when, bound_s = asked.get("ready_when"), asked.get("ready_timeout")
    if bound_s is not None and not when:
        raise InvalidInput("ready_timeout needs `ready_when`.")
    return {
        "retry": retry if retry is not None else IN_A_ROW if policy else 0,
        "restart_policy": policy,
        "success_codes": tuple(codes) if codes is not None else (0,),
        "ready_when": checked_ready(when) if when is not None else "",
        **({"ready_timeout_s": checked_seconds("ready_timeout", bound_s)} if bound_s is not None else {}),
    }


def checked_ready(when: str) -> str:
    """`port N`, `url URL`, `pattern REGEX` or `command LINE`, with one space between the two."""
    kind, _, what = when.strip().partition(" ")
    what = what.strip()
    if kind not in ("port", "url", "pattern", "command") or not what or "\0" in what:
        raise InvalidInput(
            "ready_when is `port 3000`, `url http://localhost:3000`, `pattern REGEX` or `command LINE`, "
            f"not '{when[:80]}'."
        )
    if kind == "port" and not (what.isdecimal() and what.isascii() and 0 < int(what) < 65536):
        raise InvalidInput(f"There is no port '{what[:80]}'; give 1 to 65535.")
    if kind == "url" and not probes.is_address(what):
        raise InvalidInput(f"'{what[:80]}' is not an http or https address, like http://localhost:8000.")
    if kind == "pattern":
        try:
            re.compile(what)  # by what looks for it in the pane
        except (re.error, RecursionError, OverflowError) as error:
            raise InvalidInput(f"The pattern {what[:80]!r} is not a regular expression: {error}.") from None
        patterns.refuse_newline(what)
    return f"{kind} {what}"


def _read(job: Job, name: str, model: type[T]) -> T | None:
    """The record; None when it is missing or damaged, since the job's state does not depend on it."""
    with contextlib.suppress(OSError, files.Odd, ValidationError):
        return model.model_validate(files.fields_of(files.read(job.folder / name)))
    return None


def listed(job: Job) -> tuple[AttemptRecord, ...]:
    """The newest attempts, oldest first, including the one that runs; empty for a job that never ran again."""
    record = _read(job, "attempts.json", AttemptsRecord) if job.spec.retry else None
    return record.attempts if record is not None else ()


def part(job: Job, attempt: int) -> AttemptRecord:
    """Where an attempt's output is in the log; raises InvalidInput for an attempt that is not known, or no longer."""
    known = listed(job) or (
        (AttemptRecord(attempt=1, started_at=job.spec.created_at, begin=0),) if attempt == 1 else ()
    )
    found = next((one for one in known if one.attempt == attempt), None)
    if found is None:
        which = f"{known[0].attempt} to {known[-1].attempt} are known" if known else "it has had one alone"
        raise InvalidInput(f"Job '{job.id}' has no attempt {attempt}; {which}.")
    return found


def readiness(job: Job) -> ReadyRecord | None:
    return _read(job, "ready.json", ReadyRecord) if job.spec.ready_when else None


def is_ready(job: Job) -> bool | None:
    """None when the job has no `ready_when` or does not run."""
    if not job.spec.ready_when or not job.runs or between(job):
        return False if job.spec.ready_when and job.running else None
    record = readiness(job)
    return record is not None and record.ready


def between(job: Job) -> str:
    """The state of a job that waits for its next attempt, in words."""
    return job.state.between if isinstance(job.state, Running) else ""


def summary(job: Job) -> dict[str, Any]:
    """The fields for `list`."""
    return {"ready": is_ready(job), "attempts": job.exit.attempts if job.exit else job.run.attempt if job.run else 1}


def facts(job: Job) -> dict[str, Any]:
    """Further fields for `status`."""
    record = readiness(job)
    ended = [one for one in listed(job) if one.reason is not None]
    shown = {"ready_when": job.spec.ready_when, "earlier": tuple(words(one) for one in ended[-SHOWN:])}
    if record is not None and job.running and not between(job):
        shown["ready_note"] = f"since {record.at:%H:%M:%S} UTC" if record.ready else record.why
    return shown


def words(one: AttemptRecord) -> str:
    how = one.signal or f"exit code {one.exit_code}"
    if one.reason in KILLED_BY:
        how = f"{KILLED_BY[one.reason]} ({how})"
    return f"attempt {one.attempt}: {how} after {seconds(one.runtime_s or 0.0)}"


def news(job: Job, earlier: list[Entry]) -> list[Entry]:
    """What the journal lacks of a running job: that it runs again and again, once, and whether it is ready."""
    found = []
    run, record = job.run, readiness(job)
    if run is not None and run.loop and run.loop not in [one.attempt for one in earlier if one.event == "again"]:
        note = f"attempt {run.attempt} ended with {run.last_end}" if between(job) else f"attempt {run.attempt}"
        found.append(_entry(job, "again", datetime.now(UTC), attempt=run.loop, note=note))
    last = next((one.event for one in reversed(earlier) if one.event in ("ready", "unready")), "")
    if record is not None and not between(job):
        if record.ready and last != "ready":
            found.append(_entry(job, "ready", record.at, note=record.why))
        elif not record.ready and last != "unready" and (record.failed or last == "ready"):
            found.append(_entry(job, "unready", record.at, note=record.why))
    return found


def _entry(job: Job, event: str, at: datetime, **facts: Any) -> Entry:
    project = job.spec.caller.project or None
    return Entry.model_validate({"n": 0, "event": event, "job_id": job.id, "at": at, "project": project, **facts})
