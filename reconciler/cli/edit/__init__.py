"""``reconcile set``: edits of manifests that are tried, shown as a plan, and committed."""
