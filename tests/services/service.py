"""What the services have in common: all they know is on disk, so that any process can take hold of one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Service:
    """A service that lives in one directory.

    Made again for the same directory, as in another process, the object stands for the same service.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def remember(self, **facts: Any) -> dict[str, Any]:
        """Return the facts that the directory knows; it keeps the given ones if it knows none."""
        file = self.directory / "service.json"
        if not file.is_file():
            self.directory.mkdir(parents=True, exist_ok=True)
            self.directory.chmod(0o755)  # whatever the umask says: users of jobs have to get in
            file.write_text(json.dumps(facts), encoding="utf-8")
        known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return known

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        """Write a file of the service, with its directories; another process never sees a half of it."""
        file = self.directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f"{file.name}.{os.getpid()}.new")
        new.write_text(text, encoding="utf-8")
        new.chmod(mode)
        return new.replace(file)
