"""Desired state: from the git source and its manifests to what should run.

Each blob is parsed only once, and the result is kept in the store. Only :mod:`reconciler.desired.yaml.reader`
needs a YAML parser; a reconcile without a new blob imports neither ruamel.yaml nor jsonschema.
"""
