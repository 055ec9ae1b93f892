"""Queues: what each scheduler is asked, and what its answers mean.

Nothing here runs a command: a queue writes shell text and reads what came back, so that the executor can put
many questions into one command, and tests can replay recorded answers.
"""
