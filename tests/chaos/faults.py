"""All faults of the API server, of its watches, of the operator's token and of clocks (issue 5, item 2).

409, 429 and 500 at each single write are blows: `tests.chaos.strike`. The provider's: `tests.chaos.providerfaults`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from tests.chaos.clocks import OperatorClock, ProviderClock, StrictClock
from tests.chaos.disturbances import (
    Disturbance,
    EventsCoalesced,
    EventsDropped,
    Outage,
    PagesExpire,
    Slow,
    Stale,
    Throttled,
    TokenExpires,
    WatchEnds,
    WatchFails,
    WatchRefused,
    error_event,
)
from tests.chaos.faultplans import STYTCH, Fault, FaultPlan
from tests.chaos.providerfaults import PROVIDER_FAULTS
from tests.chaos.scenarios import CANCEL, SUCCESS, Scenario

_BACK: Final = Scenario("stytch", CANCEL)
_JANRAIN: Final = Scenario("janrain", SUCCESS)
_SNAPTRADE: Final = Scenario("snaptrade", SUCCESS)
_EACH: Final = STYTCH, _BACK, _JANRAIN, _SNAPTRADE

_INTENT: Final = "PATCH clientsecretrotations/billing/status"
_JOURNAL: Final = "PATCH secrets/JOURNAL"
_SECRET: Final = "PATCH secrets/m2m"
_RESTART: Final = "PATCH deployments/web"
_SWEPT: Final = "--sweep-interval", "1"
_LONG: Final = 20.0, 300.0
_HOUR: Final = 3600.0
_OWN: Final = "clientsecretrotations", "rotationproviders"
_WORKLOADS: Final = "pods", "deployments", "replicasets", "statefulsets", "daemonsets", "jobs", "cronjobs"


def _always(make: Callable[[], Disturbance]) -> Callable[[bool], Disturbance]:
    """The same in short and in full."""
    return lambda _: make()


def _outages() -> Iterator[Fault]:
    for said, status in (("503", 503), ("500", 500), ("no answer", None)):
        make = _always(lambda status=status: Outage(status))  # type: ignore[misc]
        yield Fault(f"API {said} for a long time", make, _EACH, seconds=_LONG)
    gone = _always(lambda: Outage(503))
    # The answer is in memory only, and the lease is lost meanwhile.
    yield Fault("API 503 from the provider's answer on", gone, _EACH, since=_JOURNAL, seconds=_LONG)
    yield Fault("API 503 from the write of the Secret on", gone, (STYTCH, _SNAPTRADE), since=_SECRET, seconds=_LONG)
    yield Fault("API 503 from the restart on", gone, (STYTCH, _BACK), since=_RESTART, seconds=_LONG)
    yield Fault("API 503 from rotate on", gone, since="rotate", seconds=_LONG)
    yield Fault("API 503 from cancel on", gone, (_BACK,), since="cancel", seconds=_LONG)


def _requests() -> Iterator[Fault]:
    def slow(full: bool) -> Disturbance:
        return Slow(30 if full else 2)

    def throttled(full: bool) -> Disturbance:
        return Throttled(10 if full else 3, reads=False)

    def throttled_at_first(full: bool) -> Disturbance:
        return Throttled(10 if full else 3, reads=True)

    yield Fault("API slow", slow, _EACH, seconds=(12, 300))
    yield Fault("API slow from the provider's answer on", slow, (STYTCH, _SNAPTRADE), since=_JOURNAL, seconds=(12, 300))
    yield Fault("API 429 with Retry-After", throttled_at_first, _EACH, since=_INTENT, seconds=(8, 60))
    yield Fault("API 429 from the provider's answer on", throttled, _EACH, since=_JOURNAL, seconds=(8, 60))
    yield Fault("API 429 from the restart on", throttled, (STYTCH, _BACK), since=_RESTART, seconds=(8, 60))
    yield Fault("410 in the middle of a paged list", _always(lambda: PagesExpire(3)), _EACH, since=_RESTART)
    yield Fault("stale reads of Keyturn's objects", _always(lambda: Stale(2, *_OWN)), _EACH)
    yield Fault("stale reads of workloads", _always(lambda: Stale(2, *_WORKLOADS)), _EACH)
    yield Fault("stale reads of Secrets", _always(lambda: Stale(2, "secrets")), _EACH)
    expires = _always(TokenExpires)
    yield Fault("token expires", expires, _EACH, seconds=(4, 60))
    yield Fault("token expires at the provider's answer", expires, _EACH, since=_JOURNAL, seconds=(4, 60))
    yield Fault("token expires at the restart", expires, (STYTCH, _BACK), since=_RESTART, seconds=(4, 60))


def _watches() -> Iterator[Fault]:
    both = STYTCH, _BACK
    yield Fault("watches cut every second", _always(lambda: WatchEnds(1, None)), both)
    yield Fault("watches 410", _always(lambda: WatchRefused(410)), both, seconds=(10, 60))
    yield Fault("watches 410 in stream", _always(lambda: WatchEnds(1, error_event(410))), both)
    yield Fault("watches 500 in stream", _always(lambda: WatchEnds(1, error_event(500))), both)
    failing = _always(lambda: WatchFails(1, error_event(500)))
    yield Fault("watches 500 in stream, and no writes before rotations are listed again", failing)
    yield Fault("watches end with half a line", _always(lambda: WatchEnds(1, b'{"type": "MODI')), both)
    for types in (("ADDED",), ("MODIFIED",), ("DELETED",), ("ADDED", "MODIFIED", "DELETED")):
        make = _always(lambda types=types: EventsDropped(*types))  # type: ignore[misc]
        yield Fault(f"events dropped: {', '.join(types)}", make, both, options=_SWEPT)
    yield Fault("events coalesced", _always(lambda: EventsCoalesced(2)), both)


def _clocks() -> Iterator[Fault]:
    """Nobody is refused, whatever the time; phases that a jump makes longer than their limits end as they would then.

    A provider's clock goes forward only: its simulator takes a secret that it issued in the future for none.
    """
    for said, seconds in (("ahead", _HOUR), ("behind", -_HOUR)):
        off = _always(lambda seconds=seconds: OperatorClock(seconds))  # type: ignore[misc]
        yield Fault(f"operator's clock an hour {said}", off, _EACH, clock=True)
        for at in ("start", _SECRET):
            yield Fault(f"operator's clock jumps {said} at {at}", off, (STYTCH, _JANRAIN), since=at, clock=True)
        # An hour ahead is beyond the limit of a rollout, and this one goes back in any case.
        yield Fault(f"operator's clock jumps {said} at the restart", off, (_BACK,), since=_RESTART, clock=True)
        few = _always(lambda seconds=seconds: OperatorClock(seconds / 6))  # type: ignore[misc]
        some = STYTCH, _JANRAIN
        yield Fault(f"operator's clock jumps ten minutes {said} at the restart", few, some, since=_RESTART, clock=True)
    jump = _always(lambda: ProviderClock(_HOUR))
    yield Fault("provider's clock an hour ahead", jump, _EACH)
    yield Fault("provider's clock jumps ahead at start", jump, _EACH, since="start")
    strict = _always(lambda: StrictClock(_HOUR, {"timestamp_tolerance": 60.0}))
    minds = "operator's clock an hour ahead, which the provider minds"
    yield Fault(minds, strict, (_SNAPTRADE,), seconds=(6, 60), clock=True)


FAULTS: Final = (*_outages(), *_requests(), *_watches(), *_clocks(), *PROVIDER_FAULTS)


def fault_plans(*, full: bool = False) -> list[FaultPlan]:
    """Every fault in each of its scenarios. full: those that end also as long and as bad as they get."""
    short = [FaultPlan(scenario, fault=fault) for fault in FAULTS for scenario in fault.scenarios]
    return short + [replace(plan, full=True) for plan in short if full and plan.fault.seconds is not None]
