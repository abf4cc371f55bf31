"""Who waits for input is told, with the prompt; who does not is not, and what cannot be known is not guessed."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from support import Jobs, needs, wait_until

from tmuxjobs.system import terminals
from tmuxjobs.tmux.panes import Pane, Screen

pytestmark = pytest.mark.skipif(not terminals.LINUX, reason="elsewhere nothing tells who reads a terminal")
PYTHON = "python3 -X frozen_modules=on -c"
SOCKET = "import select, socket; a, b = socket.socketpair();"
PROGRAMS = Path(__file__).parents[1] / "programs"
ASKS, WORKS = (f"python3 {PROGRAMS}/{name}.py" for name in ("asks", "works"))
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
    "a line above a row of hints": (f"{ASKS} hint 'Town: '", "input", "Town: "),
    "a line editor in an event loop": (f"{ASKS} toolkit 'In [7]: '", "input", "In [7]: "),
    "a line editor that shows stars": (f"{ASKS} stars '? Enter passphrase '", "password", "? Enter passphrase "),
    "readline without a prompt": ("bash --norc -c 'read -e x'", "input", ""),
    "a menu without a cursor": (f"{ASKS} hidden Pick:", "keys", "Pick:\\n> one\\n  two"),
    "a test runner that watches": (f"{ASKS} watch Tests:", "keys", "Tests:\\n> one\\n  two"),
    "a word of a menu": (f"{ASKS} hidden 'Your passphrase:'", "password", "Your passphrase:\\n> one\\n  two"),
    "a read in a terminal of its own": (f"{WORKS} inner sh -c 'printf \"Go? \"; read x'", "input", "Go? "),
    "a password in a terminal of its own": (
        f"{WORKS} inner python3 -c 'import getpass; getpass.getpass()'",
        "password",
        "Password: ",
    ),
    "a thread that all others wait for": (
        f"{PYTHON} \"import threading; t = threading.Thread(target=input, args=['> ']); t.start(); t.join()\"",
        "input",
        "> ",
    ),
    "a listener of node": (
        "node -e \"console.log('Your name:'); process.stdin.on('data', () => 0)\"",
        "input",
        "Your name:",
    ),
    "a shell in a folder named for passwords": ("PS1='password-reset> ' bash --norc -i", "input", "password-reset> "),
    "a client of a database named so": ("PS1='MariaDB [passwords]> ' bash --norc -i", "input", "MariaDB [passwords]> "),
    "a question about passwords": (
        "read -p 'Password: kept (old). Next: ' x",
        "input",
        "Password: kept (old). Next: ",
    ),
    "a REPL behind an old question": ("printf 'Password: '; python3 -q", "input", "Password: >>> "),
    "a question behind an old one": ("printf 'PIN: '; read -p 'Your town? ' x", "input", "PIN: Your town? "),
    "a password for somebody": (
        "read -p \"Password for 'https://ada@host': \" x",
        "password",
        "Password for 'https://ada@host': ",
    ),
    "one that asks for somebody else": (f"{WORKS} guest", "password", "PIN of the card: "),
    "a child of make": (
        "cd $(mktemp -d); printf 'all:\\n\\t@read -p \"Go on? \" x\\n' > Makefile; make -s -j4 SHELL=/bin/bash",
        "input",
        "Go on? ",
    ),
    "a child of xargs": ("echo one | xargs -o bash -c 'read -p \"Really? \" x'", "input", "Really? "),
    "one whose output is copied": ("(printf 'Sure? '; read x) 2>&1 | tee /dev/null", "input", "Sure? "),
    "a child of node": (
        """node -e "require('child_process').spawn('sh', ['-c', 'printf \\"Age? \\"; read x'], {stdio: 'inherit'})\"""",
        "input",
        "Age? ",
    ),
    "one that asks beside a silent job": ("sleep 1000 & read -p 'Stop it? ' x", "input", "Stop it? "),
    "a child that is waited for in turns": (
        f"{PYTHON} \"import subprocess; subprocess.run('printf Key?; read x', shell=True, timeout=999)\"",
        "input",
        "Key?",
    ),
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
    "one that draws between its looks": f"{WORKS} frames",
    "one that looks now and then": f"{WORKS} counts",
    "one with a thread that reads": f"{WORKS} thread",
    "one that waits for its child too": f"{WORKS} child",
    "one that works in a terminal of its own": f"{WORKS} inner sh -c 'printf \"Working... \"; sleep 1000'",
    "one that copies to a socket": f"{WORKS} socket",
    "one that prints beside a child that reads": (
        f"{PYTHON} \"import subprocess, time; subprocess.Popen(['cat'])\nwhile 1: print('step'); time.sleep(0.5)\""
    ),
    "one that prints beside a job of its shell": "(read x < /dev/tty) & while :; do echo line; sleep 0.4; done",
    "one that prints dots beside a reader": "(head -n 1 < /dev/tty) & while :; do printf .; sleep 0.4; done",
    "one that works beside a child that reads": (
        f"echo go; {PYTHON} \"import subprocess; subprocess.Popen(['cat'])\nwhile 1: pass\""
    ),
    "one that logs what a server sends it": (
        f'{PYTHON} "import select, socket, subprocess, threading, time; a, b = socket.socketpair()\n'
        "threading.Thread(target=lambda: [(a.send(b'x'), time.sleep(0.4)) for _ in range(999)]).start()\n"
        "subprocess.Popen(['cat'])\nwhile select.select([b], [], []): b.recv(1); print('request', flush=True)\""
    ),
    "one that reads a pipe": "printf '> '; sleep 1000 | cat",
}


