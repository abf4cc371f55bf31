"""`interact`: type into a job, and answer with what it says in response."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

from tmuxjobs.answers import Output, waiting
from tmuxjobs.arguments import encoded
from tmuxjobs.errors import InvalidInput, JobEnded, TmuxError
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import Job
from tmuxjobs.store import typed
from tmuxjobs.system import terminals
from tmuxjobs.system.terminals import Terminal
from tmuxjobs.text import matching, paging
from tmuxjobs.text.log import log_size
from tmuxjobs.tmux.keys import key_name
from tmuxjobs.tmux.panes import Pane
from tmuxjobs.verbs import prompts, screen
from tmuxjobs.verbs.output import CHARS_MAX, answer_of
from tmuxjobs.verbs.waiter import Watched, waits, waits_async
from tmuxjobs.visible import visible, visible_lines

Seek = Callable[[str], bool]
WAIT_S = 5.0
WAIT_MAX_S = 50.0
QUIET_S = 0.06
"""Since the log grew, until it is asked whether the program waits for input."""
SETTLED_S = 0.25
"""Since it was first seen to wait without a prompt."""
LONG_QUIET_S = 1.0
"""Until a program that shows no prompt has answered."""
RECHECK_S = 0.1
PROMPT_S = 0.2
"""A prompt that has come just now is not known as one yet."""
LINE_BYTES = 4095
"""What a terminal takes as one line while it is cooked; it cuts what is longer, n_tty(4)."""
PATTERN_S = 5.0
CHARS = 8_000
"""Characters of a response; a longer one is shown by its head and its end."""
PROMPT_CHARS = 8
"""Of a prompt before an empty line, such as `... `."""
NARROW = 20
"""Columns at the least, where a line editor breaks a long line."""


def begin(
    host: Host,
    job_id: str,
    input: str | None = None,
    *,
    keys: Sequence[str] | str = (),
    enter: bool = True,
    wait: float = WAIT_S,
    pattern: str | None = None,
    secret: bool = False,
) -> Exchange:
    """Type the text, then press the keys; answers with what the job printed in response.

    Enter follows the text unless it ends with a newline, keys follow, or `enter` is false; one string of keys is split
    at blanks. A `secret` is typed only where the terminal does not show it. The answer comes when `pattern` (a regular
    expression) shows, when the program waits for input again, is quiet or has ended, at the latest after `wait` seconds
    (0 to 50). Raises JobNotFound, JobEnded, InvalidInput.
    """
    names = [key_name(key) for key in (keys.split() if isinstance(keys, str) else keys)]
    seek = seeker(pattern) if pattern is not None else None
    nothing, input = input is None, input or ""
    encoded("input", input)
    job = host.look(job_id)
    if not job.runs:
        raise JobEnded(f"Job '{job_id}' takes no input: {job.detail}.")
    if not names and nothing:
        raise InvalidInput("There is nothing to type: give `input` or `keys`; `tail` shows what the job printed.")
    pane = host.tmux.panes().get(job_id)
    if pane is None or pane.dead:
        raise TmuxError(f"Job '{job_id}' has no window on this tmux server (socket {host.settings.socket_name}).")
    text = input if input.endswith("\n") or names or not enter else input + "\n"
    settings = terminals.terminal(pane.tty)
    check_lines(settings, text)
    hidden = hides(host, job, settings)
    if secret and not hidden:
        raise InvalidInput(
            "The job does not hide what is typed now, so the secret would be in its log; nothing was typed. Wait until "
            f"it asks for a password, or ask the person to type it there: {host.attach_line(job)}"
        )
    echo = "" if secret or (settings is not None and settings.hides) else text
    return Exchange(
        host,
        job,
        lambda: send(host, pane, text, names),
        seek=seek,
        echo=echo,
        noted=bool(echo) and not hidden,
        wait_s=max(0.0, min(wait, WAIT_MAX_S)),
    )


interact = waits(begin)
interact_async = waits_async(begin)


def hides(host: Host, job: Job, settings: Terminal | None) -> bool:
    """Whether what is typed now is not shown: by the terminal, or by a program that asks for a password."""
    if settings is None or settings.echo:
        return False
    if settings.hides:
        return True
    deadline = time.monotonic() + PROMPT_S
    while (asked := prompts.prompt(host, job)) is None and time.monotonic() < deadline:
        time.sleep(QUIET_S / 3)
    return asked is not None and asked.waits_for == "password"


def seeker(pattern: str) -> Seek:
    """Whether a response has the pattern; raises InvalidInput for a wrong one and for one that takes too long."""
    wanted = matching.compiled(pattern)

    def seek(text: str) -> bool:
        try:
            return wanted.search(text, timeout=PATTERN_S, concurrent=True) is not None
        except TimeoutError:
            raise InvalidInput(
                f"It was typed, but the pattern takes more than {PATTERN_S:.0f} s: use a simpler one, or read `output`."
            ) from None

    return seek


def send(host: Host, pane: Pane, text: str, names: Sequence[str]) -> None:
    doubtful = "the text"
    try:
        if text:
            host.tmux.type(pane, text)
        doubtful = "the keys, after the text," if text else "the keys"
        if names:
            host.tmux.press(pane, names)
    except TmuxError as error:
        raise TmuxError(
            f"{error} Whether {doubtful} reached the job is not known: look before you repeat it."
        ) from None


def check_lines(settings: Terminal | None, text: str) -> None:
    longest = max((len(line.encode(errors="replace")) for line in text.split("\n")), default=0)
    if settings is not None and settings.cooked and longest > LINE_BYTES:
        raise InvalidInput(
            f"A line of {longest} bytes would be cut: the program reads whole lines of at most {LINE_BYTES} bytes. "
            "Send shorter lines, or write the text to a file that the job reads."
        )


class Exchange(Watched):
    """One exchange: where the logs ended before typing, and what follows."""

    def __init__(
        self,
        host: Host,
        job: Job,
        act: Callable[[], None],
        *,
        seek: Seek | None,
        echo: str,
        noted: bool,
        wait_s: float,
    ) -> None:
        super().__init__(job, logs=True)
        self.host = host
        self.job = job
        self.path = job.log
        self.act = act
        self.seek = seek
        self.echo = echo
        self.noted = noted
        self.wait_s = wait_s
        self.deadline = self.changed_at = 0.0
        self.quiet_in_s = 0.0
        self.waits_since: float | None = None
        self.attended = self.attends()
        self.stderr = job.stderr
        self.before = log_size(self.path)
        self.stderr_before = log_size(self.stderr) if self.stderr else 0
        self.last_size = self.before + self.stderr_before
        self.is_over = False

    @property
    def pause_s(self) -> float:
        return min(self.quiet_in_s, max(0.001, self.deadline - time.monotonic()))

    def check(self) -> Output | None:
        """Types at the first check; the answer once the program has responded or `wait_s` have passed."""
        if not self.deadline:
            if self.noted:
                typed.note(self.path.parent, self.before, self.echo)
            self.act()
            self.changed_at = time.monotonic()
            self.deadline = self.changed_at + self.wait_s
        now = time.monotonic()
        if (size := self.size()) != self.last_size:
            self.last_size, self.changed_at = size, now
        grown, quiet = size > self.before + self.stderr_before, now - self.changed_at
        if (said := self.look(quiet, size, grown=grown)) is not None:
            return self.answer(said)
        if now > self.deadline:
            return self.answer(f"timed out after {self.wait_s:g} s; call `output` with the cursor to continue")
        self.quiet_in_s = QUIET_S if grown and quiet < QUIET_S else RECHECK_S
        return None

    def size(self) -> int:
        return log_size(self.path) + (log_size(self.stderr) if self.stderr else 0)

    def look(self, quiet: float, size: int, *, grown: bool) -> str | None:
        if self.seek is not None and grown and self.matches(self.seek):
            return "the pattern showed"
        self.job = self.host.settle(self.job.record)
        if not self.job.runs:
            self.is_over = True
            return f"the job ended: {self.job.detail}"
        if self.seek is not None or not grown or quiet < QUIET_S:
            return None
        prompt = prompts.prompt(self.host, self.job)
        self.waits_since = (self.waits_since or time.monotonic()) if prompt is not None else None
        if prompt is not None and self.waits_since is not None:
            # No prompt yet: what it printed before it began to read may reach the log after that.
            if not paging.last_line(self.path) and time.monotonic() - self.waits_since < SETTLED_S:
                return None
            self.is_over = True
            if prompt.waits_for == "password":
                return "it " + waiting("password", prompt.text, self.host.attach_line(self.job))
            return "it waits for input"
        if quiet < LONG_QUIET_S or (self.attended and not self.attends()):
            return None  # what read the terminal before and does not now is still at work
        # Its answer may have come just now, between the looks.
        return f"quiet for {LONG_QUIET_S:.0f} s" if self.size() == size else None

    def attends(self) -> bool:
        """Whether the program in front reads or polls the terminal, as far as that is known."""
        tty = self.job.run.tty if self.job.run else ""
        return terminals.attention([tty], pause_s=0).get(tty) in ("reads", "polls")

    def matches(self, seek: Seek) -> bool:
        page = paging.read(self.path, cursor=self.before, max_chars=CHARS_MAX, final=True)
        text = without_echo(page.text, self.echo)
        if self.stderr is not None:
            text += "\n" + paging.read(self.stderr, cursor=self.stderr_before, max_chars=CHARS_MAX, final=True).text
        return seek(text)

    def answer(self, said: str) -> Output:
        """What was printed since, less the echo; of a full-screen program its screen."""
        self.job = self.host.settle(self.job.record)
        screen = None
        try:
            screen = self.full_screen() if self.job.runs else None
        except TmuxError as error:  # what was typed was typed, and the log has the response all the same
            said += f"; it was typed, but what a full-screen program shows now is not known: {error}".removesuffix(".")
        final = self.is_over and screen is None
        page = paging.ends(self.path, cursor=self.before, max_chars=CHARS, final=final)
        err = None
        if self.stderr is not None:
            err = paging.ends(self.stderr, cursor=self.stderr_before, max_chars=CHARS, final=final)
        answer = answer_of(self.job, page, err)
        text = visible_lines(without_echo(page.text, self.echo))
        if screen is not None:
            text += screen
            said += "; a full-screen program: stdout ends with its screen"
        note = visible(f"{answer.note}; {said}" if answer.note else said)
        return answer.model_copy(update={"stdout": text, "note": note})

    def full_screen(self) -> str | None:
        """What a full-screen program shows; None of any other."""
        job_id = self.job.id
        pane = self.host.tmux.panes().get(job_id)
        return screen.screen(self.host, job_id).screen if pane is not None and pane.alternate else None


def without_echo(text: str, typed: str) -> str:
    """The text less the leading lines that only show what was typed, behind a prompt or not.

    A line editor may draw its line anew, below, and break it at the edge of the screen.
    """
    lines, wanted = text.split("\n"), typed.removesuffix("\n").split("\n")
    if wanted[0] and not lines[0]:
        del lines[0]
    echoed = False
    for line in wanted if typed else ():
        rows = rows_of(line, lines)
        if rows == 0:
            break
        echoed = True
        del lines[:rows]
    return "\n".join(lines) if echoed else text


def rows_of(line: str, lines: list[str]) -> int:
    """How many of the first lines show that line; 0 when they do not."""
    wanted = bare(line)
    if not wanted:
        # A prompt that was drawn anew, below, or the line that Enter alone makes.
        again = len(lines) > 2 and not lines[0] and lines[1].strip() and is_prompt(lines[1])
        return 2 if again else int(len(lines) > 1 and is_prompt(lines[0]))
    seen = ""
    for rows, shown in enumerate(lines[: 1 + len(line) // NARROW], 1):
        seen += bare(shown)
        if seen.endswith(wanted):
            return rows
    return 0


def bare(line: str) -> str:
    """Without what editors add where a line goes on in the next row."""
    return re.sub(r"[\s\\]+", "", line)


def is_prompt(line: str) -> bool:
    return len(line) <= PROMPT_CHARS and not re.search(r"\w", line)
