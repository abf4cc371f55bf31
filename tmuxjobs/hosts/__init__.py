"""The machines that jobs run on. `local.py` is this one: its settings, store, journal and tmux, and what is so now."""
