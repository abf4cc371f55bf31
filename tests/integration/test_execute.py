"""What starting a job promises."""

import contextlib
import os
import secrets
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from support import (
    Jobs,
    Person,
    Tmux,
    change_pane,
    contents,
    ended,
    in_panes,
    log_of,
    record_of,
    sleeping,
    wait_until,
)

from tmuxjobs import Settings
from tmuxjobs.errors import InvalidInput, LimitReached, NotStarted, StateError, TmuxError
from tmuxjobs.hosts.local import Host
from tmuxjobs.system import job_processes


def output_of(jobs: Jobs, command: str, **options: object) -> str:
    started = jobs.execute(command, **options)  # type: ignore[arg-type]
    ended(jobs, started.job_id)
    return jobs.output(started.job_id).stdout


def test_log_is_whole_when_the_end_is_first_told(jobs: Jobs) -> None:
    started = jobs.execute("seq 1 20000; exit 3")
    status = ended(jobs, started.job_id)
    assert log_of(status) == b"".join(b"%d\r\n" % number for number in range(1, 20001))
    assert (status.status, status.exit_code, status.reason, status.log) == ("failed", 3, "exit", "complete")


def test_job_is_a_window_of_the_session(jobs: Jobs, tmux: Tmux) -> None:
    started = jobs.execute("sleep 100", name="Build & Test")
    names = tmux("list-windows", "-t", "=mcp-jobs", "-F", "#{window_name}").split()
    assert started.job_id in names
    assert started.job_id.startswith("build-test-")


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        ("echo a | tr a b && echo $((1 + 1))", "b\n2\n"),
        ("X=1; echo $X; [[ a == a ]] && echo bash", "1\nbash\n"),
        ("cat <<EOF\none\n  two\nEOF", "one\n  two\n"),
        ("echo ünïcödé 漢字", "ünïcödé 漢字\n"),
        ("echo 'a;'; echo b;", "a;\nb\n"),
        ("printf '#{pane_id} %%H #(id)'", "#{pane_id} %H #(id)"),
    ],
)
def test_command_is_a_shell_command_line(jobs: Jobs, command: str, printed: str) -> None:
    assert output_of(jobs, command) == printed


def test_command_may_be_100_kb_long(jobs: Jobs) -> None:
    assert output_of(jobs, "echo " + "x" * 102_400 + " | wc -c").strip() == "102401"


def test_environment_is_the_callers_not_that_of_tmux(jobs: Jobs, tmux: Tmux, monkeypatch: pytest.MonkeyPatch) -> None:
    tmux("new-session", "-d", "-s", "mine")
    tmux("set-environment", "-g", "FROM_TMUX", "1")
    monkeypatch.setenv("FROM_CALLER", "two words")
    later = Jobs.open()
    printed = output_of(later, "echo $FROM_CALLER $FROM_TMUX $GIVEN $PAGER $GIT_PAGER", env={"GIVEN": "x\ny"})
    assert printed == "two words x y cat cat\n"


def test_environment_is_not_at_rest_once_the_job_runs(jobs: Jobs) -> None:
    started = jobs.execute("sleep 100", env={"TOKEN": "s3cr3t-v4lue"})
    folder = Path(started.log_path).parent
    assert not [path for path, content in contents(folder).items() if b"s3cr3t-v4lue" in content]


def test_job_has_a_terminal_of_a_known_size(jobs: Jobs) -> None:
    assert output_of(jobs, "test -t 0 && test -t 1 && test -t 2 && stty size") == "50 100\n"


