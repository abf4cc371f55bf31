"""`list` as a table for a person, once or live, as wide as the terminal allows."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tmuxjobs.arguments import Scope
from tmuxjobs.contract import OPEN, STATES
from tmuxjobs.errors import apart
from tmuxjobs.job_answers import JobList, JobSummary
from tmuxjobs.jobs import Jobs
from tmuxjobs.models import Status
from tmuxjobs.outcome import seconds
from tmuxjobs.visible import visible

REFRESH_S = 1.0
# The least width of the terminal at which a column is there, in the order of the table.
COLUMNS = {
    "JOB": 0,
    "PROJECT": 48,
    "STATE": 0,
    "AGE": 100,
    "TIME": 40,
    "CPU": 72,
    "MEM": 72,
    "COMMAND": 140,
    "LAST LINE": 56,
}
NUMBERS = {"AGE", "TIME", "CPU", "MEM"}


class Listing:
    """The jobs that are asked for; remembers the processor time of the last look, for how busy each is now."""

    def __init__(
        self,
        jobs: Jobs,
        console: Console,
        *,
        status: Status | None,
        limit: int,
        name: str | None,
        scope: Scope | None = None,
    ) -> None:
        self.jobs = jobs
        self.console = console
        self.status = status
        self.limit = limit
        self.name = name
        self.scope = scope
        self._before: dict[str, tuple[float, float]] = {}

    def show(self) -> None:
        self.console.print(self.table())

    def watch(self) -> None:
        """Until Ctrl-C; what does not fit on the screen is counted."""
        with Live(console=self.console, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                live.update(self.table(most=max(1, self.console.height - 4)), refresh=True)
                time.sleep(REFRESH_S)

    def table(self, *, most: int | None = None) -> RenderableType:
        found = self.jobs.list(
            status=self.status, limit=min(self.limit, most or self.limit), name=self.name, scope=self.scope
        )
        if not found.jobs and not found.damaged:
            return Text(found.text(), style="dim")
        columns = [title for title, least in COLUMNS.items() if self.console.width >= least]
        if not any(job.project for job in found.jobs):
            columns = [title for title in columns if title != "PROJECT"]
        table = Table(box=None, pad_edge=False, header_style="bold", expand="LAST LINE" in columns)
        for title in columns:
            table.add_column(
                title,
                justify="right" if title in NUMBERS else "left",
                no_wrap=True,
                overflow="ellipsis",
                ratio={"COMMAND": 2, "LAST LINE": 3}.get(title),
            )
        faults: list[str] = []
        busy = self.usage(found, faults)
        for job in found.jobs:
            line = ""
            with apart(job.job_id, faults):
                line = self.jobs.tail(job.job_id, lines=1).stdout
            cells = self.cells(job, busy.get(job.job_id), line)
            table.add_row(*(cells[title] for title in columns))
        return Group(table, *(Text(said, style="dim") for said in dict.fromkeys([*left_out(found), *faults])))

    def cells(self, job: JobSummary, usage: tuple[float, int] | None, line: str) -> dict[str, Text]:
        """Every column's text; nothing of a job is ever taken for markup."""
        age = (datetime.now(UTC) - job.started).total_seconds()
        return {
            "JOB": Text(job.job_id, style="bold" if job.status in OPEN else ""),
            "PROJECT": Text(job.project or "", style="cyan"),
            "STATE": self.state(job),
            "AGE": Text(seconds(max(0.0, age))),
            "TIME": Text(seconds(job.runtime) + ("" if job.runtime_is_exact else "+")),
            "CPU": Text(f"{usage[0]:.0%}" if usage else ""),
            "MEM": Text(size(usage[1]) if usage else ""),
            "COMMAND": Text(" ".join(job.command.split()), style="dim"),
            "LAST LINE": Text(visible(" ".join(line.split()))),
        }

    def state(self, job: JobSummary) -> Text:
        word, (mark, style) = str(job.status), STATES["waits" if job.waits_for else job.status]
        if job.waits_for:
            word = f"waits for {job.waits_for}"
        shown = [mark] if self.console.encoding.startswith("utf") else []
        return Text(" ".join([*shown, word, *([job.how] if job.how else [])]), style=style)

    def usage(self, found: JobList, faults: list[str]) -> dict[str, tuple[float, int]]:
        """{running job: (processors kept busy since the last look, or since its start; resident bytes)}."""
        now = time.monotonic()
        running = {job.job_id: job for job in found.jobs if job.status in ("running", "paused")}
        busy = {}
        for job_id, (cpu_s, rss) in self.jobs.usage(list(running), faults).items():
            before_s, before = self._before.get(job_id, (0.0, now - max(running[job_id].runtime, 0.001)))
            busy[job_id] = (max(0.0, cpu_s - before_s) / max(now - before, 0.001), rss)
            self._before[job_id] = (cpu_s, now)
        return busy


def left_out(found: JobList) -> list[str]:
    more = found.total - len(found.jobs)
    others = found.other_projects
    return [
        *([f"{more} older ones are not shown; --limit shows more."] if more else []),
        *([f"{others} in other projects are not shown."] if others else []),
        *found.damaged,
    ]


def size(count: int) -> str:
    """Bytes as a person says them: `812K`, `14M`, `1.2G`."""
    if count < 1 << 20:
        return f"{count >> 10}K"
    return f"{count >> 20}M" if count < 1 << 30 else f"{count / (1 << 30):.1f}G"
