"""`r` at the window of a job on this host, where no tmuxjobs is installed: the same command as a new job."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from datetime import datetime, timezone

from tmuxjobs import files
from tmuxjobs.contract import LAUNCH_S, MARK_IN_JOBS
from tmuxjobs.errors import StateError
from tmuxjobs.far import start
from tmuxjobs.far.agent import Agent
from tmuxjobs.system import processes

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

OVER: dict[str, Any] = {"ends_with": None, "ask_why": "", "ask_s": 0.0, "ask_rules": [], "ask_file": "", "queue": None}
"""What was so for the first time alone: a person wants it now, and nobody need ask them."""


def anew(old: dict[str, Any]) -> dict[str, Any]:
    """The record of the same job, asked for now; its environment is not kept."""
    if old.get("adopted"):
        raise StateError(f"job '{old['job_id']}' was adopted, so it cannot be run again as it was")
    here = processes.here()
    return {
        **old,
        **OVER,
        "env_names": [],
        "nonce": str(secrets.randbits(63)),
        "mark": secrets.token_hex(12),
        "created_at": datetime.now(timezone.utc).isoformat(),  # noqa: UP017 - Python 3.8
        "created_monotonic": time.monotonic(),
        "boot": here.boot,
        "machine": here.machine,
        "namespace": here.namespace,
        "caller": {"kind": "person", "project": (old.get("caller") or {}).get("project", "")},
    }


def run(unit: str, job_id: str) -> str:
    """Start it, and give its id; raises StateError and OSError."""
    agent = Agent(unit, 2)
    old = files.record(os.path.join(agent.folder(job_id), "exit.json"), files.EXIT)["job"]
    job = anew(old)
    start.refuse(job)
    ours = ("TMUX", "TMUX_PANE", "TMUXJOBS_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    data = "\0".join(f"{name}={value}" for name, value in {**env, MARK_IN_JOBS: job["mark"]}.items())
    with agent.locked():
        start.made(agent.index, job, os.fsencode(data), short=job_id.rpartition("-")[0], elsewhere=(), held=False)
    socket = os.path.basename(os.environ["TMUX"].rsplit(",", 2)[0])
    opened = agent.do_run(b"", argv=start.window(agent.state, job, socket), env={}, timeout=LAUNCH_S)
    if opened.get("code") != 0:
        agent.do_remove(b"", job_ids=[job["job_id"]])
        raise StateError(f"tmux opened no window: {opened.get('said', '').strip() or 'it does not answer'}")
    return str(job["job_id"])


def main(unit: str, job_id: str) -> None:
    try:
        print(json.dumps({"job_id": run(unit, job_id)}))
    except (StateError, OSError, files.Odd) as error:
        sys.exit(f"tmuxjobs: {error}")
