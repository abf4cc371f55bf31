"""A screen as an image, for models and people that look: PNG by Pillow, colours by rich."""

from __future__ import annotations

import io
from functools import cache
from importlib.resources import files

from PIL import Image, ImageDraw, ImageFont
from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import MONOKAI
from rich.text import Text

from tmuxjobs.answers import Screen

SIZE = 15
CELL = (9, 20)
DIM = 0.6
Rgb = tuple[int, int, int]


def png(screen: Screen) -> bytes:
    """The screen in its colours with the cursor as a block, less what is empty below and to the right."""
    used = max([row for row, line in enumerate(screen.styled, 1) if line.strip()] + [screen.cursor_row])
    columns = max(screen.cursor_column, *(Text.from_ansi(line).cell_len for line in screen.styled))
    wide, high = CELL
    image = Image.new("RGB", (columns * wide, used * high), MONOKAI.background_color)
    draw = ImageDraw.Draw(image)
    console = Console(width=screen.columns, color_system="truecolor", file=io.StringIO(), legacy_windows=False)
    for row, line in enumerate(screen.styled[:used]):
        column = 0
        for part in Text.from_ansi(line, no_wrap=True, end="").render(console):
            style = part.style or Style.null()
            front, back = colours(style)
            for character in part.text:
                place = (column * wide, row * high)
                width = cell_len(character)
                if back != MONOKAI.background_color:
                    draw.rectangle((*place, place[0] + width * wide - 1, place[1] + high - 1), fill=back)
                if not character.isspace():
                    draw.text(place, character, fill=front, font=font(bold=bool(style.bold)))
                if style.underline:
                    bottom = place[1] + high - 2
                    draw.line((place[0], bottom, place[0] + width * wide, bottom), fill=front)
                column += width
    if screen.cursor_visible:
        draw_cursor(image, screen)
    stream = io.BytesIO()
    image.quantize(64).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def draw_cursor(image: Image.Image, screen: Screen) -> None:
    """Inverts the cell, as terminals do."""
    wide, high = CELL
    left, top = (screen.cursor_column - 1) * wide, (screen.cursor_row - 1) * high
    box = (left, top, left + wide, top + high)
    image.paste(image.crop(box).point(lambda value: 255 - value), box)


def colours(style: Style) -> tuple[Rgb, Rgb]:
    """Foreground and background as they are seen."""
    front = tuple(style.color.get_truecolor(MONOKAI, foreground=True)) if style.color else MONOKAI.foreground_color
    back = tuple(style.bgcolor.get_truecolor(MONOKAI, foreground=False)) if style.bgcolor else MONOKAI.background_color
    if style.dim:
        front = tuple(round(DIM * f + (1 - DIM) * b) for f, b in zip(front, back, strict=True))
    pair = (back, front) if style.reverse else (front, back)
    return tuple(pair[0]), tuple(pair[1])  # type: ignore[return-value]


@cache
def font(*, bold: bool) -> ImageFont.FreeTypeFont:
    """JetBrains Mono, which has the lines and blocks that programs draw with."""
    with (files("fontpkg_jetbrains_mono") / "files" / "JetBrainsMono[wght].ttf").open("rb") as file:
        found = ImageFont.truetype(io.BytesIO(file.read()), SIZE)
    found.set_variation_by_axes([700 if bold else 400])
    return found
