"""`interact`: type into a job, and answer with what it says in response."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Sequence

from tmuxjobs.answers import ENDS_WITH_SCREEN, Output
from tmuxjobs.arguments import encoded
from tmuxjobs.errors import InvalidInput, JobEnded, TmuxError
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import Seen, WaitsFor, asking
from tmuxjobs.outcome import waiting
from tmuxjobs.states import Job, Running
from tmuxjobs.store.journal import note_typed
from tmuxjobs.system.terminals import Terminal
from tmuxjobs.text import paging
from tmuxjobs.text.log import log_size
from tmuxjobs.text.patterns import compiled
from tmuxjobs.tmux import keyboard
from tmuxjobs.tmux.panes import Pane
from tmuxjobs.verbs import controls, output, prompts, slurm, unseen
from tmuxjobs.verbs.output import CHARS_MAX, answer_of
from tmuxjobs.verbs.prompts import Turn
from tmuxjobs.verbs.waiter import Watched, waits, waits_async
from tmuxjobs.visible import visible, visible_lines

Seek = Callable[[str], bool]
WAIT_S = 5.0
QUIET_S = 0.06
"""Seconds since the log grew after which to check whether the program waits for input."""
SETTLED_S = 0.25
"""Seconds that a program must have been seen waiting to count as waiting without a prompt."""
LONG_QUIET_S = 1.0
"""Seconds of silence after which a program that shows no prompt has answered."""
RECHECK_S = 0.1
QUICK_S = 0.001
"""Seconds between two checks of a program that was blocked reading, and is about to answer."""
CHARS = 8_000
"""Characters of a response; a longer one is shown by its head and its end."""
PROMPT_CHARS = 8
"""The longest prompt before an empty line, such as `... `."""
TAKEN_S = 0.25
"""Limit for a program to read what was typed before the next key is pressed."""
APART_S = 0.15
"""Between a text and Enter, if the program takes every key: Codex takes an Enter within 0.12 s as part of a paste."""
KEYS_APART_S = 0.03
"""Likewise between two keys: Ink takes what it reads at once as one key."""
WIDE = 40
"""From this many characters on, a typed line may be wider than the screen."""
RIGHT_PROMPT = re.compile(r"(?<=\S)\s{3,}\S.*$")
"""What zsh and fish show at the right edge of the line."""
CONTINUED = re.compile(r"^\s*\.{3}:? ")
"""What IPython shows before the further rows of a long line."""
NARROW = 20
"""The fewest columns at which a line editor breaks a long line."""


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
    expression) shows, when the program waits for input again, is quiet or has ended, after `wait` seconds (50 at
    most) at the latest. Raises JobNotFound, JobEnded, InvalidInput.
    """
    names = [keyboard.key_name(key) for key in (keys.split() if isinstance(keys, str) else keys)]
    seek = seeker(pattern, host.timing.pattern) if pattern is not None else None
    nothing, input = input is None, input or ""
    encoded("input", input)
    job = host.look(job_id)
    if not job.runs:
        raise JobEnded(f"Job '{job_id}' takes no input: {job.detail}.")
    if not names and nothing:
        raise InvalidInput("There is nothing to type: give text or keys; `tail` shows what the job printed.")
    pane = host.tmux.panes().get(job_id)
    if pane is None or pane.dead:
        raise TmuxError(f"Job '{job_id}' has no window on this tmux server (socket {host.settings.socket_name}).")
    slurm.refuse_keys(job, pane.tty)
    text = input if input.endswith("\n") or names or not enter else input + "\n"
    settings = host.machine.terminal(pane.tty)
    controls.check_lines(settings, text)
    plain = not (secret or pane.alternate or (settings is not None and settings.hides))
    hidden = None if plain and not prompts.may_ask_a_secret(job) else unseen.hides(host, job, settings)
    if secret and hidden is None:
        raise InvalidInput(
            "The job does not hide what is typed now, so the secret would be in its log; nothing was typed. Wait until "
            f"it asks for a password, or {unseen.ask_person(host, job)}"
        )
    quick = plain and hidden is None and seek is None and not names and not host.name
    echo = "" if secret or (settings is not None and settings.hides) else text
    noted, way = bool(echo) and hidden is None, controls.way(host, job, pane, settings, text)

    def act() -> None:
        rest = unseen.begin(host, job, pane, text) if secret and hidden == "by the program" else text
        send(host, job_id, pane, rest, names, settings, hidden=not noted, way=way)

    return Exchange(
        host,
        job,
        act,
        doubt=functools.partial(controls.doubt, pane, settings, "" if secret else text),
        seek=seek,
        echo=echo,
        noted=noted,
        by_kernel=settings is not None and settings.cooked and settings.echo,
        turn=Turn.begin(job, settings, text, by_line=way.by_line) if quick else None,
        asked_s=wait,
    )


