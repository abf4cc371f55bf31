"""How a job ended, in words: for answers, the last line of its window, and the hook. Stdlib only."""

from __future__ import annotations

import time

from tmuxjobs.visible import visible

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from typing import Any


class End:
    """How a job ended, for people: `state` is its mark, `short` and `detail` stand beside it, `words` is the whole."""

    def __init__(self, record: dict[str, Any]) -> None:
        code, name, reason = record.get("exit_code"), record.get("signal"), record["reason"]
        took = seconds(record.get("runtime_s") or 0.0)
        self.adopted = record["job"].get("adopted") is not None
        unknown = "exit code not known" if self.adopted else "not even SIGKILL ended it"
        how = name or (unknown if code is None else f"exit code {code}")
        self.took = took
        if reason == "exit":
            self.state = "done" if code == 0 else "failed"
            self.short = took if code == 0 else f"exit {code}"
            self.detail = took if code == 0 else f"exit {code}, {took}"
            self.words = f"{self.state} after {took}, exit code {code}"
        elif reason == "not-started":
            self.state, self.short, self.detail = "failed", "not started", "not started"
            self.words = f"not started: {record.get('error')}"
        elif reason == "unknown":
            self.state, self.short, self.detail = "lost", "lost", "end not known"
            self.words = f"ended after {took}, nobody knows how"
        else:
            why = {"signal": "by a signal", "kill": "on request", "timeout": "by its timeout"}.get(reason, reason)
            self.state = "killed"
            self.short = {"kill": "killed", "signal": name or "signal"}.get(reason, reason)
            self.detail = "on request" if reason == "kill" else self.short
            self.words = f"killed {why} after {took}, {how}"
        self.more = ", log incomplete" if record.get("log", {}).get("complete") is False else ""
        if left := record.get("left_running"):
            self.more += f", left running: {', '.join(visible(one['name']) for one in left[:3])}"

    def line(self) -> str:
        """The line at the end of the window; its keys are read by `pane/window.py`."""
        colour = {"done": "30;42", "failed": "97;41"}.get(self.state, "97;45")
        at = time.strftime("%H:%M:%S")
        again = "" if self.adopted else "\x1b[1mr\x1b[m run again  "
        return f"\x1b[{colour}m {self.words}{self.more} \x1b[m at {at}  {again}\x1b[1mx\x1b[m close "


def seconds(value: float, *, coarse: bool = False) -> str:
    """A duration as a person says it: `0.4s`, `12s`, `3m05s`, `2h04m`, `3d02h`; `0s` and `3m` where it is coarse."""
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
