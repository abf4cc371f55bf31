"""The quick way of a search gives what the slow one gives: every line cleaned and matched by itself."""

import random
import re
import string
from pathlib import Path

import pytest
import regex

from tmuxjobs.text import patterns
from tmuxjobs.text.log import STEP
from tmuxjobs.text.matching import SearchResult, search
from tmuxjobs.text.patterns import marked_lines, needles, plain_lines, stays_in_line

ATOMS = [
    *("a", "b", "ab", "ba", " ", "1", ".", "é", "[ab]", "[^b]", "[a-c1]"),
    *(rf"\{escaped}" for escaped in "dDwsSbt."),
]
QUANTIFIERS = ["", "", "", "", "*", "+", "?", "+?", "{2}", "{0,2}", "{1,}"]
AROUND = ["({})", "(?:{})", "(?<name>{})", "(?={})", "(?!{})", "(?<=a)", "(?<!b)", "^{}", "{}$", "{}|{}", "({}|{})"]
PLAIN = ["", "a", "ab ba", "abab1", "b.a\ta", "aaa bbb 111", "x" * 60]
TIMEOUT_S = 1000.0
LINES = [*PLAIN, "é a1", "\x1b[31mab\x1b[m b", "aX\rb", "b\b\ba", "a\rb"]


def pattern(dice: random.Random, depth: int = 2) -> str:
    parts = []
    for _ in range(dice.randint(1, 4)):
        part = dice.choice(ATOMS)
        if depth and dice.random() < 0.3:
            shape = dice.choice(AROUND)
            part = shape.format(*(pattern(dice, depth - 1) for _ in range(shape.count("{}"))))
        parts.append(part + (dice.choice(QUANTIFIERS) if part[-1] not in "$^*+?}" else ""))
    return "".join(parts)


def accepted(source: str) -> regex.Pattern[str] | None:
    try:
        re.compile(source)
        return patterns.compiled(source)
    except Exception:  # noqa: BLE001 - of the made ones some are no expressions
        return None


@pytest.mark.parametrize("seed", range(8))
def test_every_match_holds_a_needle_of_each_set(seed: int) -> None:
    dice = random.Random(seed)
    said = 0
    for _ in range(800):
        source = pattern(dice)
        seek = accepted(source)
        if seek is None:
            continue
        sets = needles(source)
        said += bool(sets)
        for _ in range(10):
            line = "".join(dice.choice("ab1. é\tc") for _ in range(dice.randint(0, 12)))
            if seek.search(line):
                assert all(any(text in line for text in texts) for texts in sets), (source, line, sets)
    assert said > 150


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("needle", [{"needle"}]),
        (r"request \d+77 served", [{"request "}, {"77 served"}]),
        ("error|fatal", [{"error", "fatal"}]),
        (r"src/(main|app)\.py:\d+", [{"src/"}, {"main", "app"}, {".py:"}]),
        (r"(?<=in )976 ms", [{"976 ms"}]),
        ("colou?r", [{"colo"}, {"r"}]),
        ("a|", []),
        ("(x)?", []),
        (r"\d+", []),
        # What `regex` alone reads otherwise says nothing.
        ("(?i)needle", []),
        ("(?x) a b", []),
        ("a{e<=1}", []),
        ("[[:alpha:]]x", []),
        (r"\p{L}abc", []),
        ("(?|ab|cd)", []),
        ("[a&&b]xyz", []),
        ("x(?#no text)y", []),
        ("a(", []),
    ],
)
def test_what_a_pattern_needs(source: str, found: list[set[str]]) -> None:
    assert needles(source) == found


@pytest.mark.parametrize(
    ("source", "stays"),
    [
        ("a b", True),
        (r"\d+ ms$", True),
        ("(?<=a)b", True),
        (r"a\s", False),
        ("[^x]", False),
        (r"\n", False),
        ("é", False),
    ],
)
def test_what_stays_in_its_line(source: str, stays: bool) -> None:
    assert stays_in_line(source) is stays


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"a\r\nb\tc\r\n", 2),
        (b"a\n\n", 2),
        ("é ✓\r\n".encode(), 1),
        (b"a", -1),
        (b"a\r\nb\n", -1),
        (b"a\rb\n", -1),
        (b"\ra\n", -1),
        (b"a\r\r\n\n", -1),
        (b"\x1b[1ma\r\n", -1),
        (b"a\x08b\n", -1),
        (b"\xff\n", -1),
        (b"\xc2\x9b1m\n", -1),
        (b"\xed\xa0\x80\n", -1),
        (b"\x7f\n", -1),
    ],
)
def test_lines_that_stand_as_they_are(data: bytes, count: int) -> None:
    assert plain_lines(data) == count


def test_lines_with_a_mark_are_counted_once() -> None:
    assert marked_lines(b"a\x01b\x01\n\n\x01\nc\n\x01\x01\n") == 3


def slowly(monkeypatch: pytest.MonkeyPatch, log: Path, source: str, **options: object) -> SearchResult:
    with monkeypatch.context() as context:
        context.setattr(patterns, "plain_lines", lambda _: -1)
        return search(log, source, timeout=TIMEOUT_S, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
def test_quick_search_is_the_slow_one(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(seed)
    log = tmp_path / "output.log"
    rows = [dice.choice(LINES if seed % 3 else PLAIN) for _ in range(dice.choice([40, 800, 3000]))]
    # Most blocks are plain, one is not.
    rows[: len(rows) // 2] = [row if row.isprintable() else "plain ab" for row in rows[: len(rows) // 2]]
    data = ("\r\n".join(rows) + dice.choice(["", "\r\n", "\r\nab"])).encode()
    if dice.random() < 0.3:
        data = data.replace(b"\r\n", b"\n")
    log.write_bytes(data)
    if dice.random() < 0.3 and len(data) > 3 * STEP:
        log.with_suffix(".gaps").write_text(f'{{"gaps": [[{STEP}, {2 * STEP + 7}]]}}')
    sources = ["ab", "b", "a1$", r"\d+", "zzz", "plain|1", r"(?<=a)b ", "^$", "x{59}", "(a|b)+$", r"a\sb", "é"]
    sources += [source for source in (pattern(dice, depth=0) for _ in range(4)) if accepted(source)]
    for source in sources:
        for options in (
            {"limit": dice.randint(1, 30)},
            {"limit": 20, "context": 2},
            {"ignore_case": True, "limit": 3},
            {"cursor": dice.randint(0, len(data)), "limit": 5},
        ):
            quick = search(log, source, timeout=TIMEOUT_S, **options)  # type: ignore[arg-type]
            assert quick == slowly(monkeypatch, log, source, **options), (source, options)
        if source.isprintable():
            assert search(log, source, literal=True) == slowly(monkeypatch, log, source, literal=True), source


def test_literal_may_be_any_text_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "output.log"
    log.write_bytes(b"one\r\ntwo\tthree\r\n" * 8000)
    for text in ("o\tt", "\x01", "\r", string.punctuation):
        assert search(log, text, literal=True) == slowly(monkeypatch, log, text, literal=True), repr(text)
