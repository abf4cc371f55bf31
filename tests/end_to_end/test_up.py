"""A project's jobs from its file: started in their order, what runs stays, ended in reverse."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Jobs, wait_until

from .conftest import PROGRAM

Run = Callable[..., subprocess.CompletedProcess[str]]

DAY = """
[groups]
tests = 4

[jobs.database]
command = "echo begins; until [ -e up ]; do sleep 0.05; done; echo ready to accept connections; sleep 1000"
ready_when = "pattern ready to accept"

[jobs.migration]
command = "touch migrated"
after = ["database"]

[jobs.api]
command = "[ -e migrated ] && echo listening; sleep 1000"
after = ["migration"]
ready_when = "pattern listening"
restart_policy = "on-failure"

[jobs.web]
command = "echo serves; sleep 1000"
after = ["api:ready"]
ready_when = "pattern serves"

[jobs.test-1]
command = "[ -e passed ] || { touch passed; exit 1; }"
after = ["api:ready"]
group = "tests"
retry = 1
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tmuxjobs.toml").write_text(DAY)
    return tmp_path


def rows(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    return {row["name"]: row for row in json.loads(done.stdout)}


def test_day_of_a_project(run: Run, jobs: Jobs, project: Path) -> None:
    (project / "up").touch()
    done = run("up", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    first = rows(done)
    assert {name: row["how"] for name, row in first.items() if name != "test-1"} == {
        "database": "ready",
        "migration": "exit code 0",
        "api": "ready",
        "web": "ready",
    }
    assert jobs.wait(first["test-1"]["job_id"], timeout=100).status == "completed"
    assert jobs.status(first["test-1"]["job_id"]).attempts == 2
    assert jobs.group("tests").limit == 4

    # One crashes: it comes back in its window, with its id.
    api = first["api"]["job_id"]
    pid = jobs.status(api).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: jobs.status(api), lambda status: status.attempts == 2 and status.ready)

    # What runs stays; the rest is started.
    again = rows(run("up", "--json", "web"))
    assert {name: row["what"] for name, row in again.items()} == {
        "database": "reused",
        "migration": "started",
        "api": "reused",
        "web": "reused",
    }
    assert again["web"]["job_id"] == first["web"]["job_id"]

    ended = run("down", "--json")
    assert ended.returncode == 0
    order = [row["name"] for row in json.loads(ended.stdout)]
    assert order.index("web") < order.index("api") < order.index("database")
    assert jobs.list(status="running").total == 0
    assert rows(run("down", "--json"))["web"]["how"] == "does not run"


def test_live_job_is_preferred_to_a_finished_one_of_its_name(run: Run, jobs: Jobs, project: Path) -> None:
    (project / "up").touch()
    first = rows(run("up", "--json", "database"))["database"]["job_id"]
    newer = jobs.execute("true", name="database").job_id  # has ended, and is the newest of that name
    jobs.wait(newer, timeout=100)
    assert rows(run("up", "--json", "database"))["database"]["job_id"] == first


def test_job_behind_one_that_is_never_ready_is_told_and_does_not_hang(run: Run, project: Path) -> None:
    text = DAY.replace('"pattern ready to accept"', '"port 1"\nready_timeout = 0.5')
    (project / "tmuxjobs.toml").write_text(text)
    done = run("up", "--json", "web")
    assert done.returncode == 1
    said = rows(done)
    assert said["migration"]["how"].startswith(f"skipped: {said['database']['job_id']} was not ready in time")
    assert said["web"]["how"].startswith("skipped: ")
    assert not (project / "migrated").exists()


def test_time_that_is_over_is_told_and_the_jobs_go_on(run: Run, jobs: Jobs, project: Path) -> None:
    done = run("up", "--json", "--timeout", "0.5", "database")
    assert done.returncode == 124
    job_id = rows(done)["database"]["job_id"]
    (project / "up").touch()
    assert jobs.wait(job_id, until="ready", timeout=100).reason == "ready"


def test_table_has_a_line_for_each_job(run: Run, project: Path) -> None:
    (project / "tmuxjobs.toml").unlink()
    (project / "Procfile").write_text("web: sleep 1000\nworker: sleep 1000\n")
    lines = run("up").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["web", "worker"]
    assert all("started  running" in line for line in lines)


def test_wrong_file_stops_before_anything_is_started(run: Run, jobs: Jobs, project: Path) -> None:
    (project / "tmuxjobs.toml").write_text(DAY + "colour = 1\n")
    done = run("up")
    assert done.returncode == 1
    assert f"{project / 'tmuxjobs.toml'}, line" in done.stderr
    assert jobs.list().total == 0


def test_watch_restarts_a_job_whose_files_change(jobs: Jobs, project: Path) -> None:
    (project / "src").mkdir()
    text = '[jobs.api]\ncommand = "cat src/version; sleep 1000"\nwatch = ["src"]\n[jobs.db]\ncommand = "sleep 1000"\n'
    (project / "tmuxjobs.toml").write_text(text)
    (project / "src" / "version").write_text("one\n")
    argv = ["env", "--default-signal=INT", *PROGRAM, "up", "--watch"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as staying:
        assert staying.stderr is not None
        assert "watching for changes" in staying.stderr.readline()
        first = {job.job_id for job in jobs.list().jobs}
        (project / "new").write_text("two\n")
        # One change: a file that is written anew is empty first, and may be seen so.
        (project / "new").rename(project / "src" / "version")
        line = staying.stderr.readline()
        staying.send_signal(signal.SIGINT)
    assert staying.returncode == 130
    [new] = {job.job_id for job in jobs.list().jobs if job.status == "running"} - first
    assert line == f"[version has changed: {new} is api now]\n"
    assert jobs.wait(new, pattern="two", timeout=100).reason == "pattern"
    assert [job.status for job in jobs.list(name="db-").jobs] == ["running"]


def test_watch_without_anything_to_watch_is_refused(run: Run, project: Path) -> None:
    (project / "tmuxjobs.toml").write_text('[jobs.db]\ncommand = "sleep 1000"\n')
    done = run("up", "--watch")
    assert done.returncode == 2
    assert "None of these jobs has `watch`" in done.stderr


def test_missing_path_of_watch_keeps_nothing_but_watching(run: Run, project: Path) -> None:
    (project / "tmuxjobs.toml").write_text('[jobs.api]\ncommand = "sleep 1000"\nwatch = ["gone"]\n')
    refused = run("up", "--watch")
    assert (refused.returncode, "/gone' in watch does not exist; nothing was started" in refused.stderr) == (2, True)
    assert run("up").returncode == 0
    assert run("down").returncode == 0
