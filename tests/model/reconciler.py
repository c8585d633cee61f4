"""The reconciler's part of the contract with the core, against the lab: observe, decide, act, record.

This is `keyturn.controller` without I/O, and must stay of one mind with it: an effect replaces or forgets what it
changed; a written phase forgets what was seen before it, except what Preparing has just seen at the provider.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import SecretStr

from keyturn.api.observed import Journal
from keyturn.api.rotation import Phase, RotationStatus
from keyturn.api.semantics import Inspection, Standing
from keyturn.rotation.lifecycle import decide
from keyturn.rotation.policy import ruling
from keyturn.rotation.report import Reportable, announcements, report
from keyturn.rotation.steps import (
    Advance,
    CallProvider,
    DeletePods,
    DropJournal,
    Enter,
    Finish,
    KeepPending,
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
    after_recording,
)
from keyturn.rotation.world import UNOBSERVED, Aspect, Call, Operation, Problem, ProviderView, World
from tests.model.fakecluster import FakeSecret
from tests.model.lab import EFFECT_TIME, EPOCH, ApiFailure, Conflict, FakeJournal, Lab

MOST_STEPS = 60
_AFTER = {Operation.FINALIZE: Standing.FINISHED, Operation.CANCEL: Standing.UNROTATED}


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
        self.version = resource.version
        lab.ids += 1
        self.world = World(
            now=lab.clock,
            name="app",
            uid="uid-1",
            generation=resource.generation,
            deleting=resource.deleting,
            finalizer=resource.finalizer,
            spec=resource.spec,
            status=self.written,
            fresh_id=f"r{lab.ids:04}",
            cancel_request=resource.cancel_request,
            resume_request=resource.resume_request,
            urgent_request=resource.urgent_request,
            namespace="default",
            created=EPOCH,
            ruling=ruling(lab.policies, lab.clock),
        )

    def run(self) -> Wait | Rest | None:
        taken: list[Step] = []
        try:
            return self._loop(taken)
        except Conflict:
            raise
        except ApiFailure:
            trouble = Wait("ApiServerUnavailable", "the API server did not answer")
            with contextlib.suppress(ApiFailure):
                self._write(trouble)
            raise

    def _loop(self, taken: list[Step]) -> Wait | Rest | None:
        while not self.lab.resource.gone:
            if self.world.now != self.lab.clock:
                self._learn(now=self.lab.clock)
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
            case Observe(aspects):
                for aspect in aspects:
                    self._observe(aspect)
            case Rest() if self.world.deleting:
                pass
            case Wait() | Rest():
                self._write(step)
            case Enter() | Finish():
                kept = after_recording(self.world, step)
                self._write(step)
                self.world = replace(kept, status=self.world.status)
            case Advance(record):
                self._learn(status=self.world.status.model_copy(update={"rotation": record}))
            case SetFinalizer(present):
                name = f"finalizer {'+' if present else '-'}"
                self.version = lab.effect(name, lambda: self._set_finalizer(present))
                self._learn(finalizer=present)
            case OpenJournal(previous):
                lab.effect("journal", lambda: self._open_journal(previous))
                self._observe(Aspect.JOURNAL)
            case DropJournal():
                lab.effect("drop journal", self._drop_journal)
                self._learn(journal=None)
            case Rehearse():
                self.world.see_secret()  # the controller needs it for that
                self._learn(rehearsed=True)
            case KeepPending(value):
                self._keep_until_kept(value)
            case CallProvider():
                self._call(step)
            case Verify(value, dropped):
                self._learn(**{"disproof" if dropped else "verification": lab.provider.verify(value)})
            case Publish(value, previous):
                lab.effect("secret", lambda: self._publish(_text(value), _text(previous)))
                self._observe(Aspect.SECRET)
            case DeletePods(pods):
                names = {pod.name for pod in pods}
                lab.effect("delete pods", lambda: self._delete_pods(names))
                self._learn(consumers=UNOBSERVED)
            case Restart(workloads, stamp, _):
                assert workloads, "a restart of nothing"
                for workload in workloads:
                    lab.effect(f"restart {workload.name}", partial(self._restart, workload.name, stamp))
                self._learn(consumers=UNOBSERVED)

    def _learn(self, **changes: Any) -> None:
        self.world = replace(self.world, **changes)

    def _observe(self, aspect: Aspect) -> None:
        lab, secret = self.lab, self.lab.namespace.secret
        match aspect:
            case Aspect.PROVIDER:
                missing = Problem("ProviderNotFound", "RotationProvider stytch does not exist: create it")
                view = (
                    ProviderView(problem=missing, gone=True)
                    if lab.account_gone
                    else ProviderView(lab.provider.capabilities)
                )
                self._learn(provider=view)
            case Aspect.SECRET:
                self._learn(secret=secret.view() if secret else None)
            case Aspect.JOURNAL:
                self._learn(journal=lab.journal.view() if lab.journal else None)
            case Aspect.CONSUMERS:
                self._learn(consumers=lab.namespace.consumers())
            case Aspect.INSPECTION:
                # As the controller does: the provider is compared with the journal that was seen, if one was.
                journal = self.world.journal if isinstance(self.world.journal, Journal) else None
                known = (journal.pending, journal.previous) if journal else (None, None)
                self._learn(inspection=lab.provider.inspect(*known))

    def _write(self, step: Reportable) -> None:
        status = report(self.world, step)
        wire = status.to_wire()
        if wire != self.lab.resource.status:
            parsed = RotationStatus.model_validate(wire)
            assert parsed.to_wire() == wire, "the status does not survive being stored"
            # What was verified before a rotation begins is not its new value: only then the two reports differ.
            begins = isinstance(step, Enter) and self.written.rotation is None
            if not isinstance(step, Finish) and not begins:
                again = report(replace(self.world, status=parsed), step)
                assert again.to_wire() == wire, "reporting twice changes the status"
            self.version = self.lab.effect(f"status {status.phase}", lambda: self._store(wire))
            self.lab.events += announcements(self.written, status, step)
            self.written = parsed
            self.lab.check_nothing_leaks()
        self._learn(status=status)

    def _store(self, wire: dict[str, Any]) -> int:
        version = self._expect_unchanged()
        self.lab.resource.status = wire
        return version

    def _expect_unchanged(self) -> int:
        """The resourceVersion precondition of every write to the resource; whoever gets no answer has the old one."""
        if self.lab.resource.version != self.version:
            raise Conflict("status")
        self.lab.resource.version += 1
        return self.lab.resource.version

    def _set_finalizer(self, present: bool) -> int:
        resource = self.lab.resource
        version = self._expect_unchanged()
        assert not (present and resource.deleting), "the API server refuses a finalizer on what is being deleted"
        resource.finalizer = present
        return version

    def _open_journal(self, previous: SecretStr | None) -> None:
        if self.lab.journal is not None:
            return
        assert self.world.status.rotation is not None
        self.lab.journal = FakeJournal(self.world.status.rotation.id, _text(previous))

    def _drop_journal(self) -> None:
        self.lab.journal = None

    def _publish(self, value: str | None, previous: str | None) -> None:
        lab, journal = self.lab, self.lab.journal
        assert journal is not None, "I2: a value is handed out that the journal does not hold"
        assert value in (journal.previous, journal.pending), "I2: a value is handed out that the journal does not hold"
        wanted = previous if self.world.subject.secret_ref.previous_key else None
        secret, seen = lab.namespace.secret or FakeSecret(None), self.world.see_secret()
        if (seen.resource_version if seen else "1") != str(secret.version):
            raise Conflict("secret")
        if (secret.value, secret.previous) != (value, wanted):
            secret.value, secret.previous, secret.written, secret.version = value, wanted, lab.now, secret.version + 1
        lab.namespace.secret = secret

    def _call(self, step: CallProvider) -> None:
        lab, operation, journal = self.lab, step.operation, self.world.see_journal()
        lab.check_call(operation)
        previous = journal.previous if journal else None
        answer = lab.effect(operation, lambda: lab.provider.call(operation, previous, step.overlap), at_provider=True)
        if answer.secret is not None:
            self._keep_until_kept(answer.secret)
        standing = _AFTER.get(operation) if answer.outcome.ok else None
        inspection = Inspection(answer.outcome, standing) if standing else UNOBSERVED
        self._learn(call=Call(operation, answer.outcome), inspection=inspection, armed=False)

    def _keep_until_kept(self, pending: SecretStr) -> None:
        while True:
            try:
                self.lab.effect("journal pending", lambda: self._keep(pending))
            except ApiFailure:
                self.lab.elapse(EFFECT_TIME)
                continue
            return self._observe(Aspect.JOURNAL)

    def _keep(self, pending: SecretStr) -> None:
        seen = self.world.see_journal()
        assert seen is not None
        self.lab.journal = self.lab.journal or FakeJournal(seen.rotation_id, _text(seen.previous))
        self.lab.journal.pending = _text(pending)

    def _delete_pods(self, names: set[str]) -> None:
        self.lab.namespace.end_pods(pod for pod in self.lab.namespace.pods if pod.name in names)

    def _restart(self, name: str, stamp: str) -> None:
        if name in self.lab.namespace.deployments:
            self.lab.namespace.deployments[name].restart(stamp)


def _text(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value is not None else None


def _stage(status: RotationStatus) -> Phase:
    """The phase that the core works in, also while people are told that it is blocked."""
    return status.rotation.phase if status.rotation is not None else status.phase
