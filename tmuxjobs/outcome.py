"""The state of a job without an exit record; how a job ended and what it waits for, in words. Stdlib only."""

from __future__ import annotations

import os
import time

from tmuxjobs.contract import LAUNCH_S

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


LOST = {
    "reboot": "the machine was restarted while it ran",
    "elsewhere": "it was started in another pid namespace: in another container, or before this one was restarted",
    "never-started": "its runner did not start, so nothing ran",
    "runner-died": "its runner was killed, so how the command ended is not known",
}
"""What `standing` says, in words."""


class Here:
    """What identifies this machine's present processes: its id, boot id and pid namespace; "" where unknown."""

    def __init__(self, *, machine: str, boot: str, namespace: str) -> None:
        self.machine = machine
        self.boot = boot
        self.namespace = namespace


def standing(here: Here, *, machine: str, boot: str, namespace: str | None, age_s: float, runner_alive: bool) -> str:
    """The state of a job that has no exit record: what happened to its runner.

    `machine` and `boot` are those of its start, `namespace` its runner's (None before there is one), `age_s` the time
    since it was asked for. "other-machine": it belongs to a machine that may run now, where another container is
    another machine: whether a job that cannot be seen from here lives is not known. It is this machine if we see its
    pids all the same: its id, or the host name used instead, was changed while the job ran.
    """
    if machine not in ("", here.machine) and (boot != here.boot or (namespace or "") not in ("", here.namespace)):
        return "other-machine"
    if boot != here.boot:
        return "reboot"
    if namespace not in (None, "", here.namespace):
        return "elsewhere"
    if namespace is None:
        return "starting" if age_s < LAUNCH_S else "never-started"
    return "running" if runner_alive else "runner-died"


CRASHES = {
    "SIGSEGV": "segmentation fault",
    "SIGBUS": "bus error",
    "SIGFPE": "arithmetic error",
    "SIGILL": "illegal instruction",
    "SIGSYS": "bad system call",
    "SIGTRAP": "trap",
}
SENT = {
    "SIGABRT": "by which a program ends itself (abort)",
    "SIGPIPE": "which the kernel sends to a program that writes into a pipe without a reader",
    "SIGXCPU": "which the kernel sends at the limit of processor time",
    "SIGXFSZ": "which the kernel sends at the limit of file size",
    "SIGALRM": "by which a timer ends its own program",
    "SIGVTALRM": "by which a timer ends its own program",
    "SIGPROF": "by which a timer ends its own program",
    "SIGINT": "as Ctrl-C in its window sends it",
    "SIGQUIT": "as Ctrl-\\ in its window sends it",
    "SIGKILL": "sent by the job itself, by another program, or by the kernel",
}
"""What may have sent a signal that we did not send; the kernel does not tell the parent of a process."""
KILLED_BY = {
    "kill": "on request",
    "timeout": "by its timeout",
    "terminated": "because its runner was asked to end (SIGTERM)",
    "disconnected": "because the server that started it ended",
    "window-closed": "because its window was closed",
    "tmux-ended": "because the tmux server ended",
    "slurm-timeout": "by Slurm at its time limit",
    "slurm-out-of-memory": "by Slurm because it took more memory than it had asked for",
    "slurm-node-fail": "because its node failed",
    "slurm-preempted": "by Slurm to make room for another job",
    "slurm-cancelled": "because it was cancelled in Slurm",
    "slurm-deadline": "by Slurm at its deadline",
    "slurm-boot-fail": "because its node did not start",
}


