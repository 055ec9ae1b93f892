"""The command line: one file a verb, and views that show the same data as text or JSON."""
