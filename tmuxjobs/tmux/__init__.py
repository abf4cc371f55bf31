"""Our session on the person's tmux server. Knows panes with a mark, not jobs. The only user of libtmux."""