SHELL_SAYS = {
    126: "for a file that it cannot run",
    127: "when it finds no such command: a job's PATH is that of the client which started it, and "
    '`shell="bash -l"` takes that of a login',
}
"""What an exit code means when it is a shell's."""
SHELLS = {"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "busybox"}


def by_signal(name: str) -> str:
    """Words to follow the name of a signal that ended a job and was not ours."""
    if name in CRASHES:
        return f" ({CRASHES[name]}), which the kernel sends to a program that crashes"
    return f", {SENT.get(name, 'sent by the job itself or by another program')}"


def exit_words(code: int) -> str:
    """An exit code in words, with what it means when it is a shell's."""
    says = SHELL_SAYS.get(code, f"for signal {code - 128}" if 128 < code < 160 else "")
    return f"exit code {code}" + (f" (a shell says so {says})" if says else "")


QUOTED = r"\$'(?:\\.|[^'\\])*'|'[^']*'|\"(?:\\.|[^\"\\])*\"|`[^`]*`"
MARK = rf"{QUOTED}|\\.|&&|\|\||>\||\|&|[<>]&|&>|<<|\[\[|(?<![^\s;&|])#[^\n]*|."
ENDS = ("&&", "||", ";", "&")


def is_of_pipeline(command: str, shell: str, options: Sequence[str] = ()) -> bool:
    """Whether the exit code is that of the last command of a pipeline, so that the others' are not known.

    Only in clear cases: False for here documents, `[[` and compound commands.
    """
    if os.path.basename(shell) not in SHELLS or "pipefail" in " ".join((command, *options)):
        return False
    import re  # takes 4 ms, for which a job's start would wait

    last, depth, before = False, 0, ""
    for mark in re.findall(MARK, command.rstrip("; \t\n"), re.DOTALL):
        if mark in ("<<", "[[", "'", '"', "`") or depth < 0:
            return False
        if mark in "({":
            depth += 1
        elif mark in ")}":
            depth -= 1
        elif depth == 0 and (mark in ENDS or (mark == "\n" and before not in ("|", "|&"))):
            last = False
        elif depth == 0 and mark in ("|", "|&"):
            last = True
        before = before if mark.isspace() else mark
    return last


def between(attempt: int, ended: str, again_at: float | None, monotonic: float) -> str:
    """A job's state between two attempts, in words; empty while one runs."""
    if again_at is None:
        return ""
    return f"attempt {attempt} ended with {ended}; attempt {attempt + 1} begins in {seconds(again_at - monotonic)}"


def is_success(code: int, job: dict[str, Any]) -> bool:
    """Whether a job whose command ended with that exit code succeeded."""
    return code in (job.get("success_codes") or (0,))


class End:
    """How a job ended, for people: `state` names its mark, `short` and `detail` go beside it, `words` is the whole.

    `said` follows the name of a job that did not succeed.
    """

    def __init__(self, record: dict[str, Any]) -> None:
        code, name, reason = record.get("exit_code"), record.get("signal"), record["reason"]
        took = seconds(record.get("runtime_s") or 0.0)
        noted = f", {record['note']}" if record.get("note") else ""
        self.adopted = record["job"].get("adopted") is not None
        unknown = "exit code not known" if self.adopted else "not even SIGKILL ended it"
        how = name or (unknown if code is None else f"exit code {code}")
        self.took = took
        if reason == "exit":
            self.state = "completed" if code is not None and is_success(code, record["job"]) else "failed"
            self.short = took if code == 0 else f"exit {code}"
            self.detail = took if code == 0 else f"exit {code}, {took}"
            self.words = f"{self.state} after {took}, exit code {code}{noted}"
            self.said = f"failed with exit code {code}"
        elif reason in ("not-started", "refused"):
            self.state = "failed"
            self.short = self.detail = reason.replace("-", " ")
            self.words = f"not started: {record.get('error')}"
            self.said = f"did not start ({record.get('error')})"
        elif reason == "skipped":
            self.state = self.short = "skipped"
            self.detail = str(record.get("error"))
            self.words = f"skipped: {self.detail}"
            self.said = "was skipped"
        elif reason == "unknown":
            self.state, self.short, self.detail = "lost", "lost", "end not known"
            self.words = f"ended after {took}, nobody knows how"
            self.said = "ended, and nobody knows how"
        elif reason == "signal" and name:
            self.state, self.short, self.detail = "killed", name, name
            self.words = f"killed after {took} by {name}{noted or by_signal(name)}"
            self.said = f"was killed by {name}"
        else:
            self.state = "killed"
            self.short = {"kill": "killed"}.get(reason, reason)
            self.detail = "on request" if reason == "kill" else self.short
            ran = record.get("run") is not None
            if record["job"].get("slurm") and not name and code is None:
                how = ""  # Slurm's word is all there is
            self.words = f"killed {KILLED_BY.get(reason, reason)}" + (
                f" after {took}{', ' * bool(how)}{how}" if ran else noted
            )
            self.said = f"was killed {KILLED_BY.get(reason, reason)}"
        self.more = ", log incomplete" if record.get("log", {}).get("complete") is False else ""
        if left := record.get("left_running"):
            from tmuxjobs.visible import visible  # its patterns take 4 ms

            self.more += f", left running: {', '.join(visible(one['name']) for one in left[:3])}"

    def line(self) -> str:
        """The line at the end of the window; its keys are read by `pane/window.py`."""
        colour = {"completed": "30;42", "failed": "97;41"}.get(self.state, "97;45")
        at = time.strftime("%H:%M:%S")
        again = "" if self.adopted else "\x1b[1mr\x1b[m run again  "
        return f"\x1b[{colour}m {self.words}{self.more} \x1b[m at {at}  {again}\x1b[1mx\x1b[m close "


def seconds(value: float, *, coarse: bool = False, exact: bool = True) -> str:
    """A duration as a person says it: `0.4s`, `12s`, `3m05s`, `2h04m`, `3d02h`; `0s` and `3m` if *coarse*."""
    if not exact:
        return f"at least {seconds(value, coarse=coarse)}"
    whole = max(0, int(value))
    if whole < 10 and not coarse:
        return f"{value:.1f}s"
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m" if coarse else f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def waiting(waits_for: str, prompt: str, attach: str, *, full_screen: bool = False) -> str:
    """What a job waits for, in words that say what to do."""
    if waits_for == "approval":
        return f"waits for approval by a person, in its window: {attach}"
    where = " in a full-screen program, which `screen` shows" if full_screen else ""
    if waits_for == "password":
        return f"waits for a password{where} ({prompt!r}): ask the person to type it there: {attach}"
    if waits_for == "keys":
        return f"takes single keys (`interact` with `keys`); its screen ends with {prompt!r}"
    return f"waits for input{where}: {prompt!r}" if prompt else f"waits for input{where}"
