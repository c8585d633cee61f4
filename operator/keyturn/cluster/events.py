"""Kubernetes Events about a ClientSecretRotation."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from keyturn.api.base import format_time
from keyturn.cluster.client import Kube
from keyturn.cluster.errors import Conflict
from keyturn.cluster.resources import EVENTS

_MESSAGE_LIMIT = 1024


async def write_event(
    kube: Kube, raw: dict[str, Any], occasion: str, reason: str, message: str, *, warning: bool, now: datetime
) -> None:
    """Write one Event about the object `raw`; the same occasion, reason and message are written only once.

    Raises ClusterError: an Event that cannot be written must not stop a rotation, which is the caller's to see to.
    """
    meta = raw["metadata"]
    digest = hashlib.sha256(f"{meta['uid']}/{occasion}/{reason}/{message}".encode()).hexdigest()[:16]
    time = format_time(now)
    body = {
        "metadata": {"name": f"{meta['name'][:230]}.{digest}", "namespace": meta["namespace"]},
        "involvedObject": {
            "apiVersion": raw["apiVersion"],
            "kind": raw["kind"],
            "namespace": meta["namespace"],
            "name": meta["name"],
            "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"],
        },
        "type": "Warning" if warning else "Normal",
        "reason": reason,
        "message": message[:_MESSAGE_LIMIT],
        "source": {"component": "keyturn"},
        "reportingComponent": "keyturn",
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }
    try:
        await kube.create(EVENTS, meta["namespace"], body)
    except Conflict:
        return
