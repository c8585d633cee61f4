"""The Secret that workloads read, and the journal. Both are addressed by name; Secrets are never listed or watched."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from pydantic import SecretStr

from keyturn.api.base import API_VERSION, GROUP
from keyturn.api.observed import Journal, SecretView
from keyturn.api.rotation import CreationPolicy, SecretRef
from keyturn.api.schedule import ROTATED_AT_ANNOTATION
from keyturn.cluster.client import FIELD_MANAGER, Kube
from keyturn.cluster.errors import Invalid, NotFound
from keyturn.cluster.resources import ROTATIONS, SECRETS

JOURNAL_ROTATION: Final = f"{GROUP}/rotation"
LONGEST_VALUE: Final = 16 * 1024
"""Longer ones do not fit into the headers and addresses in which providers are given them, percent-encoded at worst."""
_PREVIOUS, _PENDING = "previous", "pending"
# API servers (seen with 1.20) leave the time in managedFields alone while a manager owns the same fields, whatever
# their values. Every write sets one of these annotations and removes the other, so that the time is that of the write.
_TICK: Final = f"{GROUP}/tick"
_TOCK: Final = f"{GROUP}/tock"


@dataclass(frozen=True, slots=True)
class Owner:
    """The ClientSecretRotation on whose behalf a Secret is written."""

    namespace: str
    name: str
    uid: str

    def reference(self) -> dict[str, Any]:
        return {"apiVersion": API_VERSION, "kind": ROTATIONS.kind, "name": self.name, "uid": self.uid}


async def read_secret(kube: Kube, namespace: str, ref: SecretRef) -> SecretView | None:
    """Read the workload Secret; None when it does not exist."""
    try:
        return _view(await kube.get(SECRETS, namespace, ref.name), ref)
    except NotFound:
        return None


async def publish(
    kube: Kube,
    owner: Owner,
    ref: SecretRef,
    client_id: str,
    seen: SecretView | None,
    *,
    value: SecretStr | None,
    previous: SecretStr | None,
    dry_run: bool = False,
) -> SecretView:
    """Write our keys into the Secret, only if it is still as it was seen; a value of None takes the key away.

    A merge patch, not an apply: it can carry the precondition, never re-creates a Secret that was deleted meanwhile,
    and leaves the keys of other rotations that write to the same Secret alone. Raises Conflict, NotFound, Forbidden.
    """
    data: dict[str, str | None] = {ref.key: _encode(value)}
    if ref.client_id_key is not None:
        data[ref.client_id_key] = _encode(SecretStr(client_id)) if value is not None else None
    if ref.previous_key is not None:
        data[ref.previous_key] = _encode(previous)
    if seen is None:
        # With Merge it was the user's own, and somebody has deleted it: it must not go with the rotation.
        ours = ref.creation_policy is CreationPolicy.OWNER
        meta: dict[str, Any] = {"name": ref.name, **({"ownerReferences": [owner.reference()]} if ours else {})}
        present = {key: encoded for key, encoded in data.items() if encoded is not None}
        raw = await kube.create(SECRETS, owner.namespace, {"metadata": meta, "data": present}, dry_run=dry_run)
    else:
        marks = {_TICK: None, _TOCK: ""} if seen.ticked else {_TICK: "", _TOCK: None}
        meta = {"resourceVersion": seen.resource_version, "annotations": marks}
        raw = await kube.merge(SECRETS, owner.namespace, ref.name, {"metadata": meta, "data": data}, dry_run=dry_run)
    return _view(raw, ref)


def journal_name(owner: Owner) -> str:
    return f"keyturn-journal-{owner.uid}"


async def read_journal(kube: Kube, owner: Owner) -> Journal | None:
    """Read the journal; None when there is none."""
    try:
        return _journal(await kube.get(SECRETS, owner.namespace, journal_name(owner)))
    except NotFound:
        return None


async def open_journal(
    kube: Kube,
    owner: Owner,
    rotation_id: str,
    previous: SecretStr | None,
    pending: SecretStr | None = None,
    *,
    dry_run: bool = False,
) -> Journal:
    """Create the journal before anything is changed at the provider (I2). Raises Conflict when there is one.

    What a dry run returns has no resourceVersion.
    """
    metadata = {
        "name": journal_name(owner),
        "labels": {"app.kubernetes.io/managed-by": FIELD_MANAGER, "app.kubernetes.io/component": "journal"},
        "annotations": {JOURNAL_ROTATION: rotation_id},
        "ownerReferences": [owner.reference()],
    }
    values = {_PREVIOUS: _encode(previous), _PENDING: _encode(pending)}
    data = {key: value for key, value in values.items() if value is not None}
    body = {"metadata": metadata, "type": f"{GROUP}/journal", "data": data}
    return _journal(await kube.create(SECRETS, owner.namespace, body, dry_run=dry_run))


async def confirm_no_journal(kube: Kube, owner: Owner) -> None:
    """Make sure that there is no journal, as a read has shown: a lost one decides a rotation, and reads may lag behind.

    Raises Conflict when there is one.
    """
    await kube.confirm_gone(SECRETS, owner.namespace, journal_name(owner))


async def keep_pending(kube: Kube, owner: Owner, journal: Journal, pending: SecretStr) -> Journal:
    """Write the provider's answer to the journal, before anything else is done with it (I2).

    Without a precondition, and into a new journal if the old one was deleted: the value must not be lost.
    """
    body = {"data": {_PENDING: _encode(pending)}}
    try:
        meta = (await kube.merge(SECRETS, owner.namespace, journal.name, body))["metadata"]
    except NotFound:
        return await open_journal(kube, owner, journal.rotation_id, journal.previous, pending)
    return replace(journal, pending=pending, uid=meta["uid"], resource_version=meta["resourceVersion"])


async def drop_journal(kube: Kube, owner: Owner, journal: Journal) -> None:
    """Delete the journal that was read; done already is done."""
    try:
        await kube.delete(SECRETS, owner.namespace, journal.name, uid=journal.uid, version=journal.resource_version)
    except NotFound:
        return


def _encode(value: SecretStr | None) -> str | None:
    return None if value is None else base64.b64encode(value.get_secret_value().encode()).decode()


def _decode(data: dict[str, str], key: str) -> SecretStr | None:
    """The text under a key; None where there is none. Raises UnicodeDecodeError on binary content."""
    return SecretStr(base64.b64decode(data[key]).decode()) if data.get(key) else None


def _view(raw: dict[str, Any], ref: SecretRef) -> SecretView:
    data, meta = raw.get("data") or {}, raw["metadata"]
    words, value, problem = meta.get("annotations") or {}, None, None
    try:
        value = _decode(data, ref.key)
    except (UnicodeDecodeError, binascii.Error):
        problem = f"key {ref.key} holds binary content, not text: a client secret is text"
    if value is not None and len(value.get_secret_value().encode()) > LONGEST_VALUE:
        problem = f"key {ref.key} holds more than {LONGEST_VALUE} bytes: put the client secret in, and nothing else"
    if raw.get("immutable"):
        problem = "it is immutable: replace it by one that is not"
    return SecretView(
        name=ref.name,
        uid=meta["uid"],
        resource_version=meta.get("resourceVersion", ""),
        value=value,
        has_previous=ref.previous_key is not None and ref.previous_key in data,
        problem=problem,
        written_time=_written_time(meta),
        ticked=_TICK in words,
        created=datetime.fromisoformat(meta["creationTimestamp"]) if meta.get("creationTimestamp") else None,
        rotated_at=words.get(ROTATED_AT_ANNOTATION),
    )


def _written_time(meta: dict[str, Any]) -> datetime | None:
    times = [
        entry["time"]
        for entry in meta.get("managedFields") or []
        if entry.get("manager") == FIELD_MANAGER and entry.get("time")
    ]
    return max((datetime.fromisoformat(time) for time in times), default=None)


def _journal(raw: dict[str, Any]) -> Journal:
    data, meta = raw.get("data") or {}, raw["metadata"]
    try:
        previous, pending = _decode(data, _PREVIOUS), _decode(data, _PENDING)
    except (UnicodeDecodeError, binascii.Error):
        remedy = "put back what it held, or delete it and settle the rotation at the provider"
        raise Invalid(f"the journal, Secret {meta['name']}, holds what Keyturn did not write: {remedy}") from None
    return Journal(
        name=meta["name"],
        resource_version=meta.get("resourceVersion", ""),
        rotation_id=(meta.get("annotations") or {}).get(JOURNAL_ROTATION, ""),
        previous=previous,
        pending=pending,
        uid=meta["uid"],
    )
