"""What the person sees, told as text and as a picture."""

import io
from pathlib import Path

import pytest
from PIL import Image
from support import Jobs, Tmux, ended, needs, record_of, wait_until

from tmuxjobs.answers import Screen
from tmuxjobs.errors import TmuxError
from tmuxjobs.picture import ALIKE, CELL, FONTS, NO_CHARACTER, SIZE, font, font_for, png
from tmuxjobs.verbs import prompts


def picture(seen: Screen) -> Image.Image:
    image = png(seen)
    assert image is not None
    return Image.open(io.BytesIO(image)).convert("RGB")


def test_screen_of_a_full_screen_program(jobs: Jobs, tmp_path: Path) -> None:
    needs("less")
    (tmp_path / "file").write_text("".join(f"line {n}\n" for n in range(500)))
    job_id = jobs.execute("less file", cwd=str(tmp_path)).job_id
    seen = wait_until(lambda: jobs.screen(job_id), lambda seen: "file" in seen.screen)
    assert seen.alternate
    assert seen.screen.splitlines()[:2] == ["line 0", "line 1"]
    assert (seen.cursor_row, seen.rows) == (50, 50)
    jobs.interact(job_id, keys=["PageDown"], wait=0)
    wait_until(lambda: "line 60" in jobs.screen(job_id).screen)
    assert "[running, 100x50, cursor in row 50, column 2, full-screen program]" in jobs.screen(job_id).text()


ASKS = f"python3 {Path(__file__).parents[1] / 'programs/asks.py'}"
SAYS = "a full-screen program: `screen` shows it"


