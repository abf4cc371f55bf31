"""Typing secrets: whether the terminal or the program hides them, tried with one character where only that shows it."""

from __future__ import annotations

import re
import time
from typing import Literal

from tmuxjobs.arguments import Pipe
from tmuxjobs.errors import InvalidInput, JobEnded, TmuxError
from tmuxjobs.hosts.local import Host
from tmuxjobs.states import Job
from tmuxjobs.system import terminals
from tmuxjobs.system.terminals import Terminal
from tmuxjobs.text import paging
from tmuxjobs.text.log import log_size
from tmuxjobs.tmux import keyboard
from tmuxjobs.tmux.panes import Pane, Screen
from tmuxjobs.verbs import controls, prompts

Hidden = Literal["by the terminal", "by the program"]
PROMPT_S = 0.3
"""A prompt that has come just now is not known as one yet."""
LOOK_S = 0.02
ARRIVED_S = 0.06
"""Since tmux was given something to type, until the terminal has it."""
SETTLED_S = 0.25
"""Since the log grew, when a program that waits again has drawn all that it draws."""
UNSEEN_S = 5.0
"""At the most until a program has taken a character and drawn what it draws."""
ERASE = "\x7f"
CONTROL = re.compile(rb"[\x01-\x08\x0b-\x1f\x7f]")
"""What a terminal that takes lines acts on; Ctrl-V before it makes text of it."""
KEYS_BYTES = 64
"""More than one press of a key sends comes from a pipe or a paste, and waits until the program reads."""
ATTENDS_S = 60.0
"""At the most until a program is seen to read: one that reads in a way that the kernel does not show gets it then."""
PUSH, LITERAL_END = b"\x04", b"\x16\n"


def hides(host: Host, job: Job, settings: Terminal | None) -> Hidden | None:
    """What hides typed text now: the terminal, or a program that seems to ask for a password; None for neither."""
    if settings is None or settings.echo:
        return None
    deadline = time.monotonic() + PROMPT_S
    while (asked := prompts.prompt(host, job)) is None and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    if settings.hides and (asked is not None or not terminals.LINUX):
        return "by the terminal"
    return "by the program" if asked is not None and asked.waits_for == "password" and not asked.full_screen else None


def ask_person(host: Host, job: Job) -> str:
    return f"ask the person to type it there: {host.attach_line(job)}"


def begin(host: Host, job: Job, pane: Pane, secret: str) -> str:
    """Type the first character; answers with the rest once the program has taken that one and does not show it.

    Raises InvalidInput when it does, or may.
    """
    first = secret[:1]
    if not first.strip():
        return secret
    before, size = host.tmux.screen(pane, live=True), log_size(job.log)
    keyboard.type_text(host.tmux, pane, first, hidden=True)
    if is_unseen(host, job, pane, first, before=before, size=size):
        return secret[1:]
    keyboard.type_text(host.tmux, pane, ERASE, hidden=True)
    raise InvalidInput(
        "The program may show what is typed, so the secret would be in its log: one character was typed, and erased "
        f"again. To answer it, {ask_person(host, job)}"
    )


def is_unseen(host: Host, job: Job, pane: Pane, character: str, *, before: Screen, size: int) -> bool:
    """Whether the program has read the character and drawn all that it draws, and the character is not in that."""
    deadline = time.monotonic() + UNSEEN_S
    grown, changed_at = size, time.monotonic()
    while (now := time.monotonic()) < deadline:
        if log_size(job.log) != grown:
            grown, changed_at = log_size(job.log), now
        front = host.machine.fronts({pane.tty: job.run.pid if job.run else 0}, pause_s=0).get(pane.tty)
        if host.machine.unread(pane.tty) or front is None or not front.attends:
            changed_at = now
        elif now - changed_at > SETTLED_S + min(front.every_s or 0.0, 1.0):
            after = host.tmux.screen(pane, live=True)
            row = before.lines[before.cursor_row] if before.cursor_row < len(before.lines) else ""
            drawn = paging.read(job.log, cursor=size).text
            seen, was = ("".join(screen.lines).count(character) for screen in (after, before))
            return seen <= was and (character in row or character not in drawn)
        time.sleep(LOOK_S)
    return False


def type(host: Host, job_id: str, data: bytes, *, pipe: Pipe | None = None) -> int:
    """Type these bytes as they are, and record nothing of them; how many of them, 0 when it is too early.

    All that comes by a `pipe` is text: a terminal in line mode does not show it, and shows again what is typed after
    the pipe has ended. The end of a pipe needs no job that takes it.

    Raises JobNotFound, JobEnded, InvalidInput, and TmuxError when the job has no window.
    """
    job = host.look(job_id)
    is_end = pipe is not None and pipe.ended
    if not job.runs:
        if is_end:
            return len(data)
        raise JobEnded(f"Job '{job_id}' takes no input: {job.detail}.")
    pane = host.tmux.panes().get(job_id)
    if pane is None or pane.dead:
        if is_end:
            return len(data)
        raise TmuxError(f"The window of job '{job_id}' is closed.")
    has_started = job.spec.adopted or (job.run is not None and job.run.command_pid is not None)
    # Before its command starts the terminal is set up, which ends the lines in it elsewhere.
    if not has_started:
        return 0
    if pipe is not None:
        return _pour(host, job, pane, data, pipe)
    if len(data) > KEYS_BYTES and host.machine.unread(pane.tty):
        return 0
    keyboard.feed(host.tmux, pane, data)
    return len(data)


