"""What Prometheus is told: how much work there was, how it ended, and how long it took.

Every label has a fixed set of values, so that no tenant can make series without end: whatever else comes counts as
`Other`. No name of an object is among them, and nothing that somebody has written. docs/metrics.md is the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from keyturn.api.base import API_VERSION
from keyturn.api.rotation import Phase, Result
from keyturn.api.semantics import Failure
from keyturn.cluster import errors, leases, resources
from keyturn.cluster.client import Resource, Verb
from keyturn.providers.registry import PROVIDERS

OTHER: Final = "Other"
OK: Final = "OK"


class QueueName(StrEnum):
    """What waits in a queue and is worked on: objects of these kinds."""

    ROTATIONS = "rotations"
    PROVIDERS = "providers"
    POLICIES = "policies"


class Priority(StrEnum):
    URGENT = "urgent"
    USUAL = "usual"


class PassEnd(StrEnum):
    """How a look at an object ended."""

    SETTLED = "settled"
    """Nothing to do until something changes."""
    AGAIN = "again"
    """It waits for something, and is looked at again."""
    ERROR = "error"
    """A defect of Keyturn."""


class ProviderOperation(StrEnum):
    CHECK = "check"
    INSPECT = "inspect"
    START = "start"
    VERIFY = "verify"
    FINALIZE = "finalize"
    CANCEL = "cancel"


def _requested() -> Iterator[str]:
    """All resources that Keyturn speaks of, and the statuses that it writes."""
    for found in (*vars(resources).values(), leases.LEASES):
        if isinstance(found, Resource):
            yield found.plural
            if found.api_version == API_VERSION:
                yield f"{found.plural}/status"


def _errors(kind: type[errors.ClusterError]) -> Iterator[str]:
    yield kind.reason
    for inner in kind.__subclasses__():
        yield from _errors(inner)


_PROVIDER: Final = {"provider": frozenset(PROVIDERS)}
_QUEUE: Final = {"queue": frozenset(QueueName)}
_OPERATION: Final = {"operation": frozenset(ProviderOperation)}
_QUICK: Final = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0)
_LONG: Final = (0.1, 0.5, 2.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)


@dataclass(frozen=True)
class Family:
    """One metric. labels: their names, with all the values that they may have beside `Other`; buckets: a histogram."""

    name: str
    help: str
    labels: Mapping[str, frozenset[str]] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()

    @property
    def type(self) -> str:
        return "histogram" if self.buckets else "counter" if self.name.endswith("_total") else "gauge"


ROTATIONS: Final = Family(
    "keyturn_rotations_total",
    "Rotations that have ended",
    {
        **_PROVIDER,
        "result": frozenset(Result),
        "reason": frozenset({"MaxAge", "RotationRequest", "Recovered", "Schedule", "Urgent"}),
    },
)
PHASES: Final = Family(
    "keyturn_phase_duration_seconds",
    "How long rotations were in each phase",
    {**_PROVIDER, "phase": frozenset(Phase)},
    _LONG,
)
PROVIDER_CALLS: Final = Family(
    "keyturn_provider_calls_total",
    "Calls to providers",
    {**_PROVIDER, **_OPERATION, "outcome": frozenset({OK, *Failure} - {Failure.HELD_BACK})},
)
PROVIDER_SECONDS: Final = Family(
    "keyturn_provider_call_duration_seconds",
    "How long calls to providers took",
    {**_PROVIDER, **_OPERATION},
    _QUICK,
)
API_REQUESTS: Final = Family(
    "keyturn_api_requests_total",
    "Requests to the API server of Kubernetes, but for those of Kopf's watches",
    {
        "verb": frozenset(Verb),
        "resource": frozenset(_requested()),
        "outcome": frozenset({OK, *_errors(errors.ClusterError)}),
    },
)
RECONCILES: Final = Family(
    "keyturn_reconcile_duration_seconds",
    "How long single looks at objects took, with all that was done about them",
    {**_QUEUE, "outcome": frozenset(PassEnd)},
    _QUICK,
)
WAITS: Final = Family(
    "keyturn_queue_wait_seconds",
    "How long objects waited for a worker",
    {**_QUEUE, "priority": frozenset(Priority)},
    _QUICK,
)
TURNS: Final = Family(
    "keyturn_rate_limit_wait_seconds",
    "How long objects waited for their turn at a provider, where they had to",
    {"priority": frozenset(Priority)},
    _QUICK,
)
LEADER: Final = Family("keyturn_leader", "1 while this process leads and works, on some shard at least, else 0")
SHARDS: Final = Family("keyturn_shards", "Shards that the work is divided into")
OWNED: Final = Family("keyturn_shards_owned", "Shards that this process owns and works on")
DEPTH: Final = Family("keyturn_queue_depth", "Objects that wait for a worker now", _QUEUE)
BUSY: Final = Family("keyturn_workers_busy", "Workers that are at work now", _QUEUE)
OBJECTS: Final = Family(
    "keyturn_rotation_objects", "ClientSecretRotations, by the phase of their status", {"phase": frozenset(Phase)}
)
STALLED: Final = Family("keyturn_rotation_objects_stalled", "ClientSecretRotations that wait for a person")
OVERDUE: Final = Family("keyturn_rotation_objects_overdue", "ClientSecretRotations whose rotation is overdue")
BUDGET: Final = Family("keyturn_budget_waiting", "Rotations that wait for room in the budget of a RotationPolicy")
AGE: Final = Family(
    "keyturn_oldest_secret_age_seconds", "Time since the last rotation that completed, where it is longest"
)
NEXT: Final = Family(
    "keyturn_next_rotation_in_seconds", "Time until the next rotation that is scheduled; negative when it is late"
)

RECORDED: Final = (ROTATIONS, PHASES, PROVIDER_CALLS, PROVIDER_SECONDS, API_REQUESTS, RECONCILES, WAITS, TURNS)
OBSERVED: Final = (LEADER, SHARDS, OWNED, DEPTH, BUSY, OBJECTS, STALLED, OVERDUE, BUDGET, AGE, NEXT)
"""Looked at when somebody asks."""

Samples = Iterable[tuple[Family, tuple[str, ...], float]]


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the series
        self.registry = CollectorRegistry()
        self._recorded = {family.name: _made(family, self.registry) for family in RECORDED}
        ProcessCollector(registry=self.registry)

    def observe(self, look: Callable[[], Samples]) -> None:
        """Ask this for the values of `OBSERVED` whenever somebody wants the metrics."""
        self.registry.register(_Observed(look))

    def rotation_ended(self, provider: str, result: Result, reason: str) -> None:
        self._count(ROTATIONS, provider, result, reason)

    def phase_ended(self, provider: str, phase: Phase, lasted: timedelta) -> None:
        self._time(PHASES, lasted.total_seconds(), provider, phase)

    def provider_call(self, provider: str, operation: ProviderOperation, failure: Failure | None, took: float) -> None:
        self._count(PROVIDER_CALLS, provider, operation, OK if failure is None else failure)
        self._time(PROVIDER_SECONDS, took, provider, operation)

    def api_request(self, verb: Verb, resource: str, error: errors.ClusterError | None) -> None:
        """resource: its plural, with the subresource behind a slash."""
        self._count(API_REQUESTS, verb, resource, OK if error is None else error.reason)

    def waited(self, queue: QueueName, priority: Priority, seconds: float) -> None:
        self._time(WAITS, seconds, queue, priority)

    def turn_waited(self, hurried: bool, seconds: float) -> None:
        self._time(TURNS, seconds, Priority.URGENT if hurried else Priority.USUAL)

    def reconciled(self, queue: QueueName, end: PassEnd, seconds: float) -> None:
        self._time(RECONCILES, seconds, queue, end)

    def _count(self, family: Family, *values: str) -> None:
        metric = self._recorded[family.name]
        assert isinstance(metric, Counter)
        metric.labels(*bounded(family, values)).inc()

    def _time(self, family: Family, seconds: float, *values: str) -> None:
        metric = self._recorded[family.name]
        assert isinstance(metric, Histogram)
        metric.labels(*bounded(family, values)).observe(max(seconds, 0.0))


class _Observed(Collector):
    def __init__(self, look: Callable[[], Samples]) -> None:
        self._look = look

    def collect(self) -> Iterable[Metric]:
        found = {
            family.name: GaugeMetricFamily(family.name, family.help, labels=list(family.labels)) for family in OBSERVED
        }
        for family, values, value in self._look():
            found[family.name].add_metric(bounded(family, values), value)
        return found.values()

    def describe(self) -> Iterable[Metric]:
        """The names, without looking: the registry asks for them when it takes this in."""
        return [GaugeMetricFamily(family.name, family.help) for family in OBSERVED]


def bounded(family: Family, values: Iterable[str]) -> list[str]:
    """The values of the labels as they may be."""
    return [
        str(value) if value in allowed else OTHER for value, allowed in zip(values, family.labels.values(), strict=True)
    ]


def _made(family: Family, registry: CollectorRegistry) -> Counter | Histogram:
    if family.buckets:
        return Histogram(family.name, family.help, family.labels, registry=registry, buckets=family.buckets)
    return Counter(family.name, family.help, family.labels, registry=registry)
