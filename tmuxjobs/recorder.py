"""For jobs that 0.1.0 started: `recorder.py FOLDER NONCE LIMIT SEPARATE` runs when their recorder has died."""

import os
import sys

if __name__ == "__main__":
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from tmuxjobs.pane import recorder

    recorder.main(*sys.argv[1:5])
