"""Worlds of which only a few fields matter."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from keyturn.api.rotation import RotationStatus
from keyturn.rotation.world import Problem, World

NOW: Final = datetime(2026, 11, 1, tzinfo=UTC)


def world(**fields: Any) -> World:
    """The rotation ns/billing, of which nothing has been looked at; fields: those of the World that matter."""
    others: dict[str, Any] = {
        "now": NOW,
        "name": "billing",
        "uid": "uid",
        "generation": 1,
        "deleting": False,
        "finalizer": True,
        "spec": Problem("InvalidSpec", "of no matter here"),
        "status": RotationStatus(),
        "fresh_id": "r-2",
    }
    return World(**{**others, **fields})
