"""The one door to fabric and paramiko: hosts over SSH.

``SshHost`` runs the scripts; ``opening`` makes the connection, ``host_keys`` says whether the host is the one
it should be, ``login`` says who we are, ``failures`` tells people what went wrong.
"""

from reconciler.execution.hosts.ssh.host import SshHost

__all__ = ["SshHost"]
