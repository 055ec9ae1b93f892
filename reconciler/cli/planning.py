"""Plans for the command line: of a revision against the store, and of one revision against another."""

from __future__ import annotations

import fnmatch
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from reconciler.actual.store import Store
from reconciler.build.builder import FlowBuilder, known_builds
from reconciler.build.missing import build_missing
from reconciler.cli.context import Context, opened
from reconciler.cli.job_selectors import read_flow_words
from reconciler.cli.views.words import many
from reconciler.comparison import Comparison, StoreCache
from reconciler.desired.documents import PROJECT_FILES
from reconciler.desired.policy_file import LocalPolicy
from reconciler.desired.source.git import Source
from reconciler.desired.state import Loaded, load_desired
from reconciler.desired.uses import flow_uses, guard_uses, manifest_uses, notify_uses
from reconciler.diagnostics import Diagnostic, did_you_mean
from reconciler.errors import InputError, RefusedError
from reconciler.jobs.apply import without_unbuilt
from reconciler.model.actions import DryBuild, Plan
from reconciler.model.applied import ActualState
from reconciler.model.desired import DesiredState, Revision
from reconciler.model.flows import BuiltFlow
from reconciler.model.manifests import Kind, Manifest, ProjectSpec
from reconciler.model.policy import Use
from reconciler.plan.compare import compare
from reconciler.plan.cost import Cost, plan_cost
from reconciler.plan.planner import make_plan
from reconciler.plan.policy import layer_uses


class Planned(msgspec.Struct, frozen=True):
    """A plan of a project and its cost. ``notes`` are remarks for its readers.

    ``built`` is what was built for it; None if no code was run.
    """

    project: str
    plan: Plan
    cost: Cost
    notes: tuple[str, ...] = ()
    built: DryBuild | None = None


def plan_revision(comparison: Comparison, *, allow_prune: bool) -> Planned:
    """Return the plan of a reconcile of a revision."""
    with comparison.store.read() as view:
        config = view.config()
    if not comparison.full and comparison.unchanged() is not None:
        project = config.project_name if config is not None else ""
        return Planned(project, comparison.empty_plan(), Cost(), _notes_on_branch(comparison))
    loaded, actual, plan = comparison.compared(allow_prune=allow_prune)
    workers = config.workers if config is not None else {}
    cost = plan_cost(plan, loaded.state, actual.jobs, workers)
    return Planned(loaded.state.project_name, plan, cost, _notes_on_branch(comparison))


def plan_with_builds(comparison: Comparison, *, allow_prune: bool, say: Callable[[str], None]) -> Planned:
    """Return the plan of a reconcile of a revision, with the jobs of all flows that can be built.

    Runs code of the repository. The builds are not kept: only a reconcile runs code for the store.
    """
    with comparison.store.read() as view:
        config, imports = view.config(), view.imports()
    comparison.check_lineage(comparison.load().state)
    desired, builds, built, failures = dry_build(
        comparison.source, lambda noted: comparison.load(noted).state, imports, comparison.store, say
    )
    actual = comparison.actual(desired, builds)
    plan = without_unbuilt(make_plan(desired, actual, allow_prune=allow_prune), failures)
    cost = plan_cost(plan, desired, actual.jobs, config.workers if config is not None else {})
    return Planned(desired.project_name, plan, cost, _notes_on_branch(comparison), built)


def dry_build(
    source: Source,
    read: Callable[[Mapping[str, list[str]]], DesiredState],
    imports: Mapping[str, list[str]],
    store: Store,
    say: Callable[[str], None],
    also: Iterable[BuiltFlow] = (),
) -> tuple[DesiredState, dict[str, BuiltFlow], DryBuild, dict[str, Diagnostic]]:
    """Build the flows of a desired state that the store lacks; ``also`` are builds that need not be repeated.

    ``read`` returns the state for the directories of code that the builds of flows imported, by flow, from
    which ``imports`` is the beginning. Return the state, all builds, what was done, and by flow why it cannot
    be built.
    """
    fresh = {build.build_key: build for build in also}
    failures: dict[str, Diagnostic] = {}
    noted: dict[str, list[str]] = {}
    while True:
        desired = read({**imports, **noted})
        with store.read() as view:
            wanted = desired.flows.keys() - known_builds(view.build, desired).keys()
            builds = known_builds(_first_of(fresh.get, view.build), desired)
        with tempfile.TemporaryDirectory(prefix="reconcile-build-") as scratch:
            builder = FlowBuilder(source, desired, Path(scratch))
            try:
                found = build_missing(builder, builds, failures, say=say, noted=noted)
            finally:
                builder.close()
        if not found:
            break
        fresh |= {build.build_key: build for build in builds.values()}
        noted |= found
    done = DryBuild(
        flows=len(wanted | failures.keys()),
        failed=sorted(failures),
        blocked=sorted(wanted - builds.keys() - failures.keys()),
    )
    return desired, builds, done, failures


