"""Values inside ``args`` and ``kwargs``: any YAML, and directives.

``{$output: job.attribute}``, ``{$call: dotted.path, args, kwargs}``, ``{$maker: {class, kwargs}}``, the
files ``{$path: file}`` and ``{$load: file}``, ``{$env: NAME}`` of ``spec.build.env``, and what YAML does not
have: ``{$tuple: [...]}``, ``{$set: [...]}``, ``{$map: [[key, value], ...]}`` for keys that are not text, and
``{$bytes: base64}``. A mapping with a key that begins with ``$`` is exactly one of them.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from reconciler.desired.yaml.source_text import escape, related
from reconciler.diagnostics import Diagnostic, did_you_mean
from reconciler.model.manifests import Manifest

DIRECTIVES = ("$output", "$call", "$path", "$maker", "$load", "$env", "$tuple", "$set", "$map", "$bytes")

Attribute = tuple[Literal["a", "i"], str | int]
"""One step into an output: ``("a", name)`` for ``.name``, ``("i", index)`` for ``[0]`` and ``["key"]``."""

OutputReference = tuple[str | None, str, tuple[Attribute, ...]]
"""(flow or None, key of the job or "" for the flow's own output, steps into the output)"""

_OUTPUT_KEYS = ("flow", "job", "path")
_MAKER_KEYS = ("class", "ref", "kwargs")

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_LONGEST_NAME = 100


def is_name(text: str) -> bool:
    """Return whether a text can be ``metadata.name`` of a manifest, as the schemas say."""
    return len(text) <= _LONGEST_NAME and re.fullmatch(_NAME, text) is not None


_OUTPUT = re.compile(rf"(?:(?P<flow>{_NAME})/)?(?P<job>[^./\[\]\"']+)(?P<steps>(?:[.\[].*)?)", re.DOTALL)
_LOCAL_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_STEP = re.compile(r"""\.([A-Za-z_][A-Za-z0-9_]*)|\[(-?[0-9]{1,9})\]|\["([^"\]]+)"\]|\['([^'\]]+)'\]""")
DOTTED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+")


def parse_output_reference(value: Any) -> OutputReference:
    """Return the parts of an ``$output``: text such as ``eos/relax.structure[0]``, or a mapping.

    ``{flow: eos, job: "relax 1/6", path: structure[0]}`` can name every job, whatever its name has in it;
    without ``job`` it is the flow's own output.

    Raises ValueError with a sentence for the user when the value is not a reference.
    """
    if isinstance(value, Mapping):
        return _parse_output_mapping(value)
    text = str(value)
    found = _OUTPUT.fullmatch(text)
    if found is None:
        raise ValueError(
            f"'{text}' is not a reference: write 'job', 'job.attribute', 'job[0]' or 'flow/job.attribute'"
        )
    flow, job, steps = found["flow"], found["job"], found["steps"]
    if flow is None and not _LOCAL_ID.fullmatch(job):
        raise ValueError(f"'{job}' is not a job id: an id has only letters, digits, '_' and '-'")
    if job != job.strip():
        raise ValueError(f"'{text}' has spaces around the name of the job")
    return flow, job, _parse_steps(steps, text)


def _parse_output_mapping(value: Mapping[str, Any]) -> OutputReference:
    for key, given in value.items():
        if key not in _OUTPUT_KEYS:
            guess = did_you_mean(key, _OUTPUT_KEYS)
            raise ValueError(f"'$output' does not have a key '{key}'{f': {guess}' if guess else ''}")
        if not isinstance(given, str) or not given:
            raise ValueError(f"'{key}' of '$output' must be text; quote a name that looks like a number")
    flow, job, path = value.get("flow"), value.get("job", ""), value.get("path", "")
    if flow is None and not job:
        raise ValueError("'$output' needs 'job', 'flow' or both")
    if flow is not None and not re.fullmatch(_NAME, flow):
        raise ValueError(f"'{flow}' is not the name of a flow")
    return flow, job, _parse_steps(path if path[:1] in ("", "[", ".") else f".{path}", path)


def shown_reference(value: Any) -> str:
    """Return an ``$output`` as short text for messages."""
    if not isinstance(value, Mapping):
        return str(value)
    return "{" + ", ".join(f"{key}: {given}" for key, given in value.items()) + "}"


def _parse_steps(steps: str, text: str) -> tuple[Attribute, ...]:
    attributes: list[Attribute] = []
    at = 0
    while at < len(steps):
        step = _STEP.match(steps, at)
        if step is None:
            raise ValueError(
                f"'{steps[at:]}' in '{text}' is not an attribute: write '.name', '[0]' or '[\"key\"]'"
            )
        name, index, *keys = step.groups()
        if name is not None:
            attributes.append(("a", name))
        else:
            attributes.append(("i", int(index) if index is not None else keys[0] or keys[1]))
        at = step.end()
    return tuple(attributes)


def iter_directives(content: Any, pointer: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield (pointer, directive, value) of every directive in plain data, outer ones first.

    ``pointer`` is that of the mapping with the directive, below the ``pointer`` given for ``content``;
    ``value`` is what the mapping has under the name of the directive.
    """
    if isinstance(content, dict | Mapping):
        if not content.keys().isdisjoint(DIRECTIVES):
            for name in DIRECTIVES:
                if name in content:
                    yield pointer, name, content[name]
        steps: Iterable[tuple[Any, Any]] = content.items()
    elif isinstance(content, list):
        steps = enumerate(content)
    else:
        return
    for step, value in steps:
        if type(value) not in _SCALARS:  # most values are, and have no entries
            yield from iter_directives(value, f"{pointer}/{escape(str(step))}")


_SCALARS = frozenset({str, int, float, bool, type(None)})


def entries(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield (step of a JSON pointer, value) of the entries of a mapping or list; none for a scalar."""
    if isinstance(content, dict | Mapping):
        for key, value in content.items():
            yield escape(key), value
    elif isinstance(content, list):
        for index, value in enumerate(content):
            yield str(index), value


def check_arguments(manifest: Manifest, holder: Any, pointer: str) -> Iterator[Diagnostic]:
    """Yield the problems of the directives in the ``args`` and ``kwargs`` of ``holder`` at ``pointer``."""
    if not isinstance(holder, Mapping):
        return
    for name in ("args", "kwargs"):
        arguments = holder.get(name)
        for key in arguments if isinstance(arguments, Mapping) else ():
            if key.startswith("$"):
                yield manifest.diagnostic(
                    "value/misplaced-directive",
                    f"'{key}' is used instead of the name of a keyword argument",
                    _below(f"{pointer}/{name}", key),
                    key=True,
                    hint=f"give the argument's name first: {{name: {{{key}: ...}}}}",
                )
        for step, value in entries(arguments):
            yield from check_value(manifest, value, f"{pointer}/{name}/{step}")


def check_value(manifest: Manifest, value: Any, pointer: str) -> Iterator[Diagnostic]:
    """Yield the problems of the directives in a value, at any depth."""
    if type(value) in _SCALARS:
        return
    dollars = [key for key in value if key.startswith("$")] if isinstance(value, dict | Mapping) else []
    if not dollars:
        for step, entry in entries(value):
            yield from check_value(manifest, entry, f"{pointer}/{step}")
        return
    for key in dollars:
        if key not in DIRECTIVES:
            yield manifest.diagnostic(
                "value/unknown-directive",
                f"'{key}' is not a directive; keys that begin with '$' are reserved for directives",
                _below(pointer, key),
                key=True,
                hint=did_you_mean(key, DIRECTIVES),
            )
    known = [key for key in dollars if key in DIRECTIVES]
    if not known:
        return
    name = known[0]
    allowed = {"args", "kwargs"} if name == "$call" else set()
    for key in value:
        if key not in allowed | {name} and (key in known or key not in dollars):
            yield manifest.diagnostic(
                "value/extra-key",
                f"'{key}' is not allowed beside '{name}'",
                _below(pointer, key),
                key=True,
                hint=did_you_mean(key, allowed) if allowed else f"'{name}' must be alone in its mapping",
                related=(related(manifest, _below(pointer, name), f"'{name}' is given here", key=True),),
            )
    yield from _check_directive(manifest, name, value, pointer)


def _check_directive(
    manifest: Manifest, name: str, holder: Mapping[str, Any], pointer: str
) -> Iterator[Diagnostic]:
    """Yield the problems of the value of one directive; ``holder`` is the mapping that has it."""
    value, at = holder[name], f"{pointer}/{name}"
    match name:
        case "$output":
            if not isinstance(value, str | Mapping):
                expected = "text such as 'job.attribute', or a mapping {flow: ..., job: ..., path: ...}"
                yield _type_problem(manifest, name, expected, at)
                return
            try:
                parse_output_reference(value)
            except ValueError as error:
                yield manifest.diagnostic("value/output-reference", str(error), at)
        case "$path" | "$load":
            if not isinstance(value, str):
                yield _type_problem(manifest, name, "the path of a file of the repository", at)
            elif not value or value[0] == "/" or ".." in value.split("/") or "\\" in value or "\n" in value:
                message = f"'{value}' is not a path inside the repository"
                hint = "write it relative to the root of the repository, without '..'"
                yield manifest.diagnostic("value/path", message, at, hint=hint)
        case "$env":
            if not isinstance(value, str):
                yield _type_problem(manifest, name, "the name of a variable in spec.build.env", at)
        case "$tuple" | "$set":
            if not isinstance(value, list):
                yield _type_problem(manifest, name, "a list", at)
                return
            for number, inner in enumerate(value):
                yield from check_value(manifest, inner, f"{at}/{number}")
        case "$map":
            yield from _check_map(manifest, value, at)
        case "$bytes":
            yield from _check_bytes(manifest, value, at)
        case "$call":
            yield from _check_dotted(manifest, name, value, at)
            if "args" in holder and not isinstance(holder["args"], list):
                yield _type_problem(manifest, "args", "a list", f"{pointer}/args")
            yield from _check_kwargs(manifest, holder, pointer)
            yield from check_arguments(manifest, holder, pointer)
        case "$maker":
            if not isinstance(value, Mapping):
                yield _type_problem(manifest, name, "a mapping {class: ..., kwargs: ...}, or {ref: ...}", at)
                return
            for key in value:
                if key not in _MAKER_KEYS:
                    yield manifest.diagnostic(
                        "value/extra-key",
                        f"'$maker' does not have a key '{key}'",
                        _below(at, key),
                        key=True,
                        hint=did_you_mean(key, _MAKER_KEYS),
                    )
            if "class" in value and "ref" in value:
                message = "'$maker' has 'class' and 'ref', which exclude each other"
                yield manifest.diagnostic("value/extra-key", message, f"{at}/ref", key=True)
            elif "ref" in value:
                if not isinstance(value["ref"], str):
                    yield _type_problem(manifest, "ref", "the name of a Maker", f"{at}/ref")
            elif "class" not in value:
                message = "'$maker' needs a 'class', or the name of a Maker as 'ref'"
                yield manifest.diagnostic("value/missing-key", message, at, key=True)
            else:
                yield from _check_dotted(manifest, "class", value["class"], f"{at}/class")
            yield from _check_kwargs(manifest, value, at)
            yield from check_arguments(manifest, {"kwargs": value.get("kwargs")}, at)


def _check_map(manifest: Manifest, value: Any, at: str) -> Iterator[Diagnostic]:
    if not isinstance(value, list):
        yield _type_problem(manifest, "$map", "a list of pairs [key, value]", at)
        return
    for number, pair in enumerate(value):
        if not isinstance(pair, list) or len(pair) != 2:
            message = "an entry of '$map' must be a pair [key, value]"
            yield manifest.diagnostic("value/map", message, f"{at}/{number}")
            continue
        key = pair[0]
        if isinstance(key, list) or (isinstance(key, Mapping) and "$tuple" not in key and "$call" not in key):
            message, hint = (
                "a list or mapping cannot be a key",
                "write a key of several parts as {$tuple: [...]}",
            )
            yield manifest.diagnostic("value/map", message, f"{at}/{number}/0", hint=hint)
        for step, inner in enumerate(pair):
            yield from check_value(manifest, inner, f"{at}/{number}/{step}")


def _check_bytes(manifest: Manifest, value: Any, at: str) -> Iterator[Diagnostic]:
    try:
        if not isinstance(value, str):
            raise ValueError
        base64.b64decode("".join(value.split()), validate=True)
    except ValueError:
        hint = "encode the bytes with `base64`, and quote the text; for a large file use '$path' or '$load'"
        message = "'$bytes' must be bytes as base64"
        yield manifest.diagnostic("value/bytes", message, at, hint=hint)


def _check_kwargs(manifest: Manifest, holder: Mapping[str, Any], pointer: str) -> Iterator[Diagnostic]:
    if "kwargs" in holder and not isinstance(holder["kwargs"], Mapping):
        yield _type_problem(manifest, "kwargs", "a mapping", f"{pointer}/kwargs")


def _check_dotted(manifest: Manifest, what: str, value: Any, pointer: str) -> Iterator[Diagnostic]:
    if not isinstance(value, str):
        yield _type_problem(manifest, what, "a dotted path such as 'package.module.name'", pointer)
    elif not DOTTED.fullmatch(value):
        message = f"'{value}' is not a dotted path"
        hint = "write at least a module and a name in it: 'package.module.name'"
        yield manifest.diagnostic("value/dotted-path", message, pointer, hint=hint)


def _type_problem(manifest: Manifest, what: str, expected: str, pointer: str) -> Diagnostic:
    return manifest.diagnostic("value/type", f"'{what}' must be {expected}", pointer)


def _below(pointer: str, key: str) -> str:
    return f"{pointer}/{escape(key)}"


def with_variables(value: Any, env: Mapping[str, str]) -> Any:
    """Return a spec with the value of each ``$env`` in its place."""
    if isinstance(value, dict):
        if isinstance(value.get("$env"), str):
            return env.get(value["$env"], "")
        return {key: with_variables(inner, env) for key, inner in value.items()}
    return [with_variables(inner, env) for inner in value] if isinstance(value, list) else value
