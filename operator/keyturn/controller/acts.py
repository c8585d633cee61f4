"""Carrying out single steps: each takes the world and gives back the world with what was learned."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, TypeVar

from pydantic import SecretStr

from keyturn.api.observed import Journal, Pod, Workload
from keyturn.api.semantics import Inspection, Outcome, Standing
from keyturn.cluster import secrets, workloads
from keyturn.cluster.answers import disown_answer, keep_answer
from keyturn.cluster.client import Kube
from keyturn.cluster.errors import ClusterError, Conflict, Invalid, NotFound
from keyturn.cluster.observer import Observers
from keyturn.cluster.resources import PODS
from keyturn.controller.accounts import Accounts
from keyturn.controller.paced import PacedProvider
from keyturn.controller.permits import Permits
from keyturn.controller.spool import Entry, Spool
from keyturn.rotation.due import must_begin
from keyturn.rotation.steps import (
    CallProvider,
    DeletePods,
    DropJournal,
    KeepPending,
    Observe,
    OpenJournal,
    Publish,
    Rehearse,
    Restart,
    Step,
    Verify,
)
from keyturn.rotation.world import UNOBSERVED, Aspect, Call, Operation, World

T = TypeVar("T")

_log = logging.getLogger(__name__)
_KEEP_RETRY_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_LONGEST_KEEP_RETRY_SECONDS: Final = 10.0
"""Whatever the API server asks for: the value exists nowhere else meanwhile."""
_REHEARSAL_STAMP: Final = "rehearsal"


class Acts:
    """The acts of one pass. All raise ClusterError; what a provider does is in the world that they return."""

    def __init__(
        self,
        kube: Kube,
        accounts: Accounts,
        observers: Observers,
        owner: secrets.Owner,
        permits: Permits,
        spool: Spool | None,
    ) -> None:
        self._permits = permits
        self._spool = spool
        self._kube = kube
        self._accounts = accounts
        self._observers = observers
        self._owner = owner
        self._provider: PacedProvider | None = None

    async def perform(self, step: Step, world: World) -> World:
        """Carry out a step that touches something other than the rotation's own object."""
        match step:
            case Observe(what):
                return await self._observe(what, world)
            case Rehearse():
                return await self._rehearse(step, world)
            case OpenJournal(previous):
                return await self._open_journal(previous, world)
            case DropJournal():
                return await self._drop_journal(world)
            case CallProvider():
                return await self._call(step, world)
            case KeepPending(value):
                return replace(
                    world, journal=await secrets.keep_pending(self._kube, self._owner, _opened(world), value)
                )
            case Verify(value, dropped):
                answer = await self._account().verify(world.subject.client_id, value)
                return replace(world, disproof=answer) if dropped else replace(world, verification=answer)
            case Publish():
                return await self._publish(step, world)
            case Restart() | DeletePods():
                return await self._replace_pods(step, world)
        raise TypeError(f"not an act: {type(step).__name__}")

    def reserve_start(self, world: World) -> Outcome | None:
        """Set the start call's turn aside, before the intent to make it is written; or why it has to wait."""
        return self._account().reserve_start(inspected=world.inspection is not UNOBSERVED)

    async def _observe(self, what: tuple[Aspect, ...], world: World) -> World:
        seen = await _together(*(self._look(aspect, world) for aspect in what))
        return replace(world, **dict(zip(what, seen, strict=True)))

    async def _look(self, what: Aspect, world: World) -> Any:
        """What is seen of an aspect: the value of the World's field of that name."""
        if what is Aspect.JOURNAL:
            # Also looked for, to tidy up, where the spec has become invalid right after a rotation and names nothing.
            journal, running = await secrets.read_journal(self._kube, self._owner), world.status.rotation
            if journal is None and (world.finalizer if running is None else running.start_sent):
                await secrets.confirm_no_journal(self._kube, self._owner)
            return journal
        namespace, subject = self._owner.namespace, world.subject
        if what is Aspect.PERMIT:
            key, account = (namespace, self._owner.name), world.see_provider().account
            return await self._permits.take(key, account, urgent=must_begin(world))
        if what is Aspect.PROVIDER:
            view, self._provider = await self._accounts.find(namespace, subject.provider_ref)
            return view
        if what is Aspect.SECRET:
            return await secrets.read_secret(self._kube, namespace, subject.secret_ref)
        if what is Aspect.CONSUMERS:
            key = namespace, self._owner.name
            return await self._observers.look(key, subject.secret_ref.name, world.rollout_spec)
        journal = world.journal if isinstance(world.journal, Journal) else None
        return await self._account().inspect(
            subject.client_id,
            previous=journal.previous if journal else None,
            pending=journal.pending if journal else None,
        )

    async def _rehearse(self, step: Rehearse, world: World) -> World:
        secret, ref = world.see_secret(), world.subject.secret_ref
        placeholder, namespace = SecretStr(_REHEARSAL_STAMP), self._owner.namespace
        writes: list[Awaitable[object]] = [
            secrets.publish(
                self._kube,
                self._owner,
                ref,
                world.subject.client_id,
                secret,
                value=placeholder,
                previous=placeholder,
                dry_run=True,
            )
        ]
        if not isinstance(world.journal, Journal):
            writes.append(secrets.open_journal(self._kube, self._owner, _REHEARSAL_STAMP, placeholder, dry_run=True))
        writes += [
            workloads.restart(self._kube, namespace, workload, _REHEARSAL_STAMP, world.now, dry_run=True)
            for workload in step.workloads
        ]
        await _together(*writes)
        return replace(world, rehearsed=True)

    async def _open_journal(self, previous: SecretStr | None, world: World) -> World:
        try:
            journal = await secrets.open_journal(self._kube, self._owner, world.record.id, previous)
        except Conflict:
            return replace(world, journal=UNOBSERVED)
        return replace(world, journal=journal)

    async def _drop_journal(self, world: World) -> World:
        journal = world.see_journal()
        if journal is not None:
            await secrets.drop_journal(self._kube, self._owner, journal)
        return replace(world, journal=None)

    async def _call(self, step: CallProvider, world: World) -> World:
        client, provider, operation = world.subject.client_id, self._account(), step.operation
        if operation is Operation.START:
            # Once the request is under way its answer must reach the journal, whatever becomes of this worker.
            return await _uninterrupted(asyncio.ensure_future(self._start(step.overlap, replace(world, armed=False))))
        if operation is Operation.CANCEL and isinstance(world.journal, Journal) and world.journal.pending is None:
            # A process that led before may still be bringing the answer that is withdrawn here.
            world = replace(world, journal=await disown_answer(self._kube, self._owner, world.journal))
        act: Callable[[str], Awaitable[Outcome]]
        act, standing = (
            (provider.finalize, Standing.FINISHED)
            if operation is Operation.FINALIZE
            else (provider.cancel, Standing.UNROTATED)
        )
        outcome = await act(client)
        _log_call(operation, outcome, self._context(world))
        inspection = Inspection(outcome, standing) if outcome.ok else UNOBSERVED
        # A call can take a minute: what is in the Secret by now has to be looked at again.
        return replace(world, inspection=inspection, call=Call(operation, outcome), secret=UNOBSERVED)

    async def _start(self, overlap: timedelta, world: World) -> World:
        journal = _opened(world)
        issued = await self._account().start(world.subject.client_id, current=journal.previous, overlap=overlap)
        _log_call(Operation.START, issued.outcome, self._context(world))
        call = Call(Operation.START, issued.outcome)
        if issued.secret is None:
            return replace(world, inspection=UNOBSERVED, call=call)
        kept = await self._keep(journal, issued.secret, self._context(world))
        return replace(world, journal=UNOBSERVED if kept is None else kept, inspection=UNOBSERVED, call=call)

    async def _keep(self, journal: Journal, pending: SecretStr, context: dict[str, str]) -> Journal | None:
        """Write the answer to the journal (I2); it exists nowhere else, so this tries until it succeeds.

        None: the rotation is somebody else's by now, who does not want it any more.
        """
        await self._spool_pending(Entry(self._owner, journal.rotation_id, pending, journal.resource_version), context)
        kept = await self._keep_pending(journal, pending, context)
        if kept is None:
            _log.warning("the new value is dropped: this rotation went on without it", extra=context)
        if self._spool is not None:
            self._spool.drop(self._owner, journal.rotation_id)
        return kept

    async def _keep_pending(self, journal: Journal, pending: SecretStr, context: dict[str, str]) -> Journal | None:
        # Also when the lease was lost meanwhile: nobody else has this value.
        kube = self._kube.restricted(None)
        for attempt in itertools.count():
            try:
                return await keep_answer(kube, self._owner, journal, pending)
            except ClusterError as error:
                _log.error("the new value waits in memory for its journal: %s", error, extra=context)
                asked = error.retry_after.total_seconds() if error.retry_after is not None else 0.0
            pause = _KEEP_RETRY_SECONDS[min(attempt, len(_KEEP_RETRY_SECONDS) - 1)]
            await asyncio.sleep(max(pause, min(asked, _LONGEST_KEEP_RETRY_SECONDS)))
        raise AssertionError("unreachable")

    async def _spool_pending(self, entry: Entry, context: dict[str, str]) -> None:
        if self._spool is None:
            return
        try:
            await asyncio.to_thread(self._spool.keep, entry)
        except OSError as error:
            _log.error("the new value could not be spooled: %s", error, extra=context)

    async def _publish(self, step: Publish, world: World) -> World:
        view = await secrets.publish(
            self._kube,
            self._owner,
            world.subject.secret_ref,
            world.subject.client_id,
            world.see_secret(),
            value=step.value,
            previous=step.previous,
        )
        _log.info("wrote Secret %s", view.name, extra=self._context(world))
        return replace(world, secret=view, consumers=UNOBSERVED)

    async def _replace_pods(self, step: Restart | DeletePods, world: World) -> World:
        """All at once: where the old value is dead already, every workload that waits is refused meanwhile."""
        context = self._context(world)
        if isinstance(step, Restart):
            acts = [self._restart_one(workload, step, context) for workload in step.workloads]
        else:
            acts = [self._delete_pod(pod, context) for pod in step.pods]
        await _together(*acts)
        return replace(world, consumers=UNOBSERVED)

    async def _restart_one(self, workload: Workload, step: Restart, context: dict[str, str]) -> None:
        try:
            await workloads.restart(self._kube, self._owner.namespace, workload, step.stamp, step.written)
        except (NotFound, Invalid):
            # Applying to a Deployment that was deleted meanwhile would make a new one, which is refused as invalid.
            if await workloads.exists(self._kube, self._owner.namespace, workload):
                raise
        else:
            _log.info("restarted %s/%s", workload.kind, workload.name, extra=context)

    async def _delete_pod(self, pod: Pod, context: dict[str, str]) -> None:
        with contextlib.suppress(NotFound):
            await self._kube.delete(PODS, self._owner.namespace, pod.name, uid=pod.uid)
            _log.info("deleted pod %s, which kept %s/%s from going back", pod.name, *pod.owner, extra=context)

    def _account(self) -> PacedProvider:
        assert self._provider is not None
        return self._provider

    def _context(self, world: World) -> dict[str, str]:
        record = world.status.rotation
        return {"object": f"{self._owner.namespace}/{self._owner.name}", "rotation": record.id if record else ""}


def _opened(world: World) -> Journal:
    journal = world.see_journal()
    assert journal is not None  # the lifecycle opens it first
    return journal


async def _together(*acts: Awaitable[T]) -> list[T]:
    """What each of them gives, in order. All come to an end; then the first failure in that order is raised."""
    ends = await asyncio.gather(*acts, return_exceptions=True)
    failure = next((end for end in ends if isinstance(end, BaseException)), None)
    if failure is not None:
        raise failure
    return [end for end in ends if not isinstance(end, BaseException)]


async def _uninterrupted(task: asyncio.Future[T]) -> T:
    """Wait for the task to end even if the waiting one is cancelled, and only then let the cancellation through."""
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _log_call(operation: Operation, outcome: Outcome, context: dict[str, str]) -> None:
    if outcome.ok:
        _log.info("provider: %s done (request %s)", operation, outcome.request_id or "-", extra=context)
    else:
        _log.warning("provider: %s %s: %s", operation, outcome.effect, outcome.message, extra=context)
