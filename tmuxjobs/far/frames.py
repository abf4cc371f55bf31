"""Frames between two hosts: a line of JSON, and behind it as many bytes as it says."""

from __future__ import annotations

import json
import os
import select
import time

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from typing import Any

FRAME_BYTES = 1 << 26
"""No frame is larger."""
READ_BYTES = 1 << 18


def frame(fields: dict[str, Any], data: bytes = b"") -> bytes:
    """One frame; without data nothing is behind the line."""
    return json.dumps({**fields, "bytes": len(data)} if data else fields).encode() + b"\n" + data


class Stream:
    """Frames and lines from a descriptor, each wait until a deadline by the monotonic clock, or without one.

    With `silent_s` none bears a longer silence.
    """

    def __init__(self, fd: int, *, silent_s: float | None = None) -> None:
        self.fd = fd
        self._silent_s = silent_s
        self._held = b""

    def line(self, deadline: float | None = None) -> bytes:
        """The next line; raises EOFError and TimeoutError."""
        at = 0
        while (end := self._held.find(b"\n", at)) < 0:
            at = len(self._held)
            self._fill(deadline)
        found, self._held = self._held[:end], self._held[end + 1 :]
        return found

    def exactly(self, size: int, deadline: float | None = None) -> bytes:
        """So many bytes; raises EOFError and TimeoutError."""
        parts, missing = [self._held[:size]], size - len(self._held)
        self._held = self._held[size:]
        while missing > 0:
            self._fill(deadline)
            parts.append(self._held[:missing])
            taken, self._held = len(self._held), self._held[missing:]
            missing -= taken
        return b"".join(parts)

    def frame(self, deadline: float | None = None) -> tuple[dict[str, Any], bytes]:
        """The next frame; raises EOFError, TimeoutError, and ValueError for what is none."""
        fields = json.loads(self.line(deadline))
        size = fields.get("bytes", 0)
        if not isinstance(size, int) or not 0 <= size <= FRAME_BYTES:
            raise ValueError(size)
        return fields, self.exactly(size, deadline) if size else b""

    def _fill(self, deadline: float | None) -> None:
        if len(self._held) > FRAME_BYTES:
            raise ValueError("a line without end")
        left = self._silent_s if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([self.fd], [], [], left)[0]:
            raise TimeoutError
        data = os.read(self.fd, READ_BYTES)
        if not data:
            raise EOFError
        self._held += data
