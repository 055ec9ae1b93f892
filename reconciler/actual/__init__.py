"""The actual state: job records, history and job outputs, in one embedded LMDB environment."""
