"""``reconcile set``: edits of manifests, committed to the repository."""
