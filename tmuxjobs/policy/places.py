"""Where a line may be, and which paths its words are: here, or on another machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tmuxjobs.policy.commands import Seen
from tmuxjobs.policy.words import Word


@dataclass(frozen=True, slots=True)
class There:
    """The other machine that a job would run on: where its paths lead, and which folder has the copy of one here."""

    host: str
    real: Callable[[str | Path], str]
    copy_of: Callable[[Path], Path]
    sync: str = ""
    """The folder here whose copy it would run in."""


def path_of(word: Word, there: There | None) -> Path | None:
    """The path that the word is; None where only a run could tell, as of another machine's `~`."""
    if word.text is None or word.many or "\0" in word.text or (word.home and there is not None):
        return None
    return Path(os.path.expanduser(word.text) if word.home else word.text)


def walk(what: Seen, cwd: Path, there: There | None) -> Iterator[tuple[Word, list[Path], list[Path]]]:
    """For each folder that the line changes into all places where it may be by then, and those where it is just there.

    There are none where that cannot be known.

    `..` is both what a shell takes it for, which remembers the links it came by, and what a program does.
    """
    reached, at, before = [cwd], [cwd], 0
    for folder, chain in what.folders:
        target = path_of(folder, there)
        if target is None:
            yield folder, [], []
            return
        if not chain or chain != before:
            at = list(reached)
        at = list(
            dict.fromkeys(one for place in at for one in (place / target, Path(os.path.normpath(place / target))))
        )
        reached += [one for one in at if one not in reached]
        before = chain
        yield folder, reached, at
