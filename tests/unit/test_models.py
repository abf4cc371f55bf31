"""The one pure function that says how a job stands, and the records it says it from."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from tmuxjobs.contract import LAUNCH_S
from tmuxjobs.models import STATUSES, ExitRecord, JobSpec, Model, Record, RunRecord
from tmuxjobs.outcome import Here
from tmuxjobs.states import (
    AwaitsApproval,
    Exited,
    Killed,
    Lost,
    NotStarted,
    Running,
    Starting,
    State,
    derive_state,
    describe,
    status_of,
)

FORMAT_1 = Path(__file__).parent / "data" / "format-1"
EXIT = ExitRecord.model_validate_json((FORMAT_1 / "exit.json").read_bytes())
JOB, RUN = EXIT.job, EXIT.run
STATES: list[tuple[State, str, str]] = [
    (Starting(), "running", "starting"),
    (Running(), "running", "running"),
    (AwaitsApproval("`x`: rule 'x'"), "running", "waits for approval by a person: `x`: rule 'x'"),
    (Exited(0), "completed", "exit code 0"),
    (Exited(3), "failed", "exit code 3"),
    (Exited(143), "failed", "exit code 143 (a shell says so for signal 15)"),
    (Exited(255), "failed", "exit code 255"),
    (Killed("timeout", "SIGTERM", None), "killed", "killed by its timeout, SIGTERM"),
    (Killed("kill", None, 0), "killed", "killed on request, exit code 0"),
    (Killed("kill", None, None), "killed", "killed on request"),
    (Killed("window-closed", "SIGHUP", None), "killed", "killed because its window was closed, SIGHUP"),
    (NotStarted("No such file"), "failed", "not started: No such file"),
    (Lost("reboot", "the machine was restarted"), "lost", "lost: the machine was restarted"),
]


def state(record: Record, *, alive: bool = False, boot: str = JOB.boot, later_s: float = 0.0) -> State:
    here = Here(machine="", boot=boot, namespace="")
    return derive_state(record, here, runner_alive=alive, monotonic=JOB.created_monotonic + later_s)


def ended(**changes: object) -> Record:
    return Record(JOB, RUN, EXIT.model_copy(update=changes))


def test_job_without_runner_is_starting_until_no_runner_would_start_it() -> None:
    assert state(Record(JOB), later_s=LAUNCH_S - 0.1) == Starting()


def test_job_whose_runner_never_came_is_lost() -> None:
    assert isinstance(lost := state(Record(JOB), later_s=LAUNCH_S), Lost)
    assert lost.reason == "never-started"


def test_job_whose_runner_lives_runs() -> None:
    assert state(Record(JOB, RUN), alive=True, later_s=1e6) == Running()


def test_job_whose_runner_is_gone_without_a_record_is_lost_and_never_a_success() -> None:
    assert isinstance(lost := state(Record(JOB, RUN)), Lost)
    assert lost.reason == "runner-died"


@pytest.mark.parametrize("approved", [None, ""])
def test_job_that_nobody_approved_waits_or_never_ran(approved: str | None) -> None:
    job, run = JOB.model_copy(update={"ask_why": "a rule"}), RUN.model_copy(update={"approved": approved})
    assert state(Record(job, run), alive=True, later_s=1e6) == AwaitsApproval("a rule")
    assert state(Record(job, run)) == Lost("runner-died", "it was cut off while it waited for approval, so nothing ran")
    assert state(Record(job, RUN.model_copy(update={"approved": "by a person"})), alive=True) == Running()


@pytest.mark.parametrize("run", [None, RUN])
def test_job_of_an_earlier_boot_is_lost_whatever_now_has_its_pid(run: RunRecord | None) -> None:
    assert isinstance(lost := state(Record(JOB, run), alive=True, boot="another"), Lost)
    assert lost.reason == "reboot"


def test_exit_record_outlives_runner_and_reboot() -> None:
    record = ended(reason="exit", exit_code=0, signal=None)
    assert state(record, alive=True) == state(record, boot="another", later_s=-1e6) == Exited(0)


@pytest.mark.parametrize("code", [0, 1, 255])
def test_command_that_ended_by_itself_has_exited_with_its_code(code: int) -> None:
    assert state(ended(reason="exit", exit_code=code, signal=None)) == Exited(code)


@pytest.mark.parametrize("reason", ["signal", "kill", "timeout", "terminated", "window-closed", "tmux-ended"])
def test_every_other_reason_is_killed_even_with_code_0(reason: str) -> None:
    assert state(ended(reason=reason, exit_code=0, signal=None)) == Killed(reason, None, 0)
    assert state(ended(reason=reason)) == Killed(reason, "SIGKILL", None)


def test_reason_of_a_later_version_is_no_success() -> None:
    assert status_of(state(ended(reason="eaten", exit_code=0))) == "killed"


def test_exit_without_a_code_is_no_success() -> None:
    assert status_of(state(ended(reason="exit", exit_code=None, signal=None))) == "killed"


def test_end_that_tmux_did_not_tell_is_lost_and_no_success() -> None:
    assert isinstance(lost := state(ended(reason="unknown", exit_code=None, signal=None)), Lost)
    assert lost.reason == "unknown"


def test_command_that_never_ran_is_not_started_and_says_why() -> None:
    assert state(ended(reason="not-started", error="no such shell")) == NotStarted("no such shell")


@pytest.mark.parametrize(("state", "status", "words"), STATES, ids=lambda value: str(value)[:40])
def test_every_state_has_a_status_and_words(state: State, status: str, words: str) -> None:
    assert (status_of(state), describe(state)) == (status, words)
    assert status in STATUSES


@pytest.mark.parametrize("record", [JOB, RUN, EXIT], ids=["job", "run", "exit"])
def test_record_comes_back_from_disk_as_it_went(record: Model) -> None:
    assert type(record).model_validate_json(record.model_dump_json()) == record


def test_field_of_a_later_version_is_ignored() -> None:
    assert JobSpec.model_validate(JOB.model_dump() | {"colour": "red"}) == JOB


@pytest.mark.parametrize(("name", "model"), [("job", JobSpec), ("run", RunRecord), ("exit", ExitRecord)])
def test_records_of_format_1_load(name: str, model: type[Model]) -> None:
    record = model.model_validate_json((FORMAT_1 / f"{name}.json").read_bytes())
    assert record == {"job": JOB, "run": RUN, "exit": EXIT}[name]


def test_exit_record_of_format_1_keeps_its_facts() -> None:
    assert (EXIT.signal, EXIT.reason, EXIT.job.separate_stderr, EXIT.run.command_pid) == (
        "SIGKILL",
        "signal",
        True,
        7140,
    )
    assert EXIT.log is not None
    assert (EXIT.log.complete, EXIT.log.bytes) == (True, 5)
    assert [(one.pid, one.name, one.start) for one in EXIT.left_running] == [(7150, "sleep", "183150")]
    assert EXIT.ended_at.isoformat() == "2026-01-22T09:32:04.563000+00:00"


@pytest.mark.parametrize("pid", [0, -1, 1 << 31])
def test_process_in_a_record_has_a_pid_of_one_process(pid: int) -> None:
    given = {"ends_with": {"pid": pid, "name": "sleep", "start": "1"}}
    with pytest.raises(ValidationError, match="is not a pid"):
        JobSpec.model_validate(given)
