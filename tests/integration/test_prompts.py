"""Who waits for input is told, with the prompt; who does not is not, and what cannot be known is not guessed."""

import os
import signal
from pathlib import Path

import pytest
from support import needs, wait_until

from tmuxjobs import Jobs
from tmuxjobs.system import terminals

pytestmark = pytest.mark.skipif(not terminals.LINUX, reason="elsewhere nothing tells who reads a terminal")
PYTHON = "python3 -X frozen_modules=on -c"
SOCKET = "import select, socket; a, b = socket.socketpair();"
BUSY = "import select; print('> ', end='', flush=True)\nwhile 1:"
ASKING = {
    "read with a prompt": ("read -p 'Name? ' x", "input", "Name? "),
    "read after a line": ("echo 'Your name:'; read x", "input", "Your name:"),
    "read without a word": ("read x", "input", ""),
    "input()": (f"{PYTHON} \"input('Proceed? [y/N] ')\"", "input", "Proceed? [y/N] "),
    "a shell": ("PS1='sh> ' bash --norc --noprofile -i", "input", "sh> "),
    "a REPL that selects": ("python3 -q", "input", ">>> "),
    "a REPL that uses epoll": ("node", "input", "> "),
    "a debugger": ("gdb -q", "input", "(gdb) "),
    "a password": (f"{PYTHON} 'import getpass; getpass.getpass()'", "password", "Password: "),
    "a password read from /dev/tty": ("stty -echo; printf 'Key: '; cat < /dev/tty | wc -c", "password", "Key: "),
    "a PIN asked with echo": ("read -p 'Enter PIN: ' x", "password", "Enter PIN: "),
    "a child of a shell": ("bash --norc -c 'set -m; python3 -c \"input(1)\"; true'", "input", "1"),
    "a prompt on a stderr of its own": ("printf 'Name? ' >&2; read x", "input", "Name? "),
}
SILENT = {
    "one that sleeps behind an open line": "printf 'Working... '; sleep 1000",
    "one that polls a socket": f"{PYTHON} \"{SOCKET} print('>', end=' ', flush=True); select.select([a], [], [])\"",
    "one that reads a socket": f"{PYTHON} \"{SOCKET} print('>', end=' ', flush=True); a.recv(1)\"",
    "one that works": f'{PYTHON} "{BUSY} pass"',
    "one that polls and works": f'{PYTHON} "{BUSY} select.select([0], [], [], 0)"',
    "one that hides the echo and sleeps": "stty -echo; printf 'Key: '; sleep 1000",
    "a server with an ear for keys": (
        "node -e \"process.stdin.setRawMode(true); process.stdin.resume(); console.log('press h')\""
    ),
    "one that reads a pipe": "printf '> '; sleep 1000 | cat",
}


NOT_EVERYWHERE = {"node", "gdb"}
LOOKS = 30


@pytest.mark.parametrize("name", ASKING)
def test_who_asks_is_told_with_the_prompt(jobs: Jobs, name: str) -> None:
    command, waits_for, prompt = ASKING[name]
    if command.split()[0] in NOT_EVERYWHERE:
        needs(command.split()[0])
    job_id = jobs.execute(command, separate_stderr="stderr" in name).job_id
    status = wait_until(lambda: jobs.status(job_id), lambda status: status.waits_for and status.prompt == prompt)
    assert (status.waiting_for_input, status.waits_for) == (True, waits_for)
    wait_until(lambda: [job.waits_for for job in jobs.list().jobs], lambda told: told == [waits_for])


@pytest.mark.parametrize("name", SILENT)
def test_who_does_not_ask_is_not_told(jobs: Jobs, name: str) -> None:
    if SILENT[name].split()[0] in NOT_EVERYWHERE:
        needs(SILENT[name].split()[0])
    job_id = jobs.execute(SILENT[name]).job_id
    wait_until(lambda: jobs.status(job_id).log_bytes)
    assert [jobs.status(job_id).waits_for for _ in range(LOOKS)] == [None] * LOOKS
    assert "waits" not in jobs.list().text()


def test_stopped_program_does_not_ask(jobs: Jobs) -> None:
    job_id = jobs.execute("exec python3 -c \"input('Name? ')\"").job_id
    pid = wait_until(lambda: jobs.status(job_id), lambda status: status.waits_for).pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: jobs.status(job_id).waits_for, lambda waits_for: waits_for is None)
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: jobs.status(job_id).waits_for)


def test_full_screen_program_asks_with_the_line_of_its_cursor(jobs: Jobs, tmp_path: Path) -> None:
    needs("less")
    (tmp_path / "file").write_text("line\n" * 500)
    job_id = jobs.execute("PAGER= less file", cwd=str(tmp_path)).job_id
    assert wait_until(lambda: jobs.status(job_id).prompt) == "file"


def test_for_a_password_the_person_is_asked_for_with_the_line_to_type(jobs: Jobs) -> None:
    job_id = jobs.execute("python3 -c 'import getpass; getpass.getpass()'").job_id
    told = wait_until(lambda: jobs.status(job_id), lambda status: status.waits_for).text()
    assert f"ask the person to type it there: tmux attach -t mcp-jobs:{job_id}" in told


def test_finished_job_does_not_ask(jobs: Jobs) -> None:
    job_id = jobs.execute("printf 'Name? '").job_id
    status = wait_until(lambda: jobs.status(job_id), lambda status: status.status == "completed")
    assert status.waits_for is None


@pytest.fixture
def no_system_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where Yama guards processes, which is most desktops."""

    def refuse(_: str) -> list[int]:
        raise PermissionError

    monkeypatch.setattr(terminals, "_sleeps_in", refuse)


@pytest.mark.usefixtures("no_system_calls")
@pytest.mark.parametrize(
    "name",
    ["a REPL that selects", "a debugger", "a REPL that uses epoll", "read with a prompt", "a password", "a shell"],
)
def test_prompt_is_seen_where_system_calls_may_not_be_looked_at(jobs: Jobs, name: str) -> None:
    test_who_asks_is_told_with_the_prompt(jobs, name)


@pytest.mark.usefixtures("no_system_calls")
@pytest.mark.parametrize("name", ["one that reads a socket", "one that polls a socket", "one that reads a pipe"])
def test_nothing_is_guessed_where_system_calls_may_not_be_looked_at(jobs: Jobs, name: str) -> None:
    test_who_does_not_ask_is_not_told(jobs, name)


@pytest.mark.usefixtures("no_system_calls")
def test_password_is_seen_where_not_even_the_open_files_are(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = jobs.execute("python3 -c 'import getpass; getpass.getpass()'").job_id
    monkeypatch.setattr(terminals, "_of_wchan", lambda *_: "unknown")  # as of sudo, which is another user's
    assert wait_until(lambda: jobs.status(job_id).waits_for) == "password"
