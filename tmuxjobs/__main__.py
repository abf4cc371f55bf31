"""`python -m tmuxjobs` is `tmuxjobs`."""

from tmuxjobs.cli.main import main

if __name__ == "__main__":
    main()
