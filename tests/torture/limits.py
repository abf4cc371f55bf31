"""Cases that take something away from the machine: the disk, files, processes, terminals."""

LIMITS = ()
