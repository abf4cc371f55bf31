"""Mirror: the records of another host's jobs as last reported, and for each log a file of its size without bytes.

Writes go to the other host, where the agent does them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tmuxjobs.errors import HostError
from tmuxjobs.hosts.far import Ask
from tmuxjobs.pane import queue
from tmuxjobs.store import disk
from tmuxjobs.store.store import Store

ALIVE = ".alive"
REMOVE_S = 60.0
TELLING_S = 10.0


class Mirror(Store):
    """The mirror of one host; requests and removals go to that host."""

    def __init__(self, root: Path, ask: Ask, home: Store, monotonic: Callable[[], float]) -> None:
        super().__init__(root)
        self._ask = ask
        self._home = home
        self._monotonic = monotonic
        self._pressed: set[str] = set()
        self.skew_ns = 0
        """How far the clock there is ahead of ours."""

    def prepare(self) -> None:
        for folder in (self.root.parent, self.root, self.jobs):
            folder.mkdir(mode=0o700, exist_ok=True)

    def ids(self) -> list[str]:
        """The ids that were reported; none for a host that was never reached."""
        return super().ids() if self.jobs.is_dir() else []

    def lock(self) -> contextlib._GeneratorContextManager[None]:
        """Hold the lock of the state directory here, which has journal and history; the agent takes the one there."""
        return self._home.lock()

    def complete_index(self, *, anew: bool = False) -> None:
        """Do nothing: the marks are on the other host; here every job without an exit record counts."""

    def await_recorder(self, job_id: str) -> Path:
        return Path(self._ask("fifo", job_id=job_id)[0]["path"])

    def let_go(self, job_id: str) -> None:
        self._ask("let_go", jobs=[job_id], job_id=job_id)

    def request_stop(self, job_id: str, *, signal: str, grace_s: float) -> None:
        request = json.dumps({"signal": signal, "grace_s": grace_s}).encode()
        self._ask("write", request, job_id=job_id, name="stop.json")

    def note_pressed(self, job_id: str, key: str) -> None:
        record = json.dumps({"key": key, "monotonic": self._monotonic()}).encode()
        self._ask("write", record, job_id=job_id, name="pressed.json")
        self._pressed.add(job_id)

    def forget_pressed(self, job_id: str) -> None:
        if job_id in self._pressed:  # each question is a round trip
            self._pressed.remove(job_id)
            with contextlib.suppress(HostError):
                self._ask("unlink", job_id=job_id, name="pressed.json")

    def withdraw_stop(self, job_id: str) -> None:
        with contextlib.suppress(HostError):
            self._ask("unlink", job_id=job_id, name="stop.json")

    def remove(self, *job_ids: str) -> None:
        if job_ids:
            self._ask("remove", job_ids=job_ids, bound_s=REMOVE_S)
        for job_id in job_ids:
            self.forget(job_id)

    def forget(self, job_id: str) -> None:
        """Remove the job from the mirror: it is gone on the other host."""
        self._ended.pop(job_id, None)
        shutil.rmtree(self.folder(job_id), ignore_errors=True)

    def forget_environment(self, job_id: str) -> None:
        if disk.is_there(str(self.folder(job_id)), "env"):
            with contextlib.suppress(HostError):
                self._ask("unlink", jobs=[job_id], job_id=job_id, name="env")

    def half_made(self) -> list[Path]:
        """What was being written here when a process of ours was killed.

        On the other host that is removed now, with copies of the pane's programs that no job needs any more.
        """
        self._ask("tidy")
        before = time.time() - TELLING_S
        every = (*self.jobs.glob("*/*"), *self.root.glob("*.*"))
        found = [path for path in every if re.search(rf"[a-z0-9]{disk.BESIDE[:-1]}$", path.name)]
        old = [path for path in found if disk.mtime(path) < before]
        for path in old:
            if path.parent == self.root:
                disk.unlink(path)
        return [path for path in old if path.parent != self.root]

    # What is reported

    def lay(self, path: Path, mtime_ns: int, size: int, content: bytes | None) -> None:
        if disk.IN_JOB.fullmatch(path.name) is None:
            return
        try:
            if content is None:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                try:
                    if os.fstat(fd).st_size != size:
                        os.ftruncate(fd, size)
                    mtime_ns -= self.skew_ns
                    os.utime(fd, ns=(mtime_ns, mtime_ns))
                finally:
                    os.close(fd)
                return
            with contextlib.suppress(FileNotFoundError):
                if path.lstat().st_mtime_ns > mtime_ns:
                    return  # another of our processes has a later report
            beside = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(content)
            os.utime(beside, ns=(mtime_ns, mtime_ns))
            os.replace(beside, path)
        except OSError as error:
            raise disk.unusable(self.root, error) from None

    def lay_queue(self, entries: Mapping[str, str], groups: str) -> None:
        """Write down which jobs wait there, as if they waited here, so that all that read a queue find them."""
        place = Path(queue.place(str(self.root)))
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            there = set(os.listdir(place))
            for name in there - entries.keys():
                (place / name).unlink(missing_ok=True)
            for name in entries.keys() - there:
                with open(place / os.path.basename(name), "w") as file:
                    file.write(entries[name])
            disk.replace(self.root, self.root / "groups.json", groups.encode() or b'{"format": 1, "groups": {}}')
        except OSError as error:
            raise disk.unusable(self.root, error) from None

    def wake(self, folder: Path) -> None:
        """Make all callers that wait for a change of that job check again."""
        with contextlib.suppress(OSError):
            (folder / ALIVE).unlink(missing_ok=True)
            (folder / ALIVE).touch(mode=0o600)

    def take_salt(self, salt: str) -> None:
        """Keep the salt of the other host's ids, so that they are read the same way here."""
        if salt and disk.content(self.root / "salt") != salt.encode():
            disk.replace(self.root, self.root / "salt", salt.encode())
            self.index.forget_salt()
