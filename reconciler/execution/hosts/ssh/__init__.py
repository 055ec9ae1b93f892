"""Hosts over SSH; the only package that imports fabric and paramiko.

``host`` runs scripts, ``channel`` transfers one of them, ``opening`` makes the connection and explains its
failures, ``host_keys`` checks the identity of the host, and ``login`` proves ours.
"""

from reconciler.execution.hosts.ssh.host import SshHost

__all__ = ["SshHost"]
