"""Of a job's stream a person's terminal gets text, colours and moves around the cursor, whatever comes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmuxjobs.cli.streams import TerminalFilter
from tmuxjobs.visible import visible

HARMLESS = re.compile(r"(?:[^\x00-\x1f\x7f-\x9f]|[\b\t\n\r]|\x1b\[[0-9;:]*m|\x1b\[[0-9]{0,4}[A-GPX@`]|\x1b\[[0-2]?K)*")
PARTS = st.one_of(
    st.sampled_from(
        "\x1b\x07\x18\x1a\b\n\r\x0e\x7f\x9b\x9c\x9d\x90\x00[]PX^_k\\cnthmq?>$ é\ufffd\u202e👩\u200d\ufe0f\U000e0041"
    ),
    st.sampled_from(
        ["]52;c;aGk=", "]2;t", "P$qm", "[6n", "[>c", "[?1049h", "[21t", "[9999999A", "[31m", "Pq~", "6n", "x"]
    ),
)
SOUPS = st.lists(PARTS, max_size=40).map("".join)


def filtered(*pieces: str) -> str:
    made = TerminalFilter()
    return "".join(map(made, pieces))


@pytest.mark.parametrize(
    ("stream", "shown"),
    [
        ("\x1b[31mred\x1b[m \x1b[38;2;1;2;3mx\x1b[4:3m\x1b[0m", "\x1b[31mred\x1b[m \x1b[38;2;1;2;3mx\x1b[4:3m\x1b[0m"),
        ("10%\r20%\x1b[K\n", "10%\r20%\x1b[K\n"),
        ("a\b\bb\tc", "a\b\bb\tc"),
        ("\x1b[2A\x1b[B\x1b[3C\x1b[1D\x1b[E\x1b[F\x1b[10G\x1b[2K\x1b[2P\x1b[X\x1b[@\x1b[5`",) * 2,
        ("grüße 日本語 👩‍💻",) * 2,
    ],
)
def test_text_colours_and_moves_pass(stream: str, shown: str) -> None:
    assert filtered(stream) == shown


NESTED = {
    "\x1b]52;c;aGk=\x1b[m": "\x1b[m",
    "\x1b\x1b]x\x07]52;c;aGk=\x07": "]52;c;aGk=",
    "\x1b[\b6n": "\b",
    "\x1b[\x1b[6n": "",
    "\x1b]\x1b]52;c;aGk=\x07\x07": "",
    "\x1b[3\x1a1m\x1b]2;t\x07": "1m",
    "\x1b]2;t\x18\x1b]52;c;aGk=\x07": "",
    "\x1bP$qm\x1b\\\x1b[6n": "",
    "\x1bP\x1b[c": "",
    "\x1bX\x1b\\\x1b[>c": "",
    "\x1b_G\x1b[?u": "",
    "\x1b^x\x1b\x1b\\[6n": "[6n",
    "\x1b[\n6\r\x0en": "\n\r",
    "\x1b\x0e]\x0e2;t\x07": "",
    "\x1b(\x1b]2;t\x07B": "B",
    "\x1b[?1\x9b049h": "",
}


@pytest.mark.parametrize("stream", NESTED)
def test_sequence_within_a_sequence_does_not_pass(stream: str) -> None:
    for at in range(len(stream) + 1):
        assert filtered("a" + stream[:at], stream[at:] + "z") == f"a{NESTED[stream]}z"


QUERIES = "[6n [?6n [5n [c [>c [=c [>q [?1$p [18t [21t [x Z P$qm\x1b\\ P+q544e\x1b\\ ]52;c;?\a ]4;1;?\a ]10;?\a [?u"
MODES = "[?1000h [?1003h [?1006h [?1004h [?2004h [?1049h [?47h [4h [?25l 7 8 c [s [u [>4;2m [?4m [!p = (0 %@ n #8 [i"
MOVES = "[2J [3J [1;1H [r [5L [5M [5S [5T [5d [99999b E M [99999999999A [1;2A [123456789m"
STRINGS = (
    r"]0;t\a ]2;t\e\ ]52;c;aGk=\a ]8;;http://x\a ]1337;File=:x\a ]777;notify;a;b\a Ptmux;\e\ P1;1q#0;2;0~~-\n~\e\ "
)
STRINGS += r"_Ga=q\e\ ^x\e\ Xx\e\ ktitle\e\ "
ESCAPES = [*QUERIES.split(), *MODES.split(), *MOVES.split(), "[ q", "[1 @", " F", f"[{'1;' * 40}m"]
ESCAPES += STRINGS.replace(r"\a", "\a").replace(r"\e", "\x1b").replace(r"\n", "\n").split(" ")[:-1]


@pytest.mark.parametrize(
    "sequence", [*(f"\x1b{escape}" for escape in ESCAPES), *"\x05\a\v\f\x0e\x0f\0\x7f\x84\x85\x8d\x9a"]
)
def test_what_is_meant_for_the_jobs_terminal_does_not_pass(sequence: str) -> None:
    for at in range(len(sequence) + 1):
        assert filtered("a" + sequence[:at], sequence[at:] + "z") == "az"


def test_c1_controls_are_dropped_as_tmux_drops_them() -> None:
    assert filtered("\x9b6n\x9d2;t\x9c") == "6n2;t"


def test_string_that_nobody_ends_hides_one_line_at_most() -> None:
    assert filtered("\x1b]2;t", "itle\nnext\n", "\x1bP1q~~~ x\n\x1bPx~\nlast") == "\nnext\n x\n\nlast"


def test_hidden_characters_are_shown() -> None:
    assert filtered("a\u202eb\U000e0041") == r"a\u202eb\U000e0041"


@given(SOUPS | st.text())
def test_nothing_else_passes(stream: str) -> None:
    shown = filtered(stream)
    assert HARMLESS.fullmatch(shown), shown
    for text in re.split(r"\x1b\[[0-9;:]*.|[\b\t\n\r]", shown):
        assert visible(text) == text


@given(st.lists(PARTS, max_size=20))
def test_any_split_gives_the_same(pieces: list[str]) -> None:
    assert filtered(*pieces) == filtered("".join(pieces)) == filtered(*"".join(pieces))


@given(st.binary(max_size=200))
def test_bytes_that_are_no_utf_8_do_no_harm(data: bytes) -> None:
    assert HARMLESS.fullmatch(filtered(data.decode(errors="replace")))
