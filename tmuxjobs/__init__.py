"""Background jobs that a coding agent and a person share: every job is a window of one tmux session."""

from tmuxjobs.jobs import Jobs
from tmuxjobs.settings import Settings

__all__ = ["Jobs", "Settings"]
