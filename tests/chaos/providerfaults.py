"""All faults of the provider: each kind of bad answer at each operation, and each setting that its API may have.

What a bad answer to `start` leads to is prescribed by whether the provider has carried the call out (I5): Stytch takes
the lost value back, Janrain is read back, and at SnapTrade it is lost for good.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sandbox.simulators.faults import How
from tests.chaos.checks import Expected
from tests.chaos.disturbances import Disturbance
from tests.chaos.faultplans import STYTCH, Fault
from tests.chaos.scenarios import CANCEL, SUCCESS, Scenario
from tests.chaos.strike import Guards
from tests.e2e.scene import Scene

_BACK: Final = Scenario("stytch", CANCEL)
_JANRAIN: Final = Scenario("janrain", SUCCESS)
_SNAPTRADE: Final = Scenario("snaptrade", SUCCESS)
_READS: Final = {"stytch": ("get", "token"), "janrain": ("count", "read"), "snaptrade": ("authorizations", "list")}
_CHANGES: Final = ((STYTCH, "start"), (STYTCH, "rotate"), (_BACK, "cancel"), (_JANRAIN, "start"), (_SNAPTRADE, "start"))
# By name: the settings of sandbox.simulators.faults.Fault. The operator gives up on a redirect and on 4 MiB.
_BAD: Final[dict[str, dict[str, Any]]] = {
    "429": {"how": How.STATUS, "status": 429},
    "429 with Retry-After": {"how": How.STATUS, "status": 429, "headers": {"Retry-After": "2"}},
    "500": {"how": How.STATUS, "status": 500},
    "503": {"how": How.STATUS, "status": 503},
    "dropped": {"how": How.DROP},
    "truncated": {"how": How.TRUNCATE},
    "malformed": {"how": How.MALFORMED, "status": 200},
    "huge": {"how": How.HUGE},
    "redirected": {"how": How.REDIRECT},
}
_DELAY: Final[dict[str, Any]] = {"how": How.PROPER, "delay": 3.0}


class BadAnswers(Disturbance):
    """The next call of each of these operations is answered so."""

    def __init__(self, settings: dict[str, Any], *operations: str) -> None:
        self._settings, self._operations = settings, operations

    def started(self) -> None:
        simulator = self.scene.account.simulator
        for operation in self._operations:
            simulator.add_fault(operation, caller="keyturn", **self._settings)
        self.acted()


class Switched(Disturbance):
    """The provider's API is so from before the rotation on; as it was when it is over. bad: answers beside that."""

    def __init__(self, switches: dict[str, Any], bad: BadAnswers | None = None) -> None:
        self._switches, self._bad = switches, bad

    def prepare(self, scene: Scene, guards: Guards) -> None:
        super().prepare(scene, guards)
        if self._bad is not None:
            self._bad.prepare(scene, guards)

    def started(self) -> None:
        switches = self.scene.account.simulator.switches
        self._before = switches.model_copy()
        for name, value in self._switches.items():
            setattr(switches, name, value)
        if self._bad is not None:
            self._bad.started()
        self.acted()

    def over(self) -> None:
        for name in self._switches:
            setattr(self.scene.account.simulator.switches, name, getattr(self._before, name))


def _after(scenario: Scenario, operation: str, *, applied: bool) -> Expected:
    """What a lost answer, or one that says that nothing was done, leads to."""
    if operation != "start":
        return Expected()
    if not applied:
        return Expected(repeated=1)
    return Expected(lost=scenario == _SNAPTRADE, withdrawn=int(scenario == STYTCH))


def _bad_answers() -> Iterator[Fault]:
    for scenario, operation in _CHANGES:
        for name, settings in _BAD.items():
            for applied in (False,) if "429" in name else (False, True):
                yield Fault(
                    f"{operation} {name}{', applied' if applied else ''}",
                    lambda _, s={**settings, "apply": applied}, o=operation: BadAnswers(s, o),  # type: ignore[misc]
                    (scenario,),
                    prescribed=_after(scenario, operation, applied=applied),
                )
        delayed = lambda _, o=operation: BadAnswers(_DELAY, o)  # noqa: E731
        yield Fault(f"{operation} slow", delayed, (scenario,))
    for scenario in (STYTCH, _JANRAIN, _SNAPTRADE):
        operations = _READS[scenario.provider]
        for name, settings in {**_BAD, "slow": _DELAY}.items():
            bad = lambda _, s=settings, o=operations: BadAnswers(s, *o)  # noqa: E731
            yield Fault(f"{' and '.join(operations)} {name}", bad, (scenario,))


def _switch(scenario: Scenario, lost: str = "", seconds: float | None = None, **switches: Any) -> Fault:
    """lost: the operation whose answer is lost beside that, after it was carried out. seconds: until it is mended."""
    said = ", ".join(f"{name} {value}" for name, value in switches.items())
    bad = {"how": How.DROP, "apply": True}
    return Fault(
        f"{said}{f', {lost} dropped' if lost else ''}",
        lambda _: Switched(switches, BadAnswers(bad, lost) if lost else None),
        (scenario,),
        seconds=(seconds, seconds) if seconds is not None else None,
        prescribed=_after(scenario, lost, applied=True),
    )


def _switches() -> Iterator[Fault]:
    yield _switch(STYTCH, "start", start_while_started="replace")
    for status in (200, 404):
        yield _switch(STYTCH, "rotate", rotate_without_start=status)
        yield _switch(_BACK, "cancel", cancel_without_start=status)
    yield _switch(STYTCH, token_error_status=401, propagation_delay=3.0)
    yield _switch(_BACK, propagation_delay=3.0)
    yield _switch(_JANRAIN, "start", second_reset="keeps")
    yield _switch(_JANRAIN, clock_skew=60.0)
    yield _switch(_JANRAIN, propagation_delay=3.0)
    for shown in ("client_secret", "nested", "absent"):
        yield _switch(_JANRAIN, "start", 6.0, read_back=shown)
    yield _switch(_JANRAIN, "start", request_id_member="request_token", description_member="message")
    yield _switch(_JANRAIN, default_hours=24, unknown_client_code=200, signatures_at_configuration=True)
    yield _switch(_SNAPTRADE, timestamp_tolerance=60.0)
    yield _switch(_SNAPTRADE, propagation_delay=3.0)
    yield _switch(_SNAPTRADE, "start", error_fields="default_", refused_user_status=400)
    yield _switch(_SNAPTRADE, "start", timestamp_code=401, signature_code=401, user_code="1083")
    yield _switch(_SNAPTRADE, answers_user_id=False, legacy_prefix=False)
    yield _switch(_SNAPTRADE, seconds=5.0, commercial=False)
    yield _switch(_SNAPTRADE, seconds=5.0, requests_per_minute=1, rate_limit_headers=False)


PROVIDER_FAULTS: Final = (*_bad_answers(), *_switches())
