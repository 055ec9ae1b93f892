"""Hosts: the machines where commands run and files are, this one or another one over SSH.

A host does one thing: it runs a bash script that reads and writes bytes (:class:`~.base.Host`). Files travel
as tar streams through such scripts, so nothing else, such as SFTP, is needed.
"""
