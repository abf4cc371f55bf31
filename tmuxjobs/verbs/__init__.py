"""One module per verb, named after it: functions over a `Host`. They import each other downward; `Jobs` calls them.

Each is imported when it is first used: importing all of them takes longer than one needs to answer.
"""

from importlib import import_module
from types import ModuleType

from tmuxjobs.errors import StateError

AT_ONCE = False
if AT_ONCE:  # with TYPE_CHECKING mypy puts these off until after their users
    from tmuxjobs.verbs import (
        adopt,
        approve,
        doctor,
        events,
        execute,
        files,
        group,
        hold,
        interact,
        job_wait,
        kill,
        launch,
        news,
        output,
        prompts,
        prune,
        queue,
        restart,
        search,
        slurm,
        status,
        token,
        unseen,
        wait,
        waiter,
    )

__all__ = [
    "adopt",
    "approve",
    "doctor",
    "events",
    "execute",
    "files",
    "group",
    "hold",
    "interact",
    "job_wait",
    "kill",
    "launch",
    "news",
    "output",
    "prompts",
    "prune",
    "queue",
    "restart",
    "search",
    "slurm",
    "status",
    "token",
    "unseen",
    "wait",
    "waiter",
]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    try:
        return import_module(f"{__name__}.{name}")
    except OSError as error:  # such as no more files
        raise StateError(f"A part of tmuxjobs cannot be loaded ({error.strerror}); try again.") from None
