"""Terminal bytes to text: what stays, what goes, and that no stream breaks it."""

import re
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tmuxjobs.text.clean import Cleaner, clean, printable_lines, redraws, settled
from tmuxjobs.text.virtual_screen import REPEATED, ROWS, WIDTH, Canvas

PIP = (
    "Collecting numpy\r\n  Downloading numpy-2.1.0.whl (16.0 MB)\r\n"
    "\x1b[?25l     \x1b[38;5;237m━━━━━━━━━━\x1b[0m \x1b[32m0.0/16.0 MB\x1b[0m \x1b[31m?\x1b[0m eta -:--:--"
    "\r\x1b[2K     \x1b[38;2;249;38;114m━━━━━\x1b[0m\x1b[38;5;237m╺━━━━\x1b[0m \x1b[32m8.0/16.0 MB\x1b[0m eta 0:00:01"
    "\r\x1b[2K     \x1b[38;2;114;156;31m━━━━━━━━━━\x1b[0m \x1b[32m16.0/16.0 MB\x1b[0m eta \x1b[36m0:00:00\x1b[0m"
    "\r\n\x1b[?25hInstalling collected packages: numpy\r\n"
)
CARGO = (
    "\x1b[1m\x1b[32m   Compiling\x1b[0m libc v0.2.1\r\n"
    "\x1b[1m\x1b[36m    Building\x1b[0m [=>    ] 1/9: libc                \r"
    "\x1b[K\x1b[1m\x1b[32m   Compiling\x1b[0m serde v1.0\r\n"
    "\x1b[1m\x1b[36m    Building\x1b[0m [==>   ] 2/9: serde               \r"
    "\x1b[K\x1b[1m\x1b[32m    Finished\x1b[0m dev in 1.2s\r\n"
)
DOCKER = (
    "a1: Pulling fs layer \r\nb2: Pulling fs layer \r\n"
    "\x1b[2A\x1b[2K\ra1: Downloading 1MB/9MB\r\x1b[2B"
    "\x1b[1A\x1b[2K\rb2: Download complete\r\x1b[1B"
    "\x1b[2A\x1b[2K\ra1: Pull complete\r\x1b[2B"
    "Status: done\r\n"
)
BUILDKIT = (
    "[+] Building 0.1s (0/2)\r\n => load\r\n\x1b[1A\x1b[1A\x1b[0G\x1b[?25l"
    "[+] Building 0.9s (2/2) FINISHED\r\n => => load 0.2s\r\n => export 0.1s\r\n\x1b[?25h"
)
NPM = "\x1b[?25l⠋ reify\x1b[1G\x1b[0K⠙ reify\x1b[1G\x1b[0K\x1b[?25h\r\nadded 3 packages in 1s\r\n"
INK = "one\r\ntwo\r\nthree\r\n\x1b[2K\x1b[1A\x1b[2K\x1b[1A\x1b[2K\x1b[1A\x1b[2K\x1b[Gdone\r\n"
GIT = (
    "remote: Counting objects:  50% (1/2)\x1b[K\rremote: Counting objects: 100% (2/2)\x1b[K\r"
    "remote: Counting objects: 100% (2/2), done.\x1b[K\r\n"
    "Receiving objects:  50% (1/2)\rReceiving objects: 100% (2/2)\rReceiving objects: 100% (2/2), done.\r\n"
)
TQDM = "\r  0%|          | 0/3\r 33%|███▎      | 1/3\r100%|██████████| 3/3 [00:00<00:00]\r\n"
APT = (
    "Reading lists\r\n\r\n\x1b7\x1b[0;23r\x1b8\x1b[1A\x1b7\x1b[24;0f\x1b[42mProgress: [  0%]\x1b[49m [....]\x1b8"
    "Unpacking a\r\n\x1b7\x1b[24;0fProgress: [ 50%] [##..]\x1b8Setting up a\r\n"
    "\r\n\x1b7\x1b[0;24r\x1b8\x1b[1A\x1b[J"
)

