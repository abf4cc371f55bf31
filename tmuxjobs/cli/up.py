"""The jobs that a project's file names, and the commands for all of them: `up` and `down`.

The file has `[jobs.NAME]` tables (a `tmuxjobs.toml`), or the lines of a Procfile.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from json import dumps
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from cyclopts import Parameter

from tmuxjobs import files
from tmuxjobs.answers import Started
from tmuxjobs.arguments import duration
from tmuxjobs.cli import WAIT_OVER
from tmuxjobs.cli.app import CONTROL, RUN, Json, Seconds, app
from tmuxjobs.cli.follow import note
from tmuxjobs.contract import OPEN
from tmuxjobs.errors import InvalidInput, SettingsError, TmuxjobsError
from tmuxjobs.files import Odd
from tmuxjobs.jobs import Jobs
from tmuxjobs.models import Status
from tmuxjobs.policy.callers import PROJECT_FILE
from tmuxjobs.visible import visible, visible_json

PROCFILE = "Procfile"
NAME = re.compile(r"(?!.{21})[a-z0-9]+(-[a-z0-9]+)*")
LINE = re.compile(r"([A-Za-z0-9_-]+):\s*(.+)")
Needs = Literal["ready", "ok", "any"]
TEXT, FLAG, WHOLE, SECONDS, TEXTS, CODES, PAIRS = (
    "a text",
    "true or false",
    "a whole number",
    "a time",
    *(
        "a list of texts",
        "a list of whole numbers",
        "a table of texts",
    ),
)
KEYS = {
    "command": TEXT,
    "cwd": TEXT,
    "env": PAIRS,
    "shell": TEXT,
    "timeout": SECONDS,
    "separate_stderr": FLAG,
    "max_output_size": TEXT,
    "notify": TEXT,
    "retry": WHOLE,
    "restart_policy": TEXT,
    "success_codes": CODES,
    "ready_when": TEXT,
    "ready_timeout": SECONDS,
    "after": TEXTS,
    "group": TEXT,
    "priority": WHOLE,
    "watch": TEXTS,
}


@dataclass(frozen=True)
class Planned:
    """A job as written: `options` are those of `execute`, `after` says what other jobs must reach first.

    A change of one of the files and folders in `watch` restarts it under `up --watch`.
    """

    name: str
    command: str
    options: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Needs] = field(default_factory=dict)
    watch: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Plan:
    """All jobs of a file, each after those that it comes after, and how many of a group may run at once."""

    file: Path
    jobs: Mapping[str, Planned]
    groups: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def found(cls, folder: Path) -> Plan:
        """The plan of the nearest file upward with jobs; raises InvalidInput when there is none, SettingsError."""
        for above in (folder, *folder.parents):
            if (path := above / PROJECT_FILE).exists() and (plan := cls.of_toml(path)) is not None:
                return plan
            if (path := above / PROCFILE).exists():
                return cls.of_procfile(path)
        raise InvalidInput(f"There is no {PROJECT_FILE} with [jobs.NAME] tables and no {PROCFILE} here or above.")

    @classmethod
    def of_toml(cls, path: Path) -> Plan | None:
        """The plan of that file; None if it has no jobs."""
        try:
            text, content = files.toml(path)
        except (Odd, OSError) as error:
            raise SettingsError(f"{path} cannot be read: {files.why(error)}.") from None
        if "jobs" not in content:
            return None
        source = _Source(path, text)
        if not isinstance(content["jobs"], Mapping):
            raise source.refused("", "", "jobs is not a table of [jobs.NAME] tables")
        groups = content.get("groups", {})
        if not isinstance(groups, Mapping) or not all(type(limit) is int for limit in groups.values()):
            raise source.refused("", "", "groups is not a table of whole numbers, like `tests = 4`")
        plan = _ordered(source, [_planned(source, name, table) for name, table in content["jobs"].items()])
        return replace(plan, groups=groups)

    @classmethod
    def of_procfile(cls, path: Path) -> Plan:
        try:
            lines = files.read(path, follow=True).decode().splitlines()
        except UnicodeDecodeError:
            raise SettingsError(f"{path} cannot be read: it is not UTF-8.") from None
        except (Odd, OSError) as error:
            raise SettingsError(f"{path} cannot be read: {files.why(error)}.") from None
        found = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            match = LINE.fullmatch(line.strip())
            name = match[1].lower().replace("_", "-") if match else ""
            if match is None or not NAME.fullmatch(name) or name in found:
                raise SettingsError(f"{path}, line {number}: it is not `name: command` with a new name.")
            found[name] = Planned(name, match[2], {"cwd": str(path.parent)})
        return cls(path, found)

    def chosen(self, names: Sequence[str]) -> list[Planned]:
        """The named jobs and all that they come after, in order; all jobs without names. Raises InvalidInput."""
        wanted = {planned.name for planned in self.named(names)}
        for planned in reversed(list(self.jobs.values())):
            wanted |= set(planned.after) if planned.name in wanted else set()
        return [planned for planned in self.jobs.values() if planned.name in wanted]

    def named(self, names: Sequence[str]) -> list[Planned]:
        """Only the named jobs, in order; all jobs without names. Raises InvalidInput."""
        for name in names:
            if name not in self.jobs:
                raise InvalidInput(f"{self.file} has no job '{name}'; there are {', '.join(self.jobs)}.")
        return [planned for planned in self.jobs.values() if not names or planned.name in names]


@dataclass(frozen=True)
class _Source:
    path: Path
    text: str

    def refused(self, name: str, near: str, why: str) -> SettingsError:
        """The error with its line: that of the key in the job's table, else that of the table."""
        lines = self.text.split("\n")
        table = re.compile(rf"""\s*\[\s*jobs\s*\.\s*["']?{re.escape(name)}["']?\s*(\]|\.)""")
        begin = next((at for at, line in enumerate(lines) if table.match(line)), None)
        place = ""
        if begin is not None:
            inside = range(begin, len(lines))
            pattern = re.compile(rf"""\s*["']?{re.escape(near)}["']?\s*[=.]""")
            at = next((at for at in inside if near and pattern.match(lines[at])), begin)
            place = f", line {at + 1}"
        return SettingsError(f"{self.path}{place}: {f'job {name!r}: ' if name else ''}{why}.")


