"""Rules that match no job: mostly a typing mistake, so a warning says what would match.

There is no warning while a flow that the rule selects has jobs that only its code knows.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from reconciler.diagnostics import Diagnostic, Severity, did_you_mean, nearest
from reconciler.model.applied import ActualState
from reconciler.model.desired import DesiredFlow, DesiredState
from reconciler.model.manifests import Kind
from reconciler.model.run_config import JobFacts, Rule
from reconciler.plan.configs import FlowConfigs

_Finding = tuple[str, str, str | None]
"""JSON pointer below the document, message, hint."""


def unmatched_rules(
    desired: DesiredState, actual: ActualState, matching: Collection[str] | None = None
) -> list[Diagnostic]:
    """Return a warning for each rule that matches no job of this revision.

    ``matching`` are the rules that match one, if already known.
    """
    jobs = _Jobs(desired, actual)
    matching = matching_flows(desired, actual) if matching is None else matching
    return [
        _warning(desired, rule, _explain(rule, jobs))
        for rule in desired.rules
        if rule.name not in matching and not jobs.may_match(rule)
    ]


def matching_flows(desired: DesiredState, actual: ActualState, known: Collection[str] = ()) -> dict[str, str]:
    """Return, for each rule that matches a job, a flow with such a job; ``known`` rules are left out."""
    jobs = _Jobs(desired, actual)
    found = ((rule, jobs.first_match(rule)) for rule in desired.rules if rule.name not in known)
    return {rule.name: flow for rule, flow in found if flow is not None}


def _warning(desired: DesiredState, rule: Rule, finding: _Finding) -> Diagnostic:
    pointer, message, hint = finding
    manifest = desired.manifests[f"{Kind.OVERRIDE_RULE}/{rule.name}"]
    return manifest.diagnostic(
        "rule/matches-nothing", f"rule '{rule.name}' matches no job: {message}", pointer,
        severity=Severity.WARNING, hint=hint,
    )  # fmt: skip


class _Jobs:
    """The jobs of a revision that are known, as selectors see them."""

    def __init__(self, desired: DesiredState, actual: ActualState) -> None:
        self.desired = desired
        self.actual = actual

    def of(self, flow: DesiredFlow) -> Iterator[JobFacts]:
        built = self.actual.built.get(flow.name)
        configs = FlowConfigs(self.desired, flow, {}, built)
        for job in built.jobs if built is not None else flow.preview:
            yield configs.facts(job.key, job.name, job.function)
        for record in self.actual.jobs.get(flow.name, []):
            if record.current and record.generated_by is not None:
                yield configs.facts(record.key, record.name, record.function, generated=True)

    def first_match(self, rule: Rule) -> str | None:
        flows = (flow for flow in self.through(rule) if any(map(rule.matches, self.of(flow))))
        return next((flow.name for flow in flows), None)

    def through(self, rule: Rule) -> Iterator[DesiredFlow]:
        return (flow for flow in self.desired.flows.values() if rule.matches_flow(flow.name, flow.labels))

    def may_match(self, rule: Rule) -> bool:
        """Return whether a rule may match unknown jobs: of a flow to be built, or of an invalid one."""
        return any(not self._known(flow, rule) for flow in self.through(rule)) or any(
            not rule.flows or any(fnmatch.fnmatchcase(name, glob) for glob in rule.flows)
            for name in self.desired.invalid
            if name not in self.desired.flows
        )

    def _known(self, flow: DesiredFlow, rule: Rule) -> bool:
        if flow.name in self.actual.built and flow.name not in self.actual.unseen:
            return True
        functions = {job.function for job in flow.preview}
        if rule.function_filter is None or rule.function_filter in functions:
            return bool(flow.preview)
        # Only a build knows whether two paths in one package lead to the same function.
        package, _, name = rule.function_filter.partition(".")
        alike = (one for one in functions if one.partition(".")[0] == package)
        return bool(flow.preview) and all(one.rpartition(".")[2] != name.rpartition(".")[2] for one in alike)


def _explain(rule: Rule, jobs: _Jobs) -> _Finding:
    flows = list(jobs.desired.flows.values())
    through = list(jobs.through(rule))
    if not through:
        return _no_flow(rule, flows)
    facts = [job for flow in through for job in jobs.of(flow)]
    by_name = [job for job in facts if rule.matches_name(job.name)]
    by_function = [job for job in facts if rule.matches_function(job)]
    if not by_name:
        return _no_name(rule, facts)
    if not by_function:
        return _no_function(str(rule.function_filter), facts)
    by_maker = [job for job in facts if rule.matches_makers(job)]
    if not by_maker:
        known = {maker for job in facts for maker in job.makers}
        what = f"no job that it selects uses a Maker named {' or '.join(repr(glob) for glob in rule.makers)}"
        return "/spec/makers/0", what, did_you_mean(rule.makers[0], known)
    both = [job for job in by_name if rule.matches_function(job) and rule.matches_makers(job)]
    if both:
        what = f"the {_jobs(len(both))} that it selects are generated at run time, and dynamic is false"
        return "/spec/dynamic", what, "remove `dynamic: false`"
    if rule.makers:
        hint = "all parts of a selector must match; leave one out"
        return "/spec/makers", "none of the jobs that use its Makers matches its other parts", hint
    what = (
        f"its name selects {_jobs(len(by_name))} and its function_filter {_jobs(len(by_function))}, "
        "but none is selected by both"
    )
    return "/spec/function_filter", what, "all parts of a selector must match; leave one out"


# flows ------------------------------------------------------------------------------------------------


def _no_flow(rule: Rule, flows: Sequence[DesiredFlow]) -> _Finding:
    names = [flow.name for flow in flows]
    if not flows:
        return "/metadata/name", "the revision has no flows", None
    if rule.flows and not any(fnmatch.fnmatchcase(name, glob) for name in names for glob in rule.flows):
        globs = " or ".join(f"'{glob}'" for glob in rule.flows)
        return "/spec/flows/0", f"no flow is named {globs}", _near_flow(rule.flows, names)
    for key, value in rule.labels.items():
        if not any(flow.labels.get(key) == value for flow in flows):
            near = _near_label(key, value, flows)
            return f"/spec/labels/{key}", f"no flow has the label {key}: {value}", near
    what = "no flow has both such a name and these labels" if rule.flows else "no flow has all these labels"
    return "/spec/labels", what, "all parts of a selector must match; leave one out"


def _near_flow(globs: Iterable[str], names: Sequence[str]) -> str | None:
    for glob in globs:
        for variant in (glob.lower(), f"{glob}*", f"*{glob}*"):
            count = sum(1 for name in names if fnmatch.fnmatchcase(name, variant))
            if count:
                return f"'{variant}' would match {_flows(count)}"
    return did_you_mean(next(iter(globs)), names)


def _near_label(key: str, value: str, flows: Sequence[DesiredFlow]) -> str | None:
    values = {flow.labels[key] for flow in flows if key in flow.labels}
    if values:
        return did_you_mean(value, values)
    return did_you_mean(key, {other for flow in flows for other in flow.labels})


# jobs -------------------------------------------------------------------------------------------------


def _no_name(rule: Rule, facts: Sequence[JobFacts]) -> _Finding:
    names = Counter(job.name for job in facts if job.name is not None)
    part, glob = rule.name_filter, rule.name_glob
    if part is not None and not _count(names, f"*{_literal(part)}*"):
        near = _near_part(part, names, facts)
        return "/spec/name_filter", f"name_filter '{part}' matches nothing", near
    if glob is not None and not _count(names, glob):
        return "/spec/name_glob", f"name_glob '{glob}' matches nothing", _near_glob(glob, names)
    what = f"no job's name has both '{part}' in it and the form '{glob}'"
    return "/spec/name_filter", what, "all parts of a selector must match; leave one out"


def _near_part(part: str, names: Counter[str], facts: Sequence[JobFacts]) -> str | None:
    """Try the likely mistakes in this order: case, a glob for plain text, the name of a flow, spelling."""
    for name in names:
        at = name.lower().find(part.lower())
        if at >= 0:
            other = name[at : at + len(part)]
            return _would(other, _count(names, f"*{_literal(other)}*"))
    if any(character in part for character in "*?["):
        hint = _would(part, _count(names, part))
        return f"name_glob: {hint}" if hint else "it is plain text, not a glob: use name_glob"
    if any(job.flow == part for job in facts):
        return f"name_filter selects by the name of the job; to select the flow write `flows: [{part}]`"
    return _near_name(part, names)


def _near_glob(glob: str, names: Counter[str]) -> str | None:
    for variant in (f"{glob}*", f"*{glob}*", glob.lower(), f"*{glob.lower()}*"):
        hint = _would(variant, _count(names, variant))
        if hint is not None:
            return hint
    return _near_name(glob.strip("*?"), names)


def _near_name(wanted: str, names: Counter[str]) -> str | None:
    guess = nearest(wanted, names)
    return _would(guess, names[guess]) if guess else did_you_mean(wanted, names)


def _no_function(wanted: str, facts: Sequence[JobFacts]) -> _Finding:
    functions = Counter(job.function for job in facts if job.function is not None)
    last = wanted.rpartition(".")[2]
    same_end = [function for function in functions if function.rpartition(".")[2] == last]
    guess = same_end[0] if same_end else nearest(wanted, functions)
    hint = _would(guess, functions[guess]) if guess else None
    message = f"no job's function is {wanted}"
    return "/spec/function_filter", message, hint or did_you_mean(wanted, functions)


def _would(pattern: str, count: int) -> str | None:
    return f"'{pattern}' would match {_jobs(count)}" if count else None


def _count(names: Mapping[str, int], glob: str) -> int:
    return sum(number for name, number in names.items() if fnmatch.fnmatchcase(name, glob))


def _literal(text: str) -> str:
    """Return the glob that stands for just this text."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in text)


def _jobs(number: int) -> str:
    return f"{number} job" if number == 1 else f"{number} jobs"


def _flows(number: int) -> str:
    return f"{number} flow" if number == 1 else f"{number} flows"
