"""Puts the jobs of these tests where the tests can import them, as a user's python_path does."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "code"))
