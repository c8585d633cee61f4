"""The reconciler's part of the contract with the core, against the lab: observe, decide, act, record.

What lives within one pass only: `call`, `inspection`, `verification`, `rehearsed`. An effect replaces or forgets what
it changed; the end of a rotation forgets everything.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import SecretStr

from keyturn.api.rotation import Phase, RotationStatus
from keyturn.rotation.lifecycle import decide
from keyturn.rotation.report import Reportable, announcements, report
from keyturn.rotation.steps import (
    Advance,
    CallProvider,
    DropJournal,
    Enter,
    Finish,
    Observe,
    OpenJournal,
    Publish,
    Rehearse,
    Rest,
    Restart,
    SetFinalizer,
    Step,
    Verify,
    Wait,
)
from keyturn.rotation.world import UNOBSERVED, Aspect, Call, Operation, Problem, ProviderView, World
from tests.unit.fakecluster import FakeSecret
from tests.unit.fakeprovider import STAGED
from tests.unit.lab import ApiFailure, FakeJournal, Lab

MOST_STEPS = 60


def reconcile(lab: Lab) -> Wait | Rest | None:
    """One pass; None when the resource went away in it."""
    if lab.api_down:
        raise ApiFailure("get")
    return _Pass(lab).run()


class _Pass:
    def __init__(self, lab: Lab) -> None:
        resource = lab.resource
        self.lab = lab
        self.written = resource.parsed()
        lab.ids += 1
        self.world = World(
            now=lab.now,
            name="app",
            uid="uid-1",
            generation=resource.generation,
            deleting=resource.deleting,
            finalizer=resource.finalizer,
            spec=resource.spec,
            status=self.written,
            fresh_id=f"r{lab.ids:04}",
        )

    def run(self) -> Wait | Rest | None:
        taken: list[Step] = []
        while not self.lab.resource.gone:
            self.world = replace(self.world, now=self.lab.now)
            step = decide(self.world)
            taken.append(step)
            assert len(taken) < MOST_STEPS, f"decide goes round in circles: {taken[-6:]}"
            before = _stage(self.world.status)
            self._take(step)
            self.lab.passed(before, _stage(self.world.status))
            if isinstance(step, Wait | Rest):
                return step
        return None

    def _take(self, step: Step) -> None:  # noqa: C901, PLR0912 - a table of all steps
        lab = self.lab
        match step:
            case Observe(aspect):
                self._observe(aspect)
            case Wait() | Rest() | Enter():
                self._write(step)
            case Advance(record):
                self._learn(status=self.world.status.model_copy(update={"rotation": record}))
            case Finish():
                self._write(step)
                unseen = dict.fromkeys(("provider", "secret", "journal", "consumers", "inspection"), UNOBSERVED)
                self._learn(**unseen, verification=None, rehearsed=False, call=None)
            case SetFinalizer(present):
                lab.effect(f"finalizer {'+' if present else '-'}", lambda: self._set_finalizer(present))
                self._learn(finalizer=present)
            case OpenJournal(previous):
                lab.effect("journal", lambda: self._open_journal(previous))
                self._observe(Aspect.JOURNAL)
            case DropJournal():
                lab.effect("drop journal", self._drop_journal)
                self._learn(journal=None)
            case Rehearse():
                self._learn(rehearsed=True)
            case CallProvider(operation):
                self._call(operation)
            case Verify(value):
                self._learn(verification=lab.provider.verify(value))
            case Publish(value, previous):
                lab.effect("secret", lambda: self._publish(_text(value), _text(previous)))
                self._observe(Aspect.SECRET)
            case Restart(workloads, stamp):
                assert workloads, "a restart of nothing"
                for workload in workloads:
                    deployment = lab.namespace.deployments[workload.name]
                    lab.effect(f"restart {workload.name}", lambda it=deployment: it.restart(stamp))  # type: ignore[misc]
                self._learn(consumers=UNOBSERVED)

    def _learn(self, **changes: Any) -> None:
        self.world = replace(self.world, **changes)

    def _observe(self, aspect: Aspect) -> None:
        lab, secret = self.lab, self.lab.namespace.secret
        match aspect:
            case Aspect.PROVIDER:
                missing = Problem("ProviderNotFound", "RotationProvider stytch does not exist: create it")
                view = ProviderView(problem=missing, gone=True) if lab.account_gone else ProviderView(STAGED)
                self._learn(provider=view)
            case Aspect.SECRET:
                self._learn(secret=secret.view() if secret else None)
            case Aspect.JOURNAL:
                self._learn(journal=lab.journal.view() if lab.journal else None)
            case Aspect.CONSUMERS:
                self._learn(consumers=lab.namespace.consumers())
            case Aspect.INSPECTION:
                pending = lab.journal.view().pending if lab.journal else None
                self._learn(inspection=lab.provider.inspect(pending), call=None)

    def _write(self, step: Reportable) -> None:
        status = report(self.world, step)
        wire, parsed = status.to_wire(), self.written
        if wire != self.lab.resource.status:
            parsed = RotationStatus.model_validate(wire)
            assert parsed.to_wire() == wire, "the status does not survive being stored"
            assert report(self.world, step) == status, "report is not deterministic"
            if not isinstance(step, Finish):
                again = report(replace(self.world, status=parsed), step)
                assert again.to_wire() == wire, "reporting twice changes the status"
            self.lab.effect(f"status {status.phase}", lambda: self._store(wire))
            self.lab.events += announcements(self.written, status, step)
            self.written = parsed
        self._learn(status=parsed)

    def _store(self, wire: dict[str, Any]) -> None:
        self.lab.resource.status = wire

    def _set_finalizer(self, present: bool) -> None:
        resource = self.lab.resource
        assert not (present and resource.deleting), "the API server refuses a finalizer on what is being deleted"
        resource.finalizer = present

    def _open_journal(self, previous: SecretStr | None) -> None:
        assert self.lab.journal is None
        assert self.world.status.rotation is not None
        self.lab.journal = FakeJournal(self.world.status.rotation.id, _text(previous))

    def _drop_journal(self) -> None:
        self.lab.journal = None

    def _publish(self, value: str | None, previous: str | None) -> None:
        lab, journal = self.lab, self.lab.journal
        assert journal is not None, "I2: a value is handed out that the journal does not hold"
        assert value in (journal.previous, journal.pending), "I2: a value is handed out that the journal does not hold"
        wanted = previous if self.world.subject.secret_ref.previous_key else None
        secret = lab.namespace.secret or FakeSecret(None)
        if (secret.value, secret.previous) != (value, wanted):
            secret.value, secret.previous, secret.written, secret.version = value, wanted, lab.now, secret.version + 1
        lab.namespace.secret = secret

    def _call(self, operation: Operation) -> None:
        lab = self.lab
        lab.check_call(operation)
        answer = lab.effect(operation, lambda: lab.provider.call(operation), at_provider=True)
        if answer.secret is not None:
            pending = answer.secret
            lab.effect("journal pending", lambda: self._keep(pending))
            self._observe(Aspect.JOURNAL)
        self._learn(call=Call(operation, answer.outcome), inspection=UNOBSERVED)

    def _keep(self, pending: SecretStr) -> None:
        assert self.lab.journal is not None
        self.lab.journal.pending = _text(pending)


def _text(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value is not None else None


def _stage(status: RotationStatus) -> Phase:
    """The phase that the core works in, also while people are told that it is blocked."""
    return status.rotation.phase if status.rotation is not None else status.phase
