"""The marker, which says that a folder is a state directory of tmuxjobs, and which folders may get one."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from tmuxjobs import files
from tmuxjobs.contract import FORMAT
from tmuxjobs.errors import StateError
from tmuxjobs.files import Newer, Odd
from tmuxjobs.store import disk

JOURNAL_BYTES = 1 << 24


def is_there(root: Path) -> bool:
    """Whether the folder has the marker; raises StateError when something else is in its place."""
    path = root / disk.MARKER
    try:
        fields = files.fields_of(files.read(path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise disk.unusable(root, error) from None
    except Newer:
        raise StateError(
            f"The state directory '{root}' is in the format of a newer tmuxjobs; use that one, or set "
            "TMUXJOBS_STATE_DIR to another folder."
        ) from None
    except Odd as odd:
        why = str(odd)
    else:
        if fields.get("tmuxjobs") == "state directory" and fields.get("format") == FORMAT:
            return True
        why = "is damaged"
    raise StateError(
        f"'{path}' {why}, and so does not say that its folder is a state directory of tmuxjobs; remove it if it is "
        "one, or set TMUXJOBS_STATE_DIR to another folder."
    )


def lay(root: Path, is_half_made: Callable[[Path], bool]) -> None:
    """Lay down the marker in an empty folder, or in one of 0.1.0, which had none; raises StateError for any other.

    `is_half_made` tells whether a folder is what a killed tmuxjobs leaves of a job.
    """
    names = os.listdir(root)
    # Another process may be about to do the same, or have been killed at it.
    begun = all(name.startswith(f"{disk.MARKER}.") and disk.is_ours(root, root / name) for name in names)
    if begun or _is_older(root, is_half_made):
        fields = {"tmuxjobs": "state directory", "format": FORMAT}
        # To the disk: after a power cut an empty marker would refuse all jobs.
        disk.replace(root, root / disk.MARKER, json.dumps(fields).encode() + b"\n", sync=True)
    elif not is_there(root):  # another has made it since the first look
        raise StateError(
            f"'{root}' holds files and is not a state directory of tmuxjobs; nothing was changed there. Set "
            "TMUXJOBS_STATE_DIR to a new or an empty folder."
        )


def _is_older(root: Path, is_half_made: Callable[[Path], bool]) -> bool:
    """Whether 0.1.0 made the folder: it holds a job's record, or only what that left, as private as it was."""
    jobs = root / "jobs"
    if not disk.is_own_folder(jobs):
        return False
    inside = list(jobs.iterdir())
    if any(map(disk.owns, inside)):
        return True
    others = [path for path in root.iterdir() if path not in (jobs, root / "open")]
    return (
        all(map(is_half_made, inside))
        and not any(map(disk.is_exposed, (root, jobs, *others)))
        and all((disk.is_ours(root, path) and _reads_as_ours(path)) or disk.BUG.fullmatch(path.name) for path in others)
    )


def _reads_as_ours(path: Path) -> bool:
    """Whether a file beside `jobs/` holds what 0.1.0 wrote there; a person's may have the same name."""
    try:
        match path.name:
            case "lock":
                return path.lstat().st_size == 0
            case "sequence":
                return files.read(path).isdigit()
            case "journal":
                lines = files.read(path, JOURNAL_BYTES).splitlines()
                return not lines or any(map(_is_entry, lines))  # one may be cut off
    except (OSError, Odd):
        return False
    return True


def _is_entry(line: bytes) -> bool:
    with contextlib.suppress(Odd):
        return {"n", "event", "job_id"} <= files.fields_of(line).keys()
    return False
