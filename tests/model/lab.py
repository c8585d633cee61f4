"""A world without I/O in which the rotation core runs, is disturbed at any effect, and is watched at every one.

Only `effect` changes anything that outlives the operator's process; `run` plays that process and its queue. Every
effect takes a little time and is followed by traffic: each running pod calls the provider with the value it holds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import SecretStr

from keyturn.api.observed import Journal
from keyturn.api.rotation import Phase, RotationRecord, RotationSpec, RotationStatus
from keyturn.rotation.policy import Policy
from keyturn.rotation.report import Announcement
from keyturn.rotation.steps import Rest, Wait
from keyturn.rotation.world import Operation, Problem
from tests.model.fakecluster import SECOND, FakeDeployment, FakeNamespace, FakePod, FakeSecret
from tests.model.fakeprovider import CANARY, FakeProvider, Fault
from tests.model.phases import BETWEEN, BLOCKED_IN, RUNNING, Edge

T = TypeVar("T")
EPOCH = datetime(2026, 3, 1, 12, 0, 0, 300_000, tzinfo=UTC)
TICK = SECOND / 2
EFFECT_TIME = timedelta(milliseconds=20)


class Disturbance(StrEnum):
    """What happens to the operator at one effect."""

    CRASH_BEFORE = "crash before"
    CRASH_AFTER = "crash after"
    REPLY_LOST = "reply lost"
    REFUSED = "refused"


class Crash(Exception):
    """The operator's process dies."""


class ApiFailure(Exception):
    """A request to the API server did not succeed, or nobody knows: the pass ends, the process goes on."""


class Conflict(ApiFailure):
    """The object is not the one that was read."""


@dataclass
class FakeResource:
    """The ClientSecretRotation as the API server stores it; `held_back`: somebody else's finalizer is on it."""

    spec: RotationSpec | Problem
    generation: int = 1
    status: dict[str, Any] = field(default_factory=dict)
    finalizer: bool = False
    deleting: bool = False
    held_back: bool = False
    version: int = 1
    cancel_request: str | None = None
    resume_request: str | None = None
    urgent_request: str | None = None

    @property
    def gone(self) -> bool:
        return self.deleting and not self.finalizer and not self.held_back

    def parsed(self) -> RotationStatus:
        return RotationStatus.model_validate(self.status)


@dataclass
class FakeJournal:
    rotation_id: str
    previous: str | None
    pending: str | None = None

    def view(self) -> Journal:
        previous, pending = (SecretStr(value) if value is not None else None for value in (self.previous, self.pending))
        return Journal("journal", "1", self.rotation_id, previous, pending)


