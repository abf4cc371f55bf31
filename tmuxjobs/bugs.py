"""A bug of ours: its traceback, with the versions of all that took part, in a file for a person."""

import contextlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path

from tmuxjobs.errors import SettingsError, StateError
from tmuxjobs.settings import Settings
from tmuxjobs.store import disk

PACKAGES = ("tmuxjobs", "fastmcp", "mcp", "libtmux", "pydantic")
VERSION_S = 2.0


def save(error: BaseException) -> str:
    """Where the traceback is: a private file in the state directory, else in that for temporary files; or why not."""
    name = f"bug-{os.getpid()}-{os.urandom(3).hex()}.txt"
    path = Path(tempfile.gettempdir()) / f"tmuxjobs-{name}"
    with contextlib.suppress(SettingsError, StateError):
        root = Settings.load().state_dir
        if disk.is_state_directory(root):
            path = root / name
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC", *versions(), sep="\n", file=file)
            traceback.print_exception(error, file=file)
    except OSError as failed:
        return f"no file ({failed.strerror})"
    return str(path)


def versions() -> list[str]:
    """What an answer to a report needs to know first; never a value of the environment."""
    found = [f"Python {platform.python_version()} on {platform.platform()}", tmux_version()]
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return found


def tmux_version() -> str:
    program = shutil.which("tmux")
    if program is None:
        return "no tmux on PATH"
    try:
        done = subprocess.run([program, "-V"], capture_output=True, text=True, timeout=VERSION_S, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"tmux -V failed: {type(error).__name__}"
    return done.stdout.strip() or f"tmux -V exited with {done.returncode}"
