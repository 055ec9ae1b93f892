"""Values inside ``args`` and ``kwargs``: any YAML, and four directives.

``{$output: job.attribute}``, ``{$call: dotted.path, args, kwargs}``, ``{$path: file}`` and
``{$maker: {class, kwargs}}``. A mapping with a key that begins with ``$`` is exactly one of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from reconciler.desired.yaml.places import escape, related
from reconciler.diagnostics import Diagnostic, did_you_mean
from reconciler.model.manifests import Manifest

Attribute = tuple[Literal["a", "i"], str | int]
"""One step into an output: ``("a", name)`` for ``.name``, ``("i", index)`` for ``[0]`` and ``["key"]``."""

OutputReference = tuple[str | None, str, tuple[Attribute, ...]]

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_OUTPUT = re.compile(rf"(?:(?P<flow>{_NAME})/)?(?P<job>[^./\[\]\"']+)(?P<steps>(?:[.\[].*)?)", re.DOTALL)
_LOCAL_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_STEP = re.compile(r"""\.([A-Za-z_][A-Za-z0-9_]*)|\[(-?[0-9]{1,9})\]|\["([^"\]]+)"\]|\['([^'\]]+)'\]""")
_DOTTED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+")


def parse_output_reference(text: str) -> OutputReference:
    """Return (flow or None, job id, attributes) of the text of an ``$output``.

    Raises ValueError with a sentence for the user when the text is no reference.
    """
    found = _OUTPUT.fullmatch(text)
    if found is None:
        raise ValueError(
            f"'{text}' is no reference: write 'job', 'job.attribute', 'job[0]' or 'flow/job.attribute'"
        )
    flow, job = found["flow"], found["job"]
    if flow is None and not _LOCAL_ID.fullmatch(job):
        raise ValueError(f"'{job}' is no id of a job: an id has letters, digits, '_' and '-' only")
    if job != job.strip():
        raise ValueError(f"'{text}' has blanks around the job's name")
    return flow, job, _steps(text, found["steps"])


def _steps(text: str, steps: str) -> tuple[Attribute, ...]:
    attributes: list[Attribute] = []
    at = 0
    while at < len(steps):
        found = _STEP.match(steps, at)
        if found is None:
            raise ValueError(
                f"'{steps[at:]}' in '{text}' is no attribute: write '.name', '[0]' or '[\"key\"]'"
            )
        name, index, *keys = found.groups()
        if name is not None:
            attributes.append(("a", name))
        else:
            attributes.append(("i", int(index) if index is not None else keys[0] or keys[1]))
        at = found.end()
    return tuple(attributes)


