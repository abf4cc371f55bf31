"""Names of keys, as people write them and as tmux takes them."""

from __future__ import annotations

import re

from tmuxjobs.errors import InvalidInput

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


def key_name(key: str) -> str:
    """tmux's name of a key: `C-c`, `^C`, `ctrl+c`, `Up`, `F5`, `a`. Else InvalidInput: tmux would type the letters."""
    rest = f"C-{key[1:]}" if len(key) == 2 and key[0] == "^" else key
    modifiers = ""
    while match := re.match(r"([A-Za-z]+)[-+](?=.)", rest):
        if match[1].lower() not in MODIFIERS:
            break
        modifiers += MODIFIERS[match[1].lower()]
        rest = rest[match.end() :]
    if rest.lower() in NAMED_KEYS:
        return modifiers + NAMED_KEYS[rest.lower()]
    if len(rest) == 1 and rest.isprintable():
        return modifiers + (rest.lower() if "C-" in modifiers else rest)
    raise InvalidInput(
        f"'{key}' is not a key; use names like Enter, Escape, Tab, Up, PageDown, F5, C-c, M-x or one character."
    )
