"""`RotationPolicy`: rules that a platform team sets for many rotations at once. Cluster-scoped."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from keyturn.api.base import Duration, KubeModel, Time, WrittenTime
from keyturn.api.conditions import Condition
from keyturn.api.rotation import CLIENT_ID_PATTERN, LabelSelector
from keyturn.api.schedule import TimeZone, Window

POLICY_KIND: Final = "RotationPolicy"

Limit = Annotated[int, Field(ge=1, le=10_000)]


class Freeze(KubeModel):
    """A time in which no rotation begins."""

    # As client ids: no control characters, and no space at either end.
    reason: Annotated[str, Field(min_length=1, max_length=256, pattern=CLIENT_ID_PATTERN)]
    """Why; every rotation that waits for it says so."""
    until: WrittenTime | None = None
    """When it ends by itself, such as 2027-01-07T08:00:00Z; without it, when it is taken out."""


class Concurrency(KubeModel):
    """How many rotations may run at the same time. What is urgent counts, and does not wait."""

    cluster: Limit | None = None
    """In the whole cluster."""
    per_namespace: Limit | None = None
    """In each namespace."""
    per_provider: Limit | None = None
    """At each account of a provider, however many provider objects speak of it."""


class RotationPolicySpec(KubeModel):
    """Which rotations are covered, and what holds for them. Where several policies do, the strictest of each counts."""

    namespace_selector: LabelSelector = LabelSelector()
    """The namespaces that it covers, by their labels; by default all."""
    rotation_selector: LabelSelector = LabelSelector()
    """Of the rotations in these namespaces those that it covers, by their labels; by default all."""
    max_age: Duration | None = None
    """How old a secret may become. A rotation whose `schedule` has neither `interval` nor `cron` takes it for its
    interval; one whose schedule is slower is rotated when this age is reached."""
    time_zone: TimeZone = "UTC"
    """Time zone of windows that name none, as the IANA database names it, such as Europe/Berlin."""
    windows: Annotated[list[Window], Field(max_length=10)] = []
    """When rotations may run that have no windows of their own: see `schedule.windows` of a ClientSecretRotation."""
    freeze: Freeze | None = None
    """No rotation begins, but for urgent ones. Those that run go on to their end."""
    min_gap: Duration | None = None
    """How long after a rotation that restarts a workload has begun the next one may that restarts it, too. Only an
    urgent one does not wait."""
    concurrency: Concurrency = Concurrency()
    """How many of the rotations that are covered may run at the same time."""


class MaxAgeInForce(KubeModel):
    """The maximum age that is followed: what was older when it came into force is rotated little by little."""

    max_age: Duration
    """The age."""
    since: Time
    """When it was seen first."""


class Permit(KubeModel):
    """A rotation that counts against `concurrency`: it runs, or is about to begin."""

    namespace: str
    """The rotation's namespace."""
    name: str
    """The rotation's name."""
    account: str
    """The account at the provider."""
    since: Time
    """When it was let begin."""


class RotationPolicyStatus(KubeModel):
    """What Keyturn makes of the policy."""

    observed_generation: int | None = None
    """The generation of the spec that this status speaks of."""
    conditions: list[Condition] = []
    """`Ready`: the policy is in force. One that makes no sense lets nothing begin but urgent rotations."""
    rotations: int | None = None
    """How many rotations it covers; counted anew at most every half a minute."""
    max_age_in_force: MaxAgeInForce | None = None
    """Since when the maximum age has been what it is."""
    running: list[Permit] = []
    """The rotations that `concurrency` lets run; a few seconds before they begin, and until they have ended."""
