"""Background jobs that a coding agent and a person share: every job is a window of one tmux session."""

TYPE_CHECKING = False  # `typing` takes 2 ms, and the processes in panes import this too
if TYPE_CHECKING:
    from tmuxjobs.errors import (
        Held,
        HostError,
        InvalidInput,
        JobEnded,
        JobNotFound,
        LimitReached,
        NotAllowed,
        NotStarted,
        OtherHost,
        OtherProject,
        SettingsError,
        StateError,
        TmuxError,
        TmuxjobsError,
    )
    from tmuxjobs.jobs import Jobs
    from tmuxjobs.settings import Settings

__all__ = [
    "Held",
    "HostError",
    "InvalidInput",
    "JobEnded",
    "JobNotFound",
    "Jobs",
    "LimitReached",
    "NotAllowed",
    "NotStarted",
    "OtherHost",
    "OtherProject",
    "Settings",
    "SettingsError",
    "StateError",
    "TmuxError",
    "TmuxjobsError",
]


def __getattr__(name: str) -> object:
    """Loaded at first use (PEP 562): the processes in panes import this package without its dependencies."""
    if name not in __all__:
        raise AttributeError(f"module 'tmuxjobs' has no attribute {name!r}")
    from importlib import import_module

    home = {"Jobs": "jobs", "Settings": "settings"}.get(name, "errors")
    return getattr(import_module(f"tmuxjobs.{home}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
