"""`tail` shows the last lines, clean, while a job runs and when it has ended."""

import pytest
from support import Jobs, ended, wait_until

from tmuxjobs import InvalidInput, JobNotFound


@pytest.mark.parametrize(("lines", "shown"), [(1, "9\n"), (3, "7\n8\n9\n"), (1000, "1\n2\n3\n4\n5\n6\n7\n8\n9\n")])
def test_last_lines_are_shown(jobs: Jobs, lines: int, shown: str) -> None:
    job_id = ended(jobs, jobs.execute("seq 9").job_id).job_id
    assert jobs.tail(job_id, lines=lines).stdout == shown


def test_line_that_was_redrawn_counts_once(jobs: Jobs) -> None:
    job_id = ended(jobs, jobs.execute(r"echo begin; printf '10%%\r50%%\r100%%\n'; echo end").job_id).job_id
    assert jobs.tail(job_id, lines=2).stdout == "100%\nend\n"


def test_prompt_without_a_newline_is_the_last_line(jobs: Jobs) -> None:
    job_id = jobs.execute("echo hello; printf 'name? '; read x").job_id
    answer = wait_until(lambda: jobs.tail(job_id, lines=1), lambda answer: "name?" in answer.stdout)
    assert (answer.stdout, answer.status) == ("name? ", "running")


def test_output_goes_on_from_the_cursor_of_a_tail(jobs: Jobs) -> None:
    job_id = jobs.execute("seq 5; read x; echo later; sleep 1000").job_id
    first = wait_until(lambda: jobs.tail(job_id, lines=2), lambda answer: answer.stdout == "4\n5\n")
    jobs.interact(job_id, "go", wait=0)
    wait_until(lambda: jobs.output(job_id, cursor=first.cursor).stdout, lambda text: text == "go\nlater\n")


def test_stderr_that_is_kept_apart_has_its_own_last_lines(jobs: Jobs) -> None:
    job_id = ended(jobs, jobs.execute("seq 3; seq 4 6 >&2", separate_stderr=True).job_id).job_id
    answer = jobs.tail(job_id, lines=1)
    assert (answer.stdout, answer.stderr) == ("3\n", "6\n")


def test_what_cannot_be_is_refused(jobs: Jobs) -> None:
    job_id = jobs.execute("true").job_id
    for lines in (0, 1001):
        with pytest.raises(InvalidInput, match=f"lines must be 1 to 1000, not {lines}"):
            jobs.tail(job_id, lines=lines)
    with pytest.raises(JobNotFound):
        jobs.tail("nothing-0000")
