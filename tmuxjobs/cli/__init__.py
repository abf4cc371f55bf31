"""The command line: one function a command. Talks to `Jobs` alone; the one user of cyclopts."""

USAGE, BUG, WAIT_OVER, INTERRUPTED = 2, 3, 124, 130
"""Exit codes."""
