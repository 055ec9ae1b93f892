"""A real browser: Chromium without a window."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.services.programs import PATIENCE, program


def opened(page: Path, fragment: str = "", *, width: int = 1280) -> str:
    """Return the document that a page has become in the browser, after its script has run."""
    done = subprocess.run(
        [
            program("chromium"),
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
            f"--user-data-dir={page.parent / 'browser'}",
            f"--window-size={width},900",
            "--virtual-time-budget=2000",
            "--dump-dom",
            f"{page.absolute().as_uri()}{fragment}",
        ],
        capture_output=True, text=True, timeout=2 * PATIENCE, check=True,
    )  # fmt: skip
    return done.stdout
