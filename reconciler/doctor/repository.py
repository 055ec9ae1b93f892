"""Checks of the repository: whether it can be read, what is read, and whether its manifests are valid."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from reconciler.actual.view import View
from reconciler.desired.source.command import printable
from reconciler.desired.source.git import Source
from reconciler.desired.state import ParseCache, load_desired
from reconciler.doctor.check import Check, Finding, failed, named, ok, skipped, warning
from reconciler.errors import InputError, ReconcilerError, RefusedError
from reconciler.jobs.bookkeeping import followed_branch
from reconciler.model.applied import ActualState
from reconciler.model.desired import DesiredState, Revision
from reconciler.model.lineage import lineage_for
from reconciler.model.manifests import API_VERSION, ParsedFile
from reconciler.plan.planner import make_plan

OpenSource = Callable[[bool], Source]
"""Opens the repository; whether to fetch a remote one first."""


class Known(msgspec.Struct, kw_only=True):
    """What is known of the repository: each check adds to it. ``view`` is the state."""

    open_source: OpenSource
    cache: ParseCache
    view: View | None = None
    source: Source | None = None
    revision: Revision | None = None
    desired: DesiredState | None = None


def check_repository(known: Known) -> list[Check]:
    """Run all checks of the repository; afterwards ``known`` holds what was read."""
    return [named(name, "repository", look(known)) for name, look in REPOSITORY]


def _readable(known: Known) -> Finding:
    fetched = True
    try:
        known.source = known.open_source(True)
    except ReconcilerError as error:
        problem = error
        fetched = False
        try:
            known.source = known.open_source(False)  # the mirror of a remote, as of the last fetch
        except ReconcilerError:
            return _as_finding(problem, "give --repo the path of a git repository, or its URL")
    place = known.source.work_tree or known.source.git_dir
    if not fetched:
        return failed(f"{problem.message}; the next checks read {place}", problem.hint or "check the network")
    return ok(str(place))


def _as_finding(error: ReconcilerError, fix: str) -> Finding:
    return failed(error.message, error.hint or fix, by_user=isinstance(error, InputError | RefusedError))


def _branch(known: Known) -> Finding:
    if known.source is None:
        return skipped("the repository cannot be read")
    try:
        known.revision = known.source.revision()
    except ReconcilerError as error:
        return _as_finding(error, "give --branch the name of a branch")
    followed = followed_branch(known.view, known.source) if known.view is not None else None
    branch = known.source.followable()
    if followed is not None and branch != followed:
        return warning(
            f"{known.revision}, but the state follows {printable(followed)}",
            f"git switch {printable(followed)}; or, to move the state: reconcile --once --follow",
        )
    return ok(str(known.revision))


def _committed(known: Known) -> Finding:
    source = known.source
    if source is None or known.revision is None or source.work_tree is None or not source.reads_head():
        return skipped("the revision is not that of a checkout")
    try:
        changed = [path for path in source.uncommitted([""]) if path.endswith((".yaml", ".yml"))]
    except ReconcilerError as error:
        return _as_finding(error, "see `git status`")
    if not changed:
        return ok("all manifests are committed")
    shown = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
    return warning(f"not committed, so not part of the revision: {shown}", "git add and git commit")


def _policy(known: Known) -> Finding:
    """Tell what the policy of the user says about this repository."""
    if known.source is None:
        return skipped("the repository cannot be read")
    policy = known.source.policy
    try:
        rules = policy.rules
    except ReconcilerError as error:
        return _as_finding(error, "see `reconcile explain Policy`")
    if rules is None:
        return ok("a local repository without an entry: everything that is installed is allowed")
    if not rules.file:
        fix = "reconcile policy init --write"
        return failed(f"no policy lists {policy.source}, so it may do nothing", fix, by_user=True)
    return ok(f"{rules.file}, entry of {rules.source}; signatures: {rules.verify}")


def _manifests(known: Known) -> Finding:
    if known.source is None or known.revision is None:
        return skipped("there is no revision")
    try:
        good = known.view.good_manifests() if known.view is not None else {}
        lineage = known.view.lineage() if known.view is not None else None
        known.desired = load_desired(known.source, known.revision, known.cache, good, lineage).state
    except ReconcilerError as error:
        return _as_finding(error, "see `reconcile validate`")
    diagnostics = make_plan(known.desired, ActualState()).diagnostics
    errors = sum(1 for diagnostic in diagnostics if diagnostic.is_error)
    warnings = len(diagnostics) - errors
    if errors:
        return failed(_many(errors, "error"), "`reconcile validate` shows them", by_user=True)
    if warnings:
        return warning(f"valid, with {_many(warnings, 'warning')}", "`reconcile validate` shows them")
    return ok(f"{len(known.desired.manifests)} valid, {API_VERSION}")


def _many(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _lineage(known: Known) -> Finding:
    """Check that the state belongs to this repository; the first reconcile records that."""
    lineage = known.view.lineage() if known.view is not None else None
    if lineage is None:
        return skipped("no state yet")
    if known.desired is None or known.source is None or not known.desired.project_known:
        return skipped("the project is not known")
    last = known.view.last_revision() if known.view is not None else None
    path = known.revision.path if known.revision is not None else ""
    project = known.desired.project_name
    try:
        lineage_for(
            lineage, project, known.source.root_commits(),
            same_path=last is None or last.path == path, adopt=False,
        )  # fmt: skip
    except RefusedError as error:
        return failed(error.message.removeprefix("the state "), error.hint or "")
    return ok(f"belongs to project '{project}' of this repository")


def _notifications(known: Known) -> Finding:
    """Tell which notify rules could not deliver their last message."""
    config = known.view.config() if known.view is not None else None
    if known.view is None or config is None:
        return skipped("no state yet")
    for rule in config.notify:
        state = known.view.notify_state(rule.name)
        if state is not None and state.failures:
            return warning(
                f"rule '{rule.name}' cannot deliver its message: {state.error}",
                f"correct its target, and try `reconcile notify {rule.name}`; nothing is lost until then",
            )
    return ok(_many(len(config.notify), "rule") if config.notify else "no rules")


REPOSITORY: tuple[tuple[str, Callable[[Known], Finding]], ...] = (
    ("repository", _readable),
    ("branch", _branch),
    ("work tree", _committed),
    ("policy", _policy),
    ("manifests", _manifests),
    ("state", _lineage),
    ("notifications", _notifications),
)
"""Every check of the repository, in order; later ones use what earlier ones found."""


class MemoryCache:
    """Parsed blobs: those that the state knows (``known``), and new ones in memory only."""

    def __init__(self, known: Callable[[str], ParsedFile | None]) -> None:
        self._known = known
        self._fresh: dict[str, ParsedFile] = {}

    def get(self, blob: str) -> ParsedFile | None:
        """Return the parsed content of a blob, if known."""
        return self._fresh.get(blob) or self._known(blob)

    def put(self, parsed: Mapping[str, ParsedFile]) -> None:
        """Keep parsed blobs for this run."""
        self._fresh.update(parsed)
