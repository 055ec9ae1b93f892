"""One worker from the executor's side: its directory, its queue, and the few commands that both cost.

Each operation on many jobs is one command on the host, however many jobs there are: ``poll``, ``collect``,
``upload``, ``submit`` (and, rarely, ``withdraw`` and ``cancel``). A module each says what the script does and
how its answer is read; ``access`` puts them together.
"""
