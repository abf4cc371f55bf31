"""What programs draw with margins, tab stops and line drawing reads as tmux itself shows it and keeps it as history."""

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Jobs, Tmux, wait_until

from tmuxjobs.text.clean import clean

ROWS, COLUMNS = 12, 200
KINDS = (
    "region whole put feed feed index reverse up down insert delete move edit erase repeat stops tab mode set save back"
)
STOPS = "\x1b[3g" + "".join(f"\x1b[{column}G\x1bH" for column in (5, 11, 60, 80, 100, 120)) + "\r"
# Codex inserts what is history above its box, which moves down until it reaches the bottom.
BOX = r"""
printf '\033[2J\033[3;1H+----+\033[4;1H| %s  |\033[5;1H+----+' '>'
printf '\033[3;12r\033[3;1H\033M\033M\033M\033[r'
n=0
while [ $n -lt 30 ]; do
    n=$((n + 1))
    printf '\033[1;5r\033[5;1H\r\nentry %d of 30\033[K\033[r\033[7;3H' $n
done
sleep 1000
"""


class Drawing:
    """A random stream that begins on a clear screen of a known height, and feeds lines only inside the margins.

    Elsewhere the clean text keeps more than tmux, which does not tell how high its screen is.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.top, self.bottom, self.words, self.saved = 1, ROWS, 0, False
        kinds = self.random.sample(KINDS.split(), self.random.randint(3, 12))
        parts = [self.part(self.random.choice([*kinds, "feed"])) for _ in range(self.random.randint(3, 25))]
        self.stream = f"\x1b[H\x1b[2J\x1b[1;{ROWS}r" + "".join(parts)

    def word(self) -> str:
        self.words += 1
        return f"w{self.words}" + self.random.choice(["", "-abc", " jkl x", "qqq"])

    def inside(self, often: int, column: int = 1) -> str:
        return f"\x1b[{self.random.choice([often, self.random.randint(self.top, self.bottom)])};{column}H"

    def part(self, kind: str) -> str:
        pick, number = self.random.choice, self.random.randint
        anywhere = f"\x1b[{number(1, ROWS)};{number(1, 40)}H"
        if kind == "region":
            self.top = number(1, ROWS - 1)
            self.bottom = number(self.top + 1, ROWS)
            return f"\x1b[{self.top};{self.bottom}r"
        if kind == "whole":
            self.top, self.bottom = 1, ROWS
            return f"\x1b[1;{ROWS}r"
        if kind == "feed":
            lines = [pick(["\r\n", "\n", "\x1bE"]) + self.word() for _ in range(number(1, 5))]
            return self.inside(self.bottom) + "".join(lines)
        if kind == "save":
            self.saved = True
            return "\x1b7"
        if kind == "back":
            return "\x1b8" + self.word() if self.saved else ""
        return {
            "put": lambda: anywhere + self.word(),
            "index": lambda: self.inside(self.bottom, number(1, 20)) + "\x1bD" + self.word(),
            "reverse": lambda: self.inside(self.top, number(1, 20)) + "\x1bM" * number(1, 3) + self.word(),
            "up": lambda: f"\x1b[{number(1, 3)}S",
            "down": lambda: f"\x1b[{number(1, 3)}T",
            "insert": lambda: self.inside(self.top) + f"\x1b[{number(1, 3)}L" + self.word(),
            "delete": lambda: self.inside(self.top) + f"\x1b[{number(1, 3)}M",
            "move": lambda: f"\x1b[{number(1, 6)}{pick('ABCDG')}" + self.word(),
            "edit": lambda: f"\x1b[{number(1, ROWS)};{number(1, 8)}H\x1b[{number(1, 3)}{pick('@PX')}",
            "erase": lambda: f"\x1b[{number(1, ROWS)};{number(1, 8)}H\x1b[{number(0, 2)}K",
            "repeat": lambda: self.word() + pick("-x=") + f"\x1b[{number(1, 9)}b",
            "stops": lambda: pick(["\x1bH", "\x1b[g", STOPS]),
            "tab": lambda: (
                anywhere + self.word() + "\t" + self.word() + pick(["", f"\x1b[{number(1, 3)}Z" + self.word()])
            ),
            "mode": lambda: pick(["\x1b[4h", "\x1b[4l"]),
            "set": lambda: pick(
                ["\x1b(0lqqk\x1b(B", "\x1b)0\x0exqx\x0f", "\x1b(0", "\x1b(B", "\x0e", "\x0f", "\x1b)B"]
            ),
        }[kind]()


def lines(text: str) -> list[str]:
    """Without blanks: a gap that nobody printed may be shown narrower than it is."""
    return ["".join(line.split()) for line in text.split("\n") if line.strip()]


def history(tmux: Tmux, target: str) -> str:
    return tmux("capture-pane", "-p", "-e", "-S", "-", "-t", target)


@pytest.fixture
def pane(tmux: Tmux) -> str:
    tmux("new-session", "-d", "-s", "drawing", "-x", str(COLUMNS), "-y", str(ROWS), "exec sleep 1000")
    for name, value in {"remain-on-exit": "on", "status": "off", "window-size": "manual"}.items():
        tmux("set-option", "-t", "drawing", name, value)
    tmux("resize-window", "-t", "drawing", "-x", str(COLUMNS), "-y", str(ROWS))
    return "drawing:"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 1 << 32))
def test_random_drawing_reads_as_tmux_keeps_it(tmux: Tmux, pane: str, tmp_path: Path, seed: int) -> None:
    stream = Drawing(seed).stream
    (tmp_path / "stream").write_text(stream)
    # The title is the mark that tmux has read all of it; a new process begins on the old one's history.
    show = f"printf '\\033c\\033[3J'; cat {tmp_path}/stream; printf '\\033]2;seed {seed}\\007'; exec sleep 1000"
    tmux("respawn-pane", "-k", "-t", pane, show)
    wait_until(
        lambda: tmux("display-message", "-p", "-t", pane, "#{pane_title}"), lambda seen: f"seed {seed}\n" == seen
    )
    shown = clean(history(tmux, pane).encode(), continued=True)
    tmux("clear-history", "-t", pane)
    assert lines(clean(stream.encode())) == lines(shown)


def test_history_above_a_box_is_all_there(jobs: Jobs) -> None:
    job_id = jobs.execute(BOX).job_id
    wait_until(lambda: jobs.search(job_id, r"entry \d+ of").total, lambda total: total == 30)
    text = jobs.tail(job_id, lines=1000).stdout
    assert lines(text) == [*(f"entry{n}of30" for n in range(1, 31)), "+----+", "|>|", "+----+"]
    assert jobs.output(job_id).stdout.split() == text.split()
