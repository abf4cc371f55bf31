"""What the person sees, told as text and as a picture."""

import io
from pathlib import Path

import pytest
from PIL import Image
from support import Tmux, ended, needs, record_of, wait_until

from tmuxjobs import Jobs
from tmuxjobs.errors import TmuxError
from tmuxjobs.picture import CELL, png


def test_screen_of_a_full_screen_program(jobs: Jobs, tmp_path: Path) -> None:
    needs("less")
    (tmp_path / "file").write_text("".join(f"line {n}\n" for n in range(500)))
    job_id = jobs.execute("less file", cwd=str(tmp_path)).job_id
    seen = wait_until(lambda: jobs.screen(job_id), lambda seen: "file" in seen.screen)
    assert seen.alternate
    assert seen.screen.splitlines()[:2] == ["line 0", "line 1"]
    assert (seen.cursor_row, seen.rows) == (50, 50)
    jobs.interact(job_id, keys=["PageDown"])
    assert "line 60" in jobs.screen(job_id).screen
    assert "[running, 220x50, cursor in row 50, column 2, full-screen program]" in jobs.screen(job_id).text()


def test_screen_shows_redraws_as_they_stand(jobs: Jobs) -> None:
    job_id = jobs.execute(r"printf 'one\n  two\033[31m red\033[m\033[A\rONE'; sleep 1000").job_id
    seen = wait_until(lambda: jobs.screen(job_id), lambda seen: "ONE" in seen.screen)
    assert seen.screen == "ONE\n  two red"
    assert (seen.cursor_row, seen.cursor_column, seen.alternate, seen.mode) == (1, 4, False, "")


def test_person_who_scrolls_back_is_seen(jobs: Jobs, tmux: Tmux) -> None:
    job_id = jobs.execute("seq 1 300; sleep 1000").job_id
    wait_until(lambda: jobs.screen(job_id).screen, lambda screen: "300" in screen)
    pane = record_of(jobs, job_id).run.pane  # type: ignore[union-attr]
    tmux("copy-mode", "-t", pane, ";", "send-keys", "-t", pane, "-X", "history-top")
    seen = jobs.screen(job_id)
    assert seen.screen.splitlines()[0] == "1"
    assert seen.mode == "copy-mode"
    assert "in copy-mode" in seen.text()


def test_finished_job_shows_its_end_until_its_window_is_closed(jobs: Jobs, tmux: Tmux) -> None:
    job_id = jobs.execute("echo done").job_id
    ended(jobs, job_id)
    wait_until(lambda: jobs.screen(job_id).screen, lambda screen: "exit code 0" in screen)
    tmux("kill-window", "-t", f"=mcp-jobs:{job_id}")
    with pytest.raises(TmuxError, match=r"window of job .* is closed; `output` has what it printed"):
        jobs.screen(job_id)


def test_picture_shows_text_colours_and_cursor(jobs: Jobs) -> None:
    job_id = jobs.execute(r"printf '\033[48;2;255;0;0m  \033[m ab\n\033[7m漢\033[m'; sleep 1000").job_id
    seen = wait_until(lambda: jobs.screen(job_id), lambda seen: "漢" in seen.screen)
    wide, high = CELL
    image = Image.open(io.BytesIO(png(seen))).convert("RGB")
    assert image.size == (5 * wide, 2 * high)
    assert image.getpixel((2 * wide - 1, high - 1)) == (255, 0, 0)
    background = image.getpixel((2 * wide + 1, 1))
    letters = image.crop((3 * wide, 0, 5 * wide, high)).getcolors()
    assert letters is not None
    assert len(letters) > 1
    assert image.getpixel((2 * wide + 1, high + 1)) != background  # the cursor
    assert image.getpixel((2 * wide - 1, 2 * high - 1)) != background  # reverse
