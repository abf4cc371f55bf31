"""What was typed is told from what a program printed, however the line is shown."""

import pytest

from tmuxjobs.verbs.interact import without_echo

LINE = "make deploy TARGET=staging REGION=north-2 VERBOSE=yes && echo finished"


@pytest.mark.parametrize(
    ("shown", "rest"),
    [
        (f"{LINE}\nbuilt\n", "built\n"),
        (f"$ {LINE}\nbuilt\n", "built\n"),
        (f"one\ntwo\n$ {LINE}\nbuilt\n", "one\ntwo\nbuilt\n"),
        (f"\n% {LINE}          <rprompt>\nbuilt\n", "built\n"),
        (f"> {LINE[:30]}\n{LINE[30:60]}\n{LINE[60:]}\nbuilt\n", "built\n"),
        (f"In [3]: {LINE[:30]}\n   ...: {LINE[30:60]}\n   ...: {LINE[60:]}\nbuilt\n", "built\n"),
        (f"          {LINE[-14:]}\nbuilt\n", "built\n"),
        ("built\nfinished\n", "built\nfinished\n"),
    ],
    ids=["bare", "prompt", "output before", "right prompt", "broken", "continued", "end alone", "no echo"],
)
def test_line_editors_echo_is_left_out(shown: str, rest: str) -> None:
    assert without_echo(shown, LINE + "\n") == rest


@pytest.mark.parametrize("lines", [0, 2, 40])
def test_output_before_a_terminals_echo_is_kept(lines: int) -> None:
    before = "".join(f"tick {number}\n" for number in range(lines))
    assert without_echo(f"{before}{LINE}\nbuilt\n", LINE + "\n", by_kernel=True) == f"{before}built\n"


def test_output_on_the_line_of_a_terminals_echo_is_kept() -> None:
    assert without_echo("at 40 %ls\nfile\n", "ls\n", by_kernel=True) == "at 40 %\nfile\n"
    assert without_echo("> ls\nfile\n", "ls\n", by_kernel=True) == "file\n"


def test_answer_that_repeats_the_line_is_kept() -> None:
    assert without_echo("hello\nhello\n", "hello\n", by_kernel=True) == "hello\n"
