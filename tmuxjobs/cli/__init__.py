"""The command line: one function a command. Talks to `Jobs` alone; the one user of cyclopts."""
