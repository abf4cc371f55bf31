"""What happens to jobs, in order: keeps the journal in step with the records. `history`: who did what to which job.

A call is recorded when it is over, with what the policy decided: names, verdicts and rules, never the value of a
variable, nor what was typed. The process that writes an end on another host into the journal announces it too, so that
happens once: the hook, and the notice and the bell of our session, if there is one. A lost job announces nothing, here
as there.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tmuxjobs import files
from tmuxjobs.arguments import Scope
from tmuxjobs.errors import Held, InvalidInput, NotAllowed, OtherHost, OtherProject, StateError, TmuxjobsError, apart
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import Caller, Deed, Entry, JobSpec
from tmuxjobs.outcome import End
from tmuxjobs.pane import announce
from tmuxjobs.policy import callers
from tmuxjobs.store import disk
from tmuxjobs.store.journal import queued
from tmuxjobs.verbs import attempts

LOST_S = 2.0
"""Seconds between two checks for jobs whose runner was killed; a record of the end is seen at once."""
FORK_S = 10.0
"""Seconds for the hook to be started in a process of its own."""


def started(host: Host, job: JobSpec) -> None:
    """Record a start in the journal, after all ends so far; call it under the lock."""
    if not host.journal.exists:
        _begin(host)
        return
    _write(host, [*_news(host, _past_queue(host)), _start(job)])


def _write(host: Host, entries: Sequence[Entry]) -> None:
    host.journal.append(entries)
    for entry in entries:
        if entry.event == "end" and entry.status is not None:
            _announce(host, entry.job_id)


def _announce(host: Host, job_id: str) -> None:
    """The end of a job on another host, in a thread, for the caller has the lock; this process does not end before."""
    owner = host.owner(job_id)
    if owner.name:
        with contextlib.suppress(RuntimeError):  # the machine is out of processes, which threads are too
            threading.Thread(target=_announce_end, args=(host.owner(""), owner, job_id)).start()


def _announce_end(home: Host, owner: Host, job_id: str) -> None:
    folder = owner.store.folder(job_id)
    with contextlib.suppress(
        OSError, ValueError, files.Odd, KeyError, TypeError, subprocess.SubprocessError, TmuxjobsError
    ):  # it is in the journal
        record = files.fields_of(files.read(folder / "exit.json"))
        end = End(record)
        if not announce.speaks(record["job"], end):
            return
        if home.settings.on_end:
            facts = announce.hook_environment(str(folder), record, end)
            here = {"STATE_DIR": home.root, "SESSION": home.settings.session, "SOCKET_NAME": home.settings.socket_name}
            here["LOG_PATH"] = owner.log_path(folder / "output.log")
            env = facts | {f"TMUXJOBS_{name}": value for name, value in here.items()}
            null = subprocess.DEVNULL
            argv = home.unit().argv("hook", home.settings.on_end)
            subprocess.run(argv, env=env, cwd="/", stdin=null, stdout=null, stderr=null, timeout=FORK_S, check=False)
        home.tmux.tell(f"{job_id}: {end.words}")


def _start(job: JobSpec) -> Entry:
    """The entry for a start; a job that may wait is queued first and starts when its turn comes."""
    event: Literal["queued", "start"] = "start" if job.queue is None else "queued"
    return Entry(n=0, event=event, job_id=job.job_id, at=job.created_at, project=job.caller.project or None)


def _begin(host: Host) -> None:
    """Begin a missing journal with the jobs that run."""
    everywhere = [record for one in (host.owner(""), *host.others()) for record in one.store.unfinished()]
    unfinished = sorted(everywhere, key=lambda record: record.job.created_at)
    host.journal.append([_start(record.job) for record in unfinished])


def events(host: Host, caller: Caller, since: int = 0, *, scope: Scope = "all") -> tuple[Entry, ...]:
    """What happened after number `since`: starts, ends, and prompts and holds that somebody saw; raises StateError."""
    return tuple(entry for entry in journal(host, since) if is_within(scope, caller, entry))


def is_within(scope: Scope, caller: Caller, entry: Entry) -> bool:
    """Whether the entry is about a job of that scope, `project` or `all`."""
    return callers.is_within(scope, caller, Caller(project=entry.project or ""))


def note(
    host: Host, event: Literal["prompt", "hold", "release", "pause", "resume"], job: JobSpec, **facts: Any
) -> None:
    """Record what a running job was seen to do, unless another process has; prompts differ by the log's size."""
    entry = Entry(
        n=0, event=event, job_id=job.job_id, at=datetime.now(UTC), project=job.caller.project or None, **facts
    )
    with host.store.lock():
        seen = [one for one in host.journal.read() if one.job_id == job.job_id]
        prompts = [one.log_bytes for one in seen if one.event == "prompt"]
        if seen and seen[-1].event != "end" and (event != "prompt" or prompts[-1:] != [entry.log_bytes]):
            host.journal.append([entry])


def journal(host: Host, since: int = 0) -> tuple[Entry, ...]:
    """The entries after number `since`, with all that has happened by now. Raises StateError."""
    if not host.journal.exists:
        with host.store.lock():
            if not host.journal.exists:
                _begin(host)
    if _changes(host):
        with host.store.lock():
            _write(host, _changes(host))
    return tuple(entry for entry in host.journal.read() if entry.n > since)