def _planned(source: _Source, name: str, table: Any) -> Planned:
    if not NAME.fullmatch(name):
        raise source.refused(name, "", "a name is up to 20 characters: a-z, 0-9, and `-` between them")
    if not isinstance(table, Mapping):
        raise source.refused(name, name, "it is not a table")
    given = {}
    for key, value in table.items():
        if key not in KEYS:
            raise source.refused(name, key, f"'{key}' is not known; there are {', '.join(KEYS)}")
        try:
            given[key] = _checked(KEYS[key], value)
        except ValueError:
            raise source.refused(name, key, f"{key} is not {KEYS[key]}") from None
    if not given.get("command", "").strip():
        raise source.refused(name, "command", "it has no command")
    folder = source.path.parent
    given["cwd"] = str(folder / os.path.expanduser(given.get("cwd", ".")))
    after = {}
    for one in given.pop("after", ()):
        other, _, needs = one.partition(":")
        if needs and needs not in get_args(Needs):
            raise source.refused(name, "after", f"'{one}' in after ends in :ready, :ok, :any or nothing")
        after[other] = needs
    watched = tuple(folder / os.path.expanduser(one) for one in given.pop("watch", ()))
    return Planned(name, given.pop("command"), given, after, watched)


def _checked(kind: str, value: Any) -> Any:
    """The value as `execute` takes it; raises ValueError."""
    whole = type(value) is int
    if kind == SECONDS and isinstance(value, str):
        return duration(value)
    fits = {
        TEXT: isinstance(value, str),
        FLAG: isinstance(value, bool),
        WHOLE: whole,
        SECONDS: whole or type(value) is float,
        TEXTS: isinstance(value, list) and all(isinstance(one, str) for one in value),
        CODES: isinstance(value, list) and all(type(one) is int for one in value),
        PAIRS: isinstance(value, Mapping) and all(isinstance(one, str | int | float) for one in value.values()),
    }
    if not fits[kind]:
        raise ValueError
    if kind == PAIRS:
        return {name: str(one).lower() if isinstance(one, bool) else str(one) for name, one in value.items()}
    return value


