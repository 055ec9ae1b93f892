"""``reconcile set suspend``: ``spec.suspend`` of a flow, and its reason."""

from __future__ import annotations

from reconciler.cli.context import Context
from reconciler.cli.edit.session import Publishing, decoded, edit_session
from reconciler.desired.yaml.edit import EditError, remove_value, set_value
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError
from reconciler.model.manifests import Kind


def set_suspend(context: Context, flow: str, on: bool, reason: str | None, publishing: Publishing) -> None:
    """Suspend or resume a flow in its manifest.

    Raises
    ------
    InputError
        There is no such flow, its document is invalid, or a reason is given with ``off``.
    RefusedError
        The file of the flow cannot be edited now.
    """
    if reason is not None and not on:
        raise InputError("--reason requires `on`", hint="to say why it ends, use -m")
    key = f"{Kind.FLOW}/{flow}"
    with edit_session(context) as at:
        desired = at.head.desired
        if flow in desired.invalid:
            hint = "see `reconcile validate`"
            raise InputError(f"flow '{flow}' is invalid: {desired.invalid[flow]}", hint=hint)
        if key not in desired.manifests:
            near = did_you_mean(flow, desired.flows)
            raise InputError(f"there is no flow '{flow}' in {desired.revision}", hint=near)
        manifest = desired.manifests[key]
        if manifest.item is not None:
            raise InputError(
                f"flow '{flow}' is an item of FlowSet '{manifest.item.flowset}' ({manifest.file})",
                hint=f"add `- {{keys: [{manifest.item.key}], suspend: {str(on).lower()}}}` to its overrides",
            )
        old_reason = manifest.spec.get("suspend_reason")
        if on and reason is None and manifest.spec.get("suspend"):
            reason = old_reason  # the flow stays suspended, for the same reason
        if (bool(manifest.spec.get("suspend")), old_reason) == (on, reason):
            status = "suspended already" if on else "not suspended"
            at.nothing_to_change(f"'{flow}' is {status}", publishing)
            return
        before = at.read(manifest.file)
        position = at.head.loaded.good[key].position
        try:
            after = set_value(decoded(before), position, ["spec", "suspend"], on)
            if reason is not None:
                after = set_value(after, position, ["spec", "suspend_reason"], reason)
            elif "suspend_reason" in manifest.spec:
                after = remove_value(after, position, ["spec", "suspend_reason"])
        except EditError as error:
            raise InputError(f"{manifest.file} cannot be edited: {error}", hint="edit it by hand") from error
        at.carry_out(at.simulate(manifest.file, before, after), publishing)
