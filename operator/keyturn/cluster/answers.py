"""The answer of a start call on its way into the journal, when the rotation may be somebody else's by now.

Whoever got the answer brings it to the journal, also when it does not lead any more: it holds the only copy, and where
a start cannot be repeated nobody could go on without it. What a successor has done meanwhile stands: the answer is
written only into the journal as it was when the call was made, or as others have touched it since without filling it.
A successor that means to have the answer withdrawn at the provider marks the journal first, under a precondition of its
own. So the two can never pass each other: either the successor finds the answer, or the answer finds the mark.
"""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Final

from pydantic import SecretStr

from keyturn.api.base import GROUP
from keyturn.api.observed import Journal
from keyturn.cluster.client import Kube
from keyturn.cluster.errors import Conflict, NotFound
from keyturn.cluster.resources import ROTATIONS, SECRETS
from keyturn.cluster.secrets import JOURNAL_ROTATION, Owner, open_journal

_WITHDRAWN: Final = f"{GROUP}/withdrawn"
"""On a journal: its resourceVersion when the answer of every earlier call ceased to be wanted."""


async def keep_answer(kube: Kube, owner: Owner, journal: Journal, answer: SecretStr) -> Journal | None:
    """Write the answer to a start call into its journal, before anything else is done with it (I2).

    journal: as it was read or opened before the call. Returns the journal that holds the answer, or None when it is
    not wanted any more: the rotation has ended, or a successor has another value or has withdrawn this one.
    Raises ClusterError: it must be tried again.
    """
    encoded = base64.b64encode(answer.get_secret_value().encode()).decode()
    version = journal.resource_version
    while True:
        body = {"metadata": {"resourceVersion": version}, "data": {"pending": encoded}}
        try:
            raw = await kube.merge(SECRETS, owner.namespace, journal.name, body)
        except NotFound:
            if not await _runs(kube, owner, journal.rotation_id):
                return None
            return await open_journal(kube, owner, journal.rotation_id, journal.previous, answer)
        except Conflict:
            raw = await kube.get(SECRETS, owner.namespace, journal.name)
        meta, pending = raw["metadata"], (raw.get("data") or {}).get("pending")
        version = meta["resourceVersion"]
        if pending == encoded:
            return replace(journal, pending=answer, uid=meta["uid"], resource_version=version)
        if pending or _over(meta.get("annotations") or {}, journal):
            return None


async def disown_answer(kube: Kube, owner: Owner, journal: Journal) -> Journal:
    """Mark the journal before the answer of an earlier start, which nobody has seen, is withdrawn at the provider.

    Raises Conflict when the answer has arrived meanwhile, so that it is looked at again.
    """
    meta = {"resourceVersion": journal.resource_version, "annotations": {_WITHDRAWN: journal.resource_version}}
    raw = await kube.merge(SECRETS, owner.namespace, journal.name, {"metadata": meta})
    return replace(journal, resource_version=raw["metadata"]["resourceVersion"])


def _over(annotations: dict[str, str], called_with: Journal) -> bool:
    """Whether the call that was made with this journal is a matter of the past for it."""
    if annotations.get(JOURNAL_ROTATION) != called_with.rotation_id:
        return True
    # resourceVersions are opaque by contract, but ordered by KEP-5504 and in every API server there has been.
    return int(annotations.get(_WITHDRAWN) or -1) >= int(called_with.resource_version)


async def _runs(kube: Kube, owner: Owner, rotation_id: str) -> bool:
    try:
        raw = await kube.get(ROTATIONS, owner.namespace, owner.name)
    except NotFound:
        return False
    running = (raw.get("status") or {}).get("rotation") or {}
    return raw["metadata"]["uid"] == owner.uid and running.get("id") == rotation_id
