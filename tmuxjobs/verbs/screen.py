"""`screen`: what a person who is attached sees of a job now."""

from __future__ import annotations

from tmuxjobs.answers import Screen
from tmuxjobs.errors import TmuxError
from tmuxjobs.hosts.local import Host
from tmuxjobs.text.clean import clean


def screen(host: Host, job_id: str) -> Screen:
    """The rendered screen, as tmux shows it; of a finished job as long as its window is there.

    Raises JobNotFound, and TmuxError when there is no window.
    """
    job = host.look(job_id)
    pane = host.tmux.panes().get(job_id)
    if pane is None:
        raise TmuxError(f"The window of job '{job_id}' is closed; `output` has what it printed.")
    seen = host.tmux.screen(pane, styled=True)
    rows = [clean(row.encode(), continued=True).replace("\n", " ").rstrip() for row in seen.lines]
    return Screen(
        screen="\n".join(rows).rstrip("\n"),
        cursor_row=seen.cursor_row + 1,
        cursor_column=seen.cursor_column + 1,
        columns=seen.columns,
        rows=seen.rows,
        alternate=seen.alternate,
        mode=seen.mode,
        status=job.status,
        styled=seen.lines,
        cursor_visible=seen.cursor_visible,
    )
