"""For jobs that 0.1.0 started: its runners become `pages.py ended FOLDER` when the job has ended."""

import os
import sys

if __name__ == "__main__":
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from tmuxjobs.pane import window

    window.ended(sys.argv[2])
