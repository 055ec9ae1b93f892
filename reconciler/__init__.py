"""GitOps for jobflow: desired state in git, actual state in LMDB, a plan between them."""

__version__ = "0.1.0"