NOT_EVERYWHERE = {"node", "gdb", "make"}
LOOKS = 30


@pytest.mark.parametrize("name", ASKING)
def test_who_asks_is_told_with_the_prompt(jobs: Jobs, name: str) -> None:
    command, waits_for, prompt = ASKING[name]
    needs(*NOT_EVERYWHERE & set(command.split()))
    job_id = jobs.execute(command, separate_stderr="stderr" in name).job_id
    status = wait_until(lambda: jobs.status(job_id), lambda status: status.waits_for and status.prompt == prompt)
    assert (status.waiting_for_input, status.waits_for) == (True, waits_for)
    wait_until(lambda: [job.waits_for for job in jobs.list().jobs], lambda told: told == [waits_for])


@pytest.mark.parametrize("name", SILENT)
def test_who_does_not_ask_is_not_told(jobs: Jobs, name: str) -> None:
    needs(*NOT_EVERYWHERE & set(SILENT[name].split()))
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


def test_full_screen_program_is_called_one(jobs: Jobs) -> None:
    job_id = jobs.execute(f"printf 'Password: '; {ASKS} screen 'a title'").job_id
    status = wait_until(lambda: jobs.status(job_id), lambda status: status.prompt == "a title")
    assert (status.waits_for, status.full_screen) == ("input", True)
    assert "waits for input in a full-screen program, which `screen` shows: 'a title'" in status.text()
    assert "full-screen program" in jobs.wait(job_id, until="input").note


def test_same_prompt_is_told_once_to_a_client(jobs: Jobs) -> None:
    job_id = jobs.execute("read -p 'Name? ' x; read -p 'Age? ' y; sleep 0.2; echo bye").job_id
    assert jobs.wait(job_id, until="exit", timeout=30).reason == "input"
    again = jobs.wait(job_id, until="exit", timeout=1.5)
    assert (again.reason, again.waits_for, again.prompt) == ("timeout", "input", "Name? ")
    assert jobs.called_by("person").wait(job_id, until="exit", timeout=30).reason == "input"
    jobs.interact(job_id, "ada")
    wait_until(lambda: jobs.wait(job_id, timeout=0.5).prompt, lambda prompt: prompt == "Age? ")
    jobs.interact(job_id, "36", wait=0)
    assert jobs.wait(job_id, until="exit", timeout=30).reason == "exit"


