"""What would change if a revision were applied: it is read, and compared with the store. Nothing is changed.

Mostly only a part of the revision may differ from the last applied one; then only that part is read and
compared (:meth:`Comparison.load_scoped`). The result is the same as if everything were compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec.structs import replace

from reconciler import __version__
from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.build.builder import former_builds, known_builds
from reconciler.desired.scope import load_scoped
from reconciler.desired.source.followed import Followed, branch_to_follow
from reconciler.desired.source.git import Source
from reconciler.desired.state import Loaded, load_desired
from reconciler.diagnostics import Diagnostic, Severity
from reconciler.jobs.bookkeeping import followed_branch
from reconciler.model.actions import Action, Plan
from reconciler.model.applied import ActualState, AppliedConfig, Outcome
from reconciler.model.baseline import Baseline, Scope
from reconciler.model.desired import DesiredState, Revision
from reconciler.model.flows import BuiltFlow
from reconciler.model.manifests import ParsedFile, Prune
from reconciler.plan.planner import make_plan


class Listener(Protocol):
    """Hears remarks for the user."""

    def say(self, line: str) -> None:
        """Show a line of narration."""
        ...


class Comparison:
    """One revision of one source, and the store that it is compared with.

    With ``follow`` the state moves to the branch of the source, whichever it followed before; with ``adopt``
    a state of another repository or project becomes that of this one. With ``full`` everything is compared.
    ``parsed_files`` counts the files that were not in the store's cache.
    """

    def __init__(
        self,
        source: Source,
        store: Store,
        revision: Revision | None = None,
        *,
        follow: bool = False,
        adopt: bool = False,
        full: bool = False,
    ) -> None:
        self.source = source
        self.store = store
        self.revision = revision or source.revision()
        self.parsed_files = 0
        self.follow = follow
        self.adopt = adopt
        self.full = full

    def load(self, imports: Mapping[str, list[str]] | None = None) -> Loaded:
        """Read the desired state. A blob is parsed only once, however often it is read.

        ``imports`` are, by flow, the directories of code that its build imported, if not those in the store.
        """
        with self.store.read() as view:
            good, lineage = view.good_manifests(), view.lineage()
            imports = view.imports() if imports is None else imports
        loaded = load_desired(self.source, self.revision, StoreCache(self.store), good, lineage, imports)
        self.parsed_files += loaded.parsed_files
        return loaded

    def load_scoped(self) -> Loaded | None:
        """Read only the part of the desired state that may differ from the last applied revision.

        None means that everything must be read.
        """
        with self.store.read() as view:
            baseline, config = view.baseline(), view.config()
            if not self._compares_with(baseline, config):
                return None
            assert baseline is not None
            changes = self.source.changed_files(baseline.tree, self.revision.tree)
            if changes is None or not self.source.knows(baseline.commit):
                return None
            cache, lineage = StoreCache(self.store), view.lineage()
            loaded = load_scoped(self.source, self.revision, cache, view, baseline, changes, lineage)
        if loaded is not None:
            self.parsed_files += loaded.parsed_files
        return loaded

    def _compares_with(self, baseline: Baseline | None, config: AppliedConfig | None) -> bool:
        """Return whether all of the baseline is in force, and is that of this program and folder."""
        if baseline is None or config is None or self.follow or self.adopt:
            return False
        now = (__version__, self.revision.path, config.commit, self.revision.policy)
        known = (baseline.version, baseline.path, baseline.commit, baseline.policy)
        return baseline.complete and known == now

    def plan(self, loaded: Loaded, *, allow_prune: bool = False) -> Plan:
        """Compare with the store. Runs no user code, so the jobs of new flows are not all known."""
        actual = self.actual(loaded.state, scope=loaded.scope)
        return make_plan(loaded.state, actual, allow_prune=allow_prune, scope=loaded.scope)

    def compared(self, *, allow_prune: bool = False) -> tuple[Loaded, ActualState, Plan]:
        """Load, read the store and plan: only what may differ, or else everything.

        With ``full`` it is everything, and a plan of what may differ must be the same. If it is not, this is
        a bug, which the plan reports; then the next pass compares everything, too.
        """
        short = self._short(allow_prune=allow_prune)
        if short is not None and not self.full:
            return short
        loaded = self.load()
        self.check_lineage(loaded.state)
        actual = self.actual(loaded.state)
        plan = make_plan(loaded.state, actual, allow_prune=allow_prune)
        if short is not None and actual.change_counter == short[1].change_counter:
            differing = differing_flows(short[2], plan)
            if differing:
                if not self.store.read_only:
                    self.store.write(lambda writer: writer.forget_baseline())
                plan = replace(plan, diagnostics=(*plan.diagnostics, scope_bug(differing)))
        return loaded, actual, plan

    def _short(self, *, allow_prune: bool) -> tuple[Loaded, ActualState, Plan] | None:
        """Return what may differ and its plan; None if everything must be compared."""
        loaded = self.load_scoped()
        if loaded is None:
            return None
        self.check_lineage(loaded.state)
        actual = self.actual(loaded.state, scope=loaded.scope)
        plan = make_plan(loaded.state, actual, allow_prune=allow_prune, scope=loaded.scope)
        return (loaded, actual, plan) if self.is_whole(loaded, actual, plan) else None

    def is_whole(self, loaded: Loaded, actual: ActualState, plan: Plan) -> bool:
        """Return whether a plan within a scope is that of the whole.

        Not if something is wrong, since then more may be wrong elsewhere, nor if records are to be deleted
        that other flows may need.
        """
        scope = loaded.scope
        deletes = any(
            record.prune is Prune.DELETE and name not in loaded.state.flows
            for name, record in actual.flows.items()
        )
        same = scope is None or actual.baseline == scope.commit
        return scope is None or (same and not deletes and not plan.diagnostics and not plan.refusals)

    def actual(
        self,
        desired: DesiredState,
        built: dict[str, BuiltFlow] | None = None,
        scope: Scope | None = None,
    ) -> ActualState:
        """Return the actual state for the planner; ``built`` are the known builds, if already read.

        With a ``scope`` it has only the flows in it.
        """
        with self.store.read() as view:
            built = known_builds(view.build, desired) if built is None else built
            elsewhere: Counter[str | None] = Counter()
            if scope is None:
                flows = {flow.name: flow for flow in view.flows()}
            else:
                flows = {name: flow for name in sorted(scope.flows) if (flow := view.flow(name)) is not None}
                if any(not flow.removed and name not in desired.flows for name, flow in flows.items()):
                    live = (flow for flow in view.flows() if not flow.removed)
                    elsewhere.update(flow.flowset for flow in live if flow.name not in flows)
            baseline = view.baseline()
            jobs = {name: view.jobs_of(name) for name in flows}
            former = former_builds(view, flows, built)
            config = view.config()
            change_counter = view.change_counter()
        last, now = config.commit if config is not None else "", self.revision.commit
        rewritten = bool(last) and last != now and not self.source.follows(now, last)
        if config is not None and config.committed and not rewritten and not self.source.knows(last):
            rewritten = self.source.commit_time(now) < config.committed  # the history here is too short
        return ActualState(
            base=config.revision if config is not None else None,
            flows=flows,
            jobs=jobs,
            built=built,
            previous={name: build.preview for name, build in former.items() if name not in built},
            former=former,
            rewritten=rewritten,
            live_elsewhere=elsewhere,
            baseline=baseline.commit if baseline is not None else "",
            change_counter=change_counter,
        )

    def check_lineage(self, desired: DesiredState, reporter: Listener | None = None) -> None:
        """Require that the store belongs to this repository and project; with a reporter, record them.

        Raises
        ------
        RefusedError
            The store belongs to another one, and the session does not adopt it.
        """
        if desired.project_known:
            note = self.store.check_lineage(
                desired.project_name, self.source.root_commits(), self.revision.path,
                adopt=self.adopt, record=reporter is not None,
            )  # fmt: skip
            if note and reporter is not None:
                reporter.say(note)

    def unchanged(self) -> Outcome | None:
        """Return the last outcome if a plan would be empty, without reading a manifest.

        Nothing has changed in the store, and between the last applied revision and this one only files that
        do not count: neither manifests, nor code, nor files that flows name.
        """
        with self.store.read() as view:
            outcome, baseline, config = view.outcome(), view.baseline(), view.config()
            if not self._compares_with(baseline, config) or outcome is None or not outcome.clean:
                return None
            assert baseline is not None and config is not None
            if outcome.change_counter != view.change_counter() or view.unsettled():
                return None
            if baseline.tree != self.revision.tree:
                changes = self.source.changed_files(baseline.tree, self.revision.tree)
                if changes is None or any(
                    baseline.reads(change.path) or view.flows_naming(change.path) for change in changes
                ):
                    return None
        return outcome if self.source.knows(config.commit) else None  # else the repository is another one

    def empty_plan(self) -> Plan:
        """Return the plan of a revision that is :meth:`unchanged`."""
        with self.store.read() as view:
            config = view.config()
        return Plan(revision=str(self.revision), base=config.revision if config else None, actions=())

    def followed(self) -> Followed:
        """Return the branch that the state follows once this revision is applied.

        Raises
        ------
        RefusedError
            The state follows another branch.
        """
        with self.store.read() as view:
            config, branch = view.config(), followed_branch(view, self.source)
        applied = config.commit if config is not None else ""
        return branch_to_follow(self.source, branch, applied, follow=self.follow)


def differing_flows(one: Plan, other: Plan) -> list[str]:
    """Return the flows to which two plans do different things."""

    def by_flow(plan: Plan) -> dict[str, list[Action]]:
        found: dict[str, list[Action]] = {}
        for action in (*plan.actions, *plan.restated):
            found.setdefault(action.key.partition("/")[0], []).append(action)
        return found

    first, second = by_flow(one), by_flow(other)
    names = {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}
    names |= {d.message for d in other.diagnostics if d not in one.diagnostics}
    return sorted(names)


SCOPE_BUG = "plan/scope-bug"


def scope_bug(differing: Sequence[str]) -> Diagnostic:
    """Return the report that a plan of what may differ was not that of everything."""
    shown = ", ".join(differing[:5]) + (f", and {len(differing) - 5} more" if len(differing) > 5 else "")
    return Diagnostic(
        code=SCOPE_BUG,
        message=f"comparing only what has changed misses something: {shown}",
        hint="this is a bug in reconciler: report it with this text. The plan of everything counts, and the "
        "next pass compares everything",
        severity=Severity.WARNING,
    )


class StoreCache:
    """The parsed blobs in the store. Keys include everything else that the result of parsing depends on."""

    def __init__(self, store: Store) -> None:
        from reconciler.desired.schemas import reader_version

        self.store = store
        self.suffix = f":{__version__}:{reader_version()}"

    def get(self, blob: str) -> ParsedFile | None:
        """Return the parsed blob, if the store has it."""
        with self.store.read() as view:
            return view.parsed(blob + self.suffix)

    def put(self, parsed: Mapping[str, ParsedFile]) -> None:
        """Store parsed blobs in one transaction, unless the store is read-only."""

        def write(writer: Writer) -> None:
            for blob, content in parsed.items():
                writer.put_parsed(blob + self.suffix, content)

        if not self.store.read_only:
            self.store.write(write)
