"""`tail -f` and progress: output as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from tmuxjobs.answers import Output
from tmuxjobs.errors import TmuxjobsError
from tmuxjobs.hosts.local import Host
from tmuxjobs.verbs.output import output, tail
from tmuxjobs.verbs.waiter import Watched, run, run_async

CHARS = 400_000
PROGRESS_S = 1.0
PROGRESS_CHARS = 200


class Follow(Watched):
    """Iterates over what comes after the cursors, until a page whose status is not `running`.

    A page without text comes when nothing was printed for a second, and after `wake()`, which signal handlers may call.
    """

    def __init__(self, host: Host, job_id: str, *, cursor: int, stderr_cursor: int | None = None, raw: bool = False):
        super().__init__(host.look(job_id), logs=True)
        self.host = host
        self.job_id = job_id
        self.cursor = cursor
        self.stderr_cursor = stderr_cursor
        self.raw = raw
        self.over = False
        self.checks = 0

    def __iter__(self) -> Iterator[Output]:
        while not self.over:
            self.checks = 0
            yield run(self)

    def check(self) -> Output | None:
        page = output(
            self.host,
            self.job_id,
            cursor=self.cursor,
            stderr_cursor=self.stderr_cursor,
            max_bytes=CHARS,
            raw=self.raw,
        )
        self.cursor, self.stderr_cursor = page.cursor, page.stderr_cursor
        self.over = page.status != "running" and not page.more
        self.checks += 1
        # The second check comes after an event without output, or after a pause: the caller may have something to do.
        return page if page.stdout or page.stderr or page.gone_bytes or self.over or self.checks > 1 else None


class LastLine:
    """The last line of any of several jobs, once it has changed."""

    pause_s = 60.0

    def __init__(self, host: Host, job_ids: Sequence[str]) -> None:
        self.host = host
        self.seen = dict.fromkeys(job_ids, "")

    @contextmanager
    def watched(self, wake: Callable[[], None]) -> Iterator[None]:
        with ExitStack() as stack:
            for job_id in self.seen:
                with suppress(TmuxjobsError):  # the wait itself reports it
                    stack.enter_context(Watched(self.host.look(job_id), logs=True).watched(wake))
            yield

    def check(self) -> str | None:
        for job_id, before in self.seen.items():
            with suppress(TmuxjobsError):
                line = tail(self.host, job_id, lines=1).stdout.strip()[-PROGRESS_CHARS:]
                if line and line != before:
                    self.seen[job_id] = line
                    return line
        return None


async def last_lines(host: Host, job_ids: Sequence[str]) -> AsyncIterator[str]:
    """The last line that any of the jobs has printed, whenever it has changed, at most once a second; never ends."""
    import asyncio  # takes 25 ms, and only the server has an event loop

    newest = LastLine(host, job_ids)
    while True:
        yield await run_async(newest)
        await asyncio.sleep(PROGRESS_S)