def _ordered(source: _Source, planned: Iterable[Planned]) -> Plan:
    jobs = {one.name: one for one in planned}
    for one in jobs.values():
        for other in one.after:
            if other not in jobs:
                raise source.refused(one.name, "after", f"it comes after '{other}', which does not exist")
    try:
        order = list(TopologicalSorter({name: list(one.after) for name, one in jobs.items()}).static_order())
    except CycleError as error:
        circle = error.args[1]
        raise source.refused(circle[0], "after", f"it comes after itself: {' after '.join(circle)}") from None
    return Plan(source.path, {name: _with_needs(jobs[name], jobs) for name in order})


def _with_needs(one: Planned, jobs: Mapping[str, Planned]) -> Planned:
    """Fill in what a dependency must reach, if not given: ready if it has `ready_when`, else success."""
    needs: dict[str, Needs] = {}
    for other, said in one.after.items():
        needs[other] = said or ("ready" if jobs[other].options.get("ready_when") else "ok")
    return replace(one, after=needs)


MOST = 500
UP_S = 300.0
LOOK_MS = 500


@dataclass
class Row:
    """The outcome for one job: `how` in words, and whether it is as it should be."""

    name: str
    job_id: str
    what: str
    how: str
    good: bool = True


@app.command(group=RUN)
def up(
    *names: str,
    timeout: Seconds = UP_S,
    watch: Annotated[bool, Parameter(("--watch", "-w"), negative="", show_default=False)] = False,
    json: Json = False,
) -> None:
    """Start the jobs of this project's tmuxjobs.toml or Procfile, in order; those that run are left alone.

    Waits until each that has `ready_when` is ready, and each that others come after has ended. Exits with 1 when one of
    them is not as it should be, and with 124 when the time is over.

    Parameters
    ----------
    names
        Only these, and the jobs that they come after; all by default.
    timeout
        Seconds to wait for all of them.
    watch
        Stay, and restart a job when something in its `watch` (files and folders) changes, until Ctrl-C.
    """
    plan, jobs = Plan.found(Path.cwd()), Jobs.open()
    deadline = time.monotonic() + timeout
    chosen = plan.chosen(names)
    if watch and not any(planned.watch for planned in chosen):
        raise InvalidInput("None of these jobs has `watch`, the files and folders whose changes restart it.")
    for path in {path for planned in chosen for path in planned.watch if watch and not path.exists()}:
        raise InvalidInput(f"'{path}' in watch does not exist; nothing was started.")
    of_chosen = {planned.options.get("group") for planned in chosen}
    for group, limit in plan.groups.items():
        if group in of_chosen:
            jobs.group(group, limit=limit)
    rows = start(jobs, chosen)
    awaited = {other for planned in chosen for other, need in planned.after.items() if need != "ready"}
    late = [settle(jobs, planned, rows[planned.name], planned.name in awaited, deadline) for planned in chosen]
    show(list(rows.values()), as_json=json)
    if watch:
        restart_on_changes(jobs, [planned for planned in chosen if planned.watch])
    sys.exit(0 if all(row.good for row in rows.values()) else WAIT_OVER if any(late) else 1)


@app.command(group=CONTROL)
def down(*names: str, json: Json = False) -> None:
    """End the jobs of this project's tmuxjobs.toml or Procfile that run, those that come last first.

    Parameters
    ----------
    names
        Only these; all by default.
    """
    plan, jobs = Plan.found(Path.cwd()), Jobs.open()
    there = running(jobs)
    rows = []
    for planned in reversed(plan.named(names)):
        job_id = there.get(planned.name, "")
        if not job_id:
            rows.append(Row(planned.name, "", "", "does not run"))
            continue
        try:
            killed = jobs.kill(job_id)
            rows.append(Row(planned.name, job_id, killed.status, killed.detail, not killed.survivors))
        except TmuxjobsError as error:  # the others are ended all the same
            rows.append(Row(planned.name, job_id, "refused", str(error), good=False))
    show(rows, as_json=json)
    sys.exit(0 if all(row.good for row in rows) else 1)