def _first_of(*finders: Callable[[str], BuiltFlow | None]) -> Callable[[str], BuiltFlow | None]:
    return lambda key: next((found for find in finders if (found := find(key)) is not None), None)


def _notes_on_branch(comparison: Comparison) -> tuple[str, ...]:
    """Return a note if a reconcile would refuse the revision because the state follows another branch."""
    try:
        comparison.followed()
    except RefusedError as error:
        return (f"{error.message.removeprefix('refused: ')}: a reconcile refuses this plan without --follow",)
    except InputError:  # --follow with a commit or a tag
        return ()
    return ()


def plan_comparison(
    context: Context,
    source: Source,
    base_name: str,
    head_name: str | None,
    *,
    allow_prune: bool,
    flows: Sequence[str] = (),
    build: bool = False,
) -> Planned:
    """Return what the head revision would change if the base revision were fully applied.

    ``head_name`` None means the revision of ``source``. ``flows`` are selectors that restrict the plan. With
    ``build`` the code of both revisions is run, so that the jobs of their flows are known.

    Raises
    ------
    InputError
        A revision does not exist, the head has no Project, or a selector chooses no flow of either.
    """
    head = source.revision() if head_name is None else named_revision(source, head_name)
    base = named_revision(Source(source.git_dir, None, None, ""), base_name)
    with state_or_scratch(context, source, base if _has_project(source, base) else head) as store:
        with store.read() as view:
            earlier, lineage, imports = view.good_manifests(), view.lineage(), view.imports()

        def read_base(noted: Mapping[str, list[str]]) -> Loaded:
            if not _has_project(source, base):
                return Loaded(_empty_state(base), {}, 0)
            inside = msgspec.structs.replace(source.revision(base.commit), branch=base.branch)
            return load_desired(source, inside, StoreCache(store), earlier, lineage, noted)

        def read_head(noted: Mapping[str, list[str]]) -> DesiredState:
            return load_desired(source, head, StoreCache(store), good, lineage, noted).state

        loaded = read_base(imports)
        before, good = loaded.state, loaded.good
        built, failures = None, dict[str, Diagnostic]()
        if build:
            after, head_builds, built, failures = dry_build(source, read_head, imports, store, context.say)
            imports |= {flow.name: flow.imports for flow in after.flows.values() if flow.imports}
            before, base_builds, _, _ = dry_build(  # a failure is not one of the head
                source, lambda noted: read_base(noted).state, imports, store, context.detail,
                also=head_builds.values(),
            )  # fmt: skip
        else:
            after = read_head(imports)
            with store.read() as view:
                base_builds, head_builds = known_builds(view.build, before), known_builds(view.build, after)
        actual = Comparison(source, store, head).actual(before, base_builds)
    found = compare(before, after, actual, head_builds, allow_prune=allow_prune)
    plan = without_unbuilt(found.plan, failures, head_builds) if build else found.plan
    if flows:
        chosen = _chosen_flows(flows, before, after)
        actions = tuple(action for action in plan.actions if action.key.partition("/")[0] in chosen)
        plan = msgspec.structs.replace(plan, actions=actions)
    cost = plan_cost(plan, after, found.actual.jobs, before.workers)
    notes = []
    missing = source.missing_commits(head.commit, base.commit)
    if missing:
        notes.append(
            f"{head.branch} lacks {many(missing, 'commit')} of {base.branch}, whose changes appear here as "
            f"undone: merge {base.branch} into it, or compare with their common ancestor"
        )
    return Planned(after.project_name, plan, cost, tuple(notes), built)


