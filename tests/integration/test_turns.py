"""An exchange with a program that reads lines is over as soon as it reads again, and never before all was said."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support import Jobs, in_panes, needs, wait_until

from tmuxjobs.system import terminals
from tmuxjobs.verbs import interact
from tmuxjobs.verbs.prompts import Turn

pytestmark = pytest.mark.skipif(not terminals.LINUX, reason="elsewhere nothing tells what a process has written")
SLOW = 'while read x; do echo "one $x"; sleep 0.02; echo "two $x"; done'
BESIDE = 'while read x; do (sleep 0.02; echo "two $x") & echo "one $x"; done'
THREADS = (
    "import threading, time\nwhile True:\n    x = input()\n"
    "    threading.Timer(0.02, print, ['two', x]).start()\n    print('one', x)\n"
)
LONG = "import sys\nfor x in sys.stdin:\n    print('\\n'.join(5000 * ['one']))\n    print('two', x.strip())\n"
ASKS = "while True:\n    print('one'); x = input('more? '); print('two', x)\n"
CHATTY = "while True:\n    x = input(); f = open('/dev/null', 'w'); f.write('x' * 5000); f.close(); print('two', x)\n"


@pytest.fixture
def hog() -> Iterator[None]:
    """Two threads that take what they get of a processor beside the test, in processes of their own."""
    pids = []
    for _ in range(2):
        if (pid := os.fork()) == 0:
            while os.getppid() != 1:
                pass
            os._exit(0)
        pids.append(pid)
    yield
    for pid in pids:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def python(source: str) -> str:
    return f"python3 -c {source!r}" if "'" not in source else f"python3 -c '{source.replace(chr(39), chr(34))}'"


@pytest.mark.parametrize(
    "command",
    [SLOW, f"bash -c '{BESIDE}'", python(THREADS), python(LONG), python(ASKS), python(CHATTY)],
    ids=["a pause between", "one beside it", "a thread of its own", "many lines", "a prompt", "writes elsewhere too"],
)
@pytest.mark.usefixtures("hog")
def test_answer_is_whole_however_it_comes(jobs: Jobs, command: str) -> None:
    job_id = jobs.execute(command).job_id
    wait_until(lambda: jobs.status(job_id).waiting_for_input)
    for number in range(8):
        assert f"two {number}" in jobs.interact(job_id, str(number), wait=20).stdout


@pytest.mark.parametrize(
    ("command", "said"), [("cat", "1"), ("bc -q", "1"), ("python3 -q", "1"), ("PS1='sh> ' bash --norc -i", "echo 1")]
)
def test_the_kernel_tells_that_a_line_was_answered(jobs: Jobs, command: str, said: str) -> None:
    needs(command.split()[0] if "=" not in command else "bash")
    job_id = jobs.execute(command).job_id
    wait_until(lambda: jobs.status(job_id).waiting_for_input)
    job = jobs.host.look(job_id)
    assert job.run is not None
    turn = Turn.begin(job, terminals.terminal(job.run.tty), f"{said}\n")
    assert turn is not None
    assert not turn.is_over()
    jobs.interact(job_id, said)
    wait_until(turn.is_over)


def test_answer_does_not_end_in_the_middle_of_what_is_on_its_way(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorder is stopped while the program says the rest and reads again."""
    monkeypatch.setattr(interact, "SETTLED_S", 60.0)
    os.mkfifo(go := tmp_path / "go")
    job_id = jobs.execute(f"while read x; do printf first; read y < {go}; echo second; done").job_id
    wait_until(lambda: jobs.status(job_id).waiting_for_input)
    job = jobs.host.look(job_id)
    assert job.run is not None
    run, pid = job.run, terminals.reader(job.run.tty, job.run.pid)
    [recorder] = wait_until(lambda: in_panes(jobs, "recorder", job_id))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(jobs.interact, job_id, "1", wait=30)
        wait_until(lambda: job.log.read_bytes().endswith(b"first"))
        recorder.suspend()
        go.write_text("go\n")
        wait_until(lambda: terminals.reader(run.tty, run.pid) == pid)
        time.sleep(1)  # it is seen to read again
        recorder.resume()
        assert answer.result(60).stdout == "firstsecond\n"


def test_no_turn_is_known_of_one_that_is_at_work(jobs: Jobs) -> None:
    job_id = jobs.execute("read x; sleep 1000").job_id
    wait_until(lambda: jobs.status(job_id).waiting_for_input)
    job = jobs.host.look(job_id)
    assert job.run is not None
    settings = terminals.terminal(job.run.tty)
    turn = Turn.begin(job, settings, "1\n")
    assert turn is not None
    jobs.interact(job_id, "1", wait=0)
    wait_until(lambda: not jobs.status(job_id).waiting_for_input)
    assert not turn.is_over()
    assert Turn.begin(job, settings, "1\n") is None


def test_output_that_is_not_in_the_log_yet_is_waited_for(jobs: Jobs, tmp_path: Path) -> None:
    """tmux is stopped while the program answers, so that what it wrote waits in the terminal."""
    # Without a child: where processes are accounted for (acct(2)), what the kernel writes at its end counts too.
    os.mkfifo(go := tmp_path / "go")
    job_id = jobs.execute(f"while read x; do read y < {go}; echo first; echo second; done").job_id
    wait_until(lambda: jobs.status(job_id).waiting_for_input)
    job = jobs.host.look(job_id)
    assert job.run is not None
    run = job.run
    turn = Turn.begin(job, terminals.terminal(run.tty), "1\n")
    assert turn is not None
    jobs.interact(job_id, "1", wait=0)
    server = jobs.host.tmux.server_pid()
    assert server is not None
    os.kill(server, signal.SIGSTOP)
    try:
        go.write_text("go\n")
        wait_until(lambda: terminals.reader(run.tty, run.pid) == turn.pid)
        assert not turn.is_over()
    finally:
        os.kill(server, signal.SIGCONT)
    wait_until(turn.is_over)
    assert job.log.read_bytes().endswith(b"first\r\nsecond\r\n")
