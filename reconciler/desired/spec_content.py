"""What the spec of a flow refers to: files, outputs of jobs, variables, Makers and code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from reconciler.desired.makers import Expanded
from reconciler.desired.yaml.source_text import escape


class SpecContent(NamedTuple):
    """What the spec of a flow refers to, found in one walk over its values.

    ``files`` are (pointer, path) of the files of the repository that it names, ``doubtful`` those that it
    would name if ``path`` were written ``$path``. ``outputs`` are (pointer, value) of its references,
    ``variables`` (pointer, name) of its ``$env``, and ``words`` what each text with a dot begins with: a
    module, if it is the path of a function or class.
    ``refs`` are values of ``ref``, probably of references to Makers, and ``expanded`` is the spec without
    those; None if one cannot be used.
    """

    files: list[tuple[str, str]]
    doubtful: list[tuple[str, str]]
    outputs: list[tuple[str, Any]]
    variables: list[tuple[str, str]]
    words: set[str]
    refs: set[str]
    expanded: Expanded | None


def spec_content(spec: Mapping[str, Any]) -> SpecContent:
    """Return what the spec of a valid flow refers to."""
    content = SpecContent([], [], [], [], set(), set(), Expanded(dict(spec), {}, {}))
    _walk(spec, (), content)
    file = spec.get("file")
    if file is not None:
        content.files.append(("/spec/file", file))
    return content


def _walk(value: Any, steps: tuple[Any, ...], content: SpecContent) -> None:
    """Add what a value refers to. Pointers are made only where something is found: most values are plain."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$output":
                content.outputs.append((f"{_pointer(steps)}/$output", inner))
            elif isinstance(inner, str):
                if "." in inner:
                    content.words.add(inner.partition(".")[0])
                if key == "ref":
                    content.refs.add(inner)
                elif key == "$env":
                    content.variables.append((f"{_pointer(steps)}/$env", inner))
                elif key in ("$path", "$load"):
                    content.files.append((f"{_pointer(steps)}/{key}", inner))
                elif (
                    key == "path" and len(value) == 1 and steps[-1:] != ("kwargs",)
                ):  # not an argument's name
                    content.doubtful.append((_pointer(steps), inner))
            elif isinstance(inner, dict | list):
                _walk(inner, (*steps, key), content)
    else:
        for index, inner in enumerate(value):
            if isinstance(inner, dict | list):
                _walk(inner, (*steps, index), content)
            elif isinstance(inner, str) and "." in inner:
                content.words.add(inner.partition(".")[0])


def _pointer(steps: tuple[Any, ...]) -> str:
    return "/".join(["/spec", *(escape(str(step)) for step in steps)])
