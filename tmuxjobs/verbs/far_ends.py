"""Ends on other hosts, announced here: the hook, and the notice and the bell of our session, where there is one.

Whoever writes an end into the journal announces it, so it is done once. A job that is lost has nobody to say how it
ended, as here.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Sequence

from tmuxjobs import files
from tmuxjobs.errors import TmuxjobsError
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import Entry
from tmuxjobs.outcome import End
from tmuxjobs.pane import announce

FAULTS = (OSError, ValueError, KeyError, TypeError, files.Odd, subprocess.SubprocessError, TmuxjobsError)
FORK_S = 10.0
"""For the hook to be begun, apart from us."""


def announced(host: Host, entries: Sequence[Entry]) -> None:
    """In a thread, for the caller has the lock; this process does not end before."""
    ends = [entry.job_id for entry in entries if entry.event == "end" and entry.status is not None]
    for job_id in ends:
        owner = host.owner(job_id)
        if owner.name:
            with contextlib.suppress(RuntimeError):  # the machine is out of processes, which threads are too
                threading.Thread(target=announce_end, args=(host.owner(""), owner, job_id)).start()


def announce_end(home: Host, owner: Host, job_id: str) -> None:
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
