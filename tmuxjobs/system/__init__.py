"""What this machine says: processes, terminals, changes of files, ports and URLs. Knows no jobs."""
