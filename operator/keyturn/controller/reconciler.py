"""One pass over one rotation: observe, decide, act, record, until there is nothing to do now.

The rules are in `keyturn.rotation`; the acts are in `keyturn.controller.acts`. Here is only the loop that joins them.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, TypedDict

from keyturn.api.rotation import (
    CANCEL_ANNOTATION,
    RESUME_ANNOTATION,
    URGENT_ANNOTATION,
    Phase,
    RotationRecord,
    RotationStatus,
)
from keyturn.api.rules import Invalid, validate_rotation
from keyturn.cluster import rotations
from keyturn.cluster.client import Kube
from keyturn.cluster.errors import ClusterError, Conflict, Forbidden, NotFound
from keyturn.cluster.observer import Observers
from keyturn.cluster.resources import NAMESPACES, ROTATIONS
from keyturn.cluster.secrets import Owner
from keyturn.controller.accounts import Accounts
from keyturn.controller.acts import Acts
from keyturn.controller.chronicle import Chronicle
from keyturn.controller.gates import Gates
from keyturn.controller.index import Index, Key
from keyturn.controller.leadership import NotLeading
from keyturn.controller.metrics import Metrics
from keyturn.controller.queue import LONGEST_DELAY
from keyturn.controller.spool import Spool
from keyturn.controller.turn import Turn
from keyturn.controller.workers import Again
from keyturn.rotation.common import HELD_BACK, PROVIDER_LIMITS, wait_after
from keyturn.rotation.due import must_begin, urgent_word
from keyturn.rotation.lifecycle import decide
from keyturn.rotation.policy import BUDGET_EXHAUSTED, Ruling, ruling
from keyturn.rotation.report import Reportable, report
from keyturn.rotation.steps import (
    Advance,
    CallProvider,
    Enter,
    Finish,
    Observe,
    Rest,
    SetFinalizer,
    Step,
    Wait,
    after_recording,
)
from keyturn.rotation.world import UNOBSERVED, Operation, Problem, World

_log = logging.getLogger(__name__)

Intent = tuple[str, datetime]

_MOST_STEPS: Final = 100
_NOT_SEEN: Final = Wait(
    "WriteNotSeen",
    "what Keyturn has just written is not there when it looks: the API server's answers lag behind, or something "
    "in the cluster, such as an admission webhook, takes it back",
)
_PROGRESS_EVERY: Final = timedelta(seconds=2)
_LONGEST_OUTAGE_DELAY: Final = 10.0
"""An API server that is back is noticed within this time: rotations wait for it."""


class _Ruled(TypedDict):
    """Fields of a World that may change at every moment of a pass."""

    ruling: Ruling
    restarting: Mapping[tuple[str, str], datetime]


class Reconciler:
    """Brings one rotation as far as it can go now. Never runs twice for one key at a time (the queue sees to it)."""

    def __init__(
        self,
        kube: Kube,
        index: Index,
        accounts: Accounts,
        observers: Observers,
        clock: Callable[[], datetime],
        metrics: Metrics,
        gates: Gates,
        wake: Callable[[set[Key]], None],
        spool: Spool | None = None,
    ) -> None:
        """wake: is given the other rotations that are affected by what a pass has seen before the watch did."""
        self._gates = gates
        self._wake = wake
        self._spool = spool
        self._metrics = metrics
        self._kube = kube
        self._index = index
        self._accounts = accounts
        self._observers = observers
        self._clock = clock
        self._progress_written: dict[Key, datetime] = {}
        self._refused: dict[Key, Intent] = {}

    async def reconcile(self, key: Key) -> Again | None:
        """Work on the rotation of this key. None: nothing to do until something changes."""
        try:
            return await self._reconcile(key)
        finally:
            self._gates.permits.end_pass(key)
            self._index.expect_nothing(key)

    async def _reconcile(self, key: Key) -> Again | None:
        raw = self._index.rotation(key)
        if raw is None:
            self._forget(key)
            return None
        self._index.settle(key)
        world = self._world(key, raw)
        step = decide(world)
        if isinstance(step, Rest) and (world.deleting or report(world, step) == world.status):
            self._observers.unfollow(key)
            self._gates.turns.forget(key)
            return _until(step, world)
        try:
            raw = await self._kube.get(ROTATIONS, *key)
        except NotFound:
            self._forget(key)
            return None
        except ClusterError as error:
            _log.warning("%s", error, extra={"object": "/".join(key)})
            return _after(error)
        self._know(key, raw)
        # What has begun, and what somebody waits for, goes before what begins by the schedule.
        hurried = world.status.rotation is not None or urgent_word(world) is not None
        turn = self._gates.turns.begin_pass(key, key[0], hurried=hurried)
        try:
            return await _Pass(self, key, raw, turn).run()
        finally:
            self._gates.turns.end_pass(turn)

    def _know(self, key: Key, raw: dict[str, Any]) -> None:
        self._wake(self._index.put_rotation(raw) - {key})

    def _forget(self, key: Key) -> None:
        self._gates.turns.forget(key)
        self._wake(self._index.drop_rotation(key))
        self._observers.unfollow(key)
        self._progress_written.pop(key, None)
        self._refused.pop(key, None)

    def refused(self, key: Key, record: RotationRecord) -> None:
        """The call of this record's intent to start was refused: known also when that cannot be written at once."""
        self._refused[key] = _intent(record)

    def _status(self, key: Key, raw: dict[str, Any]) -> RotationStatus:
        """As it was written, but for a call that is known to have been refused: it would be taken for a lost answer."""
        status = RotationStatus.model_validate(raw.get("status") or {})
        running = status.rotation
        if running is None or not running.start_sent or self._refused.get(key) != _intent(running):
            return status
        return status.model_copy(update={"rotation": running.model_copy(update={"start_sent": False})})

    def _world(self, key: Key, raw: dict[str, Any]) -> World:
        """The world before anything was looked at."""
        meta = raw["metadata"]
        spec, words = validate_rotation(raw.get("spec") or {}), meta.get("annotations") or {}
        now = self._clock()
        world = World(
            now=now,
            name=meta["name"],
            uid=meta["uid"],
            generation=meta["generation"],
            deleting="deletionTimestamp" in meta,
            finalizer=rotations.has_finalizer(raw),
            spec=Problem("InvalidSpec", str(spec)) if isinstance(spec, Invalid) else spec,
            status=self._status(key, raw),
            fresh_id=_fresh_id(now),
            conflict=self._index.conflict(key),
            contested=self._index.contested(key),
            cancel_request=words.get(CANCEL_ANNOTATION),
            resume_request=words.get(RESUME_ANNOTATION),
            urgent_request=words.get(URGENT_ANNOTATION),
            namespace=meta["namespace"],
            created=datetime.fromisoformat(meta["creationTimestamp"]),
            **self._ruled(key, now),
        )
        if world.status.rotation is not None or not self._gates.permits.limits(key):
            return world
        return replace(world, budget=self._gates.permits.room(key, urgent=must_begin(world)), permit=UNOBSERVED)

    def _ruled(self, key: Key, now: datetime) -> _Ruled:
        """What policies say, and what other rotations do that these speak of, as it is known at this moment."""
        found = ruling(self._index.policies_of(key), now)
        return _Ruled(ruling=found, restarting=self._index.restarting(key) if found.min_gap is not None else {})


