"""`doctor` finds what is wrong, says what to do, and `fix` removes what no running job needs."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from support import Group, Jobs, NotHere, Person, Tmux, ended, record_of, wait_until, with_few_terminals

from tmuxjobs import Settings
from tmuxjobs.answers import Diagnosis
from tmuxjobs.system import job_processes
from tmuxjobs.verbs import doctor


def said(answer: Diagnosis, name: str) -> tuple[bool, str]:
    return next((one.ok, one.text) for one in answer.checks if one.name == name)


def lost(jobs: Jobs, command: str) -> str:
    """A job whose runner was killed."""
    job_id = jobs.execute(f"echo ready; {command}").job_id
    wait_until(lambda: jobs.output(job_id).stdout, lambda text: "ready" in text)
    run = record_of(jobs, job_id).run
    assert run is not None
    os.kill(run.pid, signal.SIGKILL)
    assert ended(jobs, job_id).status == "lost"
    return job_id


def test_healthy_machine_is_told_so_and_nothing_stays(jobs: Jobs) -> None:
    answer = jobs.doctor()
    assert answer.healthy, answer.text()
    assert said(answer, "a real job")[1].endswith("128894 bytes as printed")
    assert jobs.list().total == 0
    assert jobs.host.tmux.panes() == {}


@pytest.mark.parametrize(
    ("variables", "ok", "text"),
    [
        ({"LANG": "C.UTF-8"}, True, "C.UTF-8"),
        ({"LANG": ""}, True, "none is set, so jobs get LANG=C.UTF-8"),
        ({"LC_CTYPE": "POSIX"}, True, "POSIX: jobs run all the same, but programs may"),
        ({"LC_ALL": "xx_YY.UTF-8"}, False, "xx_YY.UTF-8 is not installed here, so programs may"),
        ({"LC_ALL": "", "LC_CTYPE": "xx_YY.utf8"}, False, "xx_YY.utf8 is not installed here, so programs may"),
    ],
)
def test_locale_is_one_that_there_is(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], ok: bool, text: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    [finding] = doctor.locale(Jobs.open().host)
    assert (finding.ok, finding.text[: len(text)]) == (ok, text)


def test_option_that_would_end_all_jobs_is_told_with_its_cure(
    jobs: Jobs, tmux: Tmux, person: Callable[..., Person]
) -> None:
    tmux("new-session", "-d", "-s", "mine")
    person("mine")
    tmux("set-option", "-s", "exit-unattached", "on")
    answer = jobs.doctor()
    assert not answer.healthy
    assert said(answer, "tmux options")[1].endswith("tmux set-option -s exit-unattached off")


def test_token_that_others_may_know_is_told(jobs: Jobs) -> None:
    path = jobs.token()
    assert said(jobs.doctor(), "http token") == (True, str(path))
    path.chmod(0o644)
    answer = jobs.doctor()
    assert not answer.healthy
    assert said(answer, "http token")[1].endswith("`tmuxjobs token --new` replaces it.")


def test_leftovers_are_told_and_fixed_and_running_jobs_stay(jobs: Jobs) -> None:
    gone = lost(jobs, "trap '' HUP; while :; do sleep 0.1; done")
    stays = jobs.execute("read x; exit 5").job_id
    half_made = jobs.host.store.jobs / "half-made-1234"
    half_made.mkdir(mode=0o700)
    (half_made / "run.room").touch(mode=0o600)
    half_written = jobs.host.store.root / "sequence.1.0123abcd"
    half_written.touch(mode=0o600)
    half_copied = jobs.host.store.pane / ".new-0123456789abcdef"
    half_copied.mkdir(mode=0o700)
    (half_copied / "tmuxjobs-job").symlink_to("nowhere")
    for path in (half_written, half_copied):
        os.utime(path, (1, 1))
    (jobs.host.store.root / "sequence.fasta").touch()
    (jobs.host.store.jobs / "nightly").mkdir(mode=0o755)
    found = jobs.doctor()
    assert not found.healthy
    parts = ("half-made-1234", "sequence.1.0123abcd", half_copied.name)
    for part in (*parts, f"lost job {gone}", f"{gone}/recorder", f"{gone}/exit.room"):
        assert part in said(found, "leftovers")[1]
    assert stays not in said(found, "leftovers")[1]
    fixed = jobs.doctor(fix=True)
    assert fixed.healthy, fixed.text()
    assert fixed.fixed
    assert jobs.status(gone).survivors == ()
    assert not half_made.exists()
    assert not half_written.exists()
    assert not half_copied.exists()
    assert (jobs.host.store.root / "sequence.fasta").exists()
    assert (jobs.host.store.jobs / "nightly").stat().st_mode & 0o777 == 0o755
    assert gone not in jobs.host.tmux.panes()
    jobs.interact(stays, "x", wait=0)
    assert (ended(jobs, stays).exit_code, jobs.status(stays).log) == (5, "complete")


def test_files_open_to_others_are_told_and_closed(jobs: Jobs) -> None:
    log = Path(ended(jobs, jobs.execute("echo secret").job_id).log_path)
    program = Path(jobs.host.unit().main)
    notes = program.with_name("notes.txt")
    notes.touch()
    for path in (log, program, notes):
        path.chmod(0o644)
    found = said(jobs.doctor(), "leftovers")[1]
    assert f"{log}, which others may read" in found
    assert f"{program}, which others may read" in found
    assert jobs.doctor(fix=True).healthy
    assert [path.stat().st_mode & 0o777 for path in (log, program, notes)] == [0o600, 0o600, 0o644]


def test_damaged_record_is_named(jobs: Jobs) -> None:
    job_id = ended(jobs, jobs.execute("true").job_id).job_id
    (jobs.host.store.folder(job_id) / "exit.json").write_text("{")
    ok, text = said(Jobs.open().doctor(), "records")
    assert not ok
    assert f"{job_id}/exit.json' is damaged; remove its folder" in text


def test_job_that_cannot_start_is_told(jobs: Jobs) -> None:
    full = Jobs.open(Settings.load(max_jobs=1, max_jobs_total=1))
    job_id = full.execute("read x").job_id
    ok, text = said(full.doctor(), "a real job")
    assert (ok, "TMUXJOBS_MAX_JOBS_TOTAL is 1" in text) == (False, True)
    assert job_processes.alive(*runner(full, job_id))


def runner(jobs: Jobs, job_id: str) -> tuple[int, str]:
    run = record_of(jobs, job_id).run
    assert run is not None
    return run.pid, run.start


@pytest.mark.parametrize("wrong", [False, True])
def test_command_ends_with_1_when_something_is_wrong(jobs: Jobs, wrong: bool) -> None:
    if wrong:
        (jobs.host.store.jobs / ".new-half-made-1234").mkdir(mode=0o700)
    argv = [sys.executable, "-m", "tmuxjobs", "doctor", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode, json.loads(done.stdout)["healthy"]) == (int(wrong), not wrong)


def test_tmux_with_few_files_left_is_told_with_its_cure(tmux: Tmux) -> None:
    jobs = Jobs.open(Settings.load(max_jobs=40))
    assert said(jobs.doctor(), "open files")[0]
    psutil.Process(int(tmux("display-message", "-p", "#{pid}"))).rlimit(psutil.RLIMIT_NOFILE, (60, 60))
    ok, text = said(jobs.doctor(), "open files")
    assert not ok
    assert re.fullmatch(
        r"tmux has \d+ of 60 files open, and 40 jobs need 100: raise `ulimit -n` before tmux starts, or lower "
        r"TMUXJOBS_MAX_JOBS\.",
        text,
    )


@pytest.mark.parametrize(("most", "enough"), [(9, False), (30, True)])
def test_few_terminals_are_told_with_their_cure(isolated: Path, most: int, enough: bool) -> None:
    try:
        done = with_few_terminals(isolated, most, sys.executable, "-m", "tmuxjobs", "doctor", "--json")
    except NotHere as reason:
        pytest.skip(str(reason))
    found = {one["name"]: one for one in json.loads(done.stdout)["checks"]}["terminals"]
    assert found["ok"] is enough
    assert enough or found["text"] == (
        "9 more can be opened, and 10 jobs may run: close some, or raise the sysctl kernel.pty.max."
    )


@pytest.mark.parametrize(("room", "enough"), [(20, False), (500, True)])
def test_few_processes_are_told_with_their_cure(tmux: Tmux, room: int, enough: bool) -> None:
    jobs = Jobs.open(Settings.load(max_jobs=8))
    tmux("new-session", "-d", "exec cat")
    try:
        group = Group(int(tmux("display-message", "-p", "#{pid}")))
    except NotHere as reason:
        pytest.skip(str(reason))
    with contextlib.closing(group):
        group.limit(room)
        ok, text = said(jobs.doctor(), "processes")
    assert ok is enough
    assert enough or text == (
        "20 more can be started, and 8 jobs need 40 and more: end some, raise their limit (`ulimit -u`, or the "
        "container's or unit's own), or lower TMUXJOBS_MAX_JOBS."
    )


def test_each_fault_is_told_once(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended(jobs, jobs.execute("true").job_id)
    with monkeypatch.context() as bare:
        bare.setenv("PATH", str(tmp_path))
        answer = Jobs.open().doctor()
    wrong = [one.text for one in answer.checks if not one.ok]
    assert len(wrong) == len(set(wrong)) == 1
    assert "tmux is not installed" in wrong[0]
    assert "leftovers" not in [one.name for one in answer.checks]


def test_windows_of_another_state_directory_are_no_leftovers(jobs: Jobs, isolated: Path) -> None:
    over = ended(jobs, jobs.execute("true").job_id).job_id
    running = jobs.execute("sleep 1000").job_id
    other = Jobs.open(Settings(state_dir=isolated / "other"))
    answer = other.doctor(fix=True)
    assert (answer.fixed, said(answer, "leftovers")[1]) == ((), "none")
    assert {over, running} <= jobs.host.tmux.panes().keys()
