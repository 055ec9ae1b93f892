"""A value for the jobs of a selector: the rule that gives it, edited or new, and proof that it does."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from reconciler.cli.context import Context
from reconciler.cli.edit.session import EditSession, Publishing, Trial, decoded, edit_session
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
HEADER = (
    "# Rules that `reconcile set` wrote. They are rules like any other: edit, move or remove them freely.\n"
)


def set_value(context: Context, selector: Selector, wanted: WantedValue, publishing: Publishing) -> None:
    """Give every job of a selector a value, by a rule with just this selector.

    Raises
    ------
    InputError
        No job matches, or the value is wrong.
    RefusedError
        The file of the rule cannot be edited now.
    """
    with edit_session(context) as at:
        setter = _Setter(at, selector, wanted)
        rule = setter.rule_that_does()
        if rule is not None:
            context.say(f"nothing to change: {_place(setter.manifest(rule))} sets it already")
            return
        trial = setter.trial()
        setter.say_what_is_selected(context)
        at.carry_out(trial, publishing)


def _place(manifest: Manifest) -> str:
    return f"rule '{manifest.name}' ({manifest.location('/spec/set')})"


class _Setter:
    """Looks for the smallest edit after which the jobs have the value."""

    def __init__(self, at: EditSession, selector: Selector, wanted: WantedValue) -> None:
        self.at = at
        self.desired = at.head.desired
        self.selector = selector
        self.wanted = wanted
        self.selection: Selection = select(selector, self.desired, at.head.actual)

    def manifest(self, rule: Rule) -> Manifest:
        """Return the document of a rule of HEAD."""
        return self.desired.manifests[f"{Kind.OVERRIDE_RULE}/{rule.name}"]

    def rule_that_does(self) -> Rule | None:
        """Return the rule of HEAD that gives all jobs the value already."""
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

    def trial(self) -> Trial:
        """Return the first edit after which every job has the value, or that shows what is wrong with it."""
        for trial in self._trials():
            self._check_found(trial)
            missed = select(self.selector, trial.outlook.desired, trial.outlook.actual).without(self.wanted)
            if not missed or any(problem.is_error for problem in trial.news):
                return trial
        raise RefusedError(
            f"{many(len(missed), 'job')} would still have another value: {some(missed, 3)}",
            hint="see `reconcile validate`: an invalid document may stand in the way",
        )

    def _trials(self) -> Iterator[Trial]:
        for rule in self._alike():
            file = self.manifest(rule).file
            before = self.at.read(file)
            try:
                after = self._edited(rule, decoded(before))
            except EditError:
                continue  # laid out so that a rule of its own is the smaller change
            yield self.at.attempt(file, before, after)
        yield self._trial_of_new()

    def _edited(self, rule: Rule, text: str) -> str:
        position = self.at.head.loaded.good[f"{Kind.OVERRIDE_RULE}/{rule.name}"].position
        other = self.wanted.other_key
        text = set_in_text(text, position, ["spec", "set", self.wanted.key], self.wanted.value)
        if other is not None and other in self.manifest(rule).spec["set"]:
            text = remove_value(text, position, ["spec", "set", other])
        return text

    def _trial_of_new(self) -> Trial:
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
            raise InputError(f"no rule can be added to {file}: {error}", hint="repair that first") from error
        return self.at.attempt(file, before, after)

    # jobs that are not there --------------------------------------------------------------------------

    def _check_found(self, trial: Trial) -> None:
        """A selector that matches no job is a slip of the pen; the planner knows what would match."""
        if self.selection.jobs:
            return
        if self.selection.unknown:
            self._check_slip()
            return
        for problem in trial.outlook.plan.diagnostics:
            here = problem.location is not None and problem.location.file == trial.edit.file
            if here and problem.code == "rule/matches-nothing":
                raise InputError(
                    f"'{self.selector}' selects no job: {problem.message.partition(': ')[2]}",
                    hint=self._names_instead() or problem.hint,
                )

    def _check_slip(self) -> None:
        """There may be such a job in a flow that is not built yet; one that is nearly so is more likely."""
        names = {facts.name for _, facts, _ in self._by_flow().jobs if facts.name is not None}
        guess = nearest((self.selector.name_glob or "").strip("*?"), names)
        meant = self._names_instead() or (f"did you mean '{guess}'?" if guess is not None else None)
        if meant is not None:
            unbuilt = some([flow.name for flow in self.selection.unknown], 3)
            raise InputError(
                f"'{self.selector}' selects no job that is known so far",
                hint=f"{meant} To know the jobs of {unbuilt} too, run `reconcile --once` first",
            )

    def _names_instead(self) -> str | None:
        """Users know jobs by flow/id, and rules by name."""
        found = ids_that_match(self.selector, self.desired, self.at.head.actual)
        for key, name in found.items():
            return f"rules go by a job's name, not by its id: {key} is named '{name}'"
        return None

    def say_what_is_selected(self, context: Context) -> None:
        """Say how many jobs are selected, and which flows may have more."""
        keys = {key for key, _, _ in self.selection.jobs}
        flows = {key.partition("/")[0] for key in keys}
        unknown = [flow.name for flow in self.selection.unknown]
        if keys:
            context.say(f"{self.selector}: {many(len(keys), 'job')} of {many(len(flows), 'flow')}")
        else:
            context.say("note: no job that is known so far is selected")
        if unknown:
            names = some(unknown, 3)
            context.say(
                f"note: not built yet, so their jobs are not known; the rule reaches them too: {names}"
            )

    def _by_flow(self) -> Selection:
        wide = msgspec.structs.replace(self.selector, name_glob=None, function_filter=None)
        return select(wide, self.desired, self.at.head.actual)
