"""The run configs of the jobs of one flow: resolved, and checked once for each combination of settings."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.diagnostics import Diagnostic
from reconciler.model.desired import DesiredFlow, DesiredState, PreviewJob
from reconciler.model.flows import BuiltJob
from reconciler.model.manifests import JOB_BY_ID, Kind
from reconciler.model.records import Change, JobRecord
from reconciler.model.run_config import FIELDS, JobFacts, RunConfig, inherited, layer_of, layers_for, resolve
from reconciler.model.settings import Layer, Level, Origin, Setting
from reconciler.plan.checks import check_config

_Known = dict[tuple[int, ...], tuple[RunConfig, list[Diagnostic]]]


class FlowConfigs:
    """Answers what run config each job of a flow has, by the desired state.

    ``defaults`` are the default resources of the workers.
    """

    def __init__(self, desired: DesiredState, flow: DesiredFlow, defaults: Mapping[str, Setting]) -> None:
        self.desired = desired
        self.flow = flow
        self.defaults = defaults
        self.digests = desired.digests
        self.rules = [rule for rule in desired.rules if rule.matches_flow(flow.name, flow.labels)]
        self.written = {job.key: job for job in flow.preview}
        self._checked: _Known = {}
        self._provenance: dict[Origin, dict[str, object]] = {}

    # resolving ----------------------------------------------------------------------------------------

    def of_preview(self, job: PreviewJob) -> RunConfig:
        """Return the run config of a job that only the manifest shows so far."""
        return self._resolve(JobFacts(self.flow.name, self.flow.labels, job.name, job.function), job.own)

    def of_unknown(self) -> RunConfig:
        """Return what a job gets that says nothing itself and that no rule picks out of its flow."""
        return self._resolve(JobFacts(self.flow.name, self.flow.labels, None, None), {})

    def of_built(self, job: BuiltJob) -> tuple[Layer, RunConfig]:
        """Return what a job says itself, in Python and in the manifest (stronger), and its run config."""
        own = self._own(job)
        return own, self._resolve(self.facts(job.key, job.name, job.function), own)

    def of_record(self, record: JobRecord, generator: RunConfig | None = None) -> RunConfig:
        """Return the run config of a job that exists, from what it said itself when it was made.

        A generated job also gets what its generator has now, unless that passes nothing on.
        """
        return resolve(self.layers_of_record(record, generator), self.defaults, self.digests)

    def layers_of_record(self, record: JobRecord, generator: RunConfig | None = None) -> list[Layer]:
        """Return what every level says of a job that exists, strongest first; see :meth:`of_record`."""
        generated = record.generated_by is not None
        passed = inherited(generator) if generator is not None and record.inherits else {}
        facts = self.facts(record.key, record.name, record.function, generated=generated)
        return self._layers(facts, record.own, passed)

    def facts(self, key: str, name: str, function: str, *, generated: bool = False) -> JobFacts:
        """Return what selectors look at.

        A function may be known by two paths: where it is defined, and as the manifest writes it.
        """
        written = self.written.get(key) if not generated else None
        alias = written.function if written is not None else None
        return JobFacts(self.flow.name, self.flow.labels, name, function, generated=generated, alias=alias)

    def _own(self, job: BuiltJob) -> Layer:
        written = self.written.get(job.key)
        if written is None:
            return self._said_by_code(job, f"/spec/{self.flow.spec.form}")
        if not job.own:
            return written.own
        return self._said_by_code(job, f"{JOB_BY_ID}{job.key}/config") | written.own

    def _said_by_code(self, job: BuiltJob, pointer: str) -> Layer:
        """Python has no line in a manifest; the nearest place is the form that made the job."""
        if not job.own:
            return {}
        origin = Origin(Level.JOB, Kind.FLOW, self.flow.name, pointer)
        return layer_of(job.own, origin, f"{pointer}/manager_config")

    def _resolve(self, facts: JobFacts, own: Layer, generator: Layer | None = None) -> RunConfig:
        return resolve(self._layers(facts, own, generator or {}), self.defaults, self.digests)

    def _layers(self, facts: JobFacts, own: Layer, generator: Layer) -> list[Layer]:
        return layers_for(
            facts,
            rules=self.rules,
            own=own,
            generator=generator,
            flow=self.flow.layer,
            project=self.desired.project_layer,
        )

    # checking and comparing ---------------------------------------------------------------------------

    def problems(self, config: RunConfig) -> list[Diagnostic]:
        """Return why a run config is impossible. Jobs share settings, so few combinations are checked."""
        key = (id(config.worker), id(config.exec_config), id(config.resources), id(config.retries))
        known = self._checked.get(key)
        if known is None:
            # Keeping the config keeps its settings alive, and so their ids unique.
            known = self._checked[key] = config, check_config(self.desired, self.flow, config)
        return known[1]

    def changes(self, old: RunConfig, new: RunConfig) -> tuple[Change, ...]:
        """Return the fields whose effective value differs, with the provenance of the new one."""
        if old is new or old == new:
            return ()
        found = [self._change(field, old, new) for field in FIELDS if old.value(field) != new.value(field)]
        if old.commands != new.commands and old.value("exec_config") == new.value("exec_config"):
            found.append(self._new_commands(old, new))
        return tuple(found)

    def _change(self, field: str, old: RunConfig, new: RunConfig) -> Change:
        after = new.setting(field)
        provenance = self._place(after.origin) if after is not None else None
        return Change(field, old.shown(field), new.shown(field), provenance)

    def _place(self, origin: Origin) -> dict[str, object]:
        """Many jobs have their value from one line."""
        if origin not in self._provenance:
            self._provenance[origin] = self.desired.provenance(origin)
        return self._provenance[origin]

    def _new_commands(self, old: RunConfig, new: RunConfig) -> Change:
        """The name stays, and what it stands for changes: the place is that of the ExecConfig."""
        assert new.exec_config is not None
        origin = content_origin(new.exec_config)
        return Change("exec_config", old.content_shown, new.content_shown, self._place(origin))

    def held_by(self, facts: JobFacts, config: RunConfig) -> str | None:
        """Return why a new submission of such a job waits: a document that touches it is invalid."""
        for hold in self.desired.holds:
            if hold.rule is None or hold.rule.matches(facts):
                return hold.reason
        for kind, field in ((Kind.WORKER, "worker"), (Kind.EXEC_CONFIG, "exec_config")):
            name = config.value(field)
            if isinstance(name, str) and f"{kind}/{name}" in self.desired.stale:
                return f"{kind} '{name}' is invalid in this revision"
        return None


def content_origin(exec_config: Setting) -> Origin:
    """Return the place of the ExecConfig that a setting names."""
    return Origin(exec_config.origin.level, Kind.EXEC_CONFIG, str(exec_config.value), "/spec")
