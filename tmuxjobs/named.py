"""A process by its name, as records and answers have it. Stdlib only: other hosts have it too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProcessRecord:
    """A process named in a record; `start` tells it from a later one with its pid."""

    pid: int
    name: str
    start: str | None = None

    def __post_init__(self) -> None:
        # 0 and below are groups to kill(2), and a record may say anything.
        if not 0 < self.pid < 1 << 31:
            raise ValueError(f"{self.pid} is not a pid")
