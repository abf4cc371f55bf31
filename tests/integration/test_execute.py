"""What starting a job promises."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Person, Tmux, ended, log_of, record_of, wait_until

from tmuxjobs import Jobs, Settings
from tmuxjobs.errors import InvalidInput, NotStarted, StateError, TmuxError


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
    assert not [path for path in folder.iterdir() if path.is_file() and b"s3cr3t-v4lue" in path.read_bytes()]


def test_job_has_a_terminal_of_a_known_size(jobs: Jobs) -> None:
    assert output_of(jobs, "test -t 0 && test -t 1 && test -t 2 && stty size") == "50 220\n"


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
    started = jobs.execute("trap 'echo caught; exit 7' INT; echo ready; sleep 100")
    someone = person(f"mcp-jobs:{started.job_id}")
    wait_until(lambda: jobs.output(started.job_id).stdout, lambda text: "ready" in text)
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