interact = waits(begin)
interact_async = waits_async(begin)


def seeker(pattern: str, bound_s: float) -> Seek:
    """A test for the pattern in a response; raises InvalidInput for a wrong one and for one that takes too long."""
    wanted = compiled(pattern)

    def seek(text: str) -> bool:
        try:
            return wanted.search(text, timeout=bound_s, concurrent=True) is not None
        except TimeoutError:
            raise InvalidInput(
                f"It was typed, but the pattern takes more than {bound_s:.0f} s: use a simpler one, or read `output`."
            ) from None

    return seek


def send(
    host: Host,
    job_id: str,
    pane: Pane,
    text: str,
    names: Sequence[str],
    settings: Terminal | None,
    *,
    hidden: bool,
    way: keyboard.Way,
) -> None:
    """Type the text, then press the keys, with pauses between them for a program that takes single keys.

    Ink, clack and others take what comes in one read as one key or as a paste, whose Enter submits nothing.
    """
    by_keys = settings is not None and not settings.cooked
    pause_s = 0.0 if settings is None or settings.signals else APART_S
    host.store.forget_pressed(job_id)
    for key, typed_as in (("C-c", "\x03"), ("C-\\", "\x1c")):
        if key in names or typed_as in text:
            host.store.note_pressed(job_id, key)
    doubtful = "the text"
    try:
        if text:
            apart = (lambda: await_taken(host, pane, pause_s)) if by_keys else None
            keyboard.type_text(host.tmux, pane, text, hidden=hidden, way=way, before_enter=apart)
            if names and by_keys:
                await_taken(host, pane, pause_s)
        doubtful = "the keys, after the text," if text else "the keys"
        for number, some in enumerate([[name] for name in names] if by_keys else [names] if names else []):
            if number:
                await_taken(host, pane, min(pause_s, KEYS_APART_S))
            keyboard.press(host.tmux, pane, some)
    except TmuxError as error:
        raise TmuxError(
            f"{error} Whether {doubtful} reached the job is not known: check before you repeat it."
        ) from None


def await_taken(host: Host, pane: Pane, pause_s: float) -> None:
    """Wait until the program has read what was typed, TAKEN_S at most; then for the pause."""
    deadline = time.monotonic() + TAKEN_S
    while host.machine.unread(pane.tty) and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(pause_s)


