"""The state directory: whatever its name, and never the folder or the files of someone else."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from support import Jobs, Screen, ended, own_seconds, record_of, sleeping, wait_until

from tmuxjobs import Settings
from tmuxjobs.models import JobSpec
from tmuxjobs.system import job_processes, processes

NAMES = [
    "ends;",
    "a b;c",
    "it's",
    "#{pane_id}",
    "#(touch pwned)",
    "%H%%",
    "-x",
    "$(touch pwned)",
    "日本",
    "a\nb",
    '"',
    "\\;",
    "~",
]


def command(*argv: str, state_dir: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TMUXJOBS_STATE_DIR": str(state_dir)}
    line = [sys.executable, "-m", "tmuxjobs", *argv]
    return subprocess.run(line, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("name", NAMES)
def test_state_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    jobs = Jobs.open(Settings.load(state_dir=tmp_path / name))
    status = ended(jobs, jobs.execute("echo out; exit 7").job_id)
    assert (status.exit_code, status.log, jobs.output(status.job_id).stdout) == (7, "complete", "out\n")


def test_welcome_page_finds_the_jobs_of_a_directory_with_any_name(
    tmp_path: Path, screen: Callable[..., Screen]
) -> None:
    jobs = Jobs.open(Settings.load(state_dir=tmp_path / "it's; #{pane_id} %H;"))
    job_id = jobs.execute("read x").job_id
    screen(columns=120).until(f"▸ {job_id}")


def share_salt(both: list[Jobs]) -> None:
    """Ids are salted for each directory: two that share it stand for two whose ids meet by chance."""
    for jobs in both:
        (jobs.host.store.root / "salt").write_text("00000000000000a1 1\n")


def test_job_of_another_directory_with_the_same_id_is_another_job(tmp_path: Path) -> None:
    kept = {"one": 0, "two": 1000}
    both = [Jobs.open(Settings.load(state_dir=tmp_path / name, keep_windows_for=s)) for name, s in kept.items()]
    share_salt(both)
    mine, theirs = [[jobs.execute(line, name="x").job_id for line in ("read x; echo $x", "true")] for jobs in both]
    assert mine == theirs
    for jobs in both:
        ended(jobs, mine[1])
    assert both[0].interact(mine[0], "swordfish", pattern="swordfish\n", wait=30).stdout == "swordfish\n"
    assert both[1].output(mine[0]).stdout == ""
    assert both[1].hold(mine[0]).held
    assert both[0].status(mine[0]).held_since is None
    ended(both[0], mine[0])
    both[0].prune()
    assert both[1].status(mine[0]).status == "running"
    assert set(both[1].host.tmux.panes()) == set(theirs)


def test_welcome_page_goes_to_the_job_of_its_own_directory(
    tmp_path: Path, screen: Callable[..., Screen], tmux: Callable[..., str]
) -> None:
    mine, theirs = [Jobs.open(Settings.load(state_dir=tmp_path / name)) for name in ("mine", "theirs")]
    mine.host.ensure_session()
    share_salt([mine, theirs])
    both = [jobs.execute("read x", name="x").job_id for jobs in (theirs, mine)]
    assert both[0] == both[1]
    terminal = screen()
    terminal.until("Enter go to it", both[0])
    terminal.press("Enter")
    shown = ("display-message", "-p", "-t", "=mcp-jobs:", "#{pane_id}")
    pane = mine.host.tmux.panes()[both[0]].pane_id
    assert wait_until(lambda: tmux(*shown).strip(), lambda seen: seen != "%0") == pane


def foreign(folder: Path) -> Path:
    for name in (
        "jobs/nightly/data.csv",
        "jobs/report-2026/exit.json",
        "sequence.fasta",
        "sequence.1.0123abcd",
        "lock",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("theirs")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (1, 1))
    return folder


def facts(folder: Path) -> dict[Path, tuple[int, float, bytes]]:
    found = {}
    for path in (folder, *folder.rglob("*")):
        stat = path.stat()
        found[path] = stat.st_mode, stat.st_mtime, path.read_bytes() if path.is_file() else b""
    return found


@pytest.mark.parametrize(
    "argv",
    [
        ["list"], ["status", "x-1"], ["doctor"], ["doctor", "--fix"], ["prune"], ["execute", "--", "true"], ["serve"],
        ["attach"], ["kill", "x-1"], ["adopt"], ["restart", "x-1"], ["tail", "-f", "x-1"], [],
    ],
    ids=" ".join,
)  # fmt: skip
def test_no_command_touches_a_folder_that_was_named_by_mistake(tmp_path: Path, argv: list[str]) -> None:
    folder = foreign(tmp_path / "project")
    before = facts(folder)
    done = command(*argv, state_dir=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"tmuxjobs: '{folder}' holds files and is not a state directory of tmuxjobs; nothing was changed there. Set "
        "TMUXJOBS_STATE_DIR to a new or an empty folder.\n"
    )
    assert facts(folder) == before


def test_a_person_s_file_in_a_jobs_folder_outlives_it_and_prune_says_so(jobs: Jobs) -> None:
    folder = jobs.host.store.folder(ended(jobs, jobs.execute("true").job_id).job_id)
    (folder / "notes.txt").write_text("theirs")
    line = [sys.executable, "-m", "tmuxjobs", "prune"]
    done = subprocess.run(line, env=os.environ | {"TMUXJOBS_KEEP_JOBS": "0"}, capture_output=True, text=True)
    assert done.stdout.startswith("Removed 1 job: ")
    assert done.stderr == f"tmuxjobs: {folder} stays, for it holds files that tmuxjobs did not make.\n"
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert Jobs.open().list().total == 0
    assert Jobs.open().doctor(fix=True).healthy
    assert (folder / "notes.txt").read_text() == "theirs"


@pytest.mark.parametrize("boot", ["this", "an earlier one"])
def test_environment_of_a_job_that_nobody_started_goes(jobs: Jobs, boot: str) -> None:
    spec = JobSpec.model_validate(record_of(jobs, ended(jobs, jobs.execute("true").job_id).job_id).job)
    made = {"job_id": "left-3k7q", "number": 99, "created_at": datetime.now(UTC)}

    def left(age_s: float) -> Path:
        now = {
            "created_monotonic": time.monotonic() - age_s,
            "boot": processes.boot_id() if boot == "this" else boot,
        }
        with jobs.host.store.lock():
            jobs.host.store.remove("left-3k7q")
            return jobs.host.store.create(spec.model_copy(update=made | now), {"TOKEN": "secret"}) / "env"

    if boot == "this":
        env = left(0)
        Jobs.open().list()
        assert env.exists()
    env = left(61)
    assert "left-3k7q" in str(Jobs.open().list().jobs)
    assert not env.exists()


@pytest.mark.parametrize("separate", [True, False])
def test_job_whose_folder_was_removed_is_named_and_can_be_ended(jobs: Jobs, separate: bool) -> None:
    seconds = own_seconds()
    command = f"trap '' HUP TERM; echo ready; sleep {seconds}; read x"
    job_id = jobs.execute(command, separate_stderr=separate).job_id
    stays = jobs.execute("read x").job_id
    wait_until(lambda: "ready" in jobs.output(job_id).stdout and sleeping(seconds))
    shutil.rmtree(jobs.host.store.folder(job_id))
    answer = Jobs.open().doctor(fix=True)
    assert [one.text for one in answer.checks if not one.ok] == [
        f"{job_id} run though their folders were removed: `tmuxjobs kill JOB` ends them."
    ]
    assert len(sleeping(seconds)) == 1
    assert jobs.kill(job_id).status == "killed"
    assert sleeping(seconds) == []
    assert jobs.kill(job_id).status == "not_found"
    assert (jobs.status(stays).status, list(jobs.host.tmux.panes())) == ("running", [stays])


def test_only_a_runner_of_this_state_directory_is_taken_for_one(jobs: Jobs, tmp_path: Path) -> None:
    script = tmp_path / "runner.py"
    script.write_text("import time; time.sleep(1000)")
    here = jobs.host.store.pane / "other.py"
    here.symlink_to(script)
    job_id = jobs.execute("read x").job_id
    python = [sys.executable, "-I", "-S", "-X", "utf8"]
    folders = [str(tmp_path / "jobs" / "other-1"), str(jobs.host.store.jobs), f"{jobs.host.store.jobs}/a/b"]
    lines = [[*python, str(script), folder] for folder in folders]
    lines.append([sys.executable, str(script), str(jobs.host.store.jobs / "other-2")])
    lines += [[*python, str(script), "runner"], [*python, str(here), "finished"], [*python, str(here), "runner", "x"]]
    older = [*python, str(script), str(jobs.host.store.jobs / "older-1")]
    env = os.environ | {"TMUXJOBS_RUN": "other-3"}
    others = [subprocess.Popen(line, env=env, start_new_session=True) for line in (*lines, older)]
    try:
        wait_until(lambda: all(psutil.Process(other.pid).cmdline() == other.args for other in others))
        assert job_processes.runners(jobs.host.store.jobs).keys() == {job_id, "older-1"}
    finally:
        for other in others:
            other.kill()
            other.wait()