HISTORY_ABOVE_A_BOX = "".join(f"\x1b[1;7r\x1b[7;1H\r\nentry {n}\x1b[r\x1b[8;1H> box" for n in range(5))
CODEX = (
    "$ codex\r\n\x1b[6n\x1b[3;1H+---+\x1b[4;1H| > |\x1b[5;1H+---+"
    "\x1b[3;9r\x1b[3;1H\x1bM\x1bM\x1b[r\x1b[1;4r\x1b[2;1H\r\nHello\x1b[K\r\nworld\x1b[K\x1b[r\x1b[6;3H>"
    "\x1b[1;4r\x1b[4;1H\r\nThird\x1b[K\r\nFourth\x1b[K\x1b[r\x1b[6;3H>"
)
ENLIGHTEN = (
    "\x1b[9;1H\r\n\x1b[1;9r\x1b[9;1H\x1b[10;1H\r\x1b[KWork 0%\x1b[9;1Ha\r\nb\r\n\x1b[10;1H\r\x1b[KWork 100%\x1b[9;1H"
    "\x1b[1;10r\x1b[11;1H\r\n\x1b[1;10r\x1b[11;1Hdone\r\nafter\r\n"
)
TABS = "\r\x1b[3g\x1b[5G\x1bH\x1b[9G\x1bH\r"

