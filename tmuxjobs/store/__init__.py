"""One folder a job, ids, the lock, the journal. Knows files, not tmux and not processes."""
