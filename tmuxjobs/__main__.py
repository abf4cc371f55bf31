"""`python -m tmuxjobs` is `tmuxjobs`."""

from tmuxjobs.cli import main

if __name__ == "__main__":
    main()