CASES = {
    "plain": ("a\nb\n", "a\nb\n"),
    "crlf": ("a\r\nb\r\r\nc", "a\nb\nc"),
    "prompt keeps its space": ("Name? ", "Name? "),
    "printed trailing blanks stay": ("a  \r\nb", "a  \nb"),
    "tab stays": ("a\tb\r\n", "a\tb\n"),
    "tab under a redraw": ("a\tb\rc", "c\tb"),
    "colours": ("\x1b[1;31mred\x1b[0m \x1b[38:2::1:2:3mx\x1b[m", "red x"),
    "grep's colours": ("\x1b[01;31m\x1b[Kfoo\x1b[m\x1b[Kbar\n", "foobar\n"),
    "shorter redraw leaves the rest": ("100%\rok", "ok0%"),
    "erased line": ("100%\r\x1b[Kok", "ok"),
    "erased to the left": ("abcdef\x1b[3D\x1b[1Kx", "   xef"),
    "whole line erased": ("abc\x1b[2K\rz", "z"),
    "blanks that erase are dropped": ("100%\r    \r", ""),
    "prompt behind an erased bar": ("100% 100% 100%\r              \rName? ", "Name? "),
    "backspace": ("abc\b\bX", "aXc"),
    "backspace erases": ("abc\b \b", "ab"),
    "forward": ("a\x1b[3Cb", "a   b"),
    "trailing move is no text": ("abc\x1b[9C\n", "abc\n"),
    "column": ("abcdef\x1b[2GX", "aXcdef"),
    "erased characters": ("abcdef\x1b[4D\x1b[2X", "ab  ef"),
    "deleted characters": ("abcdef\x1b[4D\x1b[2P", "abef"),
    "inserted characters": ("abcdef\x1b[4D\x1b[2@", "ab  cdef"),
    "deleted line": ("a\nb\nc\n\x1b[2A\x1b[M", "a\nc\n"),
    "inserted line": ("a\nc\n\x1b[1A\x1b[Lb\n", "a\nb\nc\n"),
    "up and erase below": ("a\nb\nc\n\x1b[2A\x1b[Jd\n", "a\nd\n"),
    "up at the top stays there": ("abc\x1b[9Adef", "abcdef"),
    "previous line": ("a\nb\x1b[Fc", "c\nb"),
    "next line": ("a\nb\n\x1b[2A\x1b[Ec", "a\nc\n"),
    "clear keeps what was there": ("old\x1b[H\x1b[2Jnew", "old\nnew"),
    "clear of a screen terminal": ("old\n\x1b[H\x1b[Jnew\x1b[H\x1b[Jnewer", "old\nnew\nnewer"),
    "clear the other way round": ("old\x1b[2J\x1b[3J\x1b[Hnew", "old\nnew"),
    "home starts a line": ("old\x1b[Hnew", "old\nnew"),
    "home redraws its page": ("old\n\x1b[Hab\nc\n\x1b[HAB\nC\n", "old\nAB\nC\n"),
    "reset": ("old\x1bcnew", "old\nnew"),
    "absolute place": ("\x1b[2J\x1b[2;3Hb\x1b[1;1Ha", "a\n  b"),
    "saved cursor": ("abc\x1b7def\x1b8X", "abcXef"),
    "reverse index": ("a\nb\x1bMc", "ac\nb"),
    "reverse index at the top scrolls back": ("\x1b[Hold\x1b[H\x1bMnew", "new\nold"),
    "lines scrolled out of a region": (HISTORY_ABOVE_A_BOX, "\nentry 0\nentry 1\nentry 2\nentry 3\nentry 4\n> box"),
    "region below a title": ("\x1b[2J\x1b[Htitle\x1b[2;3r\x1b[2;1Ha\nb\nc\nd", "a\nb\ntitle\nc\nd"),
    "line below a region stays": ("\x1b[3;1Hstatus\x1b[1;2r\x1b[2;1Ha\x1bD\rb\x1bD\rc", "a\nb\nc\nstatus"),
    "scrolled up": ("\x1b[2J\x1b[1;4r\x1b[1;1Ha\x1b[2;1Hb\x1b[2S\x1b[4;1Hc", "a\nb\nc"),
    "scrolled down": ("\x1b[2J\x1b[1;2r\x1b[1;1Ha\x1b[2;1Hb\x1b[T\x1b[1;1Hc", "c\na"),
    "inserted line pushes one out of the region": (
        "\x1b[1;2r\x1b[1;1Ha\x1b[2;1Hb\x1b[3;1Hc\x1b[1;1H\x1b[L0",
        "0\na\nc",
    ),
    "deleted line in a region": ("\x1b[1;2r\x1b[1;1Ha\x1b[2;1Hb\x1b[3;1Hc\x1b[1;1H\x1b[M\x1b[2;1HB", "b\nB\nc"),
    "margins hold the cursor": ("\x1b[2;3r\x1b[2;1H\x1b[9Aa\x1b[9Bb\x1b[4;1Hc", "a\n b\nc"),
    "region of one row is none": ("\x1b[1;1Ha\x1b[3;3rb", "ab"),
    "cursor saved in a region": ("\x1b[1;2r\x1b[2;1Ha\x1b7\nb\x1b8c", "a\nbc"),
    "repeated character": ("=\x1b[4b|\r\n-\r\x1b[9b", "=====|\n-"),
    "repeated blank": ("a \x1b[3bb", "a    b"),
    "backward tab": ("abcdefghijkl\x1b[ZX\x1b[2ZY", "YbcdefghXjkl"),
    "insert mode": ("world\r\x1b[4hhello \x1b[4l\b!", "hello!world"),
    "insert mode with wide characters": ("ab\r\x1b[4h日\x1b[4l", "日ab"),
    "tab stops of its own": (TABS + "a\tb\tc\x1b[5GX\x1b[9GY", "a\tX\tY"),
    "cleared tab stops": ("\x1b[3ga\tb\r\n\tc", "a\tb\n\tc"),
    "backward tab over stops of its own": (TABS + "0123456789\x1b[2ZX", "0123X56789"),
    "form feed breaks the line": ("page 1\r\n\fpage 2\v3", "page 1\n\npage 2\n3"),
    "line drawing": ("\x1b(0lqqk\x1b(B lqqk\r\n\x1b(0x\x1b[1mx\x1b(Bx", "┌──┐ lqqk\n││x"),
    "line drawing by shifts": ("\x1b)0\x0elqk\x0f lqk \x0ex\x1b)Bx\x0f", "┌─┐ lqk │x"),
    "line drawing saved with the cursor": ("\x1b(0\x1b7\x1b(Bq\x1b8q", "─"),
    "line drawing in a title": ("\x1b]0;\x1b(0\x07q\x1b(B", "─"),
    "no line drawing without a set": ("\x0elqk\x0f \x1b]0;\x1b\\q", "lqk q"),
    "history above a box": (CODEX, "$ codex\n\n\nHello\nworld\nThird\nFourth\n+---+\n| > |\n+---+"),
    "screen scrolled by a row below it": (ENLIGHTEN, "a\nb\n\nWork 100%\ndone\nafter\n"),
    "alternate screen is no history": ("a\n\x1b[?1049h\x1b[Hvim\x1b[2;1H~\x1b[?1049lb\n", "a\nb\n"),
    "unleft alternate screen shows": ("a\n\x1b[?1049h\x1b[2J\x1b[Hboom\r\nbang", "a\nboom\nbang"),
    "wide characters": ("日本語\r\x1b[2C木", "日木語"),
    "half of a wide character": ("日本\rx", "x 本"),
    "combining characters": ("e\u0301e\rE", "Ee"),
    "combining mark on a redraw": ("abc\re\u0301", "e\u0301bc"),
    "title": ("\x1b]0;title\x07a\x1b]2;title\x1b\\b", "ab"),
    "window name": ("\x1bkname\x1b\\a", "a"),
    "hyperlink": ("\x1b]8;;http://x.y\x1b\\link\x1b]8;;\x1b\\", "link"),
    "unterminated title ends with its line": ("\x1b]0;title\na", "\na"),
    "sixel": ("a\x1bP0;1q#0;2;0;0;0\n#0~~@@-\n\x1b\\b", "ab"),
    "device control": ("\x1bP$q m\x1b\\a\x1bP+q544e\x1b\\b", "ab"),
    "other strings": ("\x1b_app\x1b\\a\x1b^pm\x1b\\b\x1bXsos\x1b\\c", "abc"),
    "charsets and modes": ("\x1b(B\x1b)B\x0ea\x0f\x1b[?25l\x1b[?2004h\x1b=b\x1b>\x1b%Gc\x1b[!p\x1b[2 qd", "abcd"),
    "keyboard protocols": ("\x1b[>4;1m\x1b[>1u\x1b[?u\x1b[<ua", "a"),
    "controls": ("a\0b\x07c\x05d\x7fe\x01", "abcde"),
    "two-byte C1 is dropped": ("a\x9b31mb", "a31mb"),
    "broken sequence": ("\x1b[12\x1b[mA\x1b\x1b[31mB\x1b[1\nC", "AB\nC"),
    "unfinished sequence": ("a\x1b[31", "a"),
    "pip": (
        PIP,
        (
            "Collecting numpy\n  Downloading numpy-2.1.0.whl (16.0 MB)\n"
            "     ━━━━━━━━━━ 16.0/16.0 MB eta 0:00:00\nInstalling collected packages: numpy\n"
        ),
    ),
    "cargo": (CARGO, "   Compiling libc v0.2.1\n   Compiling serde v1.0\n    Finished dev in 1.2s\n"),
    "docker pull": (DOCKER, "a1: Pull complete\nb2: Download complete\nStatus: done\n"),
    "buildkit": (BUILDKIT, "[+] Building 0.9s (2/2) FINISHED\n => => load 0.2s\n => export 0.1s\n"),
    "npm": (NPM, "\nadded 3 packages in 1s\n"),
    "ink": (INK, "done\n"),
    "git": (
        GIT,
        "remote: Counting objects: 100% (2/2), done.\nReceiving objects: 100% (2/2), done.\n",
    ),
    "tqdm": (TQDM, "100%|██████████| 3/3 [00:00<00:00]\n"),
    "apt": (APT, "Reading lists\nUnpacking a\nSetting up a\n"),
}

