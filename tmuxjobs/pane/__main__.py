"""The one program that runs in panes: `__main__.py ROLE ...`, by path and with `python -I -S`."""

import os
import sys

if not __package__:
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def main() -> None:
    """Be what the first argument names; each role loads what it needs and no more."""
    role, *rest = sys.argv[1:]
    if role == "runner":
        from tmuxjobs.pane.runner import Runner

        sys.exit(Runner(rest[0], os.ttyname(0)).main())
    elif role == "recorder":
        from tmuxjobs.pane import recorder

        recorder.main(*rest)
    elif role == "adopter":
        from tmuxjobs.pane import adopter

        adopter.detached(rest[0])
    elif role == "finished":
        from tmuxjobs.pane import window

        window.ended(rest[0])
    elif role == "welcome":
        from tmuxjobs.pane import welcome

        welcome.welcome(*rest)
    else:
        sys.exit(f"no role {role!r}")


if __name__ == "__main__":
    main()
