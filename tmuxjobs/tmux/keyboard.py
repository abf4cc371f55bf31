"""Types text and presses keys in a pane, as a person would at its keyboard; knows keys by the names people write."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import secrets
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from tmuxjobs.errors import InvalidInput, TmuxError
from tmuxjobs.tmux.panes import Pane
from tmuxjobs.tmux.session import Tmux

Tabs = Literal["keys", "pasted", "quoted"]
"""What is done about the tabs in a text: nothing, brackets around all of it, or Ctrl-V before each."""
QUOTED_TAB = "\x16\t"
HARMLESS = re.compile(rb"[\t\r\n -~]*")
"""What every tmux pastes as it is."""
SHORT_CHARS = 500
FEW_LINES = 5
NAMED_KEYS = {
    "enter": "Enter",
    "return": "Enter",
    "escape": "Escape",
    "esc": "Escape",
    "tab": "Tab",
    "btab": "BTab",
    "space": "Space",
    "bspace": "BSpace",
    "backspace": "BSpace",
    "up": "Up",
    "down": "Down",
    "left": "Left",
    "right": "Right",
    "home": "Home",
    "end": "End",
    "pageup": "PPage",
    "pgup": "PPage",
    "ppage": "PPage",
    "pagedown": "NPage",
    "pgdn": "NPage",
    "npage": "NPage",
    "insert": "IC",
    "ic": "IC",
    "delete": "DC",
    "dc": "DC",
    **{f"f{number}": f"F{number}" for number in range(1, 13)},
}
MODIFIERS = {"c": "C-", "ctrl": "C-", "control": "C-", "m": "M-", "alt": "M-", "meta": "M-", "s": "S-", "shift": "S-"}
CONTROLS = "abcdefghijklmnopqrstuvwxyz@[\\]^_/?-"
"""Characters that a terminal has a control code for."""
BY_ESCAPES = {
    "Up",
    "Down",
    "Left",
    "Right",
    "Home",
    "End",
    "PPage",
    "NPage",
    "IC",
    "DC",
    *(f"F{n}" for n in range(1, 13)),
}
"""Keys whose sequences name the modifiers; all other keys are one byte, which has no room for most modifiers."""
SAME_BYTES = {
    ("S-", "Tab"): "BTab",
    ("M-S-", "Tab"): "M-BTab",
    ("S-", "Space"): "Space",
    ("S-", "BSpace"): "BSpace",
    ("C-", "BSpace"): "C-h",
}
"""Keys for which terminals send the bytes of another key."""
MODIFIED = dict.fromkeys(("Tab", "BTab", "Enter", "Escape", "BSpace"), ("M-",)) | {"Space": ("C-", "M-", "C-M-")}


class Way(NamedTuple):
    """How to type a text: `by_line` for a program that would take several lines as one paste for one line."""

    by_line: bool = False
    tabs: Tabs = "keys"


AS_IT_IS = Way()


def key_name(key: str) -> str:
    """tmux's name of a key: `C-c`, `^C`, `ctrl+c`, `Up`, `F5`, `a`, as an argument of `send-keys`.

    Raises InvalidInput for what is not a key, which tmux would type as letters, and for a key with modifiers that
    terminals have no bytes for, for which tmux would send nothing.
    """
    rest = f"C-{key[1:]}" if len(key) == 2 and key[0] == "^" else key
    given = set()
    while match := re.match(r"([A-Za-z]+)[-+](?=.)", rest):
        if match[1].lower() not in MODIFIERS:
            break
        given.add(MODIFIERS[match[1].lower()])
        rest = rest[match.end() :]
    modifiers = "".join(one for one in ("C-", "M-", "S-") if one in given)
    name = NAMED_KEYS.get(rest.lower())
    if name is not None:
        if not modifiers or name in BY_ESCAPES or modifiers in MODIFIED[name]:
            return modifiers + name
        if (modifiers, name) in SAME_BYTES:
            return SAME_BYTES[modifiers, name]
        raise InvalidInput(_without_bytes(key))
    if len(rest) != 1 or not rest.isprintable():
        raise InvalidInput(
            f"'{key}' is not a key; use names like Enter, Escape, Tab, Up, PageDown, F5, C-c, M-x or one character."
        )
    if "S-" in given and "C-" not in given and rest.isascii() and rest.isalpha():
        rest, modifiers = rest.upper(), modifiers.removesuffix("S-")
    if "C-" in given:
        rest = rest.lower()
    if "S-" in modifiers or ("C-" in given and rest not in CONTROLS):
        raise InvalidInput(_without_bytes(key))
    # A lone `;` ends a tmux command, so it is given by its code.
    return "0x3b" if modifiers + rest == ";" else modifiers + rest


def _without_bytes(key: str) -> str:
    return f"'{key}' cannot be sent: terminals have no code for it. Nothing was typed; use another key for the same."


def type_text(
    tmux: Tmux,
    pane: Pane,
    text: str,
    *,
    hidden: bool,
    way: Way = AS_IT_IS,
    before_enter: Callable[[], None] | None = None,
) -> None:
    """Type the text, as a keyboard would: every newline is Enter. Any length, exact.

    `hidden` text must not be seen: every user can see the arguments of `send-keys`. With *before_enter* the last Enter
    comes separately, after calling it.
    """
    text = text.replace("\r\n", "\r").replace("\n", "\r")
    text = text.replace("\t", QUOTED_TAB) if way.tabs == "quoted" else text
    lines = text.removesuffix("\r").split("\r")
    ordinary = len(lines) <= (FEW_LINES if way.by_line else 1) and len(text) <= SHORT_CHARS
    # A lone `;` separates tmux commands.
    ordinary = ordinary and ";" not in lines and all(map(str.isprintable, lines))
    if ordinary and not hidden and not pane.in_mode:
        _by_keys(tmux, pane, lines, ends=text.endswith("\r"), before_enter=before_enter)
    else:
        brackets = way.tabs == "pasted" or (way.tabs == "keys" and len(lines) > 1 and not way.by_line)
        _by_paste(tmux, pane, text, before_enter, brackets=brackets)


def _by_keys(
    tmux: Tmux, pane: Pane, lines: Sequence[str], *, ends: bool, before_enter: Callable[[], None] | None
) -> None:
    keys = ("send-keys", "-t", pane.pane_id)
    words: list[str] = []
    for number, line in enumerate(lines):
        words += [";", *keys, "Enter"] if number else []
        words += [";", *keys, "-l", "--", line] if line else []
    if ends and before_enter is not None:
        if words:
            tmux.run(*words[1:])
        before_enter()
        words = []
    words += [";", *keys, "Enter"] if ends else []
    if words:
        tmux.run(*words[1:])


def _by_paste(tmux: Tmux, pane: Pane, text: str, before_enter: Callable[[], None] | None, *, brackets: bool) -> None:
    """Paste from a buffer that is read from standard input, which leaves a person's copy mode alone.

    With `brackets`, a program that takes bracketed pastes has it as one, or its editor would indent several lines.
    """
    lines = text.removesuffix("\r")
    name = f"tmuxjobs-{os.getpid()}-{secrets.token_hex(4)}"
    data = lines.encode()
    paste = ("paste-buffer", "-d", "-r", *_flag(tmux, data), "-t", pane.pane_id, "-b")
    enter = ("set-buffer", "-b", f"{name}-enter", "--", "\r", ";", *paste, f"{name}-enter")
    if not lines:
        tmux.run(*enter)
        return
    whole = (*paste, name, *(["-p"] if brackets else []))
    after = (";", *enter) if text != lines and before_enter is None else ()
    try:
        tmux.run("load-buffer", "-b", name, "-", ";", *whole, *after, stdin=data)
        if text != lines and before_enter is not None:
            before_enter()
            tmux.run(*enter)
    except TmuxError:
        for left in (name, f"{name}-enter"):
            with contextlib.suppress(TmuxError):  # the first error is the one to report
                tmux.server.cmd("delete-buffer", "-b", left)
        raise


def _flag(tmux: Tmux, data: bytes) -> tuple[str, ...]:
    """The flag without which tmux 3.8 pastes `^D` as two characters; older ones do not have it."""
    return () if HARMLESS.fullmatch(data) else _flag_of(tmux)


@functools.cache
def _flag_of(tmux: Tmux) -> tuple[str, ...]:
    usage = " ".join(tmux.run("list-commands", "-F", "#{command_list_usage}", "paste-buffer"))
    return ("-S",) if re.search(r"\[-\w*S\w*\]", usage) else ()


def feed(tmux: Tmux, pane: Pane, data: bytes) -> None:
    """Send these bytes to the program, as a keyboard would."""
    name = f"tmuxjobs-{os.getpid()}-{secrets.token_hex(4)}"
    paste = ("paste-buffer", "-d", "-r", *_flag(tmux, data), "-t", pane.pane_id, "-b", name)
    tmux.run("load-buffer", "-b", name, "-", ";", *paste, stdin=data)


def press(tmux: Tmux, pane: Pane, keys: Sequence[str]) -> None:
    """Press named keys, in tmux's names as `key_name` gives them; a person's copy mode ends."""
    tmux.run("copy-mode", "-q", "-t", pane.pane_id, ";", "send-keys", "-t", pane.pane_id, "--", *keys)