class Exchange(Watched):
    """One exchange: where the logs ended before typing, and what follows."""

    def __init__(
        self,
        host: Host,
        job: Job,
        act: Callable[[], None],
        *,
        doubt: Callable[..., str],
        seek: Seek | None,
        echo: str,
        noted: bool,
        by_kernel: bool,
        turn: Turn | None,
        asked_s: float,
    ) -> None:
        super().__init__(job, logs=True)
        self.host = host
        self.job = job
        self.path = job.log
        self.act = act
        self.doubt = doubt
        self.seek = seek
        self.echo = echo
        self.noted = noted
        self.by_kernel = by_kernel
        self.turn = turn
        self.asked_s = asked_s
        self.wait_s = max(0.0, min(asked_s, host.timing.call))
        self.deadline = self.changed_at = 0.0
        self.quiet_in_s = 0.0
        self.waits_since: float | None = None
        self.seen = asking.get() or Seen()
        self.attended = self.attends()
        self.stderr = job.stderr
        self.before = log_size(self.path)
        self.stderr_before = log_size(self.stderr) if self.stderr else 0
        self.last_size = self.before + self.stderr_before
        self.is_over = False
        self.waits_for: WaitsFor | None = None

    @property
    def pause_s(self) -> float:
        return min(self.quiet_in_s, max(0.001, self.deadline - time.monotonic()))

    def check(self) -> Output | None:
        """Type at the first check; the answer once the program has responded or `wait_s` have passed."""
        if not self.deadline:
            if self.noted:
                note_typed(self.path.parent, self.before, self.echo)
            self.act()
            self.changed_at = time.monotonic()
            self.deadline = self.changed_at + self.wait_s
        now = time.monotonic()
        if (size := self.size()) != self.last_size:
            self.last_size, self.changed_at = size, now
        if self.turn is not None and (answer := self.quick(self.turn, size)) is not None:
            return answer
        grown, quiet = size > self.before + self.stderr_before, now - self.changed_at
        if (said := self.reason(quiet, size, grown=grown)) is not None:
            answer = self.answer(said)
            if self.seek is not None or now > self.deadline or not self.job.runs or not self.went_on(size):
                return answer
            self.is_over, self.waits_since, self.waits_for = False, None, None
        elif now > self.deadline:
            most = f"; {self.wait_s:g} s is the most for one call" if self.asked_s > self.wait_s else ""
            on = "call `output` with the cursor to continue"
            return self.answer(f"timed out after {self.wait_s:g} s; {on}{most}")
        self.quiet_in_s = QUIET_S if grown and quiet < QUIET_S else RECHECK_S
        if self.turn is not None and quiet < QUIET_S:
            self.quiet_in_s = QUICK_S
        return None

    def quick(self, turn: Turn, size: int) -> Output | None:
        """The answer when the kernel shows that the turn is over."""
        if not turn.is_over():
            return None
        if not turn.is_plain():
            self.turn = None
            return None
        self.is_over, self.waits_for = True, "input"
        answer = self.answer("it waits for input", drawn=False)
        if self.job.runs and self.went_on(size):
            self.is_over, self.waits_for = False, None
            return None
        return answer

    def size(self) -> int:
        return log_size(self.path) + (log_size(self.stderr) if self.stderr else 0)

    def reason(self, quiet: float, size: int, *, grown: bool) -> str | None:
        if self.seek is not None and grown and self.matches(self.seek, quiet):
            return "the pattern showed"
        self.job = self.host.settle(self.job.record)
        if not self.job.runs:
            self.is_over = True
            return f"the job ended: {self.job.detail}"
        if self.seek is not None or not grown or quiet < QUIET_S:
            return None
        prompt = prompts.prompt(self.host, self.job)
        since = max(self.waits_since or time.monotonic(), self.changed_at)
        self.waits_since = since if prompt is not None else None
        if prompt is not None:
            # No prompt yet, or not all that was written: what it printed before it began to read may reach the log
            # later. A full-screen program reads keys while it ends, too: vim for 0.1 s.
            unsure = prompt.full_screen or not paging.last_line(self.path)
            unsure = unsure or (self.turn is not None and self.turn.is_behind())
            if unsure and time.monotonic() - since < SETTLED_S:
                return None
            self.is_over, self.waits_for = True, prompt.waits_for
            if prompt.waits_for == "password":
                return "it " + waiting("password", prompt.text, self.host.attach_line(self.job))
            return "it takes single keys" if prompt.waits_for == "keys" else "it waits for input"
        if quiet < LONG_QUIET_S or (self.attended and not self.attends()):
            return None  # a program that read the terminal before and does not now is still at work
        # Its answer may have come just now, between the checks.
        return f"quiet for {LONG_QUIET_S:.0f} s" if self.size() == size else None

    def attends(self) -> bool:
        """Whether the program in front reads or polls the terminal, as far as that is known."""
        run = self.job.run
        front = self.host.machine.fronts({run.tty: run.pid}, pause_s=0).get(run.tty) if run is not None else None
        return front is not None and front.attends

    def without_echo(self, text: str) -> str:
        """The text without the echo; a line editor that begins to read only now shows it again."""
        said = without_echo(text, self.echo, by_kernel=self.by_kernel)
        if not self.by_kernel or said == text:
            return said
        now = self.host.machine.terminal(self.job.run.tty) if self.job.run else None
        # Read after it: when a job has ended, its terminal takes keys for the window.
        state = self.host.settle(self.job.record).state
        runs = isinstance(state, Running) and state.command_ended is None
        return without_echo(said, self.echo) if runs and now is not None and not now.cooked else said

    def matches(self, seek: Seek, quiet: float) -> bool:
        page = paging.read(self.path, cursor=self.before, max_chars=CHARS_MAX, final=True)
        text = self.without_echo(page.text)
        if text == page.text and quiet < LONG_QUIET_S and is_begun(text, self.echo):
            text = ""  # the rest of the echo is on its way
        if self.stderr is not None:
            text += "\n" + paging.read(self.stderr, cursor=self.stderr_before, max_chars=CHARS_MAX, final=True).text
        return seek(text)

    def answer(self, said: str, *, drawn: bool = True) -> Output:
        """What was printed since, without the echo, and then the screen of a full-screen program."""
        self.job = self.host.settle(self.job.record)
        screen = None
        try:
            screen = self.full_screen() if drawn and self.job.runs else None
        except TmuxError as error:  # the text was typed, and the log has the response
            said += f"; it was typed, but what a full-screen program shows now is not known: {error}".removesuffix(".")
        self.job = self.host.settle(self.job.record)
        if not self.job.runs and (not self.is_over or not drawn):
            # By now the screen shows our own text.
            screen, self.is_over = None, True
            said = f"the job ended: {self.job.detail}"
        final = self.is_over and screen is None
        page = paging.ends(self.path, cursor=self.before, max_chars=CHARS, final=final)
        err = None
        if self.stderr is not None:
            err = paging.ends(self.stderr, cursor=self.stderr_before, max_chars=CHARS, final=final)
        answer = answer_of(self.job, page, err)
        text = visible_lines(self.without_echo(page.text))
        if screen is not None:
            text += "\n" * (text[-1:] not in ("", "\n")) + screen
            said += f"; {ENDS_WITH_SCREEN}"
        doubt = self.doubt(attended=self.attended)
        note = visible("; ".join(filter(None, (answer.note, doubt, said))))
        code = self.job.exit.exit_code if self.job.exit is not None else None
        waits_for = self.waits_for if self.job.runs else None
        if waits_for is not None:
            self.seen.tell(self.job.id, prompts.question(self.last_size))
        came = {"waits_for": waits_for, "full_screen": screen is not None, "exit_code": code}
        return answer.model_copy(update={"stdout": text, "note": note} | came)

    def went_on(self, size: int) -> bool:
        """Whether the job has printed more than `size`, or has ended."""
        return self.size() != size or not self.host.settle(self.job.record).runs

    def full_screen(self) -> str | None:
        """What a full-screen program shows; None for any other program."""
        job_id = self.job.id
        pane = self.host.tmux.panes().get(job_id)
        return output.screen(self.host, job_id).screen if pane is not None and pane.alternate else None


