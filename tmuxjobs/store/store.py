"""One folder per job: its records, ids, the lock, removal. Knows files, not tmux and not processes.

Files are opened without following links and only when regular; folders are 0700, files 0600. Only files of a name and a
kind that we make are removed or changed, and only in a state directory that has its marker.
"""

import contextlib
import errno
import json
import os
import re
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

from pydantic import ValidationError

from tmuxjobs import files
from tmuxjobs.contract import FIRST, FORMAT
from tmuxjobs.errors import JobNotFound, StateError, apart
from tmuxjobs.files import Odd
from tmuxjobs.models import ExitRecord, JobSpec, Model, Record, RunRecord, TurnRecord
from tmuxjobs.pane import queue
from tmuxjobs.store import disk, units
from tmuxjobs.store.index import ID, Index
from tmuxjobs.store.journal import Callers, queued
from tmuxjobs.system import processes

ROOM_BYTES = 16384
MAKING_S = 60.0
"""Seconds after which a file that has not got its final name never will."""
CACHED = 1000
"""Records of ended jobs that are kept in memory: about 5 MB."""
M = TypeVar("M", bound=Model)


class Store:
    """The state directory; only records are cached, of jobs that have ended and of files that have not changed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.jobs = root / "jobs"
        self.pane = root / "pane"
        self.index = Index(root)
        self.callers = Callers(root)
        self._ended: OrderedDict[str, Record] = OrderedDict()
        self._open: disk.Unchanged[Model] = disk.Unchanged(CACHED)
        self._listing: disk.Unchanged[list[str]] = disk.Unchanged(1)

    def prepare(self) -> None:
        """Make the folders, private; raises StateError, and then nothing was changed.

        It does so if they cannot be made, or if the folder is another user's or holds files of someone else.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not disk.is_own_folder(self.root):
                raise StateError(
                    f"The state directory '{self.root}' is a link or another user's; set TMUXJOBS_STATE_DIR to a "
                    "folder of yours."
                )
            if not disk.is_state_directory(self.root):
                disk.lay_marker(self.root, self._is_half_made)
            for folder in (self.jobs, self.pane):
                folder.mkdir(mode=0o700, exist_ok=True)
                if not disk.is_own_folder(folder):
                    raise StateError(f"'{folder}' is a link or another user's, not a folder of tmuxjobs; move it away.")
            for folder in (self.root, self.jobs, self.pane):
                if folder.lstat().st_mode & 0o077:
                    folder.chmod(0o700)
            if not os.access(self.jobs, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.jobs))
        except OSError as error:
            raise disk.unusable(self.root, error) from None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the one lock over starts and removals; the kernel frees it with its holder. Bounded by `take_lock`.

        flock(2) holds between machines on NFS too: since 2.6.12 Linux turns it into a lock on the server, which needs
        NFS version 4, or `rpc.statd`, and no `local_lock=flock` or `nolock` among the mount's options. A file that is
        opened under the lock is as the last holder left it (close-to-open consistency).
        """
        try:
            fd = files.opened(self.root / "lock", os.O_RDWR | os.O_CREAT)
        except Odd as odd:
            raise StateError(f"'{self.root / 'lock'}' {odd}; remove it.") from None
        except OSError as error:
            raise disk.unusable(self.root, error) from None
        try:
            disk.take_lock(fd, self.root / "lock")
            yield
        finally:
            os.close(fd)

    def next_number(self) -> int:
        """A number never given before; call it under the lock."""
        self.complete_index()
        return self.index.next_number()

    def complete_index(self, *, anew: bool = False) -> None:
        """Mark every job that has not ended, when an older tmuxjobs may have started some; call it under the lock."""
        if anew or not self.index.is_complete():
            marked = set(self.index.marked())
            unknown = [name for name in self._without_exit() if name not in marked]
            self.index.complete((name, self._machine_of(name)) for name in unknown if not self._enters(name))

    def _enters(self, job_id: str) -> bool:
        """Write the entry of a job that waits for its turn; False for any other job."""
        with contextlib.suppress(StateError, OSError):
            record = self.look(job_id)
            if record is not None and record.job.queue is not None and record.run is None:
                queue.enter(str(self.root), record.job.model_dump(mode="json"))
                return True
        return False

    def _machine_of(self, job_id: str) -> str:
        with contextlib.suppress(StateError):  # damaged: it may as well be ours
            return record.job.machine if (record := self.look(job_id)) is not None else ""
        return ""

    def _without_exit(self) -> list[str]:
        return [name for name in sorted({*self.ids()} - queued(self.root)) if not self.has_ended(name)]

    def create(self, spec: JobSpec, env: Mapping[str, str], *, held: bool = False) -> Path:
        """The job's folder with `job.json` and `env` in it, complete or not there at all; call it under the lock.

        With `held` the runner prepares all that the job needs, and starts the command only after `let_go`.
        """
        folder = self.folder(spec.job_id)
        making = self.jobs / f".new-{spec.job_id}"
        self._clear_marks()
        try:
            if spec.queue is not None:
                queue.enter(str(self.root), spec.model_dump(mode="json"))
            else:
                self.index.mark(spec.job_id, spec.machine)
            making.mkdir(mode=0o700)
        except OSError as error:
            raise disk.unusable(self.root, error) from None
        try:
            self._write(
                making / ("env.held" if held else "env"),
                b"\0".join(os.fsencode(f"{key}={value}") for key, value in env.items()),
            )
            data = spec.model_dump_json().encode()
            # Space for what the runner writes later is taken now: the disk may be full then.
            for name in () if spec.queue is not None else ("run.room", "exit.room"):
                self._write(making / name, b" " * (len(data) + ROOM_BYTES))
            self._write(making / "job.json", data)
            if os.path.lexists(folder):
                raise StateError(f"'{folder}' is in the way of a new job; move it away.")
            os.rename(making, folder)
        except BaseException as error:
            disk.discard(self.root, making)
            if not os.path.lexists(folder):
                self._unmark(spec.job_id)
            if isinstance(error, OSError):
                raise disk.unusable(self.root, error) from None
            raise
        self.callers.write({spec.job_id: spec.caller})
        return folder

    def _clear_marks(self) -> None:
        """Finish what killed processes of this machine left undone; under the lock no other makes or removes a job."""
        # Not another machine's: we may see an old listing of its marks, as NFS caches them for a minute.
        for name in self.index.marked(processes.machine_id()):
            folder = self.jobs / name
            if not disk.is_there(str(folder), "job.json") and not disk.is_there(str(folder), "exit.json"):
                self._clear_aside(name)
                self.index.unmark(name)

    def await_recorder(self, job_id: str) -> Path:
        """Make the FIFO of a recorder that starts along with the runner, and return its path."""
        path = self.folder(job_id) / FIRST
        with contextlib.suppress(OSError):  # the runner says what cannot be made here
            files.new_fifo(str(path))
        return path

    def is_held_back(self, job_id: str) -> bool:
        """Whether its runner has all that the job needs and waits for `let_go`."""
        return os.path.lexists(self.folder(job_id) / "env.ready")

    def note_opened(self, job_id: str, pid: int, start: str) -> None:
        """Record the process in the job's window, of which nothing else tells until it records itself."""
        opened = {"pid": pid, "start": start, "namespace": processes.pid_namespace()}
        path = self.folder(job_id) / "opened.json"
        with contextlib.suppress(StateError):  # a full disk, or the job was removed
            self._write(path, json.dumps(opened).encode())
        if self.has_ended(job_id):  # what it left behind has been removed
            disk.unlink(path)

    def was_cut_off(self, record: Record) -> bool:
        """Whether nothing is to be awaited of its start; one in the queue has not begun to start."""
        starts = record.exit is None and record.run is None and (record.job.queue is None or record.turn is not None)
        return starts and queue.cut_off(os.path.join(self.jobs, record.id))

    def let_go(self, job_id: str) -> None:
        """Let the command of a job that is held back run; this needs no room on the disk."""
        folder = self.folder(job_id)
        try:
            os.rename(folder / "env.ready", folder / "env")
        except OSError as error:
            raise disk.unusable(self.root, error) from None

    def folder(self, job_id: str) -> Path:
        """Where the job's files are, whether or not it exists; never outside the state directory."""
        if not ID.fullmatch(job_id):
            raise JobNotFound(job_id)
        return self.jobs / job_id

    def ids(self) -> list[str]:
        """Every job's id, in no order."""
        try:
            return [entry.name for entry in os.scandir(self.jobs) if ID.fullmatch(entry.name)]
        except OSError as error:
            raise disk.unusable(self.root, error) from None

    def newest(self) -> list[str]:
        """Every job's id, the newest first, from the ids alone; the same list while no job comes or goes."""
        return self._listing.get(str(self.jobs), lambda: self.index.newest(self.ids())) or self.index.newest(self.ids())

    def unfinished_ids(self) -> list[str]:
        """Jobs without an exit record, in no order; those that have ended cost nothing."""
        if not self.index.is_complete():
            return self._without_exit()
        found = []
        for name in self.index.marked():
            if self.has_ended(name):
                self.index.unmark(name)
            elif disk.is_there(str(self.jobs), name):
                found.append(name)
        return found

    def unfinished(self) -> list[Record]:
        """Jobs without an exit record: starting, running or lost, but not those that wait for their turn.

        A damaged record does not hide others: `list` names it.
        """
        found = []
        for name in self.unfinished_ids():
            with apart(name, []):
                found.append(self.look(name))
        return [record for record in found if record is not None]

    def has_ended(self, job_id: str) -> bool:
        """Whether there is an exit record; cheaper than reading it."""
        return disk.is_there(os.path.join(self.jobs, job_id), "exit.json")

    def read(self, job_id: str) -> Record:
        """The job's records; raises JobNotFound, naming the nearest ids, and StateError for a damaged record."""
        record = self.look(job_id)
        if record is None:
            raise JobNotFound(job_id, get_close_matches(job_id, self.ids(), n=2, cutoff=0.5))
        return record

    def look(self, job_id: str) -> Record | None:
        """The job's records, None when there is no such job."""
        # Text: a thousand jobs as `Path` objects take 20 ms.
        folder = os.path.join(self.jobs, job_id)
        known = self._ended.pop(job_id, None)
        if known is not None and os.path.lexists(f"{folder}/exit.json"):
            return self._remember(known)
        if not ID.fullmatch(job_id) or not disk.is_own_folder(folder):
            return None
        ended = self.load(f"{folder}/exit.json", ExitRecord)
        if ended is not None:
            _check_id(folder, ended.job)
            return self._remember(Record(ended.job, ended.run, ended))
        job = self.load(f"{folder}/job.json", JobSpec)
        begins = job is not None and job.queue is not None and queue.begins(folder)
        turn = self.load(f"{folder}/turn.json", TurnRecord) if begins else None
        run = self.load(f"{folder}/run.json", RunRecord)
        # It may have ended between these reads.
        ended = self.load(f"{folder}/exit.json", ExitRecord)
        if job is None:
            return None
        _check_id(folder, job)
        return Record(job, run, ended, turn)

    def _remember(self, record: Record) -> Record:
        """Keep the record of an ended job as the most recently used one, and forget the least recently used."""
        self._ended[record.job.job_id] = record
        while len(self._ended) > CACHED:
            with contextlib.suppress(KeyError):  # another thread was first
                self._ended.popitem(last=False)
        return record

    def save(self, path: Path, record: Model) -> None:
        """Replace the record in that file."""
        self._write(path, record.model_dump_json().encode())

    def load(self, path: str | Path, model: type[M]) -> M | None:
        """The record in that file, None when there is none; raises StateError for a damaged one."""
        return cast("M | None", self._open.get(os.fspath(path), lambda: self._load(path, model)))

    def _load(self, path: str | Path, model: type[M]) -> M | None:
        data = disk.content(path)
        if data is None:
            return None
        try:
            record = model.model_validate_json(data, strict=True)
            if getattr(record, "format", FORMAT) <= FORMAT:
                return record
            newer = True
        except ValidationError:
            newer = disk.is_newer(data)
        if newer:
            raise StateError(f"'{path}' was written by a newer tmuxjobs; use that one, or remove its folder.")
        raise StateError(f"'{path}' is damaged; remove its folder '{os.path.dirname(path)}' to forget the job.")

    def _write(self, path: Path, data: bytes, *, sync: bool = False) -> None:
        disk.replace(self.root, path, data, sync=sync)

    def request_stop(self, job_id: str, *, signal: str, grace_s: float) -> None:
        """Write the request that the runner reads when it is signalled; without one it ends the job as by default."""
        request = json.dumps({"signal": signal, "grace_s": grace_s})
        try:
            self._write(self.folder(job_id) / "stop.json", request.encode())
        except StateError:
            # On a full disk a job must still be ended. An older request must not be taken for this one.
            disk.unlink(self.folder(job_id) / "stop.json")

    def note_pressed(self, job_id: str, key: str) -> None:
        """Record an interrupting key before it is pressed, so that the runner can say who ended the program."""
        with contextlib.suppress(StateError):  # a full disk
            pressed = {"key": key, "monotonic": time.monotonic()}
            self._write(self.folder(job_id) / "pressed.json", json.dumps(pressed).encode())

    def forget_pressed(self, job_id: str) -> None:
        """Forget the key: something else is typed now, so it is not what ends the program."""
        disk.unlink(self.folder(job_id) / "pressed.json")

    def withdraw_stop(self, job_id: str) -> None:
        """Remove a request that came too late: the runner has ended without reading it."""
        disk.unlink(self.folder(job_id) / "stop.json")  # unless the runner has taken it, or the job was removed

    def remove(self, *job_ids: str) -> None:
        """Remove what we made of these jobs' folders; call it under the lock, and only when none of them runs.

        A file that someone else has put there stays, and the folder with it.
        """
        for job_id in job_ids:
            if disk.owns(folder := self.folder(job_id)):
                disk.discard(self.root, folder)
            self._clear_aside(job_id)
            if not disk.is_there(str(folder), "job.json"):
                self._unmark(job_id)
            self._ended.pop(job_id, None)
        self.callers.keep(self.ids())

    def _unmark(self, job_id: str) -> None:
        self.index.unmark(job_id)
        queue.leave(str(self.root), job_id)

    def _clear_aside(self, job_id: str) -> None:
        """Remove what killed processes left of making or removing that job."""
        for path in (self.jobs / f".new-{job_id}", self.jobs / f".removed-{job_id}"):
            if self._is_half_made(path):
                disk.discard(self.root, path)

    def half_made(self) -> list[Path]:
        """What a killed process left half made or half removed; call it under the lock, as makers hold it too."""
        before = time.time() - MAKING_S
        beside = [path for path in self.root.iterdir() if re.search(rf"[a-z]{disk.BESIDE[:-1]}$", path.name)]
        beside = [path for path in beside if disk.is_ours(self.root, path) and disk.mtime(path) < before]
        beside = [path for path in beside if not disk.is_exposed(path)]
        beside += units.half_made(self.pane)
        return beside + [path for path in self.jobs.iterdir() if self._is_half_made(path)]

    def _is_half_made(self, folder: Path) -> bool:
        aside = disk.ASIDE.fullmatch(folder.name)
        job_id, path = aside[1] if aside else folder.name, str(folder)
        if not ID.fullmatch(job_id) or not disk.is_own_folder(folder):
            return False
        is_removed = disk.is_there(path, disk.REMOVED)
        if not aside and (disk.is_there(path, "job.json") or (disk.is_there(path, "exit.json") and not is_removed)):
            return False
        if self.index.is_elsewhere(job_id):
            return False
        if disk.owns(folder):
            return True
        # Without a record: only what is made before it, or left after it.
        inside = list(folder.iterdir())
        private = not any(map(disk.is_exposed, (folder, *inside))) and all(
            disk.is_ours(self.root, path) for path in inside
        )
        return private and (aside is not None or any(path.suffix == ".room" for path in inside))

    def discard(self, path: Path) -> None:
        """Remove a file, a unit or a job's folder, as far as they are ours; what cannot be removed stays for later."""
        if path.parent == self.pane:
            units.remove(path)
        else:
            disk.discard(self.root, path)

    def exposed(self) -> list[Path]:
        """Our files and folders that others on this machine may read."""
        ours = partial(disk.is_ours, self.root)
        found = [self.root, self.jobs, *units.content(self.pane), *filter(ours, self.root.iterdir())]
        for job_id in self.ids():
            folder = self.jobs / job_id
            if disk.owns(folder):
                found += [folder, *filter(ours, folder.iterdir())]
        return [path for path in found if disk.is_exposed(path)]

    def mark_reported(self, job_id: str) -> None:
        """Record that an agent has just been answered about the job."""
        folder = self.folder(job_id)
        with contextlib.suppress(OSError):  # a full disk, or it was removed: the agent is notified once more
            if disk.is_own_folder(folder):
                os.close(os.open(folder / "told", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
                os.utime(folder / "told", follow_symlinks=False)

    def reported_at(self, job_id: str) -> float:
        """When an agent was last answered about the job, in s since the epoch; 0 for never."""
        try:
            return (self.folder(job_id) / "told").lstat().st_mtime
        except OSError:
            return 0.0

    def transient(self, job_id: str) -> list[Path]:
        """The files in the job's folder that belong there only while it runs."""
        try:
            inside = list(self.folder(job_id).iterdir())
        except OSError:  # it is being removed
            return []
        return [path for path in inside if disk.IN_RUN.fullmatch(path.name) and disk.is_ours(self.root, path)]

    def forget_environment(self, job_id: str) -> None:
        """Remove the file that only a runner reads, of a job that has no runner and gets none."""
        path = self.folder(job_id) / "env"
        if disk.is_ours(self.root, path):
            disk.unlink(path)

    def size(self, job_id: str) -> int:
        """Bytes that its files take on disk."""
        with contextlib.suppress(OSError), os.scandir(self.folder(job_id)) as entries:
            return sum(entry.stat(follow_symlinks=False).st_blocks * 512 for entry in entries)
        return 0  # it is being removed


def _check_id(folder: str, job: JobSpec) -> None:
    if job.job_id != os.path.basename(folder):
        raise StateError(f"'{folder}' holds the records of another job; remove it to forget the job.")
