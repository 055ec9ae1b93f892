"""Carrying jobs through their life: build, apply, upload, start, watch, take in."""
