"""Draws a screen as an image, for models and people: PNG by Pillow, colours by rich."""

from __future__ import annotations

import io
import re
import unicodedata
from functools import cache
from importlib.resources import files

import pymupdf_fonts  # type: ignore[import-untyped]
from PIL import Image, ImageDraw, ImageFont
from rich.ansi import AnsiDecoder
from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tmuxjobs.answers import Screen

SIZE = 15
CELL = (9, 20)
BASELINE = 16
FONTS = ("mono", "symbol2", "notos", "cjk")
"""The fonts searched for a character: JetBrains Mono, then Noto Sans Symbols 2, Noto Sans and Noto Sans CJK."""
NO_CHARACTER = "\U0010ffff"
ALIKE = {"\u2705": "\u2714", "\u274c": "\u2716", "\u274e": "\u2718"}
"""{mark that only fonts of coloured pictures have: a similar one}."""
DIM = 0.6
THEME = TerminalTheme(
    (16, 16, 16),
    (217, 217, 217),
    [
        *((40, 40, 40), (241, 76, 76), (78, 190, 90), (222, 170, 50)),
        *((98, 150, 255), (210, 110, 220), (60, 190, 205), (205, 205, 205)),
    ],
    [
        *((128, 128, 128), (255, 115, 110), (120, 225, 125), (250, 225, 100)),
        *((140, 185, 255), (235, 150, 245), (110, 225, 240), (255, 255, 255)),
    ],
)
"""Each colour but the first is readable on black, and the first on each; no two are alike."""
UNDERLINE = re.compile(r"(?P<line>\x1b\[(?:0;)?4)(?::[0-9])(?=m)|\x1b\[58[;:][0-9;:]*m")
"""The kind and colour of an underline, which rich takes as other attributes."""
Rgb = tuple[int, int, int]


def png(screen: Screen) -> bytes | None:
    """The screen in its colours with the cursor as a block, without what is empty below and to the right.

    None if nothing is on it.
    """
    console = Console(width=screen.columns, color_system="truecolor", file=io.StringIO(), legacy_windows=False)
    lines = [seen([*line.render(console)]) for line in styled_lines(screen)]
    if not any(lines):
        return None
    used = max([row for row, line in enumerate(lines, 1) if line] + [screen.cursor_row])
    columns = max(screen.cursor_column, *(Segment.get_line_length(line) for line in lines))
    wide, high = CELL
    image = Image.new("RGB", (columns * wide, used * high), THEME.background_color)
    draw = ImageDraw.Draw(image)
    for row, line in enumerate(lines[:used]):
        column = 0
        for part in line:
            style = part.style or Style.null()
            front, back = colours(style)
            for character in unicodedata.normalize("NFC", part.text):
                place = (column * wide, row * high)
                width = cell_len(character)
                if back != THEME.background_color:
                    draw.rectangle((*place, place[0] + width * wide - 1, place[1] + high - 1), fill=back)
                if width and not character.isspace():
                    draw_character(draw, character, column, row, front, bold=bool(style.bold))
                if style.underline:
                    bottom = place[1] + high - 2
                    draw.line((place[0], bottom, place[0] + width * wide, bottom), fill=front)
                column += width
    if screen.cursor_visible:
        draw_cursor(image, screen)
    stream = io.BytesIO()
    image.quantize(64).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def styled_lines(screen: Screen) -> list[Text]:
    """The lines in their colours, which tmux names where they change, possibly in an earlier line."""
    decoder = AnsiDecoder()
    lines = [decoder.decode_line(UNDERLINE.sub(lambda found: found["line"] or "", line)) for line in screen.styled]
    for line in lines:
        line.end = ""
    return lines


def seen(parts: list[Segment]) -> list[Segment]:
    """The parts of a line, without what shows nothing at its end."""
    while parts:
        text, style = parts.pop()[:2]
        filled = style is not None and style.bgcolor is not None and not style.bgcolor.is_default
        if filled or (style is not None and (style.reverse or style.underline)):
            return [*parts, Segment(text, style)]
        if text.strip():
            return [*parts, Segment(text.rstrip(), style)]
    return parts


def draw_cursor(image: Image.Image, screen: Screen) -> None:
    """Invert the cell, as terminals do."""
    wide, high = CELL
    left, top = (screen.cursor_column - 1) * wide, (screen.cursor_row - 1) * high
    box = (left, top, left + wide, top + high)
    image.paste(image.crop(box).point(lambda value: 255 - value), box)


def colours(style: Style) -> tuple[Rgb, Rgb]:
    """Foreground and background as they are seen."""
    front = tuple(style.color.get_truecolor(THEME, foreground=True)) if style.color else THEME.foreground_color
    back = tuple(style.bgcolor.get_truecolor(THEME, foreground=False)) if style.bgcolor else THEME.background_color
    if style.dim:
        front = tuple(round(DIM * f + (1 - DIM) * b) for f, b in zip(front, back, strict=True))
    pair = (back, front) if style.reverse else (front, back)
    return tuple(pair[0]), tuple(pair[1])  # type: ignore[return-value]


def draw_character(draw: ImageDraw.ImageDraw, character: str, column: int, row: int, front: Rgb, *, bold: bool) -> None:
    """Draw it in the middle of its cells, in the first font that has it, at a size that fits."""
    wide, high = CELL
    room = cell_len(character) * wide
    character = ALIKE.get(character, character)
    font = font_for(character, SIZE, bold=bold)
    left, right = ink(font, character)
    if right - left > room + 2:
        font = font_for(character, max(8, SIZE * room // (right - left)), bold=bold)
        left, right = ink(font, character)
    length = round(font.getlength(character))
    start = (room - length) // 2 if length <= room else (room - left - right) // 2
    draw.text((column * wide + start, row * high + BASELINE), character, fill=front, font=font, anchor="ls")


def ink(font: ImageFont.FreeTypeFont, character: str) -> tuple[int, int]:
    """The left and right edge of what is drawn of it."""
    left, _, right, _ = font.getbbox(character, anchor="ls")
    return round(left), round(right)


@cache
def font_for(character: str, size: int, *, bold: bool) -> ImageFont.FreeTypeFont:
    """The first font that has the character, else the first of all, which draws a box for it."""
    for name in FONTS:
        found = font(name, size, bold=bold)
        if bytes(found.getmask(character)) != bytes(found.getmask(NO_CHARACTER)):
            return found
    return font(FONTS[0], size, bold=bold)


@cache
def font(name: str, size: int, *, bold: bool) -> ImageFont.FreeTypeFont:
    """JetBrains Mono has the lines and blocks that programs draw with; the others what it lacks."""
    found = ImageFont.truetype(io.BytesIO(font_file(name)), size)
    if name == "mono":
        found.set_variation_by_axes([700 if bold else 400])
    return found


@cache
def font_file(name: str) -> bytes:
    if name == "mono":
        return (files("fontpkg_jetbrains_mono") / "files" / "JetBrainsMono[wght].ttf").read_bytes()
    if name == "cjk":
        return (files("noto_cjk_sans_jp_regular") / "NotoSansCJKjp-Regular.otf").read_bytes()
    return bytes(pymupdf_fonts.myfont(name))