PARAMETERS = st.sampled_from(["", "0", "1", "2", "3", "7", "40", "250", "999999999", "2;5", ";9", "24;80", "9" * 70])
SEQUENCES = st.builds(
    lambda parameters, final: f"\x1b[{parameters}{final}".encode(),
    PARAMETERS,
    st.sampled_from("@ABCDEFGHJKLMPSTXZabdefgrsumh"),
)
PIECES = st.one_of(
    st.text("ab 日\u0301\t\ufeff🙂", max_size=12).map(str.encode),
    st.text(max_size=5).map(lambda text: text.encode("utf-8", "replace")),
    st.binary(max_size=4),
    st.sampled_from(
        rb"\n|\r|\r\n|\b|\x1b|\x1b7|\x1b8|\x1bM|\x1bD|\x1bE|\x1bc|\x1b[K|\x1b[?1049h|\x1b[?1049l|\x1b]0;t|\x07|\x1b\\"
        rb"|\x1bP|\x1bPq#\n|\x1bkt|\x1b(B|\x1b(0|\x1b)0|\x1b)B|\x0e|\x0f|\f|\x1bH|\x1b[4h|\x1b[4l|\x1b[1;9r|\x1b[9;1H|\x1b[m|\0|\xc2\x9b|\xe2\x82|\x1b[|\x1b[?".split(
            b"|"
        )
    ).map(lambda piece: piece.decode("unicode_escape").encode("latin-1")),
    st.just(b"x\n" * 150),
    SEQUENCES,
)
STREAMS = st.lists(PIECES, max_size=40).map(b"".join)
WIDE = st.one_of(
    st.builds(
        lambda text, count: text.encode() * count,
        st.sampled_from(["x", "ab\t", "\t", "日", "e\u0301", "x\x1b[A", "y\x1b[9999B", "\x1b[999@", "z\x1b[999C"]),
        st.sampled_from([WIDTH // 8, WIDTH // 2, WIDTH - 1, WIDTH, WIDTH + 1]),
    ),
    PIECES,
)
WIDE_STREAMS = st.lists(WIDE, max_size=8).map(b"".join)
HOSTILE = [
    "\x1b[65535B", "x\x1b[65535B", "x\x1b[200;1000H\x1b[2J", "\x1b[200L\x1b[200M", "\x1b[999@", "\x1b[1K", "\t",
    "\r\x1b[65535X", "\r\x1b[P", "\t\r", "\x1b[65535A\x1b[65535B", "x\x1b[2J", "\x1b[H\x1b[J", "x\b\u0301", "日\b",
    "\x1b[2;5r\x1b[5;1H\n", "\x1b[1;200r\n", "\x1b[5r\x1b[200S", "\x1b[200T", "\x1b[9;1H\x1b[200S",
    "\x1b[2;5r\x1b[2;1H\x1bM", "x\x1b[999b", "\x1b[3g\t", "\x1bH\x1b[9C", "\x1b[9Z", "\x1b[4hx\r",
    "\x1b(0q\x0e\x1b(B", "\x1b[1;9r\x1b[r\x1b[9H\n",
    "\x1b[999Cx\r\x1b[2K", "\x1b[A\n\n", "\x1b7\x1b8", "\x1bM\x1bD", "\x1b[H\n\x1b[5;1H\x1b[A", "\x1b[9;9;9;9;9H",
]  # fmt: skip
PROPERTIES = settings()


def most(data: bytes) -> int:
    """How long the text of a stream may be: only a sequence that repeats a character stands for more than it takes."""
    return len(data) + min(REPEATED, 1_000 * len(re.findall(rb"\[[0-9;]*b", data)))


def fed(data: bytes, cuts: list[int]) -> str:
    cleaner, text, start = Cleaner(), "", 0
    for cut in [*sorted(cuts), len(data)]:
        text += cleaner.feed(data[start:cut])
        assert isinstance(cleaner.pending, str)
        start = max(start, cut)
    return text + cleaner.finish()


@pytest.mark.parametrize(("stream", "text"), CASES.values(), ids=CASES.keys())
def test_text_is_what_a_person_would_have_read(stream: str, text: str) -> None:
    assert clean(stream.encode()) == text


@pytest.mark.parametrize("stream", [case[0] for case in CASES.values()], ids=CASES.keys())
def test_any_cut_in_two_gives_the_same_text(stream: str) -> None:
    data = stream.encode()
    assert {fed(data, [cut]) for cut in range(len(data))} == {clean(data)}


@PROPERTIES
@given(STREAMS)
def test_text_never_outgrows_its_stream(data: bytes) -> None:
    assert len(clean(data)) <= most(data)
    assert len(clean(data, continued=True)) <= most(data)


@PROPERTIES
@given(WIDE_STREAMS, st.lists(st.integers(0, 60_000), max_size=5))
def test_wide_rows_are_text_like_others(data: bytes, cuts: list[int]) -> None:
    text = clean(data)
    assert len(text) <= most(data)
    assert fed(data, cuts) == text


@PROPERTIES
@given(STREAMS)
def test_clean_text_is_clean(data: bytes) -> None:
    assert clean(clean(data).encode()) == clean(data)


@PROPERTIES
@given(STREAMS, st.lists(st.integers(0, 300), max_size=8))
def test_any_split_gives_the_same_text(data: bytes, cuts: list[int]) -> None:
    assert fed(data, cuts) == clean(data)


@PROPERTIES
@given(STREAMS)
def test_settled_prefix_and_rest_decode_like_the_whole(data: bytes) -> None:
    cut = settled(data)
    assert data[:cut].decode("utf-8", "replace") + data[cut:].decode("utf-8", "replace") == data.decode(
        "utf-8", "replace"
    )


@PROPERTIES
@given(st.text("ab 日\u0301\t\n🙂\u200b"))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert clean(text.encode()) == text


@PROPERTIES
@given(st.lists(st.text("ab 日\u0301\t", max_size=10), max_size=6), st.text("ab 日\u0301", max_size=10))
def test_slow_path_draws_plain_text_as_it_is(lines: list[str], last: str) -> None:
    text = "\n".join([*lines, last])
    assert clean(b"\n" + text.encode() + b"\x1b7") == "\n" + text


def test_bad_utf8_is_replaced() -> None:
    assert clean(b"a\xff\xe2\x82b\x9b1m\xe2\x82") == "a\ufffd\ufffdb\ufffd1m\ufffd"


def test_eight_bit_c1_is_not_obeyed() -> None:
    assert clean(b"a\x9b2Kb\x90c\x9cd") == "a\ufffd2Kb\ufffdc\ufffdd"


def test_progress_bar_collapses_to_its_last_frame() -> None:
    stream = b"".join(b"\r%5.1f%% |%s|" % (i / 50, b"#" * (i // 100)) for i in range(5001))
    assert clean(stream) == "100.0% |" + "#" * 50 + "|"


def test_huge_parameters_take_no_memory() -> None:
    huge = b"9" * 60
    stream = b"".join(b"\x1b[" + huge + bytes([final]) + b"x" for final in b"ABCDEFGHJKLMPX@d`aeSTrZgb")
    assert len(clean(stream)) <= most(stream)


def test_characters_repeated_take_no_more_than_is_allowed() -> None:
    assert len(clean(b"x\x1b[999999b\r\n" * 5_000)) <= REPEATED + 12 * 5_000


def test_row_within_the_window_can_be_redrawn_from_any_depth() -> None:
    rows = ROWS - 1
    stream = b"old\n" + b"x\n" * (rows - 1) + b"\x1b[%dAnew" % rows
    assert clean(stream).startswith("new\nx\n")


def test_row_above_the_window_is_final() -> None:
    cleaner = Cleaner()
    text = cleaner.feed(b"old\n" + b"x\n" * (ROWS + 10) + b"\x1b[999Anew")
    assert text.startswith("old\nx\n")
    assert "new" not in text


def test_pending_is_what_may_still_change() -> None:
    cleaner = Cleaner()
    assert cleaner.feed(b"a\nb\rc\x1b[3") == ""
    assert cleaner.pending == "a\nc"


def test_line_wider_than_a_row_stays_one_line() -> None:
    assert clean(b"x" * (3 * WIDTH) + b"\n\rend") == "x" * (3 * WIDTH) + "\nend"


@pytest.mark.parametrize("first", [b"10%\r", b"\x1b[C\r", b"ab\b\b", b"\x1b7\x1b8", b"\x1b[2K\r"])
@pytest.mark.parametrize("text", ["x" * 17_000, "日" * 17_000, "abcdefg\t" * 3_000])
def test_line_wider_than_a_row_may_be_drawn_over_another(first: bytes, text: str) -> None:
    assert clean(first + text.encode()).lstrip() == text


def test_row_without_end_is_not_kept_in_one_piece() -> None:
    for text in ("x", "日", "\t", "a\x1b[C", "x\x1b[9999B", "\x1b[999@"):
        screen = Cleaner()
        screen.feed(b"ab\r" + text.encode() * WIDTH)
        assert max(len(row.cells or row.text) for row in screen._screen._rows) <= 2 * WIDTH


def lines_run(stream: bytes) -> int:
    """How many lines of the screen model run to draw a stream."""
    count, code = 0, Canvas.__init__.__code__.co_filename

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace if frame.f_code.co_filename == code else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        Cleaner().feed(stream)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("sequence", HOSTILE)
@pytest.mark.parametrize(
    "first", ["", "\n" * (ROWS - 1) + "\x1b[99A", "ab\r" + "x" * (WIDTH - 9)], ids=["", "rows", "wide"]
)
def test_work_of_a_sequence_does_not_grow(first: str, sequence: str) -> None:
    work = [lines_run((first + sequence * count).encode()) for count in (0, 600, 1200)]
    assert work[2] - work[1] <= 1.2 * (work[1] - work[0]) + 50
    assert work[2] - work[0] <= 60 * 1200 * len(sequence)


def test_endless_string_is_not_kept() -> None:
    cleaner = Cleaner()
    for _ in range(100):
        cleaner.feed(b"\x1b]52;c;" + b"A" * 10_000)
    assert len(cleaner._escape) < 10


def test_later_part_of_a_stream_keeps_rows_above_its_first() -> None:
    assert clean(b"now\x1b[2A\x1b[2K\rlayer 1\x1b[2B\r", continued=True) == "layer 1\nnow"


@pytest.mark.parametrize(
    ("line", "answer"),
    [(b"plain", False), (b"\x1b[1mred\x1b[K", False), (b"abc\r", False), (b"\r50%", True), (b"a\x1b[2D", True)],
)  # fmt: skip
def test_redraws_tells_a_progress_bar_from_a_prompt(line: bytes, answer: bool) -> None:
    assert redraws(line) is answer


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (b"abc", 3),
        (b"a\x1b[3", 1),
        (b"a\x1b[31m", 6),
        (b"a\x1b]0;t", 1),
        (b"a\xe2\x82", 1),
        (b"a\xe2\x82\xac", 4),
        (b"\x80\x80\x80", 3),
        (b"a\r", 1),
    ],
)
def test_settled_ends_before_what_is_unfinished(data: bytes, length: int) -> None:
    assert settled(data) == length


def test_printable_lines_gives_up_on_a_redraw() -> None:
    assert printable_lines(b"a\x1b[1mb\x1b[K\r\nc\r\n") == "ab\nc\n"
    assert printable_lines(b"a\rb\n") is None
