"""What a provider promises, and what became of a call: the vocabulary between providers and the rotation core."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from pydantic import SecretStr


class Overlap(StrEnum):
    """How long the provider accepts the old value besides the new one."""

    UNTIL_FINALIZED = "UntilFinalized"
    UNTIL_TIME = "UntilTime"
    NONE = "None"


class Recovery(StrEnum):
    """How the lost answer of a start call is made good (PROVIDERS.md part B, row R-A)."""

    CANCEL_AND_RESTART = "CancelAndRestart"
    READ_BACK = "ReadBack"
    PROBE_PREVIOUS = "ProbePrevious"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The promise of one provider; the rotation core branches on these fields and never on a provider's name.

    semantics: the user's word for the combination: Staged, Timed or Immediate.
    cancel: the new value can be withdrawn until it is finalized.
    finalize: an explicit call drops the old value (False: it dies by itself).
    needs_current: the start call is authorised by the value that it replaces.
    lost_remedy: what a person must do when the answer of a start call is lost for good.
    """

    semantics: str
    overlap: Overlap
    cancel: bool
    finalize: bool
    recovery: Recovery
    needs_current: bool = False
    lost_remedy: str = "find the new value at the provider"

    @property
    def verify_before_distributing(self) -> bool:
        """Whether the new value is proven before consumers get it; without an overlap every second counts."""
        return self.overlap is not Overlap.NONE


class Effect(StrEnum):
    """What a changing call did at the provider (I5): only NOT_APPLIED may be repeated without asking."""

    APPLIED = "Applied"
    NOT_APPLIED = "NotApplied"
    UNKNOWN = "Unknown"


class Failure(StrEnum):
    """Why a call did not succeed, as far as it decides what happens next."""

    UNREACHABLE = "Unreachable"
    """No connection, a timeout, a 5xx, an answer that is no answer: worth trying again later."""
    ADDRESS_NOT_PERMITTED = "AddressNotPermitted"
    """Nothing was sent: the provider object is a tenant's, and its host is where tenants may not have us connect to."""
    RATE_LIMITED = "RateLimited"
    """The provider says that it was asked too often."""
    HELD_BACK = "HeldBack"
    """Nothing was sent: it is not yet this call's turn, by the rate limit that Keyturn keeps to."""
    UNAUTHORIZED = "Unauthorized"
    """The provider object's own credentials are refused: a person must correct them."""
    CLIENT_NOT_FOUND = "ClientNotFound"
    REJECTED = "Rejected"
    """Understood and refused: the same request will be refused again."""


class Standing(StrEnum):
    """Where the provider stands, relative to the values that the rotation knows."""

    UNROTATED = "Unrotated"
    """Nothing is pending, and the value we know as pending (if any) is not the current one."""
    PENDING_OURS = "PendingOurs"
    PENDING_UNPROVEN = "PendingUnproven"
    """By its looks our value is pending, but the provider does not accept it: enough to withdraw it, not to rely on."""
    PENDING_UNKNOWN = "PendingUnknown"
    """A new value was issued that we do not know: our own lost answer, or somebody else's rotation.
    Where it can be read back, the inspection holds it."""
    FINISHED = "Finished"
    """The pending value is the current one; the previous one is gone, or lives on only until its time is up."""
    LOST = "Lost"
    """The value has been replaced by one that we do not know and that the provider never shows again."""
    UNTOLD = "Untold"
    """It cannot be told: the provider shows no state, and the values that we know prove nothing. Before anything was
    started this is no obstacle; after a lost answer only a person can find out."""


class Verdict(StrEnum):
    """What a provider says of one value."""

    ACCEPTED = "Accepted"
    REJECTED = "Rejected"
    INCONCLUSIVE = "Inconclusive"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call. `failure` is None exactly when the provider answered as documented for success.

    For calls that change nothing (inspect, verify, check) `effect` is always NOT_APPLIED.
    retry_after: how long the provider asks us to wait before the next call, where it says so.
    request_id: the provider's own id of the call, for its support, where it gives one.
    """

    effect: Effect
    failure: Failure | None = None
    message: str = ""
    retry_after: timedelta | None = None
    request_id: str | None = None

    @property
    def ok(self) -> bool:
        return self.failure is None


@dataclass(frozen=True, slots=True)
class Issued:
    """The outcome of a start call; `secret` is set exactly when the outcome is ok."""

    outcome: Outcome
    secret: SecretStr | None = None


@dataclass(frozen=True, slots=True)
class Inspection:
    """Where the provider stands; `standing` is None exactly when the outcome is not ok.

    recovered: the value that is now valid, where the provider lets an administrator read it back.
    """

    outcome: Outcome
    standing: Standing | None = None
    recovered: SecretStr | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """What the provider says of a value: REJECTED only when it said so, INCONCLUSIVE for everything else."""

    verdict: Verdict
    outcome: Outcome