def iter_directives(content: Any, pointer: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield (pointer, name, value) of every directive in plain data, outer ones first.

    ``pointer`` is that of the mapping with the directive, below the ``pointer`` given for ``content``;
    ``name`` is ``$output``, ``$call``, ``$path`` or ``$maker``; ``value`` what the mapping has under it.
    """
    if isinstance(content, Mapping):
        for name in _DIRECTIVES:
            if name in content:
                yield pointer, name, content[name]
    for step, value in entries(content):
        yield from iter_directives(value, f"{pointer}/{step}")


def entries(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield (step of a JSON pointer, value) of the entries of a mapping or list; none for a scalar."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield escape(key), value
    elif isinstance(content, list):
        for index, value in enumerate(content):
            yield str(index), value


def check_arguments(manifest: Manifest, holder: Any, pointer: str) -> Iterator[Diagnostic]:
    """Yield what is wrong with the directives in the ``args`` and ``kwargs`` of ``holder`` at ``pointer``."""
    if not isinstance(holder, Mapping):
        return
    for name in ("args", "kwargs"):
        arguments = holder.get(name)
        if isinstance(arguments, Mapping):
            yield from _check_argument_names(manifest, arguments, f"{pointer}/{name}")
        for step, value in entries(arguments):
            yield from check_value(manifest, value, f"{pointer}/{name}/{step}")


def _check_argument_names(
    manifest: Manifest, kwargs: Mapping[str, Any], pointer: str
) -> Iterator[Diagnostic]:
    for key in kwargs:
        if key.startswith("$"):
            yield manifest.diagnostic(
                "value/misplaced-directive",
                f"'{key}' stands where the name of a keyword argument belongs",
                _below(pointer, key),
                key=True,
                hint=f"give the argument's name first: {{name: {{{key}: ...}}}}",
            )


def check_value(manifest: Manifest, value: Any, pointer: str) -> Iterator[Diagnostic]:
    """Yield what is wrong with the directives in a value, at any depth."""
    dollars = [key for key in value if key.startswith("$")] if isinstance(value, Mapping) else []
    if dollars:
        yield from _check_directive(manifest, value, dollars, pointer)
        return
    for step, entry in entries(value):
        yield from check_value(manifest, entry, f"{pointer}/{step}")


def _check_directive(
    manifest: Manifest, value: Mapping[str, Any], dollars: list[str], pointer: str
) -> Iterator[Diagnostic]:
    for key in dollars:
        if key not in _DIRECTIVES:
            yield _unknown_directive(manifest, key, pointer)
    known = [key for key in dollars if key in _DIRECTIVES]
    if not known:
        return
    name = known[0]
    allowed = {name, "args", "kwargs"} if name == "$call" else {name}
    for key in value:
        if key not in allowed and (key in known or key not in dollars):
            yield _extra_key(manifest, name, key, allowed - {name}, pointer)
    yield from _DIRECTIVES[name](manifest, value, pointer)


def _unknown_directive(manifest: Manifest, key: str, pointer: str) -> Diagnostic:
    return manifest.diagnostic(
        "value/unknown-directive",
        f"'{key}' is no directive; keys that begin with '$' are kept for directives",
        _below(pointer, key),
        key=True,
        hint=did_you_mean(key, _DIRECTIVES),
    )


def _extra_key(manifest: Manifest, name: str, key: str, allowed: set[str], pointer: str) -> Diagnostic:
    return manifest.diagnostic(
        "value/extra-key",
        f"'{key}' cannot stand beside '{name}'",
        _below(pointer, key),
        key=True,
        hint=did_you_mean(key, allowed) if allowed else f"'{name}' stands alone in its mapping",
        related=(related(manifest, _below(pointer, name), f"'{name}' is given here", key=True),),
    )


def _check_output(manifest: Manifest, value: Mapping[str, Any], pointer: str) -> Iterator[Diagnostic]:
    text = value["$output"]
    at = f"{pointer}/$output"
    if not isinstance(text, str):
        yield _type_problem(manifest, "$output", "a text such as 'job' or 'job.attribute'", at)
        return
    try:
        parse_output_reference(text)
    except ValueError as error:
        yield manifest.diagnostic("value/output-reference", str(error), at)


def _check_call(manifest: Manifest, value: Mapping[str, Any], pointer: str) -> Iterator[Diagnostic]:
    yield from _check_dotted(manifest, "$call", value["$call"], f"{pointer}/$call")
    yield from _check_shape(manifest, value, pointer)
    yield from check_arguments(manifest, value, pointer)


def _check_shape(manifest: Manifest, value: Mapping[str, Any], pointer: str) -> Iterator[Diagnostic]:
    if "args" in value and not isinstance(value["args"], list):
        yield _type_problem(manifest, "args", "a list", f"{pointer}/args")
    if "kwargs" in value and not isinstance(value["kwargs"], Mapping):
        yield _type_problem(manifest, "kwargs", "a mapping", f"{pointer}/kwargs")


def _check_path(manifest: Manifest, value: Mapping[str, Any], pointer: str) -> Iterator[Diagnostic]:
    path, at = value["$path"], f"{pointer}/$path"
    if not isinstance(path, str):
        yield _type_problem(manifest, "$path", "the path of a file of the repository", at)
    elif not path or path.startswith("/") or "\\" in path or "\n" in path or ".." in path.split("/"):
        message = f"'{path}' is no path inside the repository"
        hint = "write it relative to the root of the repository, without '..'"
        yield manifest.diagnostic("value/path", message, at, hint=hint)


def _check_maker(manifest: Manifest, value: Mapping[str, Any], pointer: str) -> Iterator[Diagnostic]:
    maker, at = value["$maker"], f"{pointer}/$maker"
    if not isinstance(maker, Mapping):
        yield _type_problem(manifest, "$maker", "a mapping {class: ..., kwargs: ...}", at)
        return
    for key in maker:
        if key not in ("class", "kwargs"):
            yield _extra_maker_key(manifest, key, at)
    if "class" not in maker:
        yield manifest.diagnostic("value/missing-key", "'$maker' has no 'class'", at, key=True)
    else:
        yield from _check_dotted(manifest, "class", maker["class"], f"{at}/class")
    yield from _check_shape(manifest, {"kwargs": maker.get("kwargs", {})}, at)
    yield from check_arguments(manifest, {"kwargs": maker.get("kwargs")}, at)


def _extra_maker_key(manifest: Manifest, key: str, pointer: str) -> Diagnostic:
    hint = did_you_mean(key, ("class", "kwargs"))
    message = f"'$maker' has no key '{key}'"
    return manifest.diagnostic("value/extra-key", message, _below(pointer, key), key=True, hint=hint)


def _check_dotted(manifest: Manifest, what: str, value: Any, pointer: str) -> Iterator[Diagnostic]:
    if not isinstance(value, str):
        yield _type_problem(manifest, what, "a dotted path such as 'package.module.name'", pointer)
    elif not _DOTTED.fullmatch(value):
        message = f"'{value}' is no dotted path"
        hint = "write at least a module and a name in it: 'package.module.name'"
        yield manifest.diagnostic("value/dotted-path", message, pointer, hint=hint)


def _type_problem(manifest: Manifest, what: str, expected: str, pointer: str) -> Diagnostic:
    return manifest.diagnostic("value/type", f"'{what}' must be {expected}", pointer)


def _below(pointer: str, key: str) -> str:
    return f"{pointer}/{escape(key)}"


_DIRECTIVES: dict[str, Callable[[Manifest, Mapping[str, Any], str], Iterator[Diagnostic]]] = {
    "$output": _check_output,
    "$call": _check_call,
    "$path": _check_path,
    "$maker": _check_maker,
}