def without_echo(text: str, typed: str, *, by_kernel: bool = False) -> str:
    """The text without the lines that only echo what was typed, with or without a prompt before it.

    A line editor may redraw its line below, break it at the edge of the screen and put a prompt to its right. What the
    terminal itself echoes (`by_kernel`) is on one line, and may come late and right after what a program printed.
    """
    lines, wanted = text.split("\n"), typed.removesuffix("\n").split("\n")
    if wanted[0] and not lines[0]:
        del lines[0]
    kept: list[str] = []
    echoed = False
    for line in wanted if typed else ():
        found = echo_of(line, lines, by_kernel=by_kernel)
        if found is None:
            break
        echoed = True
        before, rows = found
        kept += before
        del lines[:rows]
        if lines and is_end_drawn_anew(lines[0], line):
            del lines[0]
    return "\n".join(kept + lines) if echoed else text


def echo_of(line: str, lines: list[str], *, by_kernel: bool) -> tuple[list[str], int] | None:
    """The lines printed before the echo of that line, and how many rows both take; None if it is not echoed."""
    wanted = bare(line)
    if not wanted:
        # A prompt that was redrawn below, or the line that Enter alone makes.
        again = len(lines) > 2 and not lines[0] and lines[1].strip() and is_prompt(lines[1])
        rows = 2 if again else int(len(lines) > 1 and is_prompt(lines[0]))
        return ([], rows) if rows else None
    if by_kernel:
        last = next((at for at, shown in enumerate(lines) if shown.endswith(line.rstrip())), None)
        if last is not None:
            printed = lines[last].removesuffix(line.rstrip())
            return lines[:last] + [printed] * (not is_prompt(printed)), last + 1
    reach = lines[: 2 + len(line) // NARROW]
    for last, shown in enumerate(reach):
        for end in {bare(shown), bare(RIGHT_PROMPT.sub("", shown)), bare(CONTINUED.sub("", shown))}:
            seen, first = end, last
            while not seen.endswith(wanted) and wanted.endswith(seen) and first:
                first -= 1
                more = bare(CONTINUED.sub("", reach[first]))
                seen = (more if wanted.endswith(more + seen) else bare(reach[first])) + seen
            if seen.endswith(wanted):
                return lines[:first], last + 1
    for last, shown in enumerate(reach):
        if is_end_drawn_anew(shown, line):
            return [one for one in lines[:last] if bare(one) not in wanted], last + 1
    return None


def is_end_drawn_anew(shown: str, line: str) -> bool:
    """Whether `shown` is the end of a line wider than the screen, in its place: fish redraws only that on Enter."""
    return len(line) >= WIDE and shown.startswith(" " * PROMPT_CHARS) and bare(line).endswith(bare(shown) or "\n")


def bare(line: str) -> str:
    """The line without what editors add where it continues in the next row."""
    return re.sub(r"[\s\\]+", "", line)


def is_begun(text: str, typed: str) -> bool:
    """Whether the text may end with the beginning of an echo, after a prompt or not."""
    shown, wanted = bare(text), bare(typed)
    most = min(len(shown), len(wanted))
    return any(shown.endswith(wanted[:length]) for length in range(1, most + 1)) if wanted else False


def is_prompt(line: str) -> bool:
    return len(line) <= PROMPT_CHARS and not re.search(r"\w", line)
