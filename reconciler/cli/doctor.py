"""``reconcile doctor``: is everything there that jobs need? Here, in the repository, on each worker."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from threading import Semaphore, Thread
from typing import TYPE_CHECKING

import click

from reconciler.cli.context import Context
from reconciler.cli.options import global_options
from reconciler.cli.views.checks_text import DoctorText, doctor_data
from reconciler.cli.views.listing import echo_data
from reconciler.diagnostics import did_you_mean
from reconciler.doctor.check import Check, Group, Status
from reconciler.errors import ExitCode, InputError, ReconcilerError

if TYPE_CHECKING:
    from reconciler.actual.store import Store
    from reconciler.actual.view import View
    from reconciler.doctor.machine import Here
    from reconciler.doctor.repository import Known
    from reconciler.model.manifests import ParsedFile, WorkerSpec

_AT_ONCE = 8
"""Workers that are examined at the same time: a host that does not answer takes its time."""

_GLANCE = 0.2
"""Seconds."""


@click.command(name="doctor", help="Check this machine, the repository and the workers.")
@click.argument("workers", nargs=-1, metavar="[WORKER]...")
@global_options
def command(context: Context, *, workers: tuple[str, ...]) -> None:
    """Run every check, print what each found, and the fix for what is wrong."""
    text = DoctorText(context) if context.options.output not in ("json", "yaml") else None
    checks: list[Check] = []
    try:
        for group in _examined(context, workers, text):
            checks += group.checks
            if text is not None:
                text.show(group)
    finally:
        if text is not None:
            text.clear()
    if text is not None:
        text.summary(checks)
    else:
        echo_data(context, doctor_data(checks))
    sys.exit(_exit_code(checks))


def _exit_code(checks: Sequence[Check]) -> ExitCode:
    failures = [check for check in checks if check.status is Status.FAILED]
    if not failures:
        return ExitCode.OK
    return ExitCode.USAGE if all(check.by_user for check in failures) else ExitCode.WORLD


def _examined(context: Context, names: Sequence[str], text: DoctorText | None) -> Iterator[Group]:
    """Yield the groups as they are ready; names are checked before anything is shown."""
    from reconciler.doctor.machine import check_machine
    from reconciler.doctor.repository import check_repository

    if text is not None:
        text.progress("repository")
    here = _here(context)
    with _store(here.state_dir) as store, store.read() if store is not None else nullcontext() as view:
        known = _known(context, store, view)
        repository = check_repository(known)
        workers = _workers(known)
    chosen = _chosen(workers, names) if workers or known.desired is not None else {}
    yield Group("this machine", check_machine(here))
    yield Group("repository", repository)
    yield from _of_workers(chosen, text)


def _here(context: Context) -> Here:
    from reconciler.doctor.machine import Here

    try:
        return Here(context.state_dir())
    except ReconcilerError as error:
        return Here(None, error.message)


@contextmanager
def _store(state_dir: Path | None) -> Iterator[Store | None]:
    """Open the state if there is one that can be opened; what is wrong with it, its own check says."""
    from reconciler.actual.store import Store

    store = None
    if state_dir is not None and Store.exists(state_dir):
        with suppress(ReconcilerError):
            store = Store(state_dir, read_only=True)
    try:
        yield store
    finally:
        if store is not None:
            store.close()


def _known(context: Context, store: Store | None, view: View | None) -> Known:
    from reconciler.doctor.repository import Known, MemoryCache

    cache = MemoryCache(_remembered(store))
    return Known(open_source=lambda fetch: context.source(fetch=fetch), cache=cache, view=view)


def _remembered(store: Store | None) -> Callable[[str], ParsedFile | None]:
    """Return how to look up what was parsed before."""
    if store is None:
        return lambda blob: None
    from reconciler.loop import StoreCache

    return StoreCache(store).get


def _workers(known: Known) -> dict[str, WorkerSpec]:
    """Return the workers of the revision; without one, those of the last applied revision."""
    if known.desired is not None:
        return known.desired.workers
    config = known.view.config() if known.view is not None else None
    return config.workers if config is not None else {}


def _chosen(workers: Mapping[str, WorkerSpec], names: Sequence[str]) -> dict[str, WorkerSpec]:
    for name in names:
        if name not in workers:
            hint = did_you_mean(name, workers) or f"known: {', '.join(sorted(workers)) or 'none'}"
            raise InputError(f"there is no worker '{name}'", hint=hint)
    return {name: spec for name, spec in sorted(workers.items()) if not names or name in names}


def _of_workers(workers: Mapping[str, WorkerSpec], text: DoctorText | None) -> Iterator[Group]:
    """Examine workers side by side, and yield them by name."""
    if not workers:
        return
    from reconciler.doctor.worker import examine
    from reconciler.execution.hosts.choice import Hosts

    hosts = Hosts()
    places = Semaphore(_AT_ONCE)
    running = {
        name: _started(places, functools.partial(examine, name, spec, hosts))
        for name, spec in workers.items()
    }
    try:
        for number, (name, future) in enumerate(running.items(), start=1):
            if text is not None and not future.done():
                text.progress(f"worker {name}, {number} of {len(running)}")
            yield Group(f"worker {name} ({_where(workers[name])})", _awaited(future))
    finally:
        # Interrupted, there is no waiting for a host that does not answer: the end of the process will do.
        if all(future.done() for future in running.values()):
            hosts.close()


def _started(places: Semaphore, work: Callable[[], list[Check]]) -> Future[list[Check]]:
    """Do something in a thread that does not keep an interrupted program from ending."""
    future: Future[list[Check]] = Future()

    def run() -> None:
        with places:
            try:
                future.set_result(work())
            except BaseException as error:  # raised again where the result is asked for
                future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future


def _awaited(future: Future[list[Check]]) -> list[Check]:
    """Return the result. A signal that comes just before a wait does not end it, so the waits are short."""
    while not future.done():
        wait([future], timeout=_GLANCE)
    return future.result()


def _where(spec: WorkerSpec) -> str:
    place = spec.connection.name if spec.connection is not None else "this machine"
    return f"{place}, {spec.scheduler_type}"
