"""The command line: commands, and views that show the same data as text or JSON."""
