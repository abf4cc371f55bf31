"""What runs in tmux needs no installed package, and no search for Python, a job or a command finds it."""

import json
import os
import py_compile
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Jobs, Screen, Tmux, ended, in_panes, record_of, wait_until

from tmuxjobs.errors import NotStarted
from tmuxjobs.pane.recorder_link import RecorderLink, Refused
from tmuxjobs.settings import Settings
from tmuxjobs.store import units
from tmuxjobs.verbs import prune

Open = Callable[..., Screen]


class Installation:
    """A virtual environment and a checkout, which can be moved away while jobs run."""

    def __init__(self, folder: Path) -> None:
        self.venv, self.checkout = folder / "venv", folder / "checkout"
        argv = [sys.executable, "-m", "venv", "--without-pip", str(self.venv)]
        subprocess.run(argv, check=True, cwd="/")
        shutil.copytree(units.PACKAGE, self.checkout / "tmuxjobs", ignore=shutil.ignore_patterns("__pycache__"))
        (site,) = self.venv.glob("lib/python3*/site-packages")
        (site / "tmuxjobs.pth").write_text(f"{self.checkout}\n{sysconfig.get_path('purelib')}\n")

    def __call__(self, *argv: str) -> str:
        line = [str(self.venv / "bin" / "python"), "-m", "tmuxjobs", *argv]
        done = subprocess.run(line, capture_output=True, text=True, cwd="/", timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def move(self) -> None:
        for place in (self.venv, self.checkout):
            place.rename(place.with_name(f"{place.name}.away"))


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


@pytest.mark.parametrize("separate", [False, True])
def test_job_goes_on_and_ends_right_when_its_installation_is_moved_away(
    installed: Installation, jobs: Jobs, tmux: Tmux, separate: bool
) -> None:
    more = ["--separate-stderr"] if separate else []
    job_id = installed("execute", "--quiet", "--name", "stays", *more, "--", "read x; echo later; exit 3").split()[0]
    installed.move()
    (recorder,) = wait_until(lambda: in_panes(jobs, "recorder", job_id))
    os.kill(recorder.pid, signal.SIGKILL)
    wait_until(lambda: jobs.status(job_id).log, lambda log: "replaced 1 times" in log)
    (another,) = wait_until(lambda: in_panes(jobs, "recorder", job_id))
    assert another.pid != recorder.pid
    tmux("send-keys", "-t", record_of(jobs, job_id).run.pane, "go", "Enter")  # type: ignore[union-attr]
    status = ended(jobs, job_id)
    assert (status.exit_code, status.reason) == (3, "exit")
    assert "later" in jobs.output(job_id).stdout


def test_windows_live_on_when_the_installation_is_moved_and_find_the_next(
    installed: Installation, jobs: Jobs, screen: Open
) -> None:
    job_id = installed("execute", "--quiet", "--name", "stays", "--", "printf %s%s rea dy; read x; exit 3").split()[0]
    installed.move()
    person = screen(rows=30, columns=100)
    person.until("Enter go to it", job_id)
    person.press("Enter")
    person.until("ready")
    person.press("Enter")
    person.until("failed after", "r run again", "x close")
    person.press("r")
    person.until("tmuxjobs was moved or removed: install it, run `tmuxjobs list`, press again")
    Jobs.open(Settings.load())
    person.press("r")
    wait_until(lambda: jobs.list().total, lambda total: total == 2)


def test_adopter_needs_no_installation(installed: Installation, jobs: Jobs, tmux: Tmux) -> None:
    jobs.host.ensure_session()
    pane = tmux("new-window", "-d", "-P", "-F", "#{pane_id}", "-t", "=mcp-jobs:", "-n", "mine", "sh").strip()
    job_id = installed("adopt", "--quiet", "mine").split()[0]
    installed.move()
    (recorder,) = wait_until(lambda: in_panes(jobs, "recorder", job_id))
    os.kill(recorder.pid, signal.SIGKILL)
    wait_until(lambda: jobs.status(job_id).log, lambda log: "replaced 1 times" in log)
    tmux("send-keys", "-t", pane, "exit 4", "Enter")
    assert ended(jobs, job_id).exit_code == 4
    wait_until(lambda: tmux("capture-pane", "-p", "-t", pane), lambda text: "failed after" in text)


def found_by(pattern: str, *options: str) -> set[int]:
    """What `pkill` with these arguments would signal."""
    done = subprocess.run(["pgrep", *options, "--", pattern], capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    return {int(pid) for pid in done.stdout.split()}


@pytest.mark.skipif(shutil.which("pgrep") is None, reason="there is no pgrep")
def test_search_for_python_or_for_a_job_finds_nothing_of_ours(jobs: Jobs, tmux: Tmux) -> None:
    running = jobs.execute("sleep 1000 # webpack serve", name="webpack", separate_stderr=True).job_id
    over = jobs.execute("true node build", name="node").job_id
    ended(jobs, over)
    tmux("new-window", "-d", "-t", "=mcp-jobs:", "-n", "vite", "sleep 1001")
    watched = jobs.adopt("vite", name="vite").job_id
    roles = {"runner": running, "recorder": running, "finished": over, "adopter": watched, "welcome": ""}
    every = {
        role: wait_until(lambda role=role, job_id=job_id: in_panes(jobs, role, job_id))
        for role, job_id in roles.items()
    }  # type: ignore[misc]
    ours = {one.pid for found in every.values() for one in found} | {int(tmux("display-message", "-p", "#{pid}"))}
    ours |= {one.pid for one in wait_until(lambda: in_panes(jobs, "recorder"), lambda found: len(found) > 1)}
    assert len(ours) >= 7
    names = ["webpack", "node", "vite", running, over, watched, "sleep", "build"]
    for pattern in ["python", "python3", "[Pp]ython", "py$", "node", *names]:
        for options in ((), ("-f",), ("-x",), ("-fx",)):
            assert not found_by(pattern, *options) & ours, (pattern, options)
    assert found_by("tmuxjobs-job") >= {one.pid for one in in_panes(jobs, "runner")}


def test_variable_of_ours_is_not_in_a_jobs_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMUXJOBS_RUN", "another-1")
    jobs = Jobs.open(Settings.load())
    job_id = jobs.execute("env").job_id
    ended(jobs, job_id)
    assert "TMUXJOBS_JOB_ID=" in jobs.output(job_id).stdout
    assert "TMUXJOBS_RUN" not in jobs.output(job_id).stdout


def test_next_job_makes_anew_what_a_person_removed(jobs: Jobs) -> None:
    jobs.execute("true")
    shutil.rmtree(jobs.host.store.pane)
    jobs.prune()
    assert ended(jobs, jobs.execute("exit 4").job_id).exit_code == 4
    shutil.rmtree(jobs.host.unit().folder)
    assert ended(jobs, Jobs.open(Settings.load()).execute("exit 5").job_id).exit_code == 5


def with_a_bug(jobs: Jobs, line: str) -> list[Path]:
    """Has a runner carry out that line too from now on; the files that tell of bugs so far."""
    ended(jobs, jobs.execute("true").job_id)
    [unit] = (jobs.host.store.root / "pane").glob("[0-9a-f]" * 16)
    source = unit / "tmuxjobs" / "pane" / "runner.py"
    wrong = unit.parent.parent.parent / "runner.py"
    wrong.write_text(f"{source.read_text()}\n{line}\n")
    [compiled] = (source.parent / "__pycache__").glob("runner.*.pyc")
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(wrong), str(compiled), str(source), invalidation_mode=unchecked)
    os.utime(compiled)  # no other test gets this unit
    return bugs_of(jobs)


def bugs_of(jobs: Jobs) -> list[Path]:
    return [*jobs.host.store.root.glob("bug-*.txt")]


def test_bug_in_a_start_is_told_with_its_file(jobs: Jobs) -> None:
    assert with_a_bug(jobs, "Runner.take_environment = lambda self: {}['nix']") == []
    with pytest.raises(NotStarted, match="this is a bug of tmuxjobs; what happened is in") as error:
        jobs.execute("true")
    [file] = bugs_of(jobs)
    assert str(file) in str(error.value)
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    assert "KeyError: 'nix'" in text
    assert text.startswith("Python ")
    assert jobs.list().total == 1
    jobs.prune()
    assert file.exists()


def test_bug_in_a_running_job_leaves_a_file(jobs: Jobs) -> None:
    assert with_a_bug(jobs, "Runner.step = lambda self: {}['nix']") == []
    job_id = jobs.execute("sleep 1000").job_id
    assert ended(jobs, job_id).status == "lost"
    assert "KeyError: 'nix'" in wait_until(lambda: bugs_of(jobs))[0].read_text()


def test_unit_that_a_record_names_stays(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    used = Path(jobs.host.unit().folder)
    unused = used.with_name("0123456789abcdef")
    shutil.copytree(used, unused, symlinks=True)
    for path in (used, unused):
        at = path.stat().st_mtime - units.UNUSED_S - 100
        os.utime(path, (at, at))
    prune.prune(jobs.host)
    assert (used.exists(), unused.exists()) == (True, False)
    jobs.kill(job_id)
    assert Path(record_of(jobs, job_id).job.pane).exists()


# Of 0.1.0, whose runners know files of the package by path


def test_older_runner_gets_a_recorder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "recorder")
    fifo = os.open(tmp_path / "recorder", os.O_RDONLY | os.O_NONBLOCK)
    argv = [sys.executable, "-I", "-S", str(units.PACKAGE / "recorder.py"), str(tmp_path), "123", "0", "0"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, cwd="/") as process:
        assert process.stdin is not None
        select.select([fifo], [], [], 30)
        assert b'"ready"' in os.read(fifo, 4096)
        process.stdin.write(b"all\x1b]7717;123;0\x07")
        process.stdin.close()
        assert process.wait(30) == 0
    os.close(fifo)
    assert (tmp_path / "output.log").read_bytes() == b"all"


def test_older_runner_becomes_the_keeper_of_its_window(jobs: Jobs, tmux: Tmux) -> None:
    job_id = jobs.execute("exit 3").job_id
    ended(jobs, job_id)
    script, folder = str(units.PACKAGE / "pages.py"), str(jobs.host.store.folder(job_id))
    argv = [sys.executable, "-I", "-S", "-X", "utf8", script, "ended", folder]
    pane = tmux("new-window", "-d", "-P", "-F", "#{pane_id}", "-t", "=mcp-jobs:", "-c", "/", *argv).strip()
    wait_until(lambda: tmux("display-message", "-p", "-t", pane, "#{cursor_flag}").strip(), lambda shown: shown == "0")
    tmux("send-keys", "-t", pane, "r")
    wait_until(lambda: jobs.list().total, lambda total: total == 2)


def test_older_server_can_read_what_is_started_now(jobs: Jobs) -> None:
    record = json.loads((jobs.host.store.folder(jobs.execute("true").job_id) / "job.json").read_text())
    older = json.loads((Path(__file__).parents[1] / "unit/data/format-1/job.json").read_text())
    assert {name: type(value) for name, value in older.items() if value is not None}.items() <= {
        name: type(value) for name, value in record.items()
    }.items()


def test_runner_asks_no_other_server_than_that_of_its_window(
    jobs: Jobs, tmux: Tmux, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = record_of(jobs, jobs.execute("sleep 1000").job_id)
    wait_until(lambda: jobs.status(record.id).pid)
    pane = jobs.host.tmux.panes()[record.id].pane_id
    socket, server_pid = tmux("display-message", "-p", "#{socket_path} #{pid}").split()
    monkeypatch.setenv("TMUX_PANE", pane)
    said = []
    for pid in (server_pid, str(os.getpid())):
        monkeypatch.setenv("TMUX", f"{socket},{pid},0")
        link = RecorderLink(str(jobs.host.store.folder(record.id)), record.job.model_dump(mode="json"))
        try:
            said.append(link.tmux(["display-message", "-p", "-t", pane, 'it\'s "$HOME"; #{pane_id}']).decode())
            link.tmux(["set-option", "-p", "-t", pane, "@seen", pid])
        except Refused as error:
            said.append(str(error))
    assert said == [f'it\'s "$HOME"; {pane}\n', "the tmux server ended"]
    assert tmux("show-options", "-pv", "-t", pane, "@seen").strip() == server_pid


def test_window_whose_end_could_not_be_marked_is_marked_later(
    tmux: Tmux, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a machine has no more processes for a while; until then it would count as running in the status line."""
    gate, out, program = tmp_path / "go", tmp_path / "no-tmux", tmp_path / "bin" / "tmux"
    program.parent.mkdir()
    fails = f"[ -e {out} ] && echo out of processes >&2 && exit 1"
    program.write_text(f'#!/bin/sh\n{fails}\nexec {shutil.which("tmux")} "$@"\n')
    program.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        jobs = Jobs.open(Settings.load(keep_windows=0))
        job_id = jobs.execute(f"until [ -e {gate} ]; do sleep 0.02; done; exit 3").job_id
    pane = record_of(jobs, job_id).run.pane  # type: ignore[union-attr]

    def mark() -> str:
        return tmux("show-options", "-wqv", "-t", pane, "@tmuxjobs_end").strip()

    out.touch()
    gate.touch()
    wait_until(lambda: in_panes(jobs, "finished", job_id))
    assert mark() == ""
    out.unlink()
    assert wait_until(mark) == "exit 3"
    Jobs.open(Settings.load(keep_windows=0)).prune()
    wait_until(
        lambda: tmux("list-windows", "-t", "=mcp-jobs", "-F", "#{window_name}").split(), lambda left: left == ["jobs"]
    )
