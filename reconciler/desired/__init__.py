"""Desired state: from the git source over manifests to what should run.

A blob is parsed once, ever, and kept in the store. Only :mod:`reconciler.desired.yaml.reader`
needs a YAML parser; a reconcile without a new blob imports neither ruamel.yaml nor jsonschema.
"""
