"""Running jobs on workers: upload, submit, poll, collect. The only package that acts on workers."""
