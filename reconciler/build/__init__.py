"""Builds flows: jobflow and the user's code run in a separate process."""
