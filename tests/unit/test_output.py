"""Reading logs: pages that add up, the tail, search and watching, over real files with real holes."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tmuxjobs.errors import InvalidInput, StateError
from tmuxjobs.text import log as logs
from tmuxjobs.text import paging as pages
from tmuxjobs.text.clean import clean, settled
from tmuxjobs.text.matching import LINE_CHARS, Match, Watcher, _line_for_line, search
from tmuxjobs.text.paging import NOTE_CHARS, Page, last_line, read, tail
from tmuxjobs.text.virtual_screen import WIDTH
from tmuxjobs.verbs import output

PROPERTIES = settings(
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink streams of many pages takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
WORDS = st.text("ab 日\t", max_size=8).map(str.encode)
COLOURED = st.builds(lambda a, b: b"\x1b[1;31m" + a + b"\x1b[0m" + b + b"\x1b[K", WORDS, WORDS)
BARS = st.lists(WORDS, min_size=1, max_size=5).map(lambda frames: b"".join(b"\r\x1b[K" + frame for frame in frames))
WIDE = st.builds(
    lambda text, count: b"10%\r\x1b[K" + text * count, st.sampled_from([b"x", "日".encode()]), st.just(WIDTH + 9)
)
MOVES = st.sampled_from(
    [b"\x1b[2K", b"\x1b[3A", b"\r", b"\x1b[G", b"\x1b[1G", b"\x1b[J", b"\x1b[1B", b"\x1b[E", b"\x1b[2F"]
)
ROWS = st.builds(lambda moves, text: b"".join(moves) + text, st.lists(MOVES, max_size=4), WORDS)
STREAMS = st.lists(st.one_of(WORDS, COLOURED, BARS), max_size=12).map(b"\r\n".join)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "output.log"


def write(log: Path, data: bytes, *gaps: tuple[int, int]) -> Path:
    """A log whose gaps are real holes, with the recorder's padding around the list of them."""
    with log.open("wb") as file:
        start = 0
        for begin, end in [*gaps, (len(data), len(data))]:
            os.pwrite(file.fileno(), data[start:begin], start)
            start = end
        file.truncate(len(data))
    if gaps:
        log.with_suffix(".gaps").write_bytes(json.dumps({"gaps": gaps}).encode().ljust(4096))
    return log


