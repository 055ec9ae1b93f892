"""YAML output."""

from __future__ import annotations

import io
from typing import Any


def dump(value: Any) -> str:
    """Return plain data as block style YAML, keys in their order."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.StringIO()
    yaml.dump(value, stream)
    return stream.getvalue()
