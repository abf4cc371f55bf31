"""The machines that jobs run on. `local.py` is this one; verbs know a host only by its methods."""
