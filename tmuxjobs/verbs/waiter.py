"""The one loop of "check, sleep until an event", for threads and event loops. Knows nothing of what is waited for."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from queue import Empty, SimpleQueue
from typing import ParamSpec, Protocol, TypeVar

from tmuxjobs.states import Job
from tmuxjobs.system.watch import Watch, watching

P = ParamSpec("P")
T = TypeVar("T")
Answer_co = TypeVar("Answer_co", covariant=True)


class Check(Protocol[Answer_co]):
    """Something that a caller waits for; a `check` is quick, and is repeated after each event."""

    @property
    def pause_s(self) -> float:
        """Seconds until the next check when no event comes before."""

    def watched(self, wake: Callable[[], None]) -> AbstractContextManager[None]:
        """Within it `wake` is called after each event, from any thread; it does not block."""

    def check(self) -> Answer_co | None:
        """The answer once the wait is over."""


class Watched:
    """What checks of one job share: they are woken by changes in its folder and by the end of its runner."""

    RECHECK_S = 1.0
    """Poll interval in case an event was missed."""
    UNWATCHED_S = 0.02
    """Likewise without file watching."""

    def __init__(self, job: Job, *, logs: bool) -> None:
        self.folder = job.folder
        self.runner = job.run.pid if job.run else None
        self.wake: Callable[[], None] = unheard
        self.watch = Watch(unheard, logs=logs)

    @property
    def pause_s(self) -> float:
        return self.RECHECK_S if self.watch.active else self.UNWATCHED_S

    @contextlib.contextmanager
    def watched(self, wake: Callable[[], None]) -> Iterator[None]:
        self.wake = wake
        with watching(self.folder, self.runner, wake, logs=self.watch.logs) as self.watch:
            yield


def unheard() -> None:
    """Ignore an event: nobody sleeps between two checks, as a client that polls calls again."""


def run(waiting: Check[T]) -> T:
    """Wait in this thread. Ctrl-C ends it; a signal handler may call `wake` too."""
    # Not an Event: a handler that sets it while this thread holds its lock would wait for itself.
    events: SimpleQueue[None] = SimpleQueue()
    with waiting.watched(lambda: events.put(None)):
        while (answer := waiting.check()) is None:
            with contextlib.suppress(Empty):
                events.get(timeout=min(waiting.pause_s, threading.TIMEOUT_MAX))
            while not events.empty():
                events.get()
    return answer


async def run_async(waiting: Check[T]) -> T:
    """Wait in an event loop: only the checks take a thread, and cancelling it ends the wait at once."""
    import asyncio  # takes 25 ms, and only the server has an event loop

    loop = asyncio.get_running_loop()
    woken = asyncio.Event()

    def wake() -> None:
        loop.call_soon_threadsafe(woken.set)

    with waiting.watched(wake):
        while (answer := await asyncio.to_thread(waiting.check)) is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(waiting.pause_s):
                    await woken.wait()
            woken.clear()
    return answer


def waits(begin: Callable[P, Check[T]]) -> Callable[P, T]:
    """The verb that begins that wait and waits in its thread."""

    @functools.wraps(begin)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return run(begin(*args, **kwargs))

    return call


def waits_async(begin: Callable[P, Check[T]]) -> Callable[P, Awaitable[T]]:
    """The verb that begins that wait and waits in the event loop; cancelling it ends the wait, never the job."""

    @functools.wraps(begin)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        import asyncio

        return await run_async(await asyncio.to_thread(begin, *args, **kwargs))

    return call
