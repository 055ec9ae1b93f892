"""A FlowSet document and the files of its sources, expanded without a repository."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import dedent, indent

import pytest

from reconciler.desired.flowsets.expansion import Expansion, SourceFiles, expand
from reconciler.desired.yaml.reader import parse_file
from reconciler.model.manifests import Manifest

Expand = Callable[..., Expansion]

TEMPLATE = """
template:
  jobs:
    - {id: a, function: reconciler.examples.value, args: [{$item: n}]}
"""


def document(spec: str, metadata: str = "{name: s}") -> Manifest:
    """Return a valid FlowSet; a spec without a template gets one that uses column ``n``."""
    spec = dedent(spec).strip() + ("" if "template:" in spec else TEMPLATE)
    text = f"apiVersion: reconciler/v1\nkind: FlowSet\nmetadata: {metadata}\nspec:\n{indent(spec, '  ')}\n"
    parsed = parse_file(text.encode())
    assert parsed.diagnostics == [], parsed.diagnostics
    return Manifest("flows/s.yaml", parsed.documents[0])


@pytest.fixture
def expanded() -> Expand:
    """Expand a spec with the files that are given by path."""

    def run(spec: str, metadata: str = "{name: s}", **files: str | bytes) -> Expansion:
        contents = {
            path.replace("__", "/").replace("_dot_", "."): text.encode() if isinstance(text, str) else text
            for path, text in files.items()
        }
        return expand(document(spec, metadata), SourceFiles(contents, sorted(contents)))

    return run
