"""Tells a person at a terminal what takes longer than a second."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

from tmuxjobs.outcome import seconds
from tmuxjobs.visible import visible


@contextlib.contextmanager
def busy(what: str) -> Iterator[None]:
    """While it lasts a line on stderr says `what` and for how long, from the first second on; gone afterwards."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    over = threading.Event()
    teller = threading.Thread(target=_tell, args=(what, over), daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def _tell(what: str, over: threading.Event) -> None:
    since = time.monotonic()
    shown = False
    while not over.wait(1.0):
        print(f"\r{visible(what)} … {seconds(time.monotonic() - since)}\x1b[K", end="", file=sys.stderr, flush=True)
        shown = True
    if shown:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
