"""Waits that clients poll: each lies in the folder of its job, so it outlives the server that began it."""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tmuxjobs.answers import Started, Waited, ran
from tmuxjobs.arguments import CHARS, Conditions
from tmuxjobs.errors import JobNotFound, StateError, TmuxjobsError
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import TaskRecord
from tmuxjobs.text.log import log_size
from tmuxjobs.verbs.job_wait import goal
from tmuxjobs.verbs.wait import Wait

ID = re.compile(r"([a-z0-9-]+)(?:\.([0-9a-f]{8}))?")
CONDITIONS = TypeAdapter(Conditions)


class Tasks:
    """The tasks of a host. Their waits are held while they are polled, and begun again from the record otherwise."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._waits: dict[str, tuple[Wait, threading.Lock]] = {}

    def sizes(self, job_ids: Sequence[str]) -> dict[str, int]:
        """{job: bytes of its log now}, where what counts as new begins. Raises JobNotFound."""
        return {job_id: log_size(self._host.look(job_id).log) for job_id in job_ids}

    def create(
        self, tool: str, arguments: Mapping[str, Any], *, begins: dict[str, int], bound_s: float | None
    ) -> TaskRecord:
        """Keep the wait that this call of `tool` asked for; `begins` is from `sizes`. Raises StateError."""
        given = arguments.get("cursor")
        cursor = 0 if tool == "execute" else None if given is None else int(given)
        first = next(iter(begins))
        now = datetime.now(UTC)
        task = TaskRecord(
            task_id=f"{first}.{secrets.token_hex(4)}" if os.path.lexists(self._path(first)) else first,
            tool=tool,
            job_ids=tuple(begins),
            conditions={name: arguments[name] for name in Conditions.__annotations__ if name in arguments},
            begins=begins if cursor is None else {first: cursor},
            cursor=cursor,
            mode=arguments.get("mode", "any"),
            max_bytes=int(arguments.get("max_bytes", CHARS)),
            created_at=now,
            updated_at=now,
            deadline_at=None if bound_s is None else now + timedelta(seconds=bound_s),
        )
        return self._keep(task)

    def read(self, task_id: str) -> TaskRecord | None:
        """None when there is no such task, or its record is damaged: it goes with its job."""
        try:
            task = self._host.store.load(self._path(task_id), TaskRecord)
            if task is not None:
                CONDITIONS.validate_python(task.conditions)
        except (JobNotFound, StateError, ValidationError):
            return None
        return task

    def check(self, task: TaskRecord, shape: Callable[[Waited], dict[str, Any]]) -> tuple[TaskRecord, str]:
        """The task as it is now, with its result as `shape` gives it; until then the last line of its jobs beside it.

        Raises JobNotFound when a job is gone.
        """
        if task.result is not None or task.cancelled:
            return task, ""
        try:
            if task.task_id not in self._waits:
                self._forget_removed()
                self._waits.setdefault(task.task_id, (self._resume(task), threading.Lock()))
            wait, lock = self._waits[task.task_id]
            with lock:
                waited = wait.check()
        except JobNotFound:
            self._waits.pop(task.task_id, None)
            raise
        if waited is None:
            return task, last_line(wait)
        self._waits.pop(task.task_id, None)
        return self._keep(task, result=shape(self._answer(task, waited))), ""

    def cancel(self, task: TaskRecord) -> None:
        """End the waiting, never the job."""
        self._waits.pop(task.task_id, None)
        if task.result is None and not task.cancelled:
            self._keep(task, cancelled=True)

    def _forget_removed(self) -> None:
        """Of tasks that nobody polls any more, when their jobs have gone."""
        for task_id in [one for one in self._waits if not os.path.lexists(self._path(one))]:
            self._waits.pop(task_id, None)

    def _keep(self, task: TaskRecord, **changes: Any) -> TaskRecord:
        if changes:
            task = task.model_copy(update=changes | {"updated_at": datetime.now(UTC)})
        self._host.store.save(self._path(task.task_id), task)
        return task

    def _resume(self, task: TaskRecord) -> Wait:
        left = None if task.deadline_at is None else max(0.0, (task.deadline_at - datetime.now(UTC)).total_seconds())
        return Wait(
            self._host,
            task.job_ids,
            # A client may have written a number as text.
            goal(**CONDITIONS.validate_python(task.conditions)),
            cursor=task.cursor,
            mode=task.mode,
            timeout=left,
            max_bytes=task.max_bytes,
            begins=task.begins,
        )

    def _answer(self, task: TaskRecord, waited: Waited) -> Waited:
        if task.tool != "execute":
            return waited
        job = self._host.look(waited.job_id)
        attach = self._host.attach_line(job)
        return ran(Started(job_id=job.id, status=waited.status, log_path=str(job.log), attach=attach), waited)

    def _path(self, task_id: str) -> Path:
        """Where the record is; raises JobNotFound for what is not an id of a task."""
        parts = ID.fullmatch(task_id)
        if parts is None:
            raise JobNotFound(task_id)
        return self._host.store.folder(parts[1]) / (f"task-{parts[2]}.json" if parts[2] else "task.json")


def last_line(wait: Wait) -> str:
    """The last line of the first job that has printed any."""
    with suppress(TmuxjobsError):
        return next((line for one in wait.all if (line := one.last_line())), "")
    return ""
