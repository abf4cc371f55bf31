"""A fault in one job's log, record or prompt is named, and hides no other job."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support import Jobs, ended, wait_until

from tmuxjobs.cli.table import Listing
from tmuxjobs.errors import StateError
from tmuxjobs.hosts.local import Host
from tmuxjobs.pane import board
from tmuxjobs.text import paging
from tmuxjobs.verbs import prompts

WIDE = r"printf '10%%\r'; head -c 17000 /dev/zero | tr '\0' x; printf '10%%\r'; head -c 17000 /dev/zero | tr '\0' y"


@pytest.fixture
def pair(jobs: Jobs) -> tuple[str, str]:
    """A job with a fault, and one without; both ask."""
    bad, good = (jobs.execute("read -p 'Name? ' x", name=name).job_id for name in ("bad", "good"))
    for job_id in (bad, good):
        wait_until(lambda job_id=job_id: jobs.status(job_id).prompt, lambda prompt: prompt == "Name? ")  # type: ignore[misc]
    return bad, good


@pytest.fixture
def break_settle(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def break_it(job_id: str) -> None:
        settle = Host.settle

        def settling(host: Host, record: Any) -> Any:
            if record.job.job_id == job_id:
                raise RecursionError("too deep")
            return settle(host, record)

        monkeypatch.setattr(Host, "settle", settling)

    return break_it


def break_reads(monkeypatch: pytest.MonkeyPatch, name: str, job_id: str) -> None:
    read = getattr(paging, name)

    def reading(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.parent.name == job_id:
            raise TypeError("unsupported operand")
        return read(path, *arguments, **options)

    monkeypatch.setattr(paging, name, reading)


def table_of(jobs: Jobs) -> str:
    shown = io.StringIO()
    Listing(jobs, Console(file=shown, width=300), status=None, limit=20, name=None).show()
    return shown.getvalue()


def test_rows_wider_than_the_screen_model_break_no_answer(jobs: Jobs) -> None:
    job_id = jobs.execute(f"{WIDE}; printf '\\nName? '; read x").job_id
    other = jobs.execute("echo fine; sleep 1000").job_id
    wait_until(lambda: jobs.status(job_id).prompt, lambda prompt: prompt == "Name? ")
    text = "x" * 17_000
    assert len(jobs.output(job_id, max_bytes=100_000).stdout) > 17_000
    assert jobs.tail(job_id).stdout.endswith("Name? ")
    assert jobs.search(job_id, "xxx|yyy").total == 1
    assert jobs.wait(job_id, pattern=text[:100], cursor=0, timeout=30).reason == "pattern"
    listed = jobs.list()
    assert {job.job_id for job in listed.jobs} == {job_id, other}
    assert listed.damaged == ()
    assert job_id in table_of(jobs)


def test_list_names_a_job_with_a_fault_and_shows_the_others(
    jobs: Jobs, pair: tuple[str, str], break_settle: Callable[[str], None]
) -> None:
    bad, good = pair
    break_settle(bad)
    listed = jobs.list()
    assert [(job.job_id, job.waits_for) for job in listed.jobs] == [(good, "input")]
    (said,) = listed.damaged
    assert said.startswith(
        f"Job '{bad}' cannot be shown whole: this is a bug in tmuxjobs, RecursionError 'too deep' in "
    )
    assert good in table_of(jobs)
    assert said.split(":")[0] in table_of(jobs)


def test_list_shows_a_job_whose_prompt_has_a_fault(
    jobs: Jobs, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = pair
    break_reads(monkeypatch, "last_line", bad)
    listed = jobs.list()
    assert [(job.job_id, job.waits_for) for job in listed.jobs] == [(good, "input"), (bad, None)]
    assert [bad in said for said in listed.damaged] == [True]
    with pytest.raises(StateError, match="bug in tmuxjobs, TypeError"):
        jobs.status(bad)
    assert jobs.status(good).prompt == "Name? "


def test_table_shows_a_job_whose_log_has_a_fault(
    jobs: Jobs, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = pair
    break_reads(monkeypatch, "tail", bad)
    shown = table_of(jobs)
    assert f"Job '{bad}' cannot be shown whole" in shown
    assert any(good in line and "Name?" in line for line in shown.splitlines())
    assert any(bad in line and "Name?" not in line for line in shown.splitlines())


def test_prompts_of_others_are_noticed_beside_a_job_with_a_fault(
    jobs: Jobs, pair: tuple[str, str], break_settle: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = pair
    break_settle(bad)
    faults: list[str] = []
    jobs.notice_prompts(faults)
    assert [bad in said for said in faults] == [True]
    prompts.main(jobs.host)
    said = capsys.readouterr()
    assert list(json.loads(said.out)) == [good]
    assert bad in said.err


def test_prune_keeps_a_job_with_a_fault_and_removes_the_others(jobs: Jobs, break_settle: Callable[[str], None]) -> None:
    bad = jobs.execute("sleep 1000", name="bad").job_id
    gone = [jobs.execute("true", name="gone").job_id for _ in range(2)]
    for job_id in gone:
        ended(jobs, job_id)
    jobs.host.settings = jobs.host.settings.model_copy(update={"keep_jobs": 0})
    break_settle(bad)
    faults: list[str] = []
    assert sorted(jobs.prune(faults)) == sorted(gone)
    assert [bad in said for said in faults] == [True]
    assert bad in jobs.host.store.ids()
    with pytest.raises(StateError, match=bad):
        jobs.prune()


def test_doctor_names_a_job_with_a_fault_and_goes_on(
    jobs: Jobs, pair: tuple[str, str], break_settle: Callable[[str], None]
) -> None:
    bad, _ = pair
    break_settle(bad)
    answer = jobs.doctor()
    bad_checks = {check.name for check in answer.checks if not check.ok}
    assert bad_checks == {"records"}
    assert all(bad in check.text for check in answer.checks if not check.ok)
    assert answer.checks[-1].name == "a real job"


def test_welcome_page_shows_the_others_beside_a_job_with_a_fault(
    jobs: Jobs, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = pair
    read_record = board.read_record

    def reading(folder: str, name: str, shape: Any) -> Any:
        if (os.path.basename(folder), name) == (bad, "run.json"):
            raise ValueError("odd")
        return read_record(folder, name, shape)

    monkeypatch.setattr(board, "read_record", reading)
    told = {job.job_id: job.summary() for job in board.Board(str(jobs.host.store.root)).refresh()}
    assert told[bad] == "not readable: ValueError"
    assert told[good].startswith("running")
