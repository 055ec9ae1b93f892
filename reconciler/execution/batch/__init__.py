"""Batch workers: many jobs in one allocation.

The executor hands jobs over as tickets in a directory of the worker, and keeps as many allocations in the
queue as the waiting jobs need. In each runs an agent (``agent.py``), which claims jobs and runs them.
``tickets`` has the files of a hand-over, ``queue`` reads the directory as a queue, and ``allocations``
decides about and submits allocations. ``agent.py`` and ``warm.py`` travel to workers and import nothing of
this package.
"""
