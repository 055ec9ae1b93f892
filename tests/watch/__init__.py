"""The daemon as a process: it is started, given commits and signals, and looked at."""
