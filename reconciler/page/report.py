"""One self-contained HTML file about a campaign. It loads nothing from elsewhere, and opens offline."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

_HERE = Path(__file__).parent


def render(facts: Mapping[str, Any]) -> str:
    """Return the HTML of a report; ``facts`` are those of ``cli/page.py``.

    Every text is escaped, except the drawings, which escape their own. The content security policy allows
    the style and the script of this package by their digests, and nothing else.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["drawn"] = Markup
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    return environment.get_template("report.html").render(
        **facts, style=Markup(style), script=Markup(script),
        policy=f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}",
    )  # fmt: skip


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
