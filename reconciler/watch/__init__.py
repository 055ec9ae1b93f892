"""The daemon, a reconcile that never ends. ``daemon.py`` reads top to bottom."""
