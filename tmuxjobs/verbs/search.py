"""`search`: the lines of a job's log that match, with their numbers, surroundings, and cursors to read on from."""

from __future__ import annotations

from typing import Any

from tmuxjobs.answers import Found, FoundLine
from tmuxjobs.errors import InvalidInput
from tmuxjobs.hosts.local import Host
from tmuxjobs.text import matching
from tmuxjobs.text.log import gone_because
from tmuxjobs.verbs import output

LIMIT = 20
LIMIT_MAX = 1000
CHARS = 12_000
"""How many characters the lines of one answer may take together; the first match is always given."""


def search(
    host: Host,
    job_id: str,
    pattern: str,
    *,
    literal: bool = False,
    ignore_case: bool = False,
    context: int = 0,
    limit: int = LIMIT,
    cursor: int = 0,
    stderr_cursor: int = 0,
) -> Found:
    """Lines matching a regular expression, or a `literal` text, from the cursors on; each cleaned by itself.

    The lines of a separate stderr follow. `context` lines come around each match. Bounded by `limit` matches
    (1 to 1000), CHARS and the host's time for a search; the answer says from where to go on. Raises JobNotFound,
    InvalidInput.
    """
    if not 1 <= limit <= LIMIT_MAX:
        raise InvalidInput(f"limit must be 1 to {LIMIT_MAX}, not {limit}.")
    job = host.look(job_id)
    logs_of = {"stdout": (job.log, cursor)}
    if job.stderr:
        logs_of["stderr"] = (job.stderr, stderr_cursor)
    asked: dict[str, Any] = {"literal": literal, "ignore_case": ignore_case, "context": context}
    kept: list[FoundLine] = []
    room, total, exact, more, gone = CHARS, 0, True, False, 0
    ends = {}
    for stream, (path, start) in logs_of.items():
        try:
            # Ask for one match even if no more are wanted: all are counted, and the cursor is known.
            wanted = max(1, limit - len(kept))
            found = matching.search(path, pattern, **asked, limit=wanted, cursor=start, timeout=host.timing.search)
        except ValueError as error:
            raise InvalidInput(str(error)) from None
        total, exact, gone = total + found.total, exact and not found.total_at_least, gone + found.gone_bytes
        more, ends[stream] = more or found.truncated, found.cursor
        for match in found.matches:
            room -= sum(map(len, (match.text, *match.before, *match.after)))
            if len(kept) == limit or (kept and room < 0):
                more, ends[stream] = True, match.cursor
                break
            kept.append(
                FoundLine(
                    stream=stream,
                    line=match.line,
                    line_is_exact=match.line_is_exact,
                    cursor=match.cursor,
                    text=match.text,
                    before=match.before,
                    after=match.after,
                )
            )
    unseen = [f"not searched: {output.gone_words(gone, gone_because(*job.logs))}"] if gone else []
    return Found(
        matches=tuple(kept),
        total=total,
        total_is_exact=exact,
        more=more,
        cursor=ends["stdout"],
        stderr_cursor=ends.get("stderr"),
        gone_bytes=gone,
        status=job.status,
        note="; ".join(unseen + output.log_notes(job)),
    )
