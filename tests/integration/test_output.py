"""`output` shows what was printed, and says what it holds back."""

import shutil
import subprocess

import pytest
from support import wait_until

from tmuxjobs import Jobs

HELD = {
    "a prompt drawn with a move back": (r"printf '>>> \033[4D\033[4C'", "the last line may still be redrawn: '>>> '"),
    "a progress bar": (r"printf 'a\n10%%\r20%%'", "the last line may still be redrawn: '20%'"),
    "a spinner": (r"printf '/\b-\b|'", "the last line may still be redrawn: '|'"),
    "part of a sequence": (r"printf 'a\033[3'", "the last 3 bytes are an unfinished character or escape sequence"),
    "part of a character": (r"printf 'a\342\202'", "the last 2 bytes are an unfinished character or escape sequence"),
}


@pytest.mark.parametrize(("command", "note"), HELD.values(), ids=HELD.keys())
def test_what_is_held_back_of_the_last_line_is_said(jobs: Jobs, command: str, note: str) -> None:
    job_id = jobs.execute(f"{command}; sleep 1000").job_id
    answer = wait_until(lambda: jobs.output(job_id), lambda answer: answer.note)
    assert answer.note == note
    assert note in answer.text()
    assert jobs.output(job_id, cursor=answer.cursor).note == note
    assert jobs.wait(job_id, idle=0.05, cursor=0, timeout=30).note.endswith(note)


def test_held_back_line_of_a_separate_stderr_is_said(jobs: Jobs) -> None:
    job_id = jobs.execute(r"printf '10%%\r20%%' >&2; sleep 1000", separate_stderr=True).job_id
    answer = wait_until(lambda: jobs.output(job_id), lambda answer: answer.note)
    assert answer.note == "the last line of stderr may still be redrawn: '20%'"


@pytest.mark.parametrize("python", ["python3.13", "python3.12", "python3"])
def test_prompt_of_pythons_repl_is_shown(jobs: Jobs, python: str) -> None:
    program = shutil.which(python)
    if program is None or subprocess.run([program, "--version"], capture_output=True).returncode:
        pytest.skip(f"{python} is not installed")
    job_id = jobs.execute(f"{program} -q").job_id
    wait_until(lambda: jobs.status(job_id).prompt, lambda prompt: prompt is not None and prompt.startswith(">>>"))
    answer = jobs.output(job_id)
    assert ">>>" in answer.stdout + answer.note