class Lab:
    """`plan` says which effect, by its number, is disturbed how; `actions`, what others do right after one."""

    def __init__(self, spec: RotationSpec, *, start: datetime = EPOCH) -> None:
        self.now = start
        self.ahead = timedelta()
        self.provider = FakeProvider(lambda: self.now)
        self.namespace = FakeNamespace(lambda: self.now)
        self.resource = FakeResource(spec)
        self.journal: FakeJournal | None = None
        self.account_gone = False
        self.policies: list[Policy] = []
        self.api_down = False
        self.plan: Mapping[int, Disturbance] = {}
        self.actions: dict[int, Callable[[], object]] = {}
        self.later: list[tuple[datetime, Callable[[], object]]] = []
        self.log: list[str] = []
        self.events: list[Announcement] = []
        self.refused: list[str] = []
        self.foreign: set[str | None] = set()
        """Values that others made up, or made invalid: calls with them are refused through no fault of ours."""
        self.tampered = False
        """Others have overwritten or deleted values."""
        self.ids = 0
        self.phases: set[Edge] = set()
        self.blockings: set[Edge] = set()
        self.blocked_in: Phase | None = None

    # What others do

    def deploy(self, name: str = "web", replicas: int = 2, **how: Any) -> FakeDeployment:
        deployment = FakeDeployment(name, replicas, **how)
        self.namespace.deploy(deployment)
        return deployment

    def hold(self, value: str | None) -> None:
        """Put the Secret in place, as it was before Keyturn."""
        self.namespace.secret = FakeSecret(value)

    def edit_secret(self, value: str | None) -> None:
        self.tampered = True
        secret = self.namespace.secret
        if secret is None:
            self.namespace.secret = FakeSecret(value)
        else:
            secret.value, secret.version = value, secret.version + 1

    def drop_secret(self) -> None:
        self.namespace.secret = None

    def act_at_provider(self, operation: Operation) -> None:
        """Somebody else uses the provider's console."""
        if (self.provider.pending is None) is (operation is Operation.START):
            dying = {Operation.FINALIZE: self.provider.current, Operation.CANCEL: self.provider.pending}
            self.foreign.add(dying.get(operation))
            self.provider.apply(operation, foreign=True)

    def edit_spec(self, **changes: Any) -> None:
        if not self.resource.deleting and isinstance(self.resource.spec, RotationSpec):
            self.resource.spec = self.resource.spec.model_copy(update=changes)
            self.resource.generation += 1
            self.resource.version += 1

    def say(self, **words: str | None) -> None:
        """The user's annotations: `cancel_request`, `resume_request`, `urgent_request`; None takes one away."""
        for name, text in words.items():
            setattr(self.resource, name, text)
        self.resource.version += 1

    def delete(self) -> None:
        self.resource.deleting = True
        self.resource.version += 1

    # Time

    @property
    def clock(self) -> datetime:
        """The operator's own, which is `ahead` of the others'."""
        return self.now + self.ahead

    def elapse(self, duration: timedelta) -> None:
        end = self.now + duration
        while self.now < end:
            self.now = min(end, self.now + TICK)
            if self.later:
                ready = [action for due, action in self.later if due <= self.now]
                self.later = [(due, action) for due, action in self.later if due > self.now]
                for action in ready:
                    action()
            self.namespace.tick()
            self.traffic()

    def after(self, delay: timedelta, action: Callable[[], object]) -> None:
        self.later.append((self.now + delay, action))

    def traffic(self) -> None:
        for pod in self.namespace.running():
            if pod.held in self.foreign or self.excused(pod):
                continue
            if pod.held is not None and not self.provider.accepts(pod.held):
                self.refused.append(f"{self.now:%T.%f} {pod.name} ({pod.stamp}) with {pod.held}")
        assert not self.refused, f"I3: {self.refused[0]}; {self.log}"

    def excused(self, pod: FakePod) -> bool:
        """Whether the user has accepted that calls of this pod may be refused now."""
        return False

    # What Keyturn does

    def effect(self, name: str, change: Callable[[], T], *, at_provider: bool = False) -> T:
        """Change something durable, unless the plan has it that this goes wrong here."""
        disturbance = self.plan.get(len(self.log))
        action = self.actions.get(len(self.log), lambda: None)
        self.log.append(name)
        if disturbance is Disturbance.CRASH_BEFORE:
            action()
            raise Crash(name)
        if at_provider and disturbance in (Disturbance.REPLY_LOST, Disturbance.REFUSED):
            self.provider.faults.appendleft(Fault.LOST if disturbance is Disturbance.REPLY_LOST else Fault.REFUSED)
        elif (self.api_down or disturbance is Disturbance.REFUSED) and not at_provider:
            action()
            raise ApiFailure(name)
        before, safe = self.provider.current, self.provider.current in self._kept()
        result = change()
        lost = (safe or self.provider.current != before) and self.provider.current not in self._kept()
        # Where a start call puts its value in force at once, it is the next effect that keeps it.
        lost = lost and not (name == Operation.START and not self.provider.capabilities.cancel)
        assert not lost or self.tampered, f"I2: the value in force is lost by {name}; {self.log}"
        action()
        self.elapse(EFFECT_TIME)
        if disturbance is Disturbance.CRASH_AFTER:
            raise Crash(name)
        if disturbance is Disturbance.REPLY_LOST and not at_provider:
            raise ApiFailure(name)
        return result

    def check_call(self, operation: Operation) -> None:
        """I1, I2, I4: what must be true in the moment in which a provider is told to change something."""
        record = self._recorded()
        journal, secret = self.journal, self.namespace.secret
        held = {pod.held for pod in self.namespace.running()} | {secret.value if secret else None}
        if operation is Operation.START:
            assert record.phase is Phase.STARTING, f"I1: start in phase {record.phase}"
            assert self.resource.finalizer, "I11: start without the finalizer"
            assert journal is not None, "I2: start without a journal"
            assert journal.pending is None, "I2: start over a value in the journal"
            assert journal.rotation_id == record.id, "I2: start with another rotation's journal"
        elif operation is Operation.FINALIZE:
            assert record.phase is Phase.FINALIZING, f"I1: finalize in phase {record.phase}"
            assert self.provider.current not in held - self.foreign, f"I4: {held} when finalizing"
            assert journal is not None, "I2: finalize without the journal"
        else:
            assert record.phase in (Phase.STARTING, Phase.CANCELLING), f"I1: cancel in phase {record.phase}"
            pending = self.provider.pending
            assert pending is None or pending not in held - self.foreign, f"I4: {held} when cancelling"

    def _recorded(self) -> RotationRecord:
        record = self.resource.parsed().rotation
        assert record is not None, "I1: no durable intent"
        return record

    def _kept(self) -> set[str | None]:
        """I2: the values that exist somewhere durable."""
        journal, secret = self.journal, self.namespace.secret
        return {secret.value if secret else None} | ({journal.previous, journal.pending} if journal else set())

    def check_nothing_leaks(self) -> None:
        told = json.dumps(self.resource.status) + repr(self.events)
        assert CANARY not in told, "I8: a secret value in status or events"

    def passed(self, before: Phase, after: Phase) -> None:
        if before is not after:
            allowed = BETWEEN | RUNNING[self.provider.capabilities.semantics]
            assert (before, after) in allowed, f"{before} was followed by {after}; {self.log}"
            self.phases.add((before, after))

    def ended_pass(self, step: Wait | Rest | None) -> None:
        """Watch a running rotation be blocked in its phase, and go on in the same one."""
        record = self.resource.parsed().rotation
        if isinstance(step, Wait) and step.blocked:
            if record is not None:
                assert record.phase in BLOCKED_IN[self.provider.capabilities.semantics], (record.phase, step)
                self.blocked_in = record.phase
                self.blockings.add((record.phase, Phase.BLOCKED))
        elif self.blocked_in is not None:
            self.blockings.add((Phase.BLOCKED, self.blocked_in))
            self.blocked_in = None

    # Running

    def run_to_effect(self, number: int) -> None:
        """Play the operator until so many effects from now, and let it crash there."""
        kept, self.plan = self.plan, {len(self.log) + number: Disturbance.CRASH_BEFORE}
        self.run(timedelta(seconds=60), stop_at_crash=True)
        self.plan = kept

    def run(self, limit: timedelta = timedelta(minutes=20), *, stop_at_crash: bool = False) -> Wait | Rest | None:
        """Play the operator and its queue until it rests, the resource is gone, or the time is over."""
        from tests.model.reconciler import reconcile  # noqa: PLC0415 - the two know each other

        end = self.now + limit
        while True:
            try:
                step = None if self.resource.gone else reconcile(self)
            except Crash:
                if stop_at_crash:
                    return None
                self.elapse(2 * SECOND)
                continue
            except ApiFailure:
                self.elapse(SECOND)
                if self.now >= end:
                    return None
                continue
            self.ended_pass(step)
            if step is None or isinstance(step, Rest) or self.now >= end:
                return step
            self.elapse(max(min(step.after or 5 * SECOND, 5 * SECOND), EFFECT_TIME))