def _pour(host: Host, job: Job, pane: Pane, data: bytes, pipe: Pipe) -> int:
    """Type the next piece of a pipe once the last one was read."""
    waits = pipe.alone > 0 or pipe.open > 0 or len(data) > KEYS_BYTES
    if waits and not _is_read(host, job, pane, pipe):
        return 0
    if pipe.ended:
        _end(host, job, pane, data, pipe)
        return len(data)
    settings = host.machine.terminal(pane.tty)
    cooked = settings is not None and settings.cooked
    line = data[: data.find(b"\n") + 1] or data
    piece = line if pipe.alone or (b"\t" in data and not cooked) else data
    if settings is None or not cooked:
        pipe.open = 0
        _edit(host, job, pane, settings, piece)
    else:
        room = controls.PART_BYTES - pipe.open
        pushes = len(line) > room
        if pushes:
            controls.check_ends(settings)
            # More of the line follows: Ctrl-D ends the input where no part of a line is before it.
            piece = line[: min(max(room, 1), len(line) - 1)]
        _hide(host, pane, settings, piece, pipe, pushes=pushes)
        rest = len(piece) - piece.rfind(b"\n") - 1
        pipe.open = 0 if pushes else rest if b"\n" in piece else pipe.open + rest
    if pipe.alone:
        time.sleep(ARRIVED_S)
        pipe.alone -= 1
    return len(piece)


def _is_read(host: Host, job: Job, pane: Pane, pipe: Pipe) -> bool:
    """Whether the terminal has nothing unread and, for a line that comes alone, a program waits to read it.

    A program that drops what it has not read, as many do that ask for passwords, does so before it waits.
    """
    unread = host.machine.unread(pane.tty) > 0
    if not pipe.alone:
        return not unread
    if not unread:
        front = host.machine.fronts({pane.tty: job.run.pid if job.run else 0}).get(pane.tty)
        if front is None or front.attention != "none":
            pipe.since = None
            return True
    pipe.since = pipe.since or time.monotonic()
    if time.monotonic() - pipe.since > ATTENDS_S:
        pipe.alone = 0
    return False


def _edit(host: Host, job: Job, pane: Pane, settings: Terminal | None, piece: bytes) -> None:
    """Type a piece for a program that takes keys, with its tabs as text."""
    text = piece.decode(errors="replace")
    way = controls.way(host, job, pane, settings, text)
    if way.tabs == "pasted" and text.encode() == piece:
        keyboard.type_text(host.tmux, pane, text, hidden=True, way=way)
        return
    piece = piece.replace(b"\t", keyboard.QUOTED_TAB.encode()) if way.tabs == "quoted" else piece
    keyboard.feed(host.tmux, pane, piece.replace(b"\n", b"\r"))


def _hide(host: Host, pane: Pane, settings: Terminal, piece: bytes, pipe: Pipe, *, pushes: bool) -> None:
    """Type a piece into a terminal in line mode that does not show it; `pushes` hands over a line that goes on.

    Ctrl-D hands over what is in an open line, and is not shown. So a line that comes alone is not read before the
    terminal shows again what is typed, and no program finds other modes there than its own.
    """
    text = (CONTROL.sub(b"\x16\\g<0>", piece) if settings.quotes else piece).replace(b"\n", b"\r")
    hidden = host.machine.set_echo(pane.tty, on=False)
    alone = pipe.alone > 0 and hidden
    if alone and not pushes and piece.endswith(b"\n") and settings.quotes and settings.ends:
        text, pushes = text[:-1] + LITERAL_END, True
    text += PUSH if pushes and not alone else b""
    if text:
        keyboard.feed(host.tmux, pane, text)
    if alone:
        time.sleep(ARRIVED_S)
        host.machine.set_echo(pane.tty, on=True)
        if pushes:
            keyboard.feed(host.tmux, pane, PUSH)
    else:
        pipe.hidden |= hidden


def _end(host: Host, job: Job, pane: Pane, data: bytes, pipe: Pipe) -> None:
    if pipe.hidden:
        deadline = time.monotonic() + UNSEEN_S
        time.sleep(ARRIVED_S)
        while host.machine.unread(pane.tty) and time.monotonic() < deadline:
            time.sleep(LOOK_S)
        asked = prompts.prompt(host, job)
        if asked is None or asked.waits_for != "password":  # which the program hides by itself
            host.machine.set_echo(pane.tty, on=True)
    try:
        keyboard.feed(host.tmux, pane, data)
    except TmuxError:
        if job.id in host.tmux.panes():
            raise
