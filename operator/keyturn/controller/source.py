"""Where events come from: an interface, so that tests drive the controller directly and Kopf stays replaceable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

Seen = Callable[[dict[str, Any], bool], None]
"""Called with every object that is seen, and whether it was deleted. Must not block."""


class EventSource(Protocol):
    """Feeds a `Seen` with the objects of Keyturn's own kinds in the cluster, and with its Namespaces."""

    async def run(self) -> None:
        """Feed events until the process is told to stop; then return. Never raises for an outage of the API server."""
        ...
