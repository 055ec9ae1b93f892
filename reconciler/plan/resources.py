"""Do the resources of a job fit the scheduler of its worker?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from reconciler.diagnostics import Diagnostic, Related, did_you_mean
from reconciler.model.desired import DesiredState
from reconciler.model.generic import impossible
from reconciler.model.schedulers import (
    KEYWORDS,
    QRESOURCES_FIELDS,
    RESERVED,
    misfits,
    unsafe_values,
)
from reconciler.model.settings import Origin, Resources, Setting

ANY_KEYWORD = (frozenset[str]().union(*KEYWORDS.values()), "scheduler keyword")


def check_resources(
    desired: DesiredState, scheduler: str, setting: Setting, worker: Setting | None
) -> Iterator[Diagnostic]:
    """Check resources against what the scheduler of the worker understands.

    ``worker`` is the setting that chose the worker, so that a conflict can name both lines.
    """
    resources = setting.value
    assert isinstance(resources, Resources)
    yield from _check_values(desired, setting, resources)
    if scheduler == "shell":
        yield from _check_shell(desired, setting, resources, worker)
    elif resources.generic:
        yield from _check_generic(desired, scheduler, setting, resources.values)
    else:
        what = f"{scheduler} keyword"
        yield from _unknown(desired, setting, resources.values, KEYWORDS[scheduler], what)
        yield from _misfits(desired, scheduler, setting, resources.values)


def check_words(desired: DesiredState, setting: Setting) -> Iterator[Diagnostic]:
    """Check resources by themselves, whatever their worker will be: words that no scheduler knows."""
    resources = setting.value
    assert isinstance(resources, Resources)
    yield from _check_values(desired, setting, resources)
    known, what = (QRESOURCES_FIELDS, "QResources field") if resources.generic else ANY_KEYWORD
    yield from _unknown(desired, setting, resources.values, known, what)


def at_origin(
    desired: DesiredState, origin: Origin, code: str, message: str, *, key: bool = False, **rest: Any
) -> Diagnostic:
    """Return a diagnostic that points at the value of an origin, or at its key."""
    manifest = desired.manifests.get(f"{origin.kind}/{origin.name}")
    if manifest is None:
        return Diagnostic(code=code, message=message, **rest)
    return manifest.diagnostic(code, message, origin.pointer, key=key, **rest)


def inside(setting: Setting, pointer: str) -> Origin:
    """Return the origin of a value inside of the value of a setting."""
    origin = setting.origin
    return Origin(origin.level, origin.kind, origin.name, origin.pointer + pointer)


def _check_values(desired: DesiredState, setting: Setting, resources: Resources) -> Iterator[Diagnostic]:
    for pointer, reason in unsafe_values(resources.values):
        yield at_origin(
            desired, inside(setting, pointer), "resources/unsafe-value",
            f"the value of '{pointer[1:]}' {reason}", hint="give one plain value on one line",
        )  # fmt: skip
    for prefix, values in (("", resources.values), ("/scheduler_kwargs", _kwargs(resources))):
        for key in sorted(RESERVED & values.keys()):
            yield at_origin(
                desired, inside(setting, f"{prefix}/{key}"), "resources/reserved",
                f"'{key}' is set by reconciler for every job: it finds a job again by its name and its files",
                key=True, hint=f"remove '{key}'",
            )  # fmt: skip


def _kwargs(resources: Resources) -> dict[str, Any]:
    """Generic resources may carry keywords of the scheduler itself."""
    found = resources.values.get("scheduler_kwargs") if resources.generic else None
    return found if isinstance(found, dict) else {}


def _check_shell(
    desired: DesiredState, setting: Setting, resources: Resources, worker: Setting | None
) -> Iterator[Diagnostic]:
    known, what = (QRESOURCES_FIELDS, "QResources field") if resources.generic else ANY_KEYWORD
    yield from _unknown(desired, setting, resources.values, known, what)
    asked = [key for key in resources.values if key in known - KEYWORDS["shell"] - RESERVED]
    if asked:
        yield _shell_conflict(desired, setting, asked, worker)


def _shell_conflict(
    desired: DesiredState, setting: Setting, asked: list[str], worker: Setting | None
) -> Diagnostic:
    related: tuple[Related, ...] = ()
    name = setting.origin.name
    if worker is not None:
        name = str(worker.value)
        chosen = desired.locate(worker.origin)
        if chosen is not None:
            related = (Related(chosen, f"the shell worker '{name}' is chosen here"),)
    return at_origin(
        desired,
        setting.origin,
        "resources/shell-worker",
        f"worker '{name}' runs jobs in a plain shell, which cannot give {', '.join(sorted(asked))}",
        related=related,
        hint="set `resources: {}` for these jobs, or give them a worker with a scheduler",
    )


def _check_generic(
    desired: DesiredState, scheduler: str, setting: Setting, values: dict[str, Any]
) -> Iterator[Diagnostic]:
    yield from _unknown(desired, setting, values, QRESOURCES_FIELDS, "QResources field")
    for found in impossible(scheduler, values):
        origin = setting.origin if found.key is None else inside(setting, f"/{found.key}")
        # Of a wrong value the value is underlined, of a field that is not there for this scheduler its key.
        at_key = found.code == "resources/unsupported-field"
        yield at_origin(desired, origin, found.code, found.message, key=at_key, hint=found.hint or None)
    own_words = _kwargs(Resources(values, generic=True))
    what = f"{scheduler} keyword"
    yield from _unknown(desired, setting, own_words, KEYWORDS[scheduler], what, "/scheduler_kwargs")
    # To a bare name of a parallel environment the number of slots is added.
    complete = {key: value for key, value in own_words.items() if key != "model"}
    yield from _misfits(desired, scheduler, setting, complete, "/scheduler_kwargs")


def _misfits(
    desired: DesiredState, scheduler: str, setting: Setting, values: dict[str, Any], below: str = ""
) -> Iterator[Diagnostic]:
    known = {key: value for key, value in values.items() if key in KEYWORDS[scheduler] - RESERVED}
    for found in misfits(scheduler, known):
        yield at_origin(
            desired, inside(setting, f"{below}/{found.key}"), "resources/impossible-value",
            found.message, hint=found.hint,
        )  # fmt: skip


def _unknown(
    desired: DesiredState,
    setting: Setting,
    words: Iterable[str],
    known: frozenset[str],
    what: str,
    below: str = "",
) -> Iterator[Diagnostic]:
    for key in words:
        if key not in known:
            yield at_origin(
                desired, inside(setting, f"{below}/{key}"), "resources/unknown-keyword",
                f"'{key}' is no {what}", key=True,
                hint=hint_for(key, known - RESERVED),
            )  # fmt: skip


def hint_for(word: str, known: frozenset[str]) -> str:
    """Return the word that was meant, or else all that there are."""
    return did_you_mean(word, known) or "known: " + ", ".join(sorted(known))
