"""``reconcile set suspend``: ``spec.suspend`` of a flow, and its reason."""

from __future__ import annotations

from reconciler.cli.context import Context
from reconciler.cli.edit.session import EditSession, Publishing, decoded, edit_session
from reconciler.desired.yaml.edit import EditError, remove_value, set_value
from reconciler.diagnostics import did_you_mean
from reconciler.errors import InputError
from reconciler.model.manifests import Kind, Manifest


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
    with edit_session(context) as at:
        manifest = _manifest(at, flow)
        wanted = _wanted(manifest, on, reason)
        if all(manifest.spec.get(key, _ABSENT[key]) == value for key, value in wanted.items()):
            context.say(f"nothing to change: '{flow}' is {'suspended already' if on else 'not suspended'}")
            return
        before = at.read(manifest.file)
        position = at.head.loaded.good[f"{Kind.FLOW}/{flow}"].position
        try:
            after = _edited(decoded(before), position, manifest, wanted)
        except EditError as error:
            raise InputError(f"{manifest.file} cannot be edited: {error}", hint="edit it by hand") from error
        at.carry_out(at.simulate(manifest.file, before, after), publishing)


_ABSENT = {"suspend": False, "suspend_reason": None}
"""The values of absent keys."""


def _manifest(at: EditSession, flow: str) -> Manifest:
    desired = at.head.desired
    manifest = desired.manifests.get(f"{Kind.FLOW}/{flow}")
    if flow in desired.invalid:
        raise InputError(
            f"flow '{flow}' is invalid: {desired.invalid[flow]}", hint="see `reconcile validate`"
        )
    if manifest is None:
        raise InputError(
            f"there is no flow '{flow}' in {desired.revision}", hint=did_you_mean(flow, desired.flows)
        )
    return manifest


def _wanted(manifest: Manifest, on: bool, reason: str | None) -> dict[str, bool | str | None]:
    """Return the wanted values of both keys; a reason stays while the flow stays suspended."""
    if on and reason is None and manifest.spec.get("suspend"):
        reason = manifest.spec.get("suspend_reason")
    return {"suspend": on, "suspend_reason": reason}


def _edited(text: str, position: int, manifest: Manifest, wanted: dict[str, bool | str | None]) -> str:
    for key, value in wanted.items():
        if value is not None:
            text = set_value(text, position, ["spec", key], value)
        elif key in manifest.spec:
            text = remove_value(text, position, ["spec", key])
    return text
