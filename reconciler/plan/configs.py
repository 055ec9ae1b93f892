"""The run configs of the jobs of one flow: resolved, and checked once for each combination of settings."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.diagnostics import Diagnostic
from reconciler.model.desired import DesiredFlow, DesiredState, PreviewJob
from reconciler.model.flows import BuiltFlow, BuiltJob
from reconciler.model.manifests import JOB_BY_ID, Kind
from reconciler.model.records import Change, JobRecord
from reconciler.model.run_config import FIELDS, JobFacts, RunConfig, inherited, layer_of, layers_for, resolve
from reconciler.model.settings import Layer, Level, Origin, Setting
from reconciler.plan.checks import check_config

_Known = dict[tuple[int, ...], tuple[RunConfig, list[Diagnostic]]]


class FlowConfigs:
    """Resolves the run config of each job of a flow, as the desired state wants it.

    ``defaults`` are the default resources of the workers. ``built`` is the build, which knows other paths
    of the functions.
    """

    def __init__(
        self,
        desired: DesiredState,
        flow: DesiredFlow,
        defaults: Mapping[str, Setting],
        built: BuiltFlow | None = None,
    ) -> None:
        self.desired = desired
        self.flow = flow
        self.defaults = defaults
        self.digests = desired.digests
        self.aliases = built.aliases if built is not None else {}
        self.rules = [rule for rule in desired.rules if rule.matches_flow(flow.name, flow.labels)]
        self.entries = {job.key: job for job in (flow.entries or flow.preview)}
        self._checked: _Known = {}
        self._provenance: dict[Origin, dict[str, object]] = {}

    # resolving ----------------------------------------------------------------------------------------

    def of_preview(self, job: PreviewJob) -> RunConfig:
        """Return the run config of a job that only the manifest shows: its flow is not built."""
        return self._resolve(self.facts(job.key, job.name, job.function), job.own)

    def of_unknown(self) -> RunConfig:
        """Return the run config of a job without own settings that no rule selects by name or function."""
        return self._resolve(JobFacts(self.flow.name, self.flow.labels, None, None), {})

    def of_built(self, job: BuiltJob) -> tuple[Layer, RunConfig]:
        """Return a job's own settings, those of the manifest above those of Python, and its run config."""
        written = self.written(job.key)
        own = written.own if written is not None else {}
        if job.own:  # Python has no line in a manifest: the place is that of the form that made the job
            pointer = (
                f"{JOB_BY_ID}{written.key}/config" if written is not None else f"/spec/{self.flow.spec.form}"
            )
            origin = Origin(Level.JOB, Kind.FLOW, self.flow.name, pointer)
            own = layer_of(job.own, origin, f"{pointer}/manager_config") | own
        return own, self._resolve(self.facts(job.key, job.name, job.function), own)

    def of_record(self, record: JobRecord, generator: RunConfig | None = None) -> RunConfig:
        """Return the run config of a job that exists, from its own settings as they were recorded.

        A generated job also gets the present values of its generator, unless that passes nothing on.
        """
        return resolve(self.layers_of_record(record, generator), self.defaults, self.digests)

    def layers_of_record(self, record: JobRecord, generator: RunConfig | None = None) -> list[Layer]:
        """Return the layers of a job that exists, strongest first; see :meth:`of_record`."""
        by = record.generated_by
        passed = inherited(generator) if generator is not None and (by is None or by.inherits) else {}
        facts = self.facts(record.key, record.name, record.function, generated=by is not None)
        return self._layers(facts, record.own, passed)

    def facts(self, key: str, name: str, function: str, *, generated: bool = False) -> JobFacts:
        """Return what selectors look at.

        A function may have two paths: that of its definition, and the one that the manifest writes.
        """
        written = self.written(key) if not generated else None
        aliases = self.aliases.get(function, ())
        if written is not None and written.function not in ("", function):
            aliases = [*aliases, written.function]
        makers = [] if generated else self.flow.makers_of.get(written.key if written is not None else "", [])
        return JobFacts(self.flow.name, self.flow.labels, name, function, generated, aliases, makers)

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

    def written(self, key: str) -> PreviewJob | None:
        """Return the entry of the manifest that a job comes from: ``chain`` also makes ``chain/relax``."""
        return self.entries.get(key) or self.entries.get(key.partition("/")[0])

    # checking and comparing ---------------------------------------------------------------------------

    def problems(self, config: RunConfig) -> list[Diagnostic]:
        """Return why a run config is impossible; jobs share settings, so that few of them need a check."""
        key = tuple(id(config.setting(field)) for field in FIELDS)
        known = self._checked.get(key)
        if known is None:
            # Keeping the config keeps its settings alive, and so their ids unique.
            known = self._checked[key] = config, check_config(self.desired, self.flow, config)
        return known[1]

    def changes(self, old: RunConfig, new: RunConfig) -> tuple[Change, ...]:
        """Return the fields whose effective value differs, with the provenance of the new one."""
        if old is new or old == new:
            return ()
        found = []
        for field in FIELDS:
            if old.value(field) != new.value(field):
                after = new.setting(field)
                place = self._place(after.origin) if after is not None else None
                found.append(Change(field, old.shown(field), new.shown(field), place))
        same_name = old.value("exec_config") == new.value("exec_config")
        if old.commands != new.commands and same_name and new.exec_config is not None:
            place = self._place(content_origin(new.exec_config))
            found.append(Change("exec_config", old.content_shown, new.content_shown, place))
        return tuple(found)

    def _place(self, origin: Origin) -> dict[str, object]:
        """Return the provenance of a value; many jobs have theirs from the same line."""
        if origin not in self._provenance:
            self._provenance[origin] = self.desired.provenance(origin)
        return self._provenance[origin]

    def held_by(self, facts: JobFacts, config: RunConfig) -> str | None:
        """Return why a new submission of such a job waits: a document that it depends on is invalid."""
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
