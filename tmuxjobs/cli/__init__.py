"""The command line: one function per command. Talks only to `Jobs`; the only user of cyclopts."""

USAGE, BUG, WAIT_OVER, INTERRUPTED = 2, 3, 124, 130
"""Exit codes."""
