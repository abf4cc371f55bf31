"""Searching a job's log: like grep, but clean, bounded, and with cursors to go on from."""

import re

import pytest
from support import Jobs, ended, with_timing

from tmuxjobs import Settings
from tmuxjobs.errors import InvalidInput

LINES = "for i in $(seq 1 1000); do echo line $i; done"


def finished(jobs: Jobs, command: str, **options: bool) -> str:
    job_id = jobs.execute(command, **options).job_id  # type: ignore[arg-type]
    ended(jobs, job_id)
    return job_id


def test_matches_come_with_numbers_and_the_total(jobs: Jobs) -> None:
    job_id = finished(jobs, LINES)
    found = jobs.search(job_id, r"99\d$")
    assert found.text().splitlines()[:2] == ["990:line 990", "991:line 991"]
    assert (found.total, found.more) == (10, False)
    assert found.text().splitlines()[-1] == "[10 matching lines, completed; the first at cursor 9782]"


def test_context_is_shown_once_where_it_overlaps(jobs: Jobs) -> None:
    job_id = finished(jobs, LINES)
    shown = jobs.search(job_id, "line (3|5|9)$", context=1).text().splitlines()
    assert shown[:-2] == [
        *("2-line 2", "3:line 3", "4-line 4", "5:line 5", "6-line 6"),
        *("--", "8-line 8", "9:line 9", "10-line 10"),
    ]


def test_cursor_goes_on_behind_the_limit(jobs: Jobs) -> None:
    job_id = finished(jobs, LINES)
    first = jobs.search(job_id, "0$", limit=60)
    assert (len(first.matches), first.total, first.more) == (60, 100, True)
    assert f"60 shown; continue at cursor {first.cursor}" in first.text()
    rest = jobs.search(job_id, "0$", limit=60, cursor=first.cursor)
    assert [match.line for match in (*first.matches, *rest.matches)] == list(range(10, 1001, 10))
    assert not rest.more


def test_cursor_of_a_match_reads_on_from_its_line(jobs: Jobs) -> None:
    job_id = finished(jobs, LINES)
    match = jobs.search(job_id, "line 998").matches[0]
    assert jobs.output(job_id, cursor=match.cursor).stdout == "line 998\nline 999\nline 1000\n"


def test_colours_do_not_hide_a_match_and_a_literal_is_no_pattern(jobs: Jobs) -> None:
    job_id = finished(jobs, r"printf 'a\033[31m+b\033[m?\n'; echo aab")
    assert [match.text for match in jobs.search(job_id, "A+B", literal=True, ignore_case=True).matches] == ["a+b?"]
    assert [match.text for match in jobs.search(job_id, "a+b").matches] == ["aab"]


def test_separate_stderr_is_searched_too(jobs: Jobs) -> None:
    job_id = finished(jobs, "echo fatal 1; echo fatal 2 >&2; echo fatal 3 >&2", separate_stderr=True)
    found = jobs.search(job_id, "fatal", limit=2)
    assert found.text().splitlines()[:3] == ["1:fatal 1", "== stderr", "1:fatal 2"]
    rest = jobs.search(job_id, "fatal", cursor=found.cursor, stderr_cursor=found.stderr_cursor or 0)
    assert [(match.stream, match.text) for match in rest.matches] == [("stderr", "fatal 3")]


def test_limit_used_up_by_stdout_loses_nothing_of_stderr(jobs: Jobs) -> None:
    job_id = finished(jobs, "echo fatal 1; echo fatal 2 >&2", separate_stderr=True)
    found = jobs.search(job_id, "fatal", limit=1)
    assert (len(found.matches), found.total, found.more) == (1, 2, True)
    rest = jobs.search(job_id, "fatal", cursor=found.cursor, stderr_cursor=found.stderr_cursor or 0)
    assert [match.text for match in rest.matches] == ["fatal 2"]


def test_answer_stays_small_and_goes_on_where_it_was_cut(jobs: Jobs) -> None:
    job_id = finished(jobs, "for i in $(seq 1 200); do printf '%0290d\\n' $i; done")
    seen: list[int] = []
    cursor = 0
    while len(seen) < 200:
        found = jobs.search(job_id, "0", limit=1000, cursor=cursor)
        assert len(found.text()) < 14_000
        seen += [match.line for match in found.matches]
        cursor = found.cursor
    assert seen == list(range(1, 201))


def test_exploding_pattern_is_stopped_and_told(jobs: Jobs) -> None:
    job_id = finished(jobs, "head -c 4000 /dev/zero | tr '\\0' a; echo")
    found = with_timing(jobs, search=0.3).search(job_id, r"^(?:(a|aa)+)+\1{30}!$")
    assert found.total_is_exact or "the search ran out of time" in found.text()


@pytest.mark.parametrize("pattern", ["(", "", "a{99999999}", "one\ntwo", r"one\n"])
def test_wrong_pattern_is_one_sentence(jobs: Jobs, pattern: str) -> None:
    with pytest.raises(InvalidInput, match="pattern"):
        jobs.search(finished(jobs, "true"), pattern)


def test_line_numbers_after_bytes_that_are_gone_are_told_as_such(isolated: object) -> None:
    jobs = Jobs.open(Settings.load(max_output_size="100KB"))
    job_id = jobs.execute("echo first; seq 1 100000; echo last").job_id
    ended(jobs, job_id)
    found = jobs.search(job_id, "^(fir|la)st$")
    assert [match.line_is_exact for match in found.matches] == [True, False]
    assert "count only the lines that are left" in found.text()
    assert "count only the lines that are left" not in jobs.search(job_id, "^first$").text()


def test_wait_names_no_line_after_bytes_that_are_gone(isolated: object) -> None:
    jobs = Jobs.open(Settings.load(max_output_size="100KB"))
    job_id = jobs.execute("seq -f 'row %g' 1 60000; echo last").job_id
    ended(jobs, job_id)
    [match] = jobs.search(job_id, "^row 59999$").matches
    said = jobs.wait(job_id, pattern="^row 59999$", timeout=20).note
    assert f"at cursor {match.cursor}: row 59999" in said
    assert not re.search(r"line \d", said)
    assert "line 2: row 2" in jobs.wait(job_id, pattern="^row 2$", cursor=0, timeout=20).note


def test_search_says_what_it_could_not_see(isolated: object) -> None:
    jobs = Jobs.open(Settings.load(max_output_size="100KB"))
    job_id = jobs.execute("echo first; seq 1 100000; echo last").job_id
    ended(jobs, job_id)
    found = jobs.search(job_id, "^50000$")
    assert found.total == 0
    assert f"not searched: {found.gone_bytes} bytes are gone (limit)" in found.note
    assert found.note in found.text()