@pytest.mark.parametrize("told_by", ["wait", "bound", "execute", "interact"])
def test_prompt_that_any_answer_told_does_not_end_a_wait_for_the_end(jobs: Jobs, told_by: str) -> None:
    command = "read -p 'Name? ' x; read -p 'Age? ' y; sleep 0.2; echo bye"
    told = jobs.execute(command, **({"wait": 30, "until": "input"} if told_by == "execute" else {}))
    job_id, prompt = told.job_id, "Name? "
    if told_by == "wait":
        assert jobs.wait(job_id, until="input", timeout=30).prompt == prompt
        # Who asks for the prompt is given it each time.
        assert jobs.wait(job_id, until="input", timeout=30).reason == "input"
    elif told_by == "bound":
        wait_until(lambda: jobs.status(job_id).prompt == prompt)
        assert jobs.wait(job_id, timeout=0).prompt == prompt
    elif told_by == "interact":
        wait_until(lambda: jobs.status(job_id).prompt == prompt)
        assert jobs.interact(job_id, "ada", wait=30).waits_for == "input"
        prompt = "Age? "
    again = jobs.wait(job_id, timeout=1.5)
    assert (again.reason, again.prompt) == ("timeout", prompt)


def test_prompt_that_is_not_seen_at_once_is_seen_later(jobs: Jobs) -> None:
    job_id = jobs.execute(f"{PYTHON} \"import time; print('> ', end='', flush=True); time.sleep(1); input()\"").job_id
    waited = jobs.wait(job_id, until="exit", timeout=60)
    assert (waited.reason, waited.prompt) == ("input", "> ")


def test_job_has_its_own_terminal_for_gpg(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPG_TTY", "/dev/pts/9999")
    job_id = Jobs.open().execute("echo $(tty) $GPG_TTY").job_id
    terminal, told = wait_until(lambda: jobs.output(job_id).stdout.split())
    assert terminal == told


def test_for_a_password_the_person_is_asked_for_with_the_line_to_type(jobs: Jobs) -> None:
    job_id = jobs.execute("python3 -c 'import getpass; getpass.getpass()'").job_id
    told = wait_until(lambda: jobs.status(job_id), lambda status: status.waits_for == "password").text()
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

    monkeypatch.setattr(terminals, "sleeps_in", refuse)


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


@pytest.mark.parametrize(
    "command", ["read x", "true | { read x < /dev/tty; }", f"{WORKS} inner python3 -q", "sleep 100"]
)
def test_a_look_from_the_runner_finds_in_front_what_a_look_at_all_processes_finds(jobs: Jobs, command: str) -> None:
    job_id = jobs.execute(command).job_id
    job = jobs.host.look(job_id)
    assert job.run is not None
    tty, pid = job.run.tty, job.run.pid
    waits = "sleep" not in command
    wait_until(lambda: jobs.status(job_id).waiting_for_input == waits)
    near, whole = (terminals.fronts({tty: one})[tty] for one in (pid, 0))
    assert near.attends == waits
    assert near == whole


@pytest.mark.parametrize("retry", [0, 3])
def test_what_we_print_after_a_program_is_not_taken_for_its_question(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, retry: int
) -> None:
    job_id = jobs.execute("bash --norc -c 'read -e -p \"Which town? \" x; exit 4'", retry=retry).job_id
    wait_until(lambda: jobs.status(job_id).prompt, lambda prompt: prompt == "Which town? ")
    tmux = jobs.host.tmux
    shows, ours = tmux.screen, "attempt 2 begins" if retry else "run again"

    def screen(pane: Pane, **how: Any) -> Screen:
        if not any(ours in line for line in shows(pane).lines):
            tmux.run("send-keys", "-t", pane.pane_id, "x", "Enter")
        wait_until(lambda: " ".join(shows(pane).lines), lambda text: ours in text)
        return shows(pane, **how)

    monkeypatch.setattr(tmux, "screen", screen)
    assert jobs.status(job_id).prompt is None
