"""Doctor: checks of everything that jobs need, on this machine, in the repository and on each worker.

Each subject has a module with a table of its checks. Nothing is changed, except for a probe file that is
removed again.
"""
