"""A rotation operator as Kopf's documentation leads one to write it: a creation handler, and a timer for each object.

`kopf run benchmarks/floors/customary.py --all-namespaces`. It decides when each object is due, and rotates nothing. It
prints `ready` when each object's timer has run once, of as many as the environment's `OBJECTS`.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import kopf

_EXPECTED = int(os.environ["OBJECTS"])
_seen: set[str] = set()


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    """Events of Kopf's own would be writes that Keyturn does not make."""
    settings.posting.enabled = False


@kopf.on.create("keyturn.dev", "v1alpha1", "clientsecretrotations")
async def created(**_: Any) -> None:
    """Kopf remembers on the object that it was handled."""


@kopf.timer("keyturn.dev", "v1alpha1", "clientsecretrotations", interval=3600)
async def look(uid: str, spec: kopf.Spec, meta: kopf.Meta, **_: Any) -> None:
    """Whether a rotation is due."""
    # Those that fell due together before have a cron expression instead.
    interval = spec["schedule"].get("interval")
    hours = int(interval.removesuffix("h")) if interval is not None else None
    made = datetime.fromisoformat(meta["creationTimestamp"])
    if hours is not None and made + timedelta(hours=hours) <= datetime.now(UTC):
        sys.stderr.write(f"{uid} is due\n")
    _seen.add(uid)
    if len(_seen) == _EXPECTED:
        sys.stdout.write(f"ready {_EXPECTED}\n")
        sys.stdout.flush()
