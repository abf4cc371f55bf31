"""The agent as a program, by path and with `python -I -S`: `STATE/pane/UNIT/tmuxjobs/far/__main__.py`.

With `again JOB` it starts that job again.
"""

import os
import sys

UNIT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

if not __package__:
    sys.path.insert(0, UNIT)


def main() -> None:
    from tmuxjobs.far import agent

    if sys.argv[1:2] == ["again"]:
        agent.again(UNIT, sys.argv[2])
    else:
        agent.main(UNIT)


if __name__ == "__main__":
    main()
