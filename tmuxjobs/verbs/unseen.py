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
from tmuxjobs.verbs import prompts

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


def type(host: Host, job_id: str, data: bytes, *, pipe: Pipe | None = None) -> bool:
    """Type these bytes as they are, and record nothing of them; False when it is too early.

    All that comes by a `pipe` is text: a terminal in line mode does not show it, and shows again what is typed after
    the pipe has ended.

    Raises JobNotFound, JobEnded, and TmuxError when the job has no window.
    """
    job = host.look(job_id)
    if not job.runs:
        raise JobEnded(f"Job '{job_id}' takes no input: {job.detail}.")
    pane = host.tmux.panes().get(job_id)
    if pane is None or pane.dead:
        raise TmuxError(f"The window of job '{job_id}' is closed.")
    has_started = job.spec.adopted or (job.run is not None and job.run.command_pid is not None)
    # Before its command starts the terminal is set up, which ends the lines in it elsewhere.
    if not has_started or (len(data) > KEYS_BYTES and host.machine.unread(pane.tty)):
        return False
    if pipe is not None and not pipe.ended:
        settings = host.machine.terminal(pane.tty)
        if settings is not None and settings.cooked:
            pipe.hidden |= host.machine.set_echo(pane.tty, on=False)
            data = CONTROL.sub(b"\x16\\g<0>", data) if settings.quotes else data
        data = data.replace(b"\n", b"\r")
    if pipe is not None and pipe.ended and pipe.hidden:
        deadline = time.monotonic() + UNSEEN_S
        time.sleep(ARRIVED_S)
        while host.machine.unread(pane.tty) and time.monotonic() < deadline:
            time.sleep(LOOK_S)
        asked = prompts.prompt(host, job)
        if asked is None or asked.waits_for != "password":  # which the program hides by itself
            host.machine.set_echo(pane.tty, on=True)
    keyboard.feed(host.tmux, pane, data)
    return True
