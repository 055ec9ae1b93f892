"""``reconcile doctor``: check this machine, the repository and each worker."""

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
from reconciler.cli.formats import emit
from reconciler.cli.live_names import complete_workers
from reconciler.cli.options import global_options
from reconciler.cli.views.checks_text import DoctorText, doctor_data
from reconciler.diagnostics import did_you_mean
from reconciler.doctor.check import Check, Group, Status
from reconciler.errors import ExitCode, InputError, ReconcilerError

if TYPE_CHECKING:
    from reconciler.actual.store import Store
    from reconciler.model.manifests import WorkerSpec

_AT_ONCE = 8
"""How many workers are examined at the same time: a host that does not answer takes long."""

_WAIT = 0.2
"""Seconds."""


@click.command(name="doctor", help="Check this machine, the repository and the workers.")
@click.argument("workers", nargs=-1, metavar="[WORKER]...", shell_complete=complete_workers)
@global_options
def command(context: Context, *, workers: tuple[str, ...]) -> None:
    """Run every check, and print its result and the fix for what fails."""
    text = DoctorText(context) if context.options.output not in ("json", "yaml") else None
    checks: list[Check] = []
    try:
        for group in _examine(context, workers, text):
            checks += group.checks
            if text is not None:
                text.show(group)
    finally:
        if text is not None:
            text.clear()
    emit(context, lambda: doctor_data(checks), lambda: text.summary(checks) if text is not None else None)
    failures = [check for check in checks if check.status is Status.FAILED]
    if failures:
        sys.exit(ExitCode.USAGE if all(check.by_user for check in failures) else ExitCode.WORLD)


def _examine(context: Context, names: Sequence[str], text: DoctorText | None) -> Iterator[Group]:
    """Yield each group of checks when it is complete; the names are checked before the first one."""
    from reconciler.comparison import StoreCache
    from reconciler.doctor.machine import Here, check_machine
    from reconciler.doctor.repository import Known, MemoryCache, check_repository

    if text is not None:
        text.progress("repository")
    try:
        here = Here(context.state_dir())
    except ReconcilerError as error:
        here = Here(None, error.message)
    with _store(here.state_dir) as store, store.read() if store is not None else nullcontext() as view:
        cache = MemoryCache(StoreCache(store).get if store is not None else lambda blob: None)
        known = Known(open_source=lambda fetch: context.source(fetch=fetch), cache=cache, view=view)
        repository = check_repository(known)
        # The workers of the revision; without a revision, those of the last applied one.
        workers: Mapping[str, WorkerSpec] = {}
        if known.desired is not None:
            workers = known.desired.workers
        elif view is not None and (config := view.config()) is not None:
            workers = config.workers
    if workers or known.desired is not None:
        for name in names:
            if name not in workers:
                hint = did_you_mean(name, workers) or f"known: {', '.join(sorted(workers)) or 'none'}"
                raise InputError(f"there is no worker '{name}'", hint=hint)
    yield Group("this machine", check_machine(here))
    yield Group("repository", repository)
    yield from _examine_workers(
        {name: spec for name, spec in sorted(workers.items()) if not names or name in names}, text
    )


@contextmanager
def _store(state_dir: Path | None) -> Iterator[Store | None]:
    """Open the store if there is one that can be opened; a check of its own reports what is wrong with it."""
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


def _examine_workers(workers: Mapping[str, WorkerSpec], text: DoctorText | None) -> Iterator[Group]:
    """Examine workers concurrently, and yield their checks in the order of their names."""
    if not workers:
        return
    from reconciler.doctor.worker import examine
    from reconciler.execution.hosts.choice import Hosts

    hosts = Hosts()
    slots = Semaphore(_AT_ONCE)
    running = {
        name: _start(slots, functools.partial(examine, name, spec, hosts)) for name, spec in workers.items()
    }
    try:
        for number, (name, future) in enumerate(running.items(), start=1):
            if text is not None and not future.done():
                text.progress(f"worker {name}, {number} of {len(running)}")
            while not future.done():  # short waits: a signal that arrives just before one does not end it
                wait([future], timeout=_WAIT)
            spec = workers[name]
            host = spec.connection.name if spec.connection is not None else "this machine"
            yield Group(f"worker {name} ({host}, {spec.scheduler_type})", future.result())
    finally:
        # After an interrupt, do not wait for a host that does not answer: the process ends anyway.
        if all(future.done() for future in running.values()):
            hosts.close()


def _start(slots: Semaphore, work: Callable[[], list[Check]]) -> Future[list[Check]]:
    """Run ``work`` in a daemon thread, which does not keep an interrupted program from ending."""
    future: Future[list[Check]] = Future()

    def run() -> None:
        with slots:
            try:
                future.set_result(work())
            except BaseException as error:  # raised again by future.result()
                future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future
