"""Campaigns on a real Slurm over a real sshd: what a run costs there, and what outages do to it."""
