"""The git source: revisions, blobs, history, and commits on a work tree."""
