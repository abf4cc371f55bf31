"""What a desktop client starts: the server of the package that uv has installed beside this file."""

import sys

from tmuxjobs.cli.main import main

sys.argv[1:] = ["serve"]
main()
