"""Telling people: what happened, by command, webhook, mail or apprise."""
