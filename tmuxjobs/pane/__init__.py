"""The processes inside tmux. Stdlib only, Python >= 3.8: they run apart from the package, see `__main__.py`."""
