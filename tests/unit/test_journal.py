"""The journal keeps its numbers, whatever happened to the file."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tmuxjobs.errors import StateError
from tmuxjobs.models import Entry
from tmuxjobs.store import journal
from tmuxjobs.store.journal import Journal

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def start(job_id: str) -> Entry:
    return Entry(n=0, event="start", job_id=job_id, at=NOW)


def end(job_id: str) -> Entry:
    return Entry(n=0, event="end", job_id=job_id, at=NOW, status="completed", exit_code=0)


def test_entries_are_numbered_on_across_writers(tmp_path: Path) -> None:
    one, two = Journal(tmp_path / "journal"), Journal(tmp_path / "journal")
    one.append([start("a"), start("b")])
    two.append([end("a")])
    assert [(entry.n, entry.job_id) for entry in one.read()] == [(1, "a"), (2, "b"), (3, "a")]
    assert [*one.open_jobs()] == ["b"]


def test_line_cut_off_costs_that_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Journal(path).append([start("a")])
    with path.open("ab") as file:
        file.write(b'{"n": 2, "event": "e')
    Journal(path).append([end("a")])
    assert [(entry.n, entry.event) for entry in Journal(path).read()] == [(1, "start"), (2, "end")]


def test_file_stays_small_and_keeps_what_runs(tmp_path: Path) -> None:
    log = Journal(tmp_path / "journal")
    log.append([start("runs")])
    for number in range(3000):
        log.append([start(f"job-{number}"), end(f"job-{number}")])
    assert log.path.stat().st_size <= journal.JOURNAL_BYTES + 200
    assert [*log.open_jobs()] == ["runs"]
    assert log.last() == 6001
    assert list(tmp_path.iterdir()) == [log.path]


def test_missing_file_is_empty(tmp_path: Path) -> None:
    assert Journal(tmp_path / "journal").read() == ()
    assert Journal(tmp_path / "journal").last() == 0


def test_fifo_in_its_place_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "journal")
    with pytest.raises(StateError, match="is not the journal of tmuxjobs"):
        Journal(tmp_path / "journal").read()