def _chosen_flows(words: Sequence[str], *states: DesiredState) -> set[str]:
    """Return the names of flows that selectors choose in any of these states.

    Raises
    ------
    InputError
        A name matches no flow, or a selector is wrong.
    """
    wanted = read_flow_words(words, hint="name flows, or select them by label, FlowSet or item")
    known = {name for state in states for name in (*state.flows, *state.invalid)}
    for pattern in wanted.names:
        if not fnmatch.filter(known, pattern):
            hint = did_you_mean(pattern, known)
            raise InputError(f"neither revision has a flow '{pattern}'", hint=hint)
    flows = [flow for state in states for flow in state.flows.values()]
    chosen = {
        flow.name for flow in flows if wanted.selects_flow(flow.name, flow.labels, flow.flowset, flow.item)
    }
    if not wanted.filters_flows:  # of an invalid flow only the name is known
        chosen |= {name for name in known if any(fnmatch.fnmatchcase(name, glob) for glob in wanted.names)}
    if not chosen:
        raise InputError(
            f"neither revision has a flow that {' '.join(words)} selects",
            hint="list them with `reconcile get flows`",
        )
    return chosen


def named_revision(source: Source, name: str) -> Revision:
    """Resolve a branch, tag or commit; the result has the name that the user gave.

    Raises
    ------
    InputError
        There is no such revision, or the name is empty (a variable that is not set).
    """
    if not name.strip():
        raise InputError("the revision to compare is empty", hint="give a branch, tag or commit")
    found = source.revision(name)
    return msgspec.structs.replace(found, branch="commit" if found.commit.startswith(name.lower()) else name)


def _has_project(source: Source, revision: Revision) -> bool:
    return any(source.entry(revision.commit, name) is not None for name in PROJECT_FILES)


def _empty_state(revision: Revision) -> DesiredState:
    """Return the desired state of a revision without a Project."""
    return DesiredState(
        revision=revision, project_name="", project=ProjectSpec(), project_layer={}, workers={},
        exec_configs={}, rules=[], flows={}, manifests={},
    )  # fmt: skip


@contextmanager
def state_or_scratch(context: Context, source: Source, revision: Revision) -> Iterator[Store]:
    """Open the state if there is one, else an empty temporary one: a CI service has no state."""
    state_dir = context.state_dir(source, revision)
    if Store.exists(state_dir):
        with opened(state_dir) as store:
            yield store
        return
    with scratch_store() as store:
        yield store


@contextmanager
def scratch_store() -> Iterator[Store]:
    """Open an empty temporary state."""
    with tempfile.TemporaryDirectory(prefix="reconcile-plan-") as scratch, opened(Path(scratch)) as store:
        yield store


def checked(source: Source) -> tuple[DesiredState, Plan]:
    """Return a revision, and its plan without any state: the diagnostics are all that is wrong with it."""
    with scratch_store() as store:
        state = Comparison(source, store).load().state
    return state, make_plan(state, ActualState())


def asked_for(source: Source) -> Iterator[tuple[Manifest, Use]]:
    """Yield everything that a revision asks for and that a policy decides about, with its manifest.

    What only a build shows, such as the objects in the data of jobs, is not part of it.
    """
    in_force, source.policy = source.policy, LocalPolicy()  # what it refuses is asked for, too
    try:
        state, _ = checked(source)
    finally:
        source.policy = in_force
    for manifest in state.manifests.values():
        yield from ((manifest, use) for use in manifest_uses(manifest))
        if manifest.kind == Kind.PROJECT:
            spec = manifest.spec
            yield from (
                (manifest, use) for use in guard_uses(spec.get("prune"), "/spec", spec.get("max_prune"))
            )
            for number, rule in enumerate(state.project.notify):
                yield from ((manifest, use) for use in notify_uses(rule, f"/spec/notify/{number}"))
    layers = [state.project_layer, *(rule.layer for rule in state.rules)]
    for flow in state.flows.values():
        beside: dict[str, Any] = {
            key: flow.manifest.spec[key] for key in ("build", "prune") if key in flow.manifest.spec
        }
        yield from ((flow.manifest, use) for use in flow_uses({**flow.content, **beside}))
        layers += [flow.layer, *(job.own for job in (flow.entries or flow.preview) if job.own)]
    for layer in layers:
        for setting, use in layer_uses(layer):
            origin = setting.origin
            manifest = state.manifests[f"{origin.kind}/{origin.name}"]
            yield manifest, msgspec.structs.replace(use, pointer=origin.pointer + use.pointer)