def test_cwd_is_relative_to_the_callers(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a b#(c)").mkdir()
    monkeypatch.chdir(tmp_path)
    assert output_of(Jobs.open(), "pwd", cwd="a b#(c)") == f"{tmp_path}/a b#(c)\n"


def test_working_dir_setting_is_the_default_cwd(tmp_path: Path) -> None:
    assert output_of(Jobs.open(Settings.load(working_dir=tmp_path)), "pwd") == f"{tmp_path}\n"


def test_umask_of_the_caller_is_the_jobs(jobs: Jobs, tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        output_of(jobs, "touch made", cwd=str(tmp_path))
    finally:
        os.umask(old)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o640


def test_broken_pipe_is_silent(jobs: Jobs) -> None:
    assert output_of(jobs, "yes | head -n 2") == "y\ny\n"


def test_separate_stderr_keeps_the_two_apart_and_shows_both(jobs: Jobs, tmux: Tmux) -> None:
    started = jobs.execute("echo out; echo err >&2; test -t 1 && echo terminal; exit 4", separate_stderr=True)
    status = ended(jobs, started.job_id)
    answer = jobs.output(started.job_id)
    assert (answer.stdout, answer.stderr, status.exit_code) == ("out\nterminal\n", "err\n", 4)
    pane = record_of(jobs, started.job_id).run.pane  # type: ignore[union-attr]
    assert {"out", "err"} <= set(tmux("capture-pane", "-p", "-S", "-", "-t", pane).split())


def test_large_separate_stderr_is_whole(jobs: Jobs) -> None:
    started = jobs.execute("seq 1 50000 >&2 & seq 50001 100000; wait", separate_stderr=True)
    status = ended(jobs, started.job_id)
    assert status.stderr_path is not None
    assert Path(status.stderr_path).read_bytes() == b"".join(b"%d\r\n" % n for n in range(1, 50001))
    assert log_of(status) == b"".join(b"%d\r\n" % n for n in range(50001, 100001))


def test_other_shell_may_be_named(jobs: Jobs) -> None:
    assert output_of(jobs, "echo $0", shell="sh") == "sh\n"


@pytest.mark.parametrize("shell", ["bash -l", "bash --login", "bash -lc", "/bin/bash -l -e -o pipefail"])
def test_shell_may_have_options(jobs: Jobs, isolated: Path, shell: str) -> None:
    (isolated / "home" / ".bash_profile").write_text("export FROM_PROFILE=yes\n")
    job_id = jobs.execute("echo $0 $FROM_PROFILE; shopt login_shell", shell=shell).job_id
    assert ended(jobs, job_id).exit_code == 0
    assert jobs.output(job_id).stdout.split() == ["bash", "yes", "login_shell", "on"]
    again = ended(jobs, jobs.restart(job_id).job_id)
    assert jobs.output(again.job_id).stdout == jobs.output(job_id).stdout


def test_options_of_a_shell_are_the_commands(jobs: Jobs) -> None:
    job_id = jobs.execute("false | true", shell="bash -o pipefail").job_id
    assert ended(jobs, job_id).exit_code == 1


def test_shell_of_a_path_with_a_blank_is_found(jobs: Jobs, tmp_path: Path) -> None:
    (tmp_path / "my shells").mkdir()
    (tmp_path / "my shells" / "sh").symlink_to("/bin/sh")
    job_id = jobs.execute("echo $0", shell=f"{tmp_path}/my shells/sh").job_id
    ended(jobs, job_id)
    assert jobs.output(jobs.restart(job_id).restarted).stdout == "sh\n"


def test_job_has_a_locale_where_none_is_set(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LANG", "LC_ALL", "LC_CTYPE"):
        monkeypatch.delenv(name, raising=False)
    bare = Jobs.open()
    assert output_of(bare, "locale charmap; echo $LANG") == "UTF-8\nC.UTF-8\n"
    assert output_of(bare, "echo $LANG.$LC_ALL.", env={"LC_ALL": "C"}) == ".C.\n"
    assert output_of(bare, "echo $LANG.", env={"LANG": ""}) == ".\n"
    monkeypatch.setenv("LANG", "POSIX")
    assert output_of(Jobs.open(), "echo $LANG") == "POSIX\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"command": "  "}, "The command is empty"),
        ({"command": "a\0b"}, "NUL"),
        ({"command": "x" * 200_000}, "200000 bytes long"),
        ({"command": "ls", "cwd": "/no/such"}, "cwd '/no/such' is not a directory"),
        ({"command": "ls", "cwd": "~nosuchuser/x"}, "cwd '.*/~nosuchuser/x' is not a directory"),
        ({"command": "ls", "cwd": "/" + "x" * 5000}, r"cwd '/x{199}\.\.\.' is not a directory"),
        ({"command": "ls", "cwd": "x/" * 5000}, r"x\.\.\.' is not a directory|/\.\.\.' is not a directory"),
        ({"command": "ls", "shell": "~nosuchuser/sh"}, "no shell '~nosuchuser/sh'"),
        ({"command": "ls", "shell": "x" * 5000}, "There is no shell"),
        ({"command": "ls", "shell": "a\0b"}, "There is no shell|NUL"),
        ({"command": "ls", "shell": "nosuchshell"}, "no shell 'nosuchshell'"),
        ({"command": "ls", "shell": "bash script.sh"}, "shell takes a shell and its options, like 'bash -l'"),
        ({"command": "ls", "shell": "bash -c 'echo x'"}, "shell takes a shell and its options, like 'bash -l'"),
        ({"command": "ls", "shell": "nosuchshell -l"}, "no shell 'nosuchshell'"),
        ({"command": "ls", "shell": "bash 'a"}, "no shell \"bash 'a\"|no shell 'bash 'a'"),
        ({"command": "ls", "timeout": 0}, "timeout must be"),
        ({"command": "ls", "timeout": float("nan")}, "timeout must be"),
        ({"command": "ls", "env": {"A=B": "c"}}, "'A=B' in env"),
        ({"command": "ls", "env": {"A": "c\0"}}, "'A' in env"),
    ],
)
def test_bad_argument_is_refused_and_leaves_nothing(jobs: Jobs, arguments: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        jobs.execute(**arguments)  # type: ignore[arg-type]
    assert jobs.list().total == 0


def test_name_never_reaches_a_shell_or_a_format(jobs: Jobs, tmp_path: Path) -> None:
    started = jobs.execute("true", name=f"#(touch {tmp_path}/x)`id`$(id)", cwd=str(tmp_path))
    ended(jobs, started.job_id)
    assert not (tmp_path / "x").exists()
    assert set(started.job_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_failed_start_leaves_nothing(jobs: Jobs, tmp_path: Path, tmux: Tmux) -> None:
    shell = tmp_path / "shell"
    shell.write_text("#!/no/such/interpreter\n")
    shell.chmod(0o755)
    with pytest.raises(NotStarted, match="No such file"):
        jobs.execute("ls", shell=str(shell))
    assert jobs.list().total == 0
    wait_until(lambda: tmux("list-windows", "-t", "=mcp-jobs").count("\n"), lambda count: count == 1)


def test_missing_tmux_is_one_clear_sentence(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TmuxError, match="tmux is not installed"):
        Jobs.open().execute("ls")
    assert jobs.list().total == 0


def test_old_tmux_is_refused(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmux").write_text("#!/bin/sh\necho tmux 2.9a\n")
    (tmp_path / "tmux").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(TmuxError, match=r"tmux 2\.9a is too old: tmuxjobs needs tmux 3\.2a"):
        Jobs.open().execute("ls")
    assert jobs.list().total == 0


def test_state_dir_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StateError, match="set TMUXJOBS_STATE_DIR"):
        Jobs.open(Settings.load(state_dir=tmp_path / "state"))


def test_relative_tmux_tmpdir_socket_of_another_is_one_sentence(isolated: Path) -> None:
    folder = isolated / f"tmux-{os.getuid()}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with pytest.raises(TmuxError, match="unsafe permissions"):
        Jobs.open().execute("ls")
    assert Jobs.open().list().total == 0


def test_person_types_into_the_job(jobs: Jobs, person: Callable[..., Person]) -> None:
    started = jobs.execute("read -p 'Name? ' name; echo hello $name")
    someone = person(f"mcp-jobs:{started.job_id}")
    wait_until(lambda: someone.screen(), lambda screen: "Name?" in screen)
    someone.type("Ada\r")
    ended(jobs, started.job_id)
    assert jobs.output(started.job_id).stdout == "Name? Ada\nhello Ada\n"
    wait_until(lambda: someone.screen(), lambda screen: "exit code 0" in screen)


def test_ctrl_c_of_a_person_reaches_the_job_alone(jobs: Jobs, person: Callable[..., Person]) -> None:
    seconds = 1000 + secrets.randbelow(10**8)
    started = jobs.execute(f"trap 'echo caught; exit 7' INT; sleep {seconds}")
    someone = person(f"mcp-jobs:{started.job_id}")
    wait_until(lambda: sleeping(seconds))
    someone.type("\x03")
    status = ended(jobs, started.job_id)
    assert (status.status, status.exit_code) == ("failed", 7)


def test_ctrl_z_does_not_leave_a_stopped_job(jobs: Jobs, person: Callable[..., Person]) -> None:
    started = jobs.execute("sleep 0.1; echo ready; read x; echo got $x")
    someone = person(f"mcp-jobs:{started.job_id}")
    wait_until(lambda: jobs.output(started.job_id).stdout, lambda text: "ready" in text)
    someone.type("\x1a")
    someone.type("more\r")
    assert ended(jobs, started.job_id).exit_code == 0


def test_ctrl_s_of_a_person_does_not_stop_the_output(jobs: Jobs, person: Callable[..., Person]) -> None:
    started = jobs.execute("read x; echo answered")
    someone = person(f"mcp-jobs:{started.job_id}")
    someone.type("\x13\r")
    assert ended(jobs, started.job_id).exit_code == 0
    assert "answered" in jobs.output(started.job_id).stdout


def test_command_that_ended_at_once_is_told_with_its_code_and_output(jobs: Jobs) -> None:
    answers = iter(lambda: jobs.execute("echo at once; exit 3"), None)
    text = next(answer.text() for answer in answers if answer.status != "running")
    assert "at once" in text
    assert "exit code 3" in text
    assert "watch:" not in text


def test_reuse_answers_about_the_job_of_that_name_that_has_not_ended(jobs: Jobs) -> None:
    first = jobs.execute("echo up; cat", name="web", reuse=True)
    again = jobs.execute("echo another; cat", name="web", reuse=True)
    assert (first.reused, again.reused, again.job_id) == (None, True, first.job_id)
    waited = jobs.execute("cat", name="web", reuse=True, wait=30, pattern="up")
    assert (waited.job_id, waited.reason, waited.reused) == (first.job_id, "pattern", True)
    assert waited.text().endswith(f"{first.job_id} had not ended, so nothing was started.\nwatch: {waited.attach}")
    assert jobs.execute("cat", name="web").job_id != first.job_id
    for job in jobs.list().jobs:
        jobs.kill(job.job_id)
    assert jobs.execute("cat", name="web", reuse=True).reused is None


def test_reuse_takes_a_queued_job_and_none_of_another_project(jobs: Jobs, tmp_path: Path) -> None:
    waits = jobs.execute("true", name="later", delay=1000).job_id
    assert jobs.execute("true", name="later", reuse=True).job_id == waits
    elsewhere = Jobs(Host(jobs.host.settings, environ=jobs.host.environ, cwd=tmp_path))
    assert elsewhere.execute("true", name="later", reuse=True).job_id != waits


def test_reuse_without_a_name_is_refused(jobs: Jobs) -> None:
    with pytest.raises(InvalidInput, match="reuse needs `name`"):
        jobs.execute("true", reuse=True)
    assert jobs.list().total == 0


def test_of_many_that_reuse_at_once_one_starts(jobs: Jobs) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: jobs.execute("cat", name="one", reuse=True), range(8)))
    assert len({answer.job_id for answer in answers}) == 1
    assert [answer.reused for answer in answers].count(None) == 1


# An agent's answer, which does not wait for the start


def agent_of(jobs: Jobs) -> Jobs:
    return Jobs(Host(jobs.host.settings, environ=jobs.host.environ, cwd=jobs.host.cwd), caller="agent")


def before_its_start(monkeypatch: pytest.MonkeyPatch, folder: Path, line: str) -> None:
    """Every runner from now on does this before it starts its command."""
    start = "                self.start()\n"
    change_pane(monkeypatch, folder, "runner.py", lambda text: text.replace(start, f"                {line}\n{start}"))


def test_agent_is_answered_once_the_window_is_open(
    jobs: Jobs, tmux: Tmux, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begin = tmp_path / "begin"
    before_its_start(monkeypatch, tmp_path, f"while not os.path.exists({str(begin)!r}): time.sleep(0.01)")
    agent = agent_of(jobs)
    started = agent.execute("read line; echo got $line")
    assert (started.status, started.note) == ("running", "starting")
    assert started.job_id in tmux("list-windows", "-t", "=mcp-jobs", "-F", "#{window_name}").split()
    threading.Timer(0.3, begin.touch).start()
    assert agent.interact(started.job_id, "it", wait=20, pattern="got").stdout == "got it\n"


def test_start_that_fails_after_the_answer_is_how_the_job_ended(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before_its_start(monkeypatch, tmp_path, "time.sleep(0.3); raise Refused('there is no room for it')")
    agent = agent_of(jobs)
    job_id = agent.execute("touch ran", cwd=str(tmp_path)).job_id
    waited = agent.wait(job_id, timeout=20)
    assert (waited.reason, waited.status) == ("exit", "failed")
    assert agent.status(job_id).detail == "not started: there is no room for it"
    with pytest.raises(NotStarted, match="there is no room for it"):
        Jobs(agent.host).execute("touch ran", cwd=str(tmp_path))
    assert not (tmp_path / "ran").exists()


def before_its_record(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Every runner from now on waits for the file `begin` before it does anything."""
    first = "        os.umask(0o077)\n"
    waits = f"        while not os.path.exists({str(folder / 'begin')!r}):\n            time.sleep(0.01)\n"
    change_pane(monkeypatch, folder, "runner.py", lambda text: text.replace(first, first + waits, 1))


@pytest.mark.parametrize("queued_next", [False, True])
def test_start_cut_off_after_the_answer_is_told_at_once_and_takes_no_slot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmux: Tmux, *, queued_next: bool
) -> None:
    before_its_record(monkeypatch, tmp_path)
    jobs = Jobs.open(Settings.load(max_jobs=1))
    agent = agent_of(jobs)
    job_id = agent.execute("touch ran", cwd=str(tmp_path)).job_id
    [runner] = wait_until(lambda: in_panes(jobs, "runner", job_id))
    with pytest.raises(LimitReached):
        agent.execute("true")
    os.kill(int(tmux("display-message", "-p", "#{pid}")), signal.SIGKILL)
    with contextlib.suppress(psutil.NoSuchProcess):  # its terminal's end has ended it
        runner.kill()
    wait_until(lambda: job_processes.start_of(runner.pid) is None)
    status = agent.status(job_id)
    assert (status.status, status.reason) == ("lost", "never-started")
    assert agent.kill(job_id).status == "already_terminated"
    (tmp_path / "begin").touch()
    next_id = agent.execute("exit 3", **({"queue": True} if queued_next else {})).job_id
    assert ended(jobs, next_id).exit_code == 3
    assert not (tmp_path / "ran").exists()


def test_start_that_is_slow_is_not_taken_for_one_that_was_cut_off(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before_its_record(monkeypatch, tmp_path)
    agent = agent_of(jobs)
    job_id = agent.execute("exit 3").job_id
    assert (agent.status(job_id).status, agent.status(job_id).detail) == ("running", "starting")
    (tmp_path / "begin").touch()
    assert ended(jobs, job_id).exit_code == 3
    wait_until(lambda: jobs.host.store.transient(job_id), lambda left: left == [])


def test_job_that_is_just_starting_takes_signals(jobs: Jobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before_its_start(monkeypatch, tmp_path, "time.sleep(0.5)")
    agent = agent_of(jobs)
    job_id = agent.execute("sleep 100").job_id
    assert agent.kill(job_id, signal="STOP", end=False).status == "signalled"
    job_id = agent.execute("sleep 100").job_id
    assert agent.kill(job_id).status == "killed"
    assert agent.status(job_id).status == "killed"
