"""What is told of a pass beside the status: counts, log lines and Events."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta
from typing import Any

from keyturn.api.rotation import RotationRecord, RotationStatus
from keyturn.cluster import events
from keyturn.cluster.client import Kube
from keyturn.cluster.errors import ClusterError
from keyturn.controller.metrics import Metrics
from keyturn.rotation.report import Announcement, Reportable, announcements
from keyturn.rotation.steps import Advance, Enter, Finish

_log = logging.getLogger(__name__)


class Chronicle:
    """Of one pass over one rotation."""

    def __init__(self, kube: Kube, metrics: Metrics) -> None:
        self._kube = kube
        self._metrics = metrics
        self._events: list[asyncio.Task[None]] = []
        self._phases: list[tuple[RotationRecord, timedelta]] = []
        """Those that have ended, with their durations, and of which nothing is written yet."""

    def passes(self, status: RotationStatus, step: Enter | Advance | Finish, now: datetime) -> None:
        """A step is about to be taken that may end a phase."""
        before = status.rotation
        if before is None or (not isinstance(step, Finish) and step.record.phase is before.phase):
            return
        self._phases.append((before, now - before.phase_started_time))

    def written(
        self, raw: dict[str, Any], before: RotationStatus, after: RotationStatus, step: Reportable, now: datetime
    ) -> None:
        """A status was written: what it says has happened.

        A pass that fails before, or another leader, takes the same steps again. raw: the object that was written.
        """
        self._count(before, after)
        context = _context(raw, after)
        if after.phase is not before.phase:
            _log.info("phase %s", after.phase, extra=context)
        occasion = after.rotation or after.last_rotation or before.rotation
        for said in announcements(before, after, step):
            level = logging.WARNING if said.warning else logging.INFO
            _log.log(level, "%s: %s", said.reason, said.message, extra=context)
            # Beside what follows: no rotation waits for an Event. All are written when the pass ends.
            event = self._write(raw, said, f"{occasion.id if occasion else ''}/{after.phase}", now, context)
            self._events.append(asyncio.create_task(event))

    async def end(self) -> None:
        """Return when all Events are written."""
        await asyncio.gather(*self._events)

    def _count(self, before: RotationStatus, after: RotationStatus) -> None:
        for record, lasted in self._phases:
            self._metrics.phase_ended(_provider(record), record.phase, lasted)
        self._phases.clear()
        if before.rotation is not None and after.rotation is None and after.last_rotation is not None:
            ended = after.last_rotation
            self._metrics.rotation_ended(_provider(before.rotation), ended.result, ended.reason)

    async def _write(
        self, raw: dict[str, Any], said: Announcement, occasion: str, now: datetime, context: dict[str, str]
    ) -> None:
        try:
            await events.write_event(
                self._kube, raw, occasion, said.reason, said.message, warning=said.warning, now=now
            )
        except ClusterError as error:
            _log.warning("the Event was not written: %s", error, extra=context)


def _context(raw: dict[str, Any], status: RotationStatus) -> dict[str, str]:
    record, meta = status.rotation or status.last_rotation, raw["metadata"]
    return {"object": f"{meta['namespace']}/{meta['name']}", "rotation": record.id if record else ""}


def _provider(record: RotationRecord) -> str:
    """The kind of provider, as the account says it: see `keyturn.api.provider.account_of`."""
    return (record.account or "").partition("/")[0]
