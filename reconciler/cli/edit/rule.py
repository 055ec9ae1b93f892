"""``reconcile set FIELD``: edit or add the rule that sets a value for some jobs."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from reconciler.cli.context import Context
from reconciler.cli.edit.session import EditSession, Publishing, SimulatedEdit, decoded, edit_session
from reconciler.cli.views.words import many, some
from reconciler.desired.yaml.edit import EditError, append_document, remove_value, same
from reconciler.desired.yaml.edit import set_value as set_in_text
from reconciler.diagnostics import nearest
from reconciler.errors import InputError, RefusedError
from reconciler.model.manifests import Kind, Manifest
from reconciler.model.run_config import Rule
from reconciler.plan.set_rule import (
    Selection,
    Selector,
    WantedValue,
    alike,
    folder_of_rules,
    ids_that_match,
    is_beaten,
    new_rule,
    order_of_new,
    select,
)

FILE = "set.yaml"
HEADER = "# Rules that `reconcile set` wrote. You can edit, move or remove them like any other rule.\n"


def set_value(context: Context, selector: Selector, wanted: WantedValue, publishing: Publishing) -> None:
    """Set a value for every job of a selector, by a rule with exactly this selector.

    Raises
    ------
    InputError
        No job matches, or the value is invalid.
    RefusedError
        The file of the rule cannot be edited now.
    """
    with edit_session(context) as at:
        setter = _RuleEditor(at, selector, wanted)
        rule = setter.rule_in_force()
        if rule is not None:
            place = setter.manifest(rule).location("/spec/set")
            at.nothing_to_change(f"rule '{rule.name}' ({place}) sets it already", publishing)
            return
        simulated = setter.simulate()
        setter.report_selection(context)
        at.carry_out(simulated, publishing)


class _RuleEditor:
    """Searches the smallest edit after which the selected jobs have the value."""

    def __init__(self, at: EditSession, selector: Selector, wanted: WantedValue) -> None:
        self.at = at
        self.desired = at.head.desired
        self.selector = selector
        self.wanted = wanted
        self.selection: Selection = select(selector, self.desired, at.head.actual)

    def manifest(self, rule: Rule) -> Manifest:
        """Return the document of a rule of HEAD."""
        return self.desired.manifests[f"{Kind.OVERRIDE_RULE}/{rule.name}"]

    def rule_in_force(self) -> Rule | None:
        """Return the rule of HEAD that sets the value for all selected jobs already."""
        if not self.selection.jobs and not self.selection.unknown:
            return None
        for rule in self._alike():
            written = self.manifest(rule).spec["set"]
            if (
                self.wanted.key in written
                and same(written[self.wanted.key], self.wanted.value)
                and not self.selection.without(self.wanted, rule.name)
            ):
                return rule
        return None

    def _alike(self) -> list[Rule]:
        return [
            rule for rule in alike(self.selector, self.desired, self.wanted)
            if not is_beaten(rule, self.desired, self.wanted, self.selection)
        ]  # fmt: skip

    def simulate(self) -> SimulatedEdit:
        """Return the first edit after which every job has the value, or that is an error with any rule.

        Raises
        ------
        InputError
            The selector matches no job.
        RefusedError
            No edit gives every job the value.
        """
        for simulated in self._edits():
            self._check_found(simulated)
            result = simulated.result
            missed = select(self.selector, result.desired, result.actual).without(self.wanted)
            if not missed or any(problem.is_error for problem in simulated.new_problems):
                return simulated
        raise RefusedError(
            f"{many(len(missed), 'job')} would still have another value: {some(missed, 3)}",
            hint="see `reconcile validate`: an invalid document may prevent it",
        )

    def _edits(self) -> Iterator[SimulatedEdit]:
        """Yield edits of existing rules with this selector, then a new rule."""
        for rule in self._alike():
            file = self.manifest(rule).file
            before = self.at.read(file)
            position = self.at.head.loaded.good[f"{Kind.OVERRIDE_RULE}/{rule.name}"].position
            place, other = ["spec", "set"], self.wanted.other_key
            try:
                after = set_in_text(decoded(before), position, [*place, self.wanted.key], self.wanted.value)
                if other is not None and other in self.manifest(rule).spec["set"]:
                    after = remove_value(after, position, [*place, other])
            except EditError:
                continue  # cannot be edited in place: a new rule is the smaller change
            yield self.at.simulate(file, before, after)
        yield self._new_rule()

    def _new_rule(self) -> SimulatedEdit:
        rules = [key for key in self.desired.manifests if key.startswith(f"{Kind.OVERRIDE_RULE}/")]
        folder = folder_of_rules(
            self.desired.project.manifests, (self.desired.manifests[key].file for key in rules)
        )
        file = f"{folder}/{FILE}".removeprefix("./")
        order = order_of_new(self.desired, self.wanted, self.selection, file)
        rule = new_rule(self.selector, self.wanted, order, {key.partition("/")[2] for key in rules})
        before = self.at.read(file)
        try:
            after = append_document(HEADER if before is None else decoded(before), rule)
        except EditError as error:
            raise InputError(
                f"no rule can be added to {file}: {error}", hint="repair the file first"
            ) from error
        return self.at.simulate(file, before, after)

    def _check_found(self, simulated: SimulatedEdit) -> None:
        """Raise InputError, with the job that was probably meant as hint, if the selector matches no job.

        A flow that is not built yet may have such a job; a known job with a similar name is more likely.
        """
        if self.selection.jobs:
            return
        ids = ids_that_match(self.selector, self.desired, self.at.head.actual)
        meant = None
        for key, name in ids.items():
            meant = f"rules match the name of a job, not its id: {key} is named '{name}'"
            break
        if not self.selection.unknown:
            for problem in simulated.result.plan.diagnostics:
                here = problem.location is not None and problem.location.file == simulated.edit.file
                if here and problem.code == "rule/matches-nothing":
                    raise InputError(
                        f"'{self.selector}' selects no job: {problem.message.partition(': ')[2]}",
                        hint=meant or problem.hint,
                    )
            return
        wide = msgspec.structs.replace(self.selector, name_glob=None, function_filter=None)
        nearby = select(wide, self.desired, self.at.head.actual)
        names = {facts.name for _, facts, _ in nearby.jobs if facts.name is not None}
        guess = nearest((self.selector.name_glob or "").strip("*?"), names)
        if meant is None and guess is not None:
            meant = f"did you mean '{guess}'?"
        if meant is not None:
            unbuilt = some([flow.name for flow in self.selection.unknown], 3)
            raise InputError(
                f"'{self.selector}' selects no known job",
                hint=f"{meant} To build {unbuilt} first, run `reconcile --once`",
            )

    def report_selection(self, context: Context) -> None:
        """Print how many jobs are selected, and which flows may have more."""
        keys = {key for key, _, _ in self.selection.jobs}
        flows = {key.partition("/")[0] for key in keys}
        unknown = [flow.name for flow in self.selection.unknown]
        if keys:
            context.say(f"{self.selector}: {many(len(keys), 'job')} of {many(len(flows), 'flow')}")
        else:
            context.say("note: the selector matches no known job yet")
        if unknown:
            names = some(unknown, 3)
            context.say(
                f"note: not built yet, so their jobs are unknown; the rule applies to them too: {names}"
            )
