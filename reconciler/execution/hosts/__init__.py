"""Hosts: where commands run and files lie, here or over SSH.

A host does one thing: it runs a bash script that gets bytes and gives bytes (:class:`command.Host`). Files
travel through that as tar streams, so that nothing else, such as SFTP, is needed.
"""
