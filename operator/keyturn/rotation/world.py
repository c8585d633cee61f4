"""Everything that a decision may depend on, as one immutable value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import Final, Literal, TypeVar

from keyturn.api.observed import Consumers, Journal, SecretView
from keyturn.api.rotation import RolloutSpec, RotationRecord, RotationSpec, RotationStatus, Subject
from keyturn.api.semantics import Capabilities, Inspection, Outcome, Verification
from keyturn.rotation.consumers import RolloutView
from keyturn.rotation.policy import NO_POLICY, Ruling

T = TypeVar("T")


class Unobserved(Enum):
    """Not looked at in this pass, as opposed to looked at and absent (None)."""

    TOKEN = "Unobserved"


UNOBSERVED: Final = Unobserved.TOKEN
NotSeen = Literal[Unobserved.TOKEN]


class Aspect(StrEnum):
    """What can be looked at: the fields of a World that hold what was seen."""

    PROVIDER = "provider"
    SECRET = "secret"
    JOURNAL = "journal"
    CONSUMERS = "consumers"
    PERMIT = "permit"
    INSPECTION = "inspection"


class LookFirst(Exception):
    """A decision needs what was not looked at in this pass; `decide` turns it into an Observe step."""

    def __init__(self, *aspects: Aspect) -> None:
        super().__init__(*aspects)
        self.aspects = aspects


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something cannot go on. `lasting`: only a person can mend it, time alone does not."""

    reason: str
    message: str
    lasting: bool = True


@dataclass(frozen=True, slots=True)
class ProviderView:
    """The account that the subject refers to: its promise, or why it cannot be used.

    gone: the provider object or its credentials do not exist. account: tells accounts at providers apart.
    """

    capabilities: Capabilities | None = None
    problem: Problem | None = None
    gone: bool = False
    account: str | None = None


class Operation(StrEnum):
    """The calls that change something at a provider."""

    START = "start"
    FINALIZE = "finalize"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Call:
    """The last changing call of this pass and what became of it."""

    operation: Operation
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class World:
    """One resource and what was observed around it in this pass.

    spec: the validated spec, or the Problem that makes it unusable.
    conflict: why another resource stands in the way (I6), or None. contested: that another one claims what this one
    has or names; a rotation that runs is not stopped by it.
    budget: why policies have no room for one more rotation, as far as is known without asking. permit: the answer to
    asking, None where it may begin, or where nobody need be asked.
    fresh_id: the id of the rotation that begins in this pass, if one does.
    rehearsed: the API server agreed, without effect, to the writes that lie ahead.
    armed: the intent to start was written down in this pass, and no call has been made since.
    call: cleared by the next look at the provider.
    disproof: what the provider says of another value than the new one, see Verify.
    cancel_request, resume_request, urgent_request: the user's annotations keyturn.dev/cancel, resume and urgent.
    created: when the resource was created.
    ruling: what the RotationPolicies that cover it say.
    restarting: the workloads (kind, name) that rotations of other resources which run are to restart, and when the
    newest of these began; only where that makes a difference.
    """

    now: datetime
    name: str
    uid: str
    generation: int
    deleting: bool
    finalizer: bool
    spec: RotationSpec | Problem
    status: RotationStatus
    fresh_id: str
    conflict: Problem | None = None
    contested: Problem | None = None
    budget: Problem | None = None
    permit: Problem | NotSeen | None = None
    provider: ProviderView | NotSeen = UNOBSERVED
    secret: SecretView | NotSeen | None = UNOBSERVED
    journal: Journal | NotSeen | None = UNOBSERVED
    consumers: Consumers | NotSeen = UNOBSERVED
    inspection: Inspection | NotSeen = UNOBSERVED
    verification: Verification | None = None
    disproof: Verification | None = None
    cancel_request: str | None = None
    resume_request: str | None = None
    urgent_request: str | None = None
    namespace: str = ""
    created: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    ruling: Ruling = NO_POLICY
    restarting: Mapping[tuple[str, str], datetime] = field(default_factory=dict)
    rehearsed: bool = False
    armed: bool = False
    call: Call | None = None

    @property
    def record(self) -> RotationRecord:
        """The rotation that runs; only for decisions within one."""
        assert self.status.rotation is not None
        return self.status.rotation

    @property
    def subject(self) -> Subject:
        """What the running rotation is about, or what the next one would be about. Needs a valid spec or a record."""
        if self.status.rotation is not None:
            return self.status.rotation.subject
        assert isinstance(self.spec, RotationSpec)
        return subject_of(self.spec)

    @property
    def edited(self) -> bool:
        """Whether the spec speaks of something else by now than the rotation that runs."""
        return isinstance(self.spec, RotationSpec) and subject_of(self.spec) != self.record.subject

    @property
    def rollout_spec(self) -> RolloutSpec:
        """How workloads are to be restarted: as it was said last, while the spec is not valid."""
        if isinstance(self.spec, RotationSpec):
            return self.spec.rollout
        running = self.status.rotation
        return (running.rollout if running is not None else None) or RolloutSpec()

    def look_at(self, *aspects: Aspect) -> None:
        """What a decision will need in any case is looked at together: one round trip, not one each."""
        missing = [aspect for aspect in aspects if getattr(self, aspect) is UNOBSERVED]
        if missing:
            raise LookFirst(*missing)

    def see_provider(self) -> ProviderView:
        """The account; one that is not the rotation's own any more must not be taken for it."""
        view, running = _seen(self.provider, Aspect.PROVIDER), self.status.rotation
        if running is None or None in (running.account, view.account) or running.account == view.account:
            return view
        ref = running.subject.provider_ref
        message = f"{ref.kind} {ref.name} now speaks of {view.account}, and the rotation began at {running.account}"
        return ProviderView(
            problem=Problem("ProviderChanged", f"{message}: change it back until the rotation has ended")
        )

    def see_secret(self) -> SecretView | None:
        return _seen(self.secret, Aspect.SECRET)

    def see_permit(self) -> Problem | None:
        return _seen(self.permit, Aspect.PERMIT)

    def see_journal(self) -> Journal | None:
        return _seen(self.journal, Aspect.JOURNAL)

    def see_consumers(self) -> Consumers:
        return _seen(self.consumers, Aspect.CONSUMERS)

    def see_rollout(self) -> RolloutView:
        """The consumers from where the running rotation stands."""
        return RolloutView(self.see_consumers(), self.record, self.rollout_spec, self.now)

    def see_inspection(self) -> Inspection:
        """Where the provider stands, relative to the journal: so that is looked at before the provider is asked."""
        self.see_journal()
        return _seen(self.inspection, Aspect.INSPECTION)


def subject_of(spec: RotationSpec) -> Subject:
    """What a rotation by this spec is about."""
    return Subject(provider_ref=spec.provider_ref, client_id=spec.client_id, secret_ref=spec.secret_ref)


def _seen(value: T | NotSeen, aspect: Aspect) -> T:
    if value is UNOBSERVED:
        raise LookFirst(aspect)
    return value
