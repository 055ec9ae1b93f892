"""Doctor: what must be right for jobs to run, here, in the repository and on each worker.

Checks are rows of tables: ``MACHINE`` in :mod:`here`, ``REPOSITORY`` in :mod:`repository`, ``WORKER`` in
:mod:`worker`. Nothing is changed but for a probe file that is removed again.
"""
