"""`output` shows what was printed, and says what it holds back."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from support import Jobs, server_of, wait_until

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


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        (r"start\n10%%\r20%%", "start\n20%"),
        (r"one\ntwo\nthree\n\033[3A\033[2KONE\033[B\r\033[2KTWO", "ONE\nTWO\nthree"),
        (r"Proceed? [y/N] \033[K\r\033[15C", "Proceed? [y/N] "),
    ],
)
def test_line_that_may_be_redrawn_is_shown_as_tail_shows_it(jobs: Jobs, printed: str, shown: str) -> None:
    job_id = jobs.execute(f"printf '{printed}'; sleep 1000").job_id
    answer = wait_until(lambda: jobs.output(job_id), lambda answer: answer.note)
    assert answer.stdout.rstrip() == shown.rstrip() == jobs.tail(job_id).stdout.rstrip()
    assert "may still be redrawn" in answer.note
    again = jobs.output(job_id, cursor=answer.cursor)
    assert (again.cursor, again.note) == (answer.cursor, answer.note)


def test_redrawn_line_is_followed_once(jobs: Jobs) -> None:
    job_id = jobs.execute(r"printf 'a\n10%%\r20%%'; read x; echo; echo end").job_id
    wait_until(lambda: jobs.output(job_id).note)
    pages = jobs.follow(job_id, cursor=0)
    first = next(iter(pages))
    jobs.interact(job_id, "go", wait=0)
    assert first.stdout + "".join(page.stdout for page in pages) == "a\n20%go\n\nend\n"


async def test_agent_pays_little_for_rulers(jobs: Jobs, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_sum():\n    assert 1 + 1 == 3\n")
    command = f"{sys.executable} -m pytest -p no:cacheprovider -p no:randomly test_it.py"
    narrow = jobs.execute(command, cwd=str(tmp_path), env={"COLUMNS": "80"}, wait=60)
    async with Client(server_of(jobs)) as client:

        async def call(tool: str, **arguments: object) -> tuple[str, dict[str, Any]]:
            result = await client.call_tool(tool, arguments)
            assert result.structured_content is not None
            return result.content[0].text, result.structured_content  # type: ignore[union-attr]

        text, fields = await call("execute", command=command, cwd=str(tmp_path), wait=50)
        job_id = fields["job_id"]
        answers = [
            (text, fields),
            await call("output", job_id=job_id),
            await call("wait", job_id=[job_id, narrow.job_id]),
        ]
        for text, fields in answers:
            assert "] FAILURES [= x" in text
            assert "] FAILURES [= x" in (fields["jobs"][0] if "jobs" in fields else fields)["stdout"]
        assert len(answers[1][1]["stdout"]) < len(jobs.output(narrow.job_id).stdout)
        raw = (await call("output", job_id=job_id, raw=True))[1]["stdout"]
    assert "==== FAILURES ====" in raw
    assert "==== FAILURES ====" in jobs.output(job_id).stdout
    assert jobs.search(job_id, "={30,} FAILURES ={30,}").total == 1


def test_held_back_line_of_a_separate_stderr_is_said(jobs: Jobs) -> None:
    job_id = jobs.execute(r"printf '10%%\r20%%' >&2; sleep 1000", separate_stderr=True).job_id
    answer = wait_until(lambda: jobs.output(job_id), lambda answer: answer.note)
    assert answer.note == "the last line of stderr may still be redrawn: '20%'"


@pytest.mark.parametrize("python", ["python3.13", "python3.12", "python3"])
def test_prompt_of_pythons_repl_is_shown(jobs: Jobs, python: str) -> None:
    program = shutil.which(python)
    if program is None or subprocess.run([program, "--version"], capture_output=True).returncode:
        pytest.skip(f"{python} is not installed")
    job_id = jobs.execute(f"unset PYTHON_BASIC_REPL; {program} -q").job_id
    wait_until(lambda: jobs.status(job_id).prompt, lambda prompt: prompt is not None and prompt.startswith(">>>"))
    answer = jobs.output(job_id)
    assert ">>>" in answer.stdout + answer.note