def _changes(host: Host) -> list[Entry]:
    """The entries that the journal lacks: starts, ends, and that running jobs are ready or run again."""
    found: list[Entry] = []
    earlier: dict[str, list[Entry]] = {}
    begun = _past_queue(host)
    for job_id in begun:
        owner = host.owner(job_id)
        folder = owner.store.folder(job_id)
        marks = tuple(_mtime(folder / name) for name in ("attempts.json", "ready.json"))
        if not any(marks) or host.marks.get(job_id) == marks:
            continue
        if not earlier:
            for entry in host.journal.read():
                earlier.setdefault(entry.job_id, []).append(entry)
        with apart(job_id, []):  # `list` names it
            record = owner.store.look(job_id)
            runs = record is not None and record.exit is None
            new = attempts.news(owner.settle(record), earlier.get(job_id, [])) if record is not None and runs else []
            found += new
            host.marks.update({} if new else {job_id: marks})
    if not found:
        return _news(host, begun)
    host.marks = {job_id: host.marks[job_id] for job_id in begun if job_id in host.marks}
    return sorted(_news(host, begun) + found, key=lambda entry: entry.at)


def _mtime(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime_ns
    return 0


def not_ended(host: Host) -> set[str]:
    """Jobs whose end is not in the journal yet."""
    return set(host.journal.open_jobs())


def ended(host: Host, names: Sequence[str]) -> None:
    """Record the ends of jobs that are about to be removed; call it under the lock."""
    unwritten = not_ended(host)
    if found := _in_order(_end(host, name) for name in names if name in unwritten):
        _write(host, found)


def _past_queue(host: Host) -> dict[str, bool]:
    """The jobs without an end in the journal, except those that wait for their turn; in the form of `open_jobs`."""
    jobs = host.journal.open_jobs()
    roots = {host.owner(job_id).store.root for job_id, waits in jobs.items() if waits}
    waiting = set[str]().union(*map(queued, roots))
    return {job_id: waits for job_id, waits in jobs.items() if job_id not in waiting}


def _news(host: Host, begun: dict[str, bool]) -> list[Entry]:
    """The ends that the journal lacks, and the starts of jobs that were queued; oldest first."""
    looks_for_lost = time.monotonic() - host.looked_for_lost_at > LOST_S

    def look() -> Iterator[tuple[float, Entry] | None]:
        for job_id, waits in begun.items():
            owner = host.owner(job_id)
            folder = str(owner.store.folder(job_id))
            if waits and disk.is_there(folder, "run.json"):
                yield _begun(owner, job_id)
            if looks_for_lost or not os.path.exists(folder) or disk.is_there(folder, "exit.json"):
                end = None
                with apart(job_id, []):  # `list` names it
                    end = _end(owner, job_id)
                yield end

    found = _in_order(look())
    if not found:
        host.looked_for_lost_at = time.monotonic() if looks_for_lost else host.looked_for_lost_at
    return found


def _begun(host: Host, job_id: str) -> tuple[float, Entry] | None:
    """The start of a job that was queued, and its monotonic time; None while it is starting."""
    with contextlib.suppress(StateError):  # damaged: `list` names it
        record = host.store.look(job_id)
        if record is not None and record.run is not None and record.run.started_at is not None:
            entry = _start(record.job).model_copy(update={"event": "start", "at": record.run.started_at})
            return record.started_monotonic if record.boot == host.machine.here().boot else 0.0, entry
    return None


def _in_order(found: Iterable[tuple[float, Entry] | None]) -> list[Entry]:
    return [entry for _, entry in sorted(filter(None, found), key=lambda one: one[0])]


def _end(host: Host, job_id: str) -> tuple[float, Entry] | None:
    """The end, and its monotonic time; None when the job has not ended."""
    try:
        record = host.store.look(job_id)
    except StateError:  # damaged: `list` names it
        return None
    if record is None:
        return time.monotonic(), Entry(n=0, event="end", job_id=job_id, at=datetime.now(UTC))
    job = host.settle(record)
    if job.running:
        return None
    ended = job.exit
    entry = Entry(
        n=0,
        event="end",
        job_id=job_id,
        at=ended.ended_at if ended else datetime.now(UTC),
        status=job.status,
        exit_code=ended.exit_code if ended else None,
        project=job.spec.caller.project or None,
    )
    if job.record.boot != host.machine.here().boot:
        return 0.0, entry
    return job.record.started_monotonic + ended.runtime_s if ended else time.monotonic(), entry


REFUSALS = (NotAllowed, Held, OtherProject, OtherHost)
WHY_CHARS = 300


@dataclass
class Act:
    """A call in progress: what the history will say about it."""

    tool: str
    job_id: str = ""
    verdict: Literal["allow", "ask", "deny"] = "allow"
    why: str = ""


@contextlib.contextmanager
def noted(host: Host, caller: Caller, tool: str, job_id: str = "") -> Iterator[Act]:
    """Record how the policy decided a call of `tool`. A call that failed for another reason is not recorded."""
    act = Act(tool, job_id)
    try:
        yield act
    except REFUSALS as error:
        note_act(host, caller, Act(tool, act.job_id, "deny", act.why or str(error)))
        raise
    note_act(host, caller, act)


def note_act(host: Host, caller: Caller, act: Act) -> None:
    deed = Deed(
        at=datetime.now(UTC),
        caller=caller.kind,
        client=" ".join(filter(None, (caller.client, caller.version))),
        session=caller.session,
        project=caller.project,
        tool=act.tool,
        job_id=act.job_id,
        verdict=act.verdict,
        why=act.why[:WHY_CHARS],
    )
    with contextlib.suppress(StateError):  # a full disk: the call itself matters more
        host.history.append(deed)


def history(host: Host, job_id: str | None = None, *, limit: int = 50) -> tuple[Deed, ...]:
    """The newest `limit` calls, oldest first, of one job or of all; reads are not recorded. Raises StateError."""
    if limit < 1:
        raise InvalidInput("limit must be 1 or more.")
    return tuple([deed for deed in host.history.read() if job_id in (None, deed.job_id)][-limit:])