def numbered(lines: int) -> bytes:
    return b"".join(b"line %d\r\n" % number for number in range(1, lines + 1))


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for each read is over at once."""
    monkeypatch.setattr(logs.Log, "late", True)


def all_pages(log: Path, *, cursor: int = 0, max_chars: int = 200, final: bool = True) -> list[Page]:
    pages = [read(log, cursor=cursor, max_chars=max_chars, final=final)]
    while pages[-1].more:
        pages.append(read(log, cursor=pages[-1].cursor, max_chars=max_chars, final=final))
        assert pages[-1].cursor > pages[-2].cursor
    return pages


# all of it


@PROPERTIES
@given(st.lists(st.one_of(WORDS, COLOURED, BARS, ROWS, WIDE), max_size=12).map(b"\r\n".join), st.integers(1, 300))
def test_pieces_add_up_to_the_text(log: Path, data: bytes, size: int) -> None:
    write(log, data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "PIECE", size)
        assert "".join(output.clean_pieces(log)) == clean(data)
        assert b"".join(output.raw_pieces(log)) == data


def test_pieces_go_on_from_a_cursor(log: Path) -> None:
    write(log, b"a\n50%\r100%\nb\n")
    assert "".join(output.clean_pieces(log, 5)) == "\n100%\nb\n"
    assert "".join(output.clean_pieces(log, 11)) == "b\n"
    assert b"".join(output.raw_pieces(log, 11)) == b"b\n"
    with pytest.raises(InvalidInput, match="Cursor 99 is not in the output"):
        next(output.clean_pieces(log, 99))


def test_pieces_name_a_gap(log: Path) -> None:
    data = numbered(30)
    write(log, data, (20, 100))
    assert "".join(output.clean_pieces(log)) == "".join(page.text for page in all_pages(log, max_chars=400_000))
    assert b"".join(output.raw_pieces(log)) == data[:20] + data[100:]


# read


def test_log_that_does_not_exist_yet_is_empty(log: Path) -> None:
    assert read(log) == Page("", 0, 0, 0)
    assert (tail(log, lines=5).text, last_line(log), search(log, "x").total) == ("", "", 0)


def test_log_that_fits_is_given_whole(log: Path) -> None:
    page = read(write(log, b"\x1b[31ma\x1b[0m\r\nb\r\n$ "))
    assert (page.text, page.cursor, page.end, page.more) == ("a\nb\n$ ", 17, 17, False)


def test_only_what_is_new_is_given(log: Path) -> None:
    cursor = read(write(log, b"a\nb\n")).cursor
    assert read(write(log, b"a\nb\nc\n"), cursor=cursor).text == "c\n"


def test_line_that_was_partly_given_is_continued(log: Path) -> None:
    cursor = read(write(log, b"a\n\x1b[1mName?\x1b[0m ")).cursor
    assert read(write(log, b"a\n\x1b[1mName?\x1b[0m Bob\r\n"), cursor=cursor).text == "Bob\n"


def test_line_that_was_redrawn_is_given_again(log: Path) -> None:
    cursor = read(write(log, b"a\n50%")).cursor
    assert read(write(log, b"a\n50%\r100%\n"), cursor=cursor).text == "\n100%\n"


def test_line_being_redrawn_is_held_back(log: Path) -> None:
    page = read(write(log, b"a\n\r50%\r60%"))
    assert (page.text, page.partial, page.cursor, page.more) == ("a\n", "60%", 2, False)


def test_nothing_is_held_back_at_the_end(log: Path) -> None:
    page = read(write(log, b"a\n\r50%\r60%"), final=True)
    assert (page.text, page.partial, page.cursor) == ("a\n60%", "", 10)


def test_held_line_that_was_partly_given_leaves_the_cursor(log: Path) -> None:
    cursor = read(write(log, b"a\n50%")).cursor
    page = read(write(log, b"a\n50%\r60%"), cursor=cursor)
    assert (page.text, page.partial, page.cursor) == ("", "\n60%", cursor)


@pytest.mark.parametrize("unfinished", [b"\x1b[3", b"\xe2\x82", b"\r", b"\x1b]0;ti"])
def test_cursor_stays_before_what_is_unfinished(log: Path, unfinished: bytes) -> None:
    page = read(write(log, b"ab" + unfinished))
    assert (page.text, page.cursor, page.end) == ("ab", 2, 2 + len(unfinished))


def test_cursor_beyond_the_end_is_refused(log: Path) -> None:
    with pytest.raises(InvalidInput, match="Cursor 9 is not in the output, which has 2 bytes"):
        read(write(log, b"a\n"), cursor=9)


@PROPERTIES
@given(STREAMS, st.lists(st.integers(0, 200), max_size=8))
def test_pages_of_a_growing_log_add_up_to_its_text(log: Path, data: bytes, sizes: list[int]) -> None:
    text, cursor = "", 0
    for size in [*sorted(sizes), len(data)]:
        page = read(write(log, data[:size]), cursor=cursor, final=size >= len(data))
        text, cursor = text + page.text, page.cursor
    assert (text, cursor) == (clean(data), len(data))


@PROPERTIES
@given(st.lists(STREAMS, max_size=20).map(b"\n".join))
def test_small_pages_add_up_to_the_text(log: Path, data: bytes) -> None:
    pages = all_pages(write(log, data))
    assert "".join(page.text for page in pages) == clean(data)
    assert max(len(page.text) for page in pages) <= 200


@PROPERTIES
@given(st.lists(st.one_of(WORDS, COLOURED, BARS, WIDE), max_size=10).map(b"\r\n".join))
def test_pages_tail_and_search_agree_on_wide_rows(log: Path, data: bytes) -> None:
    write(log, data)
    text = clean(data)
    assert "".join(page.text for page in all_pages(log, max_chars=2 * WIDTH)) == text
    assert tail(log, lines=1000, max_chars=400_000).text == text
    assert read(log, max_chars=400_000, final=True).text == text
    shown = sum("%" in line for line in text.split("\n"))
    assert search(log, "%").total == shown
    assert (Watcher(log, "%").next_match() is not None) == (b"%" in data)


@PROPERTIES
@given(st.lists(STREAMS, min_size=10, max_size=30).map(b"\n".join))
@pytest.mark.usefixtures("late")
def test_pages_that_end_early_add_up_to_the_text(log: Path, data: bytes) -> None:
    pages = all_pages(write(log, data * 6), max_chars=400_000)
    assert "".join(page.text for page in pages) == clean(data * 6)
    assert [page.late for page in pages] == [page.more for page in pages]


@pytest.mark.usefixtures("late")
def test_line_redrawn_for_longer_than_a_page_is_given_as_it_ends(log: Path) -> None:
    bar = b"".join(b"\r%d%% of the whole download" % (number % 100) for number in range(60_000))
    pages = all_pages(write(log, b"a\n" + bar + b"\nb\n"))
    assert "".join(page.text for page in pages) == "a\n99% of the whole download\nb\n"
    assert len(pages) > 2


@pytest.mark.usefixtures("late")
def test_giant_line_is_not_torn_when_time_is_over(log: Path) -> None:
    data = "日\x1b[31m本\x1b[0m".encode() * 100_000
    pages = all_pages(write(log, data), max_chars=400_000)
    assert "".join(page.text for page in pages) == "日本" * 100_000
    assert len(pages) > 1


@pytest.mark.usefixtures("late")
def test_page_does_not_end_inside_a_sequence(log: Path) -> None:
    data = b"a\n\x1b]0;" + b"title " * 500_000 + b"\x07b\n"
    assert "".join(page.text for page in all_pages(write(log, data))) == "a\nb\n"


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize("line", [b"\x1b[65535B", b"x\x1b[2K\x1b[G", b"\x1b[1K"])
def test_read_that_ends_early_says_how_far_it_came(log: Path, line: bytes) -> None:
    write(log, b"first\n" + (line * 1000 + b"\n") * 200 + b"last\n")
    page = read(log)
    assert page.text.startswith("first\n")
    assert page.text.endswith("last\n")
    assert f"{page.omitted_bytes:,} bytes" in page.text
    assert f"left out; cursor {page.omitted_at} reads them" in page.text
    last = tail(log, lines=1000)
    assert last.text.endswith("last\n")
    assert f"cursor {last.omitted_at} reads them" in last.text
    assert last.omitted_bytes == last.start - (last.omitted_at or 0)


@pytest.mark.usefixtures("late")
def test_lines_are_counted_no_longer_than_there_is_time_where_there_are_none(log: Path) -> None:
    write(log, b"")
    os.truncate(log, 16 << 30)
    with logs.Log(log) as one, pytest.raises(TimeoutError):
        logs.newlines(one, 0, one.end)


def test_cut_in_a_giant_sequence_is_looked_for_few_times(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    monkeypatch.setattr(pages, "settled", lambda data: looks.append(len(data)) or settled(data))
    write(log, b"\x1b]0;" + b"x" * 500_000 + b"\x07" + b"y" * 500_000)
    assert read(log, cursor=0, max_chars=200).more
    assert len(looks) < 50


def test_page_ends_between_lines(log: Path) -> None:
    pages = all_pages(write(log, numbered(500)))
    assert all(page.text.endswith("\n") and len(page.text) <= 200 for page in pages)
    assert "".join(page.text for page in pages) == numbered(500).decode().replace("\r", "")


def test_giant_line_comes_in_pages_that_break_no_character(log: Path) -> None:
    data = "日\x1b[31m本\x1b[0m".encode() * 2000
    pages = all_pages(write(log, b"start\n" + data))
    assert "".join(page.text for page in pages) == "start\n" + "日本" * 2000


def test_program_on_the_alternate_screen_is_not_in_the_pages(log: Path) -> None:
    before, screen = b"a\n\x1b[?1049h\x1b[2J", b"\x1b[H~\r\n~\r\n" * 50
    cursor = read(write(log, before + screen)).cursor
    page = read(write(log, before + screen + screen + b"\x1b[?1049lb\n"), cursor=cursor)
    assert page.text == "b\n"


@pytest.mark.parametrize("begun", [b"\x1b(0", b"\x1b)0\x0e", b"\x1b[1m\x1b(0"])
def test_later_page_goes_on_in_its_character_set(log: Path, begun: bytes) -> None:
    cursor = read(write(log, b"a\n" + begun + b"lqk\n")).cursor
    assert read(write(log, b"a\n" + begun + b"lqk\nx x\nmqj\n"), cursor=cursor).text == "│ │\n└─┘\n"
    assert tail(log, lines=1).text == "└─┘\n"
    plain = read(write(log, b"a\n\x1b(0lqk\x1b(B\n\x0eq\x0f\n")).text
    assert plain == "a\n┌─┐\nq\n"


def test_search_finds_what_line_drawing_shows(log: Path) -> None:
    write(log, b"\x1b(0lqk\r\nx\x1b(B box \x1b(0x\r\nmqj\x1b(B\r\nquick\r\npage\x0c1\r\n")
    assert [match.line for match in search(log, "─").matches] == [1, 3]
    assert [match.text for match in search(log, "box|quick|page").matches] == ["│ box │", "quick", "page 1"]
    assert search(log, "└─┘", literal=True).total == 1


def test_too_long_text_is_given_as_head_and_tail(log: Path) -> None:
    page = read(write(log, numbered(10_000)), max_chars=3000)
    assert page.text.startswith("line 1\nline 2\n")
    assert page.text.endswith("line 9999\nline 10000\n")
    assert len(page.text) <= 3000
    assert f"[... {page.omitted_lines:,} lines ({page.omitted_bytes:,} bytes) left out; " in page.text


def test_what_was_left_out_is_counted_and_can_be_fetched(log: Path) -> None:
    page = read(write(log, numbered(10_000)), max_chars=3000)
    shown = page.text.count("\nline ") + 1
    assert page.omitted_lines == 10_000 - shown
    assert page.omitted_at is not None
    missing = log.read_bytes()[page.omitted_at :][: page.omitted_bytes]
    assert read(log, cursor=page.omitted_at, max_chars=200).text.splitlines()[0] == missing.decode().splitlines()[0]


def test_many_redraws_that_fit_are_not_cut(log: Path) -> None:
    bar = b"".join(b"\r%d%%" % (number % 100) for number in range(60_000))
    assert read(write(log, b"a\n" + bar + b"\nb\n"), max_chars=200).text == "a\n99%\nb\n"


def test_news_are_mostly_the_end(log: Path) -> None:
    write(log, numbered(500))
    head, _, end = pages.ends(log, cursor=0, max_chars=1500).text.partition("[... ")
    assert (head.splitlines()[0], end.splitlines()[-1]) == ("line 1", "line 500")
    assert 4 * len(head) < len(end) < 1500 - len(head)


def test_log_larger_than_one_look_is_read_at_its_ends(log: Path) -> None:
    page = read(write(log, numbered(1_000_000)), max_chars=3000)
    assert page.text.startswith("line 1\n")
    assert page.text.endswith("line 1000000\n")
    assert page.omitted_lines == 1_000_000 - page.text.count("line ") + 0


def test_raw_text_is_left_as_it_is(log: Path) -> None:
    page = read(write(log, b"\x1b[31ma\x1b[0m\r\n\xff\r50%"), raw=True)
    assert page.text == "\x1b[31ma\x1b[0m\r\n\ufffd\r50%"


def test_raw_pages_add_up(log: Path) -> None:
    text, cursor, more = "", 0, True
    write(log, "日本\n".encode() * 300)
    while more:
        page = read(log, cursor=cursor, max_chars=200, raw=True)
        text, cursor, more = text + page.text, page.cursor, page.more
    assert text == "日本\n" * 300


# gaps


def test_gap_is_told_in_one_line(log: Path) -> None:
    write(log, b"head\n" + b"x" * 5000 + b"\ntail\n", (5, 5006))
    page = read(log)
    assert page.text == "head\n[... 5,001 bytes are gone ...]\ntail\n"
    assert page.gone_bytes == 5001


def test_reason_of_a_gap_is_in_its_line(log: Path) -> None:
    log.write_bytes(b"head\n[tmuxjobs: 5,001 bytes are missing here: disk full]\ntail\n")
    gaps = [[5, 5006, "disk full", len(b"[tmuxjobs: 5,001 bytes are missing here: disk full]\n")]]
    log.with_suffix(".gaps").write_text(json.dumps({"gaps": gaps, "text": 5011}))
    page = read(log)
    assert page.text == "head\n[... 5,001 bytes are gone: disk full ...]\ntail\n"
    assert (page.end, page.gone_bytes) == (5011, 5001)
    assert read(log, cursor=5008).text == "il\n"
    assert logs.gone_because(log) == "disk full"


def test_cursor_in_a_gap_moves_to_its_end(log: Path) -> None:
    write(log, b"head\n" + b"x" * 5000 + b"\ntail\n", (5, 5006))
    page = read(log, cursor=1006)
    assert page.text == "[... 4,000 bytes are gone ...]\ntail\n"
    assert (page.start, page.gone_bytes) == (5006, 4000)


def test_pages_around_a_gap_add_up(log: Path) -> None:
    write(log, numbered(3000), (4003, 20_007))
    assert "".join(page.text for page in all_pages(log)) == read(log, cursor=0, max_chars=100_000, final=True).text


def test_head_and_tail_count_a_gap_apart(log: Path) -> None:
    data = numbered(10_000)
    page = read(write(log, data, (40_000, 60_000)), max_chars=2000)
    tail_bytes = len(data) - page.omitted_bytes - 20_000 - (page.omitted_at or 0)
    assert page.gone_bytes == 20_000
    assert data[-tail_bytes:].decode().replace("\r", "") == page.text.partition("...]\n")[2]
    assert "20,000 more bytes are gone" in page.text


def test_end_that_is_gone_is_told(log: Path) -> None:
    write(log, b"head\n")
    log.with_suffix(".gaps").write_text('{"gaps": [[5, 105]]}')
    page = read(log)
    assert (page.text, page.cursor, page.end) == (
        "head\n[... 100 bytes are gone ...]\n", 105, 105,
    )  # fmt: skip
    assert "100 bytes are gone at the end" in tail(log, lines=5).text


def test_hole_punched_during_the_read_is_told(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(log, b"head\n" + b"x" * 5000 + b"\ntail\n")
    pread = os.pread

    def punching(fd: int, size: int, at: int) -> bytes:
        log.with_suffix(".gaps").write_text('{"gaps": [[5, 5006]]}')
        return pread(fd, size, at).replace(b"x", b"\0")

    monkeypatch.setattr(os, "pread", punching)
    assert read(log).text == "head\n[... 5,001 bytes are gone ...]\ntail\n"


def test_torn_list_of_gaps_is_read_again(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(log, b"head\nxx\ntail\n", (5, 8))
    listed = iter([b'{"gaps": [[5', b'{"gaps": [[5, 8]]}\n\0\0'])
    monkeypatch.setattr(logs, "_listed", lambda _: next(listed, b'{"gaps": [[5, 8]]}\n\0\0'))
    assert "3 bytes are gone" in read(log).text


def test_list_of_gaps_that_stays_broken_is_refused(log: Path) -> None:
    write(log, b"a\n").with_suffix(".gaps").write_text("nonsense")
    with pytest.raises(StateError, match="does not list the gaps"):
        read(log)


def test_size_counts_what_is_gone(log: Path) -> None:
    assert logs.log_size(log) == 0
    write(log, b"head\n").with_suffix(".gaps").write_text('{"gaps": [[5, 105]]}')
    assert logs.log_size(log) == 105


# tail, last_line


def test_tail_is_the_last_lines(log: Path) -> None:
    page = tail(write(log, numbered(1000)), lines=2)
    assert page.text == "line 999\nline 1000\n"
    assert (page.start, page.cursor, page.omitted_bytes) == (log.read_bytes().index(b"line 999"), page.end, 0)


def test_unfinished_line_counts_as_a_line(log: Path) -> None:
    assert tail(write(log, numbered(9) + b"Name? "), lines=2).text == "line 9\nName? "


def test_tail_shows_a_progress_bar_and_does_not_pass_it(log: Path) -> None:
    page = tail(write(log, b"a\n\r50%\r60%"), lines=5)
    assert (page.text, page.cursor) == ("a\n60%", 2)


def test_tail_looks_back_over_redraws(log: Path) -> None:
    bar = b"".join(b"\r%d%%" % (number % 100) for number in range(100_000))
    assert tail(write(log, b"a\n" + bar + b"\nb\n"), lines=3).text == "a\n99%\nb\n"


def test_tail_that_is_too_long_says_what_it_left_out(log: Path) -> None:
    page = tail(write(log, numbered(1000)), lines=100, max_chars=200)
    note, _, rest = page.text.partition("\n")
    shown = rest.count("\n")
    assert note.startswith(f"[... {100 - shown} lines ({page.omitted_bytes} bytes) left out; ")
    assert page.omitted_at == log.read_bytes().index(b"line 901\r")


def test_giant_line_is_cut_in_the_tail(log: Path) -> None:
    page = tail(write(log, b"start\n" + b"x" * 9_000_000 + b"end"), lines=1, max_chars=300)
    assert page.text.endswith("xxxend")
    assert len(page.text) < 300 + NOTE_CHARS
    assert page.omitted_bytes == page.start - 6


def test_last_line_is_the_unfinished_one(log: Path) -> None:
    assert last_line(write(log, b"a\n\x1b[1mPassword:\x1b[0m ")) == "Password: "
    assert last_line(write(log, b"a\n")) == ""


# search


def found(log: Path, pattern: str, **options: bool | int) -> list[tuple[int, str]]:
    return [(match.line, match.text) for match in search(log, pattern, **options).matches]  # type: ignore[arg-type]


def test_search_matches_clean_lines(log: Path) -> None:
    write(log, b"a\r\n\x1b[31mer\x1b[1mror\x1b[0m: x\r\n  0%\r\x1b[Kerror 2\r\nb\r\n")
    assert found(log, "^error") == [(2, "error: x"), (3, "error 2")]


def test_match_has_the_cursor_of_its_line(log: Path) -> None:
    match = search(write(log, numbered(50_000)), "line 41234$").matches[0]
    assert log.read_bytes()[match.cursor :].startswith(b"line 41234\r")
    assert (match.line, match.line_is_exact) == (41_234, True)


@pytest.mark.parametrize(
    ("pattern", "lines"),
    [
        (r"a\s+b", []),
        (r"(?<!\s)b$", [2, 4]),
        (r"a[^z]*", [1, 3]),
        (r"(?s)a.*", [1, 3]),
        (r"\Ab\Z", [2, 4]),
        (r"(?>[^q]*)", [1, 2, 3, 4]),
        (r"^$", []),
    ],
)
def test_match_never_spans_two_lines(log: Path, pattern: str, lines: list[int]) -> None:
    assert [line for line, _ in found(write(log, b"a\nb\na\nb\n"), pattern)] == lines


def test_literal_is_not_a_pattern(log: Path) -> None:
    write(log, b"axb\na.b\nA.B\n")
    assert found(log, "a.b", literal=True) == [(2, "a.b")]
    assert found(log, "a.b", literal=True, ignore_case=True) == [(2, "a.b"), (3, "A.B")]


def test_matches_beyond_the_limit_are_counted(log: Path) -> None:
    result = search(write(log, numbered(20_000)), "line", limit=3)
    assert (len(result.matches), result.total, result.truncated, result.total_at_least) == (3, 20_000, True, False)
    following = search(log, "line", limit=1, cursor=result.cursor)
    assert following.matches[0].line == 4


def test_search_goes_on_where_it_ended(log: Path) -> None:
    cursor = search(write(log, b"needle\nhay nee"), "needle").cursor
    assert found(write(log, b"needle\nhay needle\n"), "needle", cursor=cursor) == [(2, "hay needle")]


def test_match_in_the_unfinished_line_is_found_once(log: Path) -> None:
    result = search(write(log, b"a\nPassword: "), "Password")
    assert (result.total, result.cursor) == (1, 12)


def test_context_surrounds_the_match(log: Path) -> None:
    match = search(write(log, numbered(9)), "line 5", context=2).matches[0]
    assert (match.before, match.after) == (("line 3", "line 4"), ("line 6", "line 7"))


def test_long_line_is_cut_around_the_match(log: Path) -> None:
    match = search(write(log, b"x" * 5000 + b"needle" + b"y" * 5000 + b"\n"), "needle").matches[0]
    assert len(match.text) == LINE_CHARS + 2
    assert "xneedley" in match.text


def test_text_across_two_pieces_of_a_giant_line_is_found_once(log: Path) -> None:
    write(log, b"x" * (logs.BLOCK - 3) + b"needle" + b"y" * logs.BLOCK + b"\n")
    assert search(log, "needle", literal=True).total == 1


def test_line_number_after_a_gap_says_it_is_not_exact(log: Path) -> None:
    result = search(write(log, numbered(3000), (4003, 20_007)), "line 3000|line 3$")
    assert [match.line_is_exact for match in result.matches] == [True, False]
    assert result.gone_bytes == 16_004


@pytest.mark.parametrize("pattern", ["", "[", "*a", "(" * 3000, "((a{1000}){1000}){1000}"])
def test_bad_pattern_is_refused_in_one_sentence(log: Path, pattern: str) -> None:
    with pytest.raises(InvalidInput, match=r"^The pattern .*\.$"):
        search(log, pattern)


def test_pattern_that_explodes_is_stopped(log: Path) -> None:
    result = search(write(log, b"match\n" + b"a" * 5000 + b"\n"), "(a|aa)+$(?<!a)|^match", timeout=2.0)
    assert (result.total, result.total_at_least, result.truncated) == (1, True, True)


# Watcher


def test_watcher_finds_text_that_came_in_two_parts(log: Path) -> None:
    watcher = Watcher(write(log, b"a\nser"), "server ready")
    assert watcher.next_match() is None
    write(log, b"a\nserver ready\n")
    match = watcher.next_match()
    assert match is not None
    assert (match.line, match.cursor, match.text) == (2, 2, "server ready")


def test_watcher_finds_a_prompt_and_tells_it_once(log: Path) -> None:
    watcher = Watcher(write(log, b"a\nPassword: "), "Password: $")
    assert watcher.next_match() is not None
    assert watcher.next_match() is None
    write(log, b"a\nPassword: \nPassword: ")
    assert watcher.next_match() is not None


def test_watcher_finds_a_frame_that_was_overwritten(log: Path) -> None:
    assert Watcher(write(log, b"\r 75%\r100%"), "75%", literal=True).next_match() is not None


def test_watcher_gives_one_match_after_the_other(log: Path) -> None:
    watcher = Watcher(write(log, b"x 1\ny\nx 2\n"), "^x")
    looks: list[Callable[[], Match | None]] = [watcher.next_match] * 3
    assert [match and match.text for match in (look() for look in looks)] == ["x 1", "x 2", None]


def test_watcher_starts_where_it_is_told(log: Path) -> None:
    match = Watcher(write(log, b"x 1\nx 2\n"), "x", start=4).next_match()
    assert match is not None
    assert (match.text, match.line) == ("x 2", 2)


def test_watcher_waits_for_a_log_to_exist(log: Path) -> None:
    watcher = Watcher(log, "x")
    assert watcher.next_match() is None
    write(log, b"x\n")
    assert watcher.next_match() is not None


def test_watcher_goes_on_where_its_time_was_over(log: Path) -> None:
    write(log, b"\x1b[2K\x1b[1A row\x1b[3D\x1b[K\r\n" * 20_000 + b"ready\r\n")
    watcher, behind = Watcher(log, "ready"), []
    while len(behind) < 100:
        try:
            match = watcher.next_match(timeout=0)
            break
        except TimeoutError:
            behind.append(watcher.behind)
    assert match is not None
    assert (match.line, match.text, watcher.behind) == (20_001, "ready", None)
    assert len(behind) > 1
    assert behind == sorted(set(behind))


def test_watcher_comes_further_in_a_giant_line(log: Path) -> None:
    watcher = Watcher(write(log, b"downloading 12%\r" * 160_000), "ready")
    with pytest.raises(TimeoutError):
        watcher.next_match(timeout=0)
    last = watcher.behind or 0
    with pytest.raises(TimeoutError):
        watcher.next_match(timeout=0)
    assert 0 < last < (watcher.behind or 0)


def test_search_goes_on_where_its_time_was_over(log: Path) -> None:
    write(log, b"\x1b[2K\x1b[1A row\x1b[3D\x1b[K hit\r\n" * 6000)
    results = [search(log, "hit", timeout=0, limit=1000)]
    while results[-1].total_at_least or results[-1].truncated:
        results.append(search(log, "hit", cursor=results[-1].cursor, limit=1000, timeout=0))
        assert results[-1].cursor > results[-2].cursor
    lines = [match.line for result in results for match in result.matches]
    assert lines == list(range(1, 6001))


def test_one_match_takes_no_longer_than_it_may_however_long_the_search(log: Path) -> None:
    result = search(write(log, b"a" * 100_000 + b"!\n"), "(a+)+$", timeout=3600)
    assert (result.matches, result.total_at_least) == ((), True)


@pytest.mark.usefixtures("late")
def test_matches_without_time_for_what_is_around_them_are_left_for_the_next_search(log: Path) -> None:
    result = search(write(log, numbered(9)), "line [25]", context=1)
    assert ([match.line for match in result.matches], result.truncated) == ([2], True)
    assert [match.line for match in search(log, "line [25]", cursor=result.cursor).matches] == [5]


@PROPERTIES
@given(st.lists(ROWS, max_size=8).map(b"\r\n".join))
def test_moves_before_a_row_do_not_change_its_text(data: bytes) -> None:
    lines = [clean(line.rstrip(b"\r"), continued=True).replace("\n", " ") for line in data.split(b"\n")]
    assert _line_for_line(data).split("\n") == (lines if lines[-1] or len(lines) == 1 else lines[:-1])
