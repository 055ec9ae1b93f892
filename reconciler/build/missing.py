"""The builds that a desired state lacks, made in the order of their references."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from reconciler.actual.layout import encode
from reconciler.actual.store import Store
from reconciler.actual.writer import Writer
from reconciler.build.builder import BuildFailedError, FlowBuilder, external_jobs, missing_jobs
from reconciler.desired.state import flows_in_build_order
from reconciler.diagnostics import Diagnostic
from reconciler.errors import ReconcilerError
from reconciler.jobs.job_checks import payload_uses
from reconciler.jobs.outputs import missing_stores
from reconciler.model.desired import DesiredFlow, DesiredState
from reconciler.model.flows import BuiltFlow
from reconciler.model.policy import REFUSED


def build_missing(
    builder: FlowBuilder,
    built: dict[str, BuiltFlow],
    failures: dict[str, Diagnostic],
    *,
    say: Callable[[str], None],
    keep: Callable[[BuiltFlow], None] = lambda build: None,
    applied: Collection[str] = (),
    noted: Collection[str] = (),
) -> dict[str, list[str]]:
    """Build the flows of the builder's desired state that ``built`` lacks, and add them to it.

    A flow that cannot be built goes to ``failures`` instead, by name; it blocks those that refer to it, which
    are in neither. Flows that are in ``failures`` already are not tried again. ``keep`` gets each new build.
    The code of the flows runs in the builder's processes, which the caller closes.

    A build that imported other directories of code than its flow notes is not used, since its identity does
    not cover them. The result has these directories by flow: note them, read the desired state again and
    repeat. For flows that were ``noted`` in this way before, the directories can only become more, so that
    code which imports something else each time comes to an end.

    A known build is checked against the policy and the job store of the Project, unless ``applied`` has its
    key: then its jobs exist.
    """
    desired = builder.desired

    def check_jobs(flow: DesiredFlow, build: BuiltFlow) -> None:
        """Hold back a flow whose jobs the policy refuses, or write to stores that the Project lacks."""
        found, place = refused_by_policy(desired, flow, build), f"/spec/{flow.spec.form}"
        for job in build.jobs if found is None else ():
            problem = missing_stores(desired.project.jobstore, job.stores)
            if problem is not None:
                message = f"flow '{flow.name}' cannot be built: the job '{job.key}' is not valid: {problem}"
                found = flow.manifest.diagnostic("build/failed", message, place)
                break
        if found is not None:
            failures[flow.name] = found
            del built[flow.name]

    found: dict[str, list[str]] = {}

    def finish_one() -> None:
        flow, fresh = builder.next()
        if isinstance(fresh, BuildFailedError):
            failures[flow.name] = fresh.diagnostic
            return
        wanted = sorted({*fresh.imports, *(flow.imports if flow.name in noted else ())})
        if wanted != flow.imports:
            found[flow.name] = wanted
            return
        try:
            keep(fresh)
            built[flow.name] = fresh
            check_jobs(flow, fresh)
        except ReconcilerError:
            raise
        except Exception as error:  # stops this flow only
            failures[flow.name] = builder.unexpected(flow, error).diagnostic

    ordered = flows_in_build_order(desired.flows)
    missing = sum(flow.name not in built and flow.name not in failures for flow in ordered)
    if missing > _MOST_NAMED:
        say(f"building {missing} flows")
    for flow in ordered:
        known = built.get(flow.name)
        if known is not None and known.build_key not in applied:
            check_jobs(flow, known)
        if flow.name in built or flow.name in failures:
            continue
        while builder.is_full or (builder.unfinished and external_jobs(flow, built) is None):
            finish_one()
        externals = external_jobs(flow, built)
        if externals is None:
            if (problem := missing_jobs(flow, built)) is not None:
                failures[flow.name] = problem
            continue
        if missing <= _MOST_NAMED:
            say(f"building {flow.name}")
        try:
            builder.start(flow, externals)
        except BuildFailedError as error:
            failures[flow.name] = error.diagnostic
        except ReconcilerError:
            raise
        except Exception as error:  # stops this flow only
            failures[flow.name] = builder.unexpected(flow, error).diagnostic
    while builder.unfinished:
        finish_one()
    in_order = {flow.name: failures.pop(flow.name) for flow in ordered if flow.name in failures}
    failures.update(in_order)
    return found


_MOST_NAMED = 20
"""Flows of which each is named when it is built; of more only the number is told."""


def refused_by_policy(desired: DesiredState, flow: DesiredFlow, build: BuiltFlow) -> Diagnostic | None:
    """Return why the policy refuses jobs as code made them, with all lines that would allow them."""
    rules = desired.policy
    if rules is None:
        return None
    refused = rules.refused(use for job in build.jobs for use in payload_uses(job.payload))
    if not refused:
        return None
    message = f"flow '{flow.name}' cannot be built: the policy does not allow {refused[0].what}"
    hint = rules.how_to_allow(*refused)
    return flow.manifest.diagnostic(REFUSED, message, f"/spec/{flow.spec.form}", hint=hint)


class KeptBuilds:
    """Stores builds, many of fast flows in one transaction, because each transaction waits for the disk.

    Call :meth:`flush` at the end. A build that was lost because the program was killed is made again.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._builds: list[BuiltFlow] = []
        self._written = 0.0

    def add(self, build: BuiltFlow) -> None:
        """Keep a build. An odd value in it raises an error here, where it is that of one flow."""
        encode(build)
        self._builds.append(build)
        if len(self._builds) >= _MOST_IN_MEMORY or time.monotonic() - self._written >= _LONGEST_IN_MEMORY:
            self.flush()

    def flush(self) -> None:
        """Store the builds that are not yet stored."""
        builds = self._builds

        def write(writer: Writer) -> None:
            for build in builds:
                writer.put_build(build)

        if builds:
            self._store.write(write)
        self._builds, self._written = [], time.monotonic()


_MOST_IN_MEMORY = 500
_LONGEST_IN_MEMORY = 0.5
"""Seconds since the last transaction after which a build is stored at once."""
