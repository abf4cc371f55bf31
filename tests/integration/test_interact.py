"""Typing into a job and what it answers."""

import hashlib
from pathlib import Path

import pytest
from support import Tmux, ended, record_of, wait_until

from tmuxjobs import Jobs
from tmuxjobs.errors import InvalidInput, JobEnded


def ready(jobs: Jobs, command: str, sign: str = "ready") -> str:
    job_id = jobs.execute(command).job_id
    wait_until(lambda: jobs.output(job_id).stdout, lambda text: sign in text)
    return job_id


def test_answer_is_the_response_without_the_echo(jobs: Jobs) -> None:
    job_id = ready(jobs, "python3 -c \"while True: print('got', repr(input('> ')))\"", ">")
    assert jobs.interact(job_id, "a;").stdout == "got 'a;'\n> "
    assert jobs.interact(job_id, "ünï 漢").stdout == "got 'ünï 漢'\n> "
    assert jobs.interact(job_id, "").stdout == "got ''\n> "


def test_newline_at_the_end_is_enter_once(jobs: Jobs) -> None:
    job_id = ready(jobs, "python3 -c \"while True: print('got', repr(input('> ')))\"", ">")
    assert jobs.interact(job_id, "a\n").stdout == "got 'a'\n> "


def test_enter_false_leaves_the_line_open(jobs: Jobs) -> None:
    job_id = ready(jobs, "echo ready; read x; echo got $x")
    jobs.interact(job_id, "ab", enter=False, wait=0.3)
    jobs.interact(job_id, "cd", wait=5, pattern="got")
    assert "got abcd\n" in jobs.output(job_id).stdout


def test_keys_reach_the_program(jobs: Jobs) -> None:
    job_id = ready(jobs, "trap 'echo interrupted; exit 3' INT; echo ready; sleep 1000")
    answer = jobs.interact(job_id, keys=["C-c"])
    assert "interrupted" in answer.stdout
    assert ended(jobs, job_id).exit_code == 3


def test_pattern_ends_the_wait_and_is_not_matched_by_the_echo(jobs: Jobs) -> None:
    job_id = ready(jobs, "echo ready; read x; sleep 0.3; echo done $x; sleep 1000")
    answer = jobs.interact(job_id, "done", pattern="done", wait=20)
    assert answer.stdout == "done done\n"
    assert "the pattern showed" in answer.note


def test_copy_mode_of_a_person_does_not_swallow_input(jobs: Jobs, tmux: Tmux) -> None:
    job_id = ready(jobs, "echo ready; read x; echo got $x; sleep 1000")
    pane = record_of(jobs, job_id).run.pane  # type: ignore[union-attr]
    tmux("copy-mode", "-t", pane)
    assert jobs.interact(job_id, "hello", pattern="got").stdout == "got hello\n"
    assert tmux("display-message", "-p", "-t", pane, "#{pane_in_mode}").strip() == "1"


def test_keys_work_in_copy_mode(jobs: Jobs, tmux: Tmux) -> None:
    job_id = ready(jobs, "trap 'exit 3' INT; echo ready; sleep 1000")
    tmux("copy-mode", "-t", record_of(jobs, job_id).run.pane)  # type: ignore[union-attr]
    jobs.interact(job_id, keys=["C-c"])
    assert ended(jobs, job_id).exit_code == 3


def test_one_megabyte_arrives_exactly(jobs: Jobs, tmp_path: Path) -> None:
    text = "".join(f"{number:09d} abcdefghijklmnopqrstuvwxyz;#{{x}}%H\n" for number in range(25_000))
    command = f"stty -echo; echo ready; head -c {len(text)} > got; stty echo; echo done"
    job_id = jobs.execute(command, cwd=str(tmp_path)).job_id
    wait_until(lambda: jobs.output(job_id).stdout, lambda shown: "ready" in shown)
    jobs.interact(job_id, text, pattern="done", wait=50)
    got = (tmp_path / "got").read_bytes()
    assert hashlib.sha256(got).digest() == hashlib.sha256(text.encode()).digest()


def test_line_that_the_terminal_would_cut_is_refused(jobs: Jobs) -> None:
    job_id = ready(jobs, "echo ready; read x; echo got $x")
    with pytest.raises(InvalidInput, match="A line of 5000 bytes would be cut"):
        jobs.interact(job_id, "x" * 5000)


def test_input_to_a_finished_job_says_how_it_ended(jobs: Jobs) -> None:
    job_id = jobs.execute("exit 4").job_id
    ended(jobs, job_id)
    with pytest.raises(JobEnded, match=r"takes no input: exit code 4"):
        jobs.interact(job_id, "x")


@pytest.mark.parametrize("key", ["Foo", "C-", "", "ctrl", "Ctrl-Foo", "F13", "é́x"])
def test_wrong_key_is_refused_and_types_nothing(jobs: Jobs, key: str) -> None:
    job_id = ready(jobs, "echo ready; read x; echo got $x")
    with pytest.raises(InvalidInput, match="is no key"):
        jobs.interact(job_id, "typed", keys=[key])
    assert jobs.output(job_id).stdout == "ready\n"


def test_response_of_a_repl_is_one_call(jobs: Jobs) -> None:
    job_id = ready(jobs, "python3 -i -q", ">>>")
    assert jobs.interact(job_id, "21 * 2").stdout == "42\n>>> "
    answer = jobs.interact(job_id, "exit(6)")
    assert "the job ended" in answer.note
    assert jobs.status(job_id).exit_code == 6
