"""Do the resources of a job fit the scheduler of its worker?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from reconciler.diagnostics import Diagnostic, Related, did_you_mean
from reconciler.model.desired import DesiredState
from reconciler.model.manifests import WorkerSpec
from reconciler.model.schedulers import ANY_KEYWORD, SCHEDULERS, Scheduler
from reconciler.model.schedulers.base import RESERVED, unsafe_values
from reconciler.model.schedulers.generic import QRESOURCES_FIELDS, own_keywords_of
from reconciler.model.settings import Origin, Resources, Setting


def check_resources(
    desired: DesiredState, scheduler_type: str, setting: Setting, worker: Setting | None
) -> Iterator[Diagnostic]:
    """Check resources against what the scheduler of the worker understands.

    ``worker`` is the setting that chose the worker, so that a conflict can name both lines.
    """
    scheduler = SCHEDULERS[scheduler_type]
    if not scheduler.is_batch:
        yield from check_words(desired, setting)
        yield from _shell_conflict(desired, setting, scheduler, worker)
        return
    resources = setting.value
    assert isinstance(resources, Resources)
    yield from _check_values(desired, setting, resources)
    what = f"{scheduler.title} keyword"
    if not resources.generic:
        yield from _unknown(desired, setting, resources.values, scheduler.keywords, what)
        yield from _keyword_problems(desired, scheduler, setting, resources.values)
        return
    yield from _unknown(desired, setting, resources.values, QRESOURCES_FIELDS, "QResources field")
    for problem in scheduler.generic_problems(resources.values):
        origin = setting.origin if problem.key is None else inside(setting, f"/{problem.key}")
        # A field that this scheduler does not have is underlined itself, otherwise its value is.
        at_key = problem.code == "resources/unsupported-field"
        yield at_origin(desired, origin, problem.code, problem.message, key=at_key, hint=problem.hint or None)
    own_keywords = own_keywords_of(resources.values)
    yield from _unknown(desired, setting, own_keywords, scheduler.keywords, what, "/scheduler_kwargs")
    # The number of slots is added to the bare name of a parallel environment, so its value is not complete.
    complete = {key: value for key, value in own_keywords.items() if key != "model"}
    yield from _keyword_problems(desired, scheduler, setting, complete, "/scheduler_kwargs")


def check_in_batch(
    desired: DesiredState, name: str, spec: WorkerSpec, setting: Setting
) -> Iterator[Diagnostic]:
    """Check what a job asks for that runs in an allocation: only a time limit has a meaning there."""
    scheduler = SCHEDULERS[spec.scheduler_type]
    if not scheduler.is_batch:  # reported already: a plain shell gives nothing
        return
    resources = setting.value
    assert isinstance(resources, Resources)
    limit = "time_limit" if resources.generic else scheduler.time_keyword
    for key in resources.values:
        if key != limit:
            yield at_origin(
                desired, inside(setting, f"/{key}"), "resources/in-batch",
                f"jobs of the batch worker '{name}' run inside its allocations and cannot ask for '{key}'",
                key=True,
                hint=f"set '{key}' in the `resources` of the worker, or ask only for '{limit}' here",
            )  # fmt: skip


def check_words(desired: DesiredState, setting: Setting) -> Iterator[Diagnostic]:
    """Check resources whose worker is not known yet: values, and words that no scheduler knows."""
    resources = setting.value
    assert isinstance(resources, Resources)
    yield from _check_values(desired, setting, resources)
    yield from _unknown(desired, setting, resources.values, *known_words(resources.generic))


def known_words(generic: bool) -> tuple[frozenset[str], str]:
    """Return the words that some scheduler understands, and what they are called."""
    return (QRESOURCES_FIELDS, "QResources field") if generic else (ANY_KEYWORD, "scheduler keyword")


def at_origin(
    desired: DesiredState, origin: Origin, code: str, message: str, *, key: bool = False, **rest: Any
) -> Diagnostic:
    """Return a diagnostic that points at the value of an origin, or at its key."""
    manifest = desired.manifests.get(f"{origin.kind}/{origin.name}")
    if manifest is None:
        return Diagnostic(code=code, message=message, **rest)
    return manifest.diagnostic(code, message, origin.pointer, key=key, **rest)


def inside(setting: Setting, pointer: str) -> Origin:
    """Return the origin of a part of the value of a setting."""
    origin = setting.origin
    return Origin(origin.level, origin.kind, origin.name, origin.pointer + pointer)


def hint_for(word: str, known: frozenset[str]) -> str:
    """Return the word that was probably meant, or else all known words."""
    return did_you_mean(word, known) or "known: " + ", ".join(sorted(known))


def _check_values(desired: DesiredState, setting: Setting, resources: Resources) -> Iterator[Diagnostic]:
    for pointer, reason in unsafe_values(resources.values):
        yield at_origin(
            desired, inside(setting, pointer), "resources/unsafe-value",
            f"the value of '{pointer[1:]}' {reason}", hint="give one plain value on one line",
        )  # fmt: skip
    own_keywords = own_keywords_of(resources.values) if resources.generic else {}
    for prefix, values in (("", resources.values), ("/scheduler_kwargs", own_keywords)):
        for key in sorted(RESERVED & values.keys()):
            yield at_origin(
                desired, inside(setting, f"{prefix}/{key}"), "resources/reserved",
                f"reconciler sets '{key}' for every job: it finds a job again by its name and its files",
                key=True, hint=f"remove '{key}'",
            )  # fmt: skip


def _shell_conflict(
    desired: DesiredState, setting: Setting, scheduler: Scheduler, worker: Setting | None
) -> Iterator[Diagnostic]:
    resources = setting.value
    assert isinstance(resources, Resources)
    known, _ = known_words(resources.generic)
    wanted = [key for key in resources.values if key in known - scheduler.keywords - RESERVED]
    if not wanted:
        return
    related: tuple[Related, ...] = ()
    name = setting.origin.name
    if worker is not None:
        name = str(worker.value)
        chosen = desired.locate(worker.origin)
        if chosen is not None:
            related = (Related(chosen, f"the shell worker '{name}' is chosen here"),)
    yield at_origin(
        desired,
        setting.origin,
        "resources/shell-worker",
        f"worker '{name}' runs jobs in a plain shell, which cannot give {', '.join(sorted(wanted))}",
        related=related,
        hint="set `resources: {}` for these jobs, or give them a worker with a scheduler",
    )


def _keyword_problems(
    desired: DesiredState, scheduler: Scheduler, setting: Setting, values: Mapping[str, Any], below: str = ""
) -> Iterator[Diagnostic]:
    known = {key: value for key, value in values.items() if key in scheduler.keywords - RESERVED}
    for problem in scheduler.keyword_problems(known):
        origin = inside(setting, f"{below}/{problem.key}")
        yield at_origin(desired, origin, problem.code, problem.message, hint=problem.hint)


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
                f"'{key}' is not a {what}", key=True,
                hint=hint_for(key, known - RESERVED),
            )  # fmt: skip
