"""tmux 3.2 expands a format ten levels deep and leaves out what is below; 3.3 raised that to a hundred."""

import re
from pathlib import Path

import pytest

from tmuxjobs.tmux.status_line import OPTIONS

MOST = 10
CONF = (Path(__file__).parents[2] / "conf" / "tmux.conf").read_text()


def levels(text: str) -> int:
    """How often tmux's format_expand calls itself: once for each `#{...}` with something to expand around it."""
    deepest = depth = 0
    for part in re.findall(r"#\{@?\w+\}|#\{|\}", text):
        depth += {"#{": 1, "}": -1}.get(part, 0)
        deepest = max(deepest, depth)
    return 1 + deepest


@pytest.mark.parametrize(("name", "value"), OPTIONS)
def test_status_lines_are_drawn_whole_by_tmux_3_2(name: str, value: str) -> None:
    assert levels(value) <= MOST


@pytest.mark.parametrize(("name", "value"), OPTIONS)
def test_status_lines_fit_where_tmux_expands_the_time(name: str, value: str) -> None:
    """It has 8,192 bytes for it (3.3a, format_expand1), and shows nothing of a longer one. A `%s` is ten digits."""
    assert len(value.encode()) + 8 * value.count("%s") < 8192


def test_status_segment_is_drawn_whole_by_tmux_3_2() -> None:
    options = dict(re.findall(r'^set-option -g (@\w+) "(.*)"$', CONF, re.MULTILINE))
    segment = options["@tmuxjobs_segment"]
    for name, value in options.items():
        segment = re.sub(rf"#\{{(E(?:;n)?:){name}\}}", lambda found, value=value: f"#{{{found[1]}{value}}}", segment)
    # In a status line: `status-format`, and `status-right` in it, are around it.
    assert levels(f"#{{T:status #{{E:{segment}}}}}") <= MOST