def running(jobs: Jobs) -> dict[str, str]:
    """{name: id} of the project's jobs that have not ended, the newest of each name."""
    found: dict[str, str] = {}
    for status in get_args(Status):
        if status in OPEN:
            for job in jobs.list(status=status, scope="project", limit=MOST).jobs:
                found.setdefault(job.job_id.rpartition("-")[0], job.job_id)
    return found


def start(jobs: Jobs, chosen: list[Planned]) -> dict[str, Row]:
    """Start the jobs that do not run, each after those that it comes after; the rows say why one was not started."""
    there = running(jobs)
    rows: dict[str, Row] = {}
    for planned in chosen:
        if planned.name in there:
            rows[planned.name] = Row(planned.name, there[planned.name], "reused", "")
            continue
        missing = [other for other in planned.after if not rows[other].job_id]
        if missing:
            rows[planned.name] = Row(planned.name, "", "not started", f"{missing[0]} was not started", good=False)
            continue
        after = [f"{rows[other].job_id}:{need}" for other, need in planned.after.items()]
        try:
            started: Started = jobs.execute(
                planned.command, name=planned.name, queue=True, reuse=True, after=after, **planned.options
            )
            what = "reused" if started.reused else "started"  # another `up` may have come first
            rows[planned.name] = Row(planned.name, started.job_id, what, "")
        except TmuxjobsError as error:
            rows[planned.name] = Row(planned.name, "", "not started", str(error), good=False)
    return rows


def settle(jobs: Jobs, planned: Planned, row: Row, awaited: bool, deadline: float) -> bool:
    """Wait until the job is ready or ended, as needed, and fill in its row; returns whether the time ran out."""
    if not row.job_id:
        return False
    reason = ""
    left_s = max(0.001, deadline - time.monotonic())
    if planned.options.get("ready_when"):
        reason = jobs.wait(row.job_id, until="ready", timeout=left_s).reason
    elif awaited:
        reason = jobs.wait(row.job_id, timeout=left_s).reason
    status = jobs.status(row.job_id)
    row.how = "ready" if reason == "ready" else status.detail
    row.what = "not started" if status.status == "skipped" else row.what
    row.good = reason not in ("timeout", "not_ready") and status.status in (*OPEN, "completed")
    return reason == "timeout"


def restart_on_changes(jobs: Jobs, watched: list[Planned]) -> None:
    """Restart jobs until Ctrl-C, with a line on stderr for each; changes in `.git`, caches and such do not count."""
    from watchfiles import watch as changes_of  # takes 40 ms

    places = {path for planned in watched for path in planned.watch}
    is_said = False
    for changes in changes_of(*places, raise_interrupt=True, rust_timeout=LOOK_MS, yield_on_timeout=True):
        if not is_said:  # from here on none is missed
            note("watching for changes; Ctrl-C stops that; the jobs keep running until `tmuxjobs down`")
            is_said = True
        changed = [Path(path) for _, path in changes]
        for planned in watched:
            cause = next((one for one in changed if any(one.is_relative_to(path) for path in planned.watch)), None)
            if cause is None:
                continue
            try:
                # The newest of its name, in case something else has restarted it meanwhile.
                newest = jobs.list(name=planned.name, scope="project", limit=MOST).jobs
                job_id = next(job.job_id for job in newest if job.job_id.rpartition("-")[0] == planned.name)
                note(f"{cause.name} has changed: {jobs.restart(job_id).job_id} is {planned.name} now")
            except TmuxjobsError as error:  # the next change may do better
                note(f"{planned.name} was not restarted: {error}")


def show(rows: list[Row], *, as_json: bool) -> None:
    if as_json:
        print(visible_json(dumps([asdict(row) for row in rows])))
        return
    wide = [max((len(getattr(row, name)) for row in rows), default=0) for name in ("name", "job_id", "what")]
    for row in rows:
        cells = zip((row.name, row.job_id, row.what), wide, strict=True)
        print("  ".join([*(f"{text:<{size}}" for text, size in cells), visible(row.how)]).rstrip())