class _Pass:
    """The state of one pass: the object as it was written last, and the world."""

    def __init__(self, reconciler: Reconciler, key: Key, raw: dict[str, Any], turn: Turn) -> None:
        self._r = reconciler
        self._turn = turn
        self._key = key
        self._raw = raw
        self._world = reconciler._world(key, raw)
        owner = Owner(namespace=key[0], name=key[1], uid=raw["metadata"]["uid"])
        r = reconciler
        self._looked_for_rivals = False
        self._chronicle = Chronicle(r._kube, r._metrics)
        self._acts = Acts(r._kube, r._accounts, r._observers, owner, r._gates.permits, r._spool)

    async def run(self) -> Again | None:
        try:
            await self._know_namespace()
            return await self._loop()
        except Conflict as conflict:
            _log.info("read again: %s", conflict, extra=self._context())
            return Again(None)
        except NotFound as missing:
            _log.info("changed meanwhile: %s", missing, extra=self._context())
            return Again(None)
        except NotLeading as error:
            _log.info("%s", error, extra=self._context())
            return Again(None)
        except ClusterError as error:
            return await self._trouble(error)
        finally:
            await self._chronicle.end()
            # Woken only by what the decision looked at: pods that come and go do not hurry a provider that is down.
            looked = self._world.status.rotation is not None and self._world.consumers is not UNOBSERVED
            watching = looked and self._r._gates.others.goes_on(self._key)
            (self._r._observers.follow if watching else self._r._observers.unfollow)(self._key)

    async def _know_namespace(self) -> None:
        """A Namespace may be so new that no event has told of its labels yet: no policy is passed over for that."""
        if self._r._index.coverage.needs(self._key[0]):
            self._r._index.put_namespace(await self._r._kube.get(NAMESPACES, None, self._key[0]))

    async def _loop(self) -> Again | None:
        last: Step | None = None
        for _ in range(_MOST_STEPS):
            # The next process may not be able to find out whether an armed call was made.
            if not self._r._gates.others.goes_on(self._key) and not self._world.armed:
                return Again(None)
            now = self._r._clock()
            self._world = replace(self._world, now=now, fresh_id=_fresh_id(now), **self._r._ruled(self._key, now))
            step = decide(self._world)
            _log.debug("next: %s", type(step).__name__, extra=self._context())
            if isinstance(step, Rest | Wait):
                return await self._pause(step)
            if step == last and not isinstance(step, CallProvider):
                # Not again at once; and what came of this pass is written, so that timeouts are counted from it.
                return await self._pause(_NOT_SEEN)
            if isinstance(step, Enter) and await self._has_rival(step):
                continue
            held_back = self._acts.reserve_start(self._world) if _intends(step) else None
            if held_back is not None:
                return await self._pause(wait_after(Operation.START, held_back))
            await self._act(step)
            last = last if isinstance(step, Observe) else step
        raise RuntimeError(f"no end after {_MOST_STEPS} steps")

    async def _has_rival(self, step: Enter) -> bool:
        """Whether somebody is in the way of what this step is the first to say: then the world says who it is."""
        running = self._world.status.rotation
        begins = running is None or running.subject != step.record.subject
        rivals = self._r._gates.others.rivals
        if rivals is None or self._looked_for_rivals or not begins:
            return False
        self._looked_for_rivals = True
        self._world = replace(self._world, conflict=await rivals.found(self._key, step.record))
        return self._world.conflict is not None

    async def _act(self, step: Step) -> None:
        if isinstance(step, Enter | Advance | Finish):
            self._chronicle.passes(self._world.status, step, self._world.now)
        if isinstance(step, Enter | Finish):
            kept = after_recording(self._world, step)
            await self._record(step)
            self._world = replace(kept, status=self._world.status)
        elif isinstance(step, Advance):
            if self._world.record.start_sent and not step.record.start_sent:
                self._r.refused(self._key, self._world.record)
            self._world = replace(self._world, status=self._advanced(step))
        elif isinstance(step, SetFinalizer):
            self._r._index.expect_finalizer(self._key, present=step.present)
            self._keep(await rotations.write_finalizer(self._r._kube, self._raw, present=step.present))
            self._world = replace(self._world, finalizer=step.present)
        else:
            self._world = await self._acts.perform(step, self._world)

    def _advanced(self, step: Advance) -> RotationStatus:
        return self._world.status.model_copy(update={"rotation": step.record})

    async def _pause(self, step: Rest | Wait) -> Again | None:
        if isinstance(step, Rest):
            if not self._world.deleting:
                await self._record(step)
            return _until(step, self._world)
        if step.reason == BUDGET_EXHAUSTED:
            self._r._gates.permits.wait(self._key)
        if self._may_record(step):
            await self._record(step)
        return Again(step.after.total_seconds() if step.after is not None else None)

    def _may_record(self, step: Wait) -> bool:
        """Progress within a phase is written at most every two seconds, everything else at once.

        That it is not its turn at the provider is worth a write only when it takes long.
        """
        if step.reason == HELD_BACK and not self._worth_saying():
            return False
        written = self._r._progress_written.get(self._key)
        # A clock that was set back counts as time that has passed.
        if written is None or not timedelta() <= self._world.now - written < _PROGRESS_EVERY:
            return True
        before = RotationStatus.model_validate(self._raw.get("status") or {})
        return _without_progress(before) != _without_progress(report(self._world, step))

    def _worth_saying(self) -> bool:
        """Who is asked by the provider to wait would say both in turns."""
        said = {condition.reason for condition in self._world.status.conditions}
        return self._turn.long and PROVIDER_LIMITS not in said

    async def _record(self, step: Reportable) -> None:
        """Write the status, if it changed, and announce what is new in it."""
        before = RotationStatus.model_validate(self._raw.get("status") or {})
        after = report(self._world, step)
        wire = after.to_wire()
        if wire == (self._raw.get("status") or {}):
            self._world = replace(self._world, status=after)
            return
        self._r._index.expect_status(self._key, wire)
        self._keep(await rotations.write_status(self._r._kube, self._raw, wire))
        # Not before it is written: what is told of a refused write must not write the intent by the way (I1).
        self._world = replace(self._world, status=after)
        self._r._progress_written[self._key] = self._world.now
        self._chronicle.written(self._raw, before, after, step, self._world.now)

    async def _trouble(self, error: ClusterError) -> Again:
        """Say in the status what the API server refuses; when it cannot be said there, the log has to do."""
        _log.warning("%s", error, extra=self._context())
        remedy = (
            "; grant it to Keyturn's ServiceAccount, see manifests/rbac.yaml" if isinstance(error, Forbidden) else ""
        )
        wait = Wait(error.reason, f"{error}{remedy}", stalled=error.lasting, after=error.retry_after)
        with contextlib.suppress(ClusterError):
            await self._pause(wait)
        return _after(error)

    def _keep(self, raw: dict[str, Any]) -> None:
        self._raw = raw
        self._r._know(self._key, raw)

    def _context(self) -> dict[str, str]:
        record = self._world.status.rotation or self._world.status.last_rotation
        return {"object": f"{self._key[0]}/{self._key[1]}", "rotation": record.id if record else ""}


def _until(step: Rest, world: World) -> Again | None:
    """One timer for each object that has a time to wait for; it costs nothing else (I12)."""
    return Again(max((step.until - world.now).total_seconds(), 0.0)) if step.until is not None else None


def _after(error: ClusterError) -> Again:
    """When to try again what the API server did not do."""
    delay = error.retry_after.total_seconds() if error.retry_after else None
    return Again(delay, LONGEST_DELAY if error.lasting else _LONGEST_OUTAGE_DELAY)


def _intends(step: Step) -> bool:
    """Whether this step writes down that a start call follows."""
    return isinstance(step, Enter) and step.record.phase is Phase.STARTING and step.record.start_sent


def _fresh_id(now: datetime) -> str:
    """For a rotation that begins now: `keyturn.rotation.gap` reads the time from it."""
    return f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def _intent(record: RotationRecord) -> Intent:
    """Each intent to start has a time of its own."""
    return record.id, record.phase_started_time


def _without_progress(status: RotationStatus) -> dict[str, Any]:
    wire = status.to_wire()
    (wire.get("rotation") or {}).pop("targets", None)
    for condition in wire["conditions"]:
        condition.pop("message")
    return wire