@pytest.mark.parametrize("command", ["watch -n1 date", f"{ASKS} redraws title", "less -F /etc/services /etc/passwd"])
def test_answers_about_a_full_screen_program_say_that_it_is_one(
    jobs: Jobs, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(command.split()[0])
    monkeypatch.setattr(prompts, "TMUX_S", 20.0)  # so long tmux may take on a slow machine
    job_id = jobs.execute(command).job_id
    wait_until(lambda: jobs.screen(job_id).alternate)
    wait_until(lambda: SAYS in jobs.output(job_id).note)  # tmux shows it before the log has it
    assert jobs.tail(job_id).fields()["note"] == SAYS
    waited = jobs.wait(job_id, timeout=0.5)
    assert "full-screen program" in waited.note
    assert waited.note.count("`screen` shows") == 1
    assert "`screen` shows" in waited.fields()["note"]


def test_program_that_has_left_the_screen_or_only_draws_lines_is_not_called_one(jobs: Jobs) -> None:
    gone = jobs.execute(r"printf '\033[?1049h\033[Hmenu\033[?1049l\033[5;1Hback\n'; sleep 1000").job_id
    bar = jobs.execute(r"printf '\033[31mone\033[m\r\033[Ktwo\n'; sleep 1000").job_id
    for job_id in (gone, bar):
        wait_until(lambda at=job_id: "back" in jobs.output(at).stdout or "two" in jobs.output(at).stdout)  # type: ignore[misc]
        notes = (jobs.output(job_id).note, jobs.tail(job_id).note, jobs.wait(job_id, timeout=0.1).note)
        assert not any("full-screen" in note for note in notes)
    ended_one = jobs.execute(r"printf '\033[?1049h\033[Hmenu'").job_id
    ended(jobs, ended_one)
    assert "full-screen" not in jobs.output(ended_one).note


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
    job_id = jobs.execute(r"printf '\033[48;2;255;0;0m  \033[m ab   \n\033[7m漢\033[m'; sleep 1000").job_id
    seen = wait_until(lambda: jobs.screen(job_id), lambda seen: "漢" in seen.screen)
    wide, high = CELL
    image = picture(seen)
    assert image.size == (5 * wide, 2 * high)
    assert image.getpixel((2 * wide - 1, high - 1)) == (255, 0, 0)
    background = image.getpixel((2 * wide + 1, 1))
    letters = image.crop((3 * wide, 0, 5 * wide, high)).getcolors()
    assert letters is not None
    assert len(letters) > 1
    assert image.getpixel((2 * wide + 1, high + 1)) != background  # the cursor
    assert image.getpixel((2 * wide - 1, 2 * high - 1)) != background  # reverse


def test_colours_and_line_drawing_go_on_in_the_next_line(jobs: Jobs) -> None:
    drawing = r"\033[48;2;0;0;255m\033[4:3m\033[58:2::1:2:3m\033(0lq\r\nx \r\n\033[49mmq\033(B\033[m end"
    job_id = jobs.execute(f"printf '{drawing}'; sleep 1000").job_id
    seen = wait_until(lambda: jobs.screen(job_id), lambda seen: "end" in seen.screen)
    assert seen.screen == "┌─\n│\n└─ end"
    wide, high = CELL
    image = picture(seen)
    colours = [image.getpixel((wide + 1, row * high + 2)) for row in range(3)]
    assert colours[:2] == [(0, 0, 255), (0, 0, 255)]
    assert colours[2] == image.getpixel((3 * wide + 1, 2 * high + 2))


@pytest.mark.parametrize(
    "marks",
    ["✓✗✔✘✖\u2139⚠★☐☑⏵\u276f", "⠋⠙⠹⣿", "┌─┐│╭╰═║█▓▒░▁▇", "漢字한글あア\uff0c。中", "\u2705\u274c\u274e", "Ünïé→ελя"],
)
def test_picture_has_the_characters_that_programs_draw_with(marks: str) -> None:
    for mark in marks:
        drawn = ALIKE.get(mark, mark)
        found = font_for(drawn, SIZE, bold=False)
        assert bytes(found.getmask(drawn)) != bytes(found.getmask(NO_CHARACTER)), mark


def test_character_that_no_font_has_is_drawn_as_a_box() -> None:
    assert font_for("\U0010fffd", SIZE, bold=True) is font(FONTS[0], SIZE, bold=True)


@pytest.mark.parametrize("colours", ["1;31", "31", "1;91", "34", "1;34", "35", "90", "30;41", "30;42"])
def test_text_in_each_colour_stands_out(jobs: Jobs, colours: str) -> None:
    job_id = jobs.execute(rf"printf '\033[{colours}m\342\226\210 \033[m'; sleep 1000").job_id
    seen = wait_until(lambda: jobs.screen(job_id), lambda seen: seen.screen != "")
    image = picture(seen)
    wide, high = CELL
    front = luminance(image.getpixel((wide // 2, high // 2)))  # a full block
    back = luminance(image.getpixel((wide + wide // 2, high // 2 + 1))) if ";4" in colours else luminance((16, 16, 16))
    assert (max(front, back) + 0.05) / (min(front, back) + 0.05) >= 4


def luminance(colour: object) -> float:
    """As WCAG 2 has it for contrasts."""
    assert isinstance(colour, tuple)
    parts = [part / 255 for part in colour]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_wide_and_narrow_characters_keep_to_their_cells(jobs: Jobs) -> None:
    """What stands behind a mark or a Chinese character is where it would be without."""
    job_id = jobs.execute(r"printf '\342\234\224\346\274\242|\nxxx|\n'; sleep 1000").job_id
    seen = wait_until(lambda: jobs.screen(job_id), lambda seen: "xxx" in seen.screen)
    wide, high = CELL
    image = picture(seen)
    bars = [image.crop((3 * wide, row * high, 4 * wide, (row + 1) * high)) for row in range(2)]
    assert bars[0].tobytes() == bars[1].tobytes()


def test_empty_screen_is_told_and_not_drawn(jobs: Jobs) -> None:
    job_id = jobs.execute(r"sleep 1000").job_id
    seen = jobs.screen(job_id)
    assert png(seen) is None
    assert "nothing is on the screen]" in seen.text()
    assert seen.fields()["note"] == "nothing is on the screen"
