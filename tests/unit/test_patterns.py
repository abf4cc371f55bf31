"""A pattern that is waited for counts in what stays, not in a frame that a program draws over."""

import os
import time
from pathlib import Path

import pytest

from tmuxjobs.errors import InvalidInput
from tmuxjobs.text import patterns
from tmuxjobs.text.matching import Watcher

HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"
UP = b"\x1b[K\x1b[1A" * 2 + b"\x1b[K"


def frame(count: int, *, over: bool = True) -> bytes:
    return UP * over + b"checks %d good\r\nafter %d s\r\n" % (count, count)


def seen(folder: Path, data: bytes, *, redraws: bool = False, final: bool = False, old: bool = False) -> str | None:
    log = folder / "output.log"
    log.write_bytes(data)
    if old:
        os.utime(log, (time.time() - 10,) * 2)
    match = Watcher(log, r"checks \d good|\d+% read", redraws=redraws).next_match(final=final)
    return match.text if match else None


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"checks 1 good\r\n", "checks 1 good"),
        (b"checks 1 good", "checks 1 good"),
        (HIDE + frame(1, over=False), None),
        (HIDE + frame(1, over=False) + frame(2), None),
        (HIDE + frame(1, over=False) + frame(2) + UP[:7], None),
        (HIDE + frame(1, over=False) + frame(2) + SHOW, "checks 2 good"),
        (HIDE + frame(1, over=False) + UP + b"checks 9 good\r\n" + b"x\r\n" * 3 + SHOW, "checks 9 good"),
        (HIDE + b"checks 3 good\r\n" + b"spin\r\n" + b"\x1b[1A\x1b[2Kspin\r\n", "checks 3 good"),
        (HIDE + frame(1, over=False) + UP + b"nothing left\r\n" + SHOW, None),
        (HIDE + frame(1, over=False) + UP + b"a line\r\n" * 20_000, None),
        (b"5% read\r9% read\r", None),
        (b"5% read\r9% read\r\nend\r\n", "9% read"),
        (b"checks 4 good\r\n\x1b[H\x1b[2Jnew screen\r\n", "checks 4 good"),
    ],
)
def test_match_counts_in_a_line_that_stays(tmp_path: Path, data: bytes, match: str | None) -> None:
    assert seen(tmp_path, data) == match


def test_frame_counts_once_it_has_stood_for_a_while_or_no_more_comes(tmp_path: Path) -> None:
    data = HIDE + frame(1, over=False) + frame(2)
    assert (seen(tmp_path, data, old=True), seen(tmp_path, data, final=True)) == ("checks 2 good",) * 2


def test_every_frame_counts_when_asked(tmp_path: Path) -> None:
    assert seen(tmp_path, HIDE + frame(1, over=False) + frame(2), redraws=True) == "checks 1 good"
    assert seen(tmp_path, b"5% read\r9% read\r", redraws=True) is not None


def test_frame_that_does_not_count_yet_is_looked_at_again(tmp_path: Path) -> None:
    log = tmp_path / "output.log"
    log.write_bytes(HIDE + frame(1, over=False))
    watcher = Watcher(log, r"checks \d good", redraws=False)
    assert watcher.next_match() is None
    assert watcher.stands_in_s is not None
    with log.open("ab") as file:
        file.write(frame(2) + SHOW)
    match = watcher.next_match()
    assert match is not None
    assert (match.text, match.line) == ("checks 2 good", 3)


@pytest.mark.parametrize(
    ("pattern", "literal"),
    [
        ("one\ntwo", False),
        (r"one\ntwo", False),
        (r"done\r?\n", False),
        (r"x+\x0a", False),
        (r"(ab[\r\n]|c\n)d", False),
        (r"end$\n^next", False),
        ("one\ntwo", True),
        ("e\r\nt", True),
        ("\n", True),
    ],
)
def test_pattern_that_no_single_line_can_match_is_refused(pattern: str, literal: bool) -> None:
    with pytest.raises(InvalidInput, match="would never match, for each line is looked at by itself"):
        patterns.of_lines(pattern, literal=literal)


@pytest.mark.parametrize(
    ("pattern", "literal"),
    [
        (r"done\n?", False),
        (r"(one\ntwo|three)", False),
        (r"[^\n]+", False),
        (r"a[\s\n]b", False),
        (r"C:\\new", False),
        (r"\\x0a", False),
        (r"one\ntwo", True),
        ("(?x) one\n two", False),
        (r"a\s*b$", False),
    ],
)
def test_pattern_that_a_line_may_match_is_taken(pattern: str, literal: bool) -> None:
    assert patterns.of_lines(pattern, literal=literal)
