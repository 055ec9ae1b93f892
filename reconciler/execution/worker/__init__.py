"""One worker from the executor's side: its directory, its queue, and the few commands that both need.

Each operation on many jobs is one command on the host, however many jobs there are: ``prepare``, ``poll``,
``upload``, ``submit`` and ``fetch``. The module of an operation has both its script and the reading of the
script's output; ``access`` runs them.
"""
