"""What the pods' calls tell of a credential, at each provider: accepted, refused, or nothing."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from sandbox.simulators.base import Simulator, running
from sandbox.simulators.faults import How
from sandbox.simulators.janrain import JanrainSimulator
from sandbox.simulators.snaptrade import SnapTradeSimulator
from sandbox.simulators.stytch import StytchSimulator
from sandbox.traffic.probe import JanrainProbe, SnapTradeProbe, StytchProbe, TrafficProbe

ID = "client/ä 1"
SECRET = "a-secret/with+all&sorts=of ünïcode"

KINDS = ["stytch", "janrain", "snaptrade"]


def simulated(kind: str) -> Simulator:
    """A provider with one client."""
    simulators = {"stytch": StytchSimulator, "janrain": JanrainSimulator, "snaptrade": SnapTradeSimulator}
    simulator: Simulator = simulators[kind]()
    simulator.create({"client_id": ID, "client_secret": SECRET})
    return simulator


def probing(simulator: Simulator, url: str) -> AbstractAsyncContextManager[TrafficProbe]:
    """The probe for a provider."""
    match simulator:
        case StytchSimulator():
            return StytchProbe(url, simulator.project_id)
        case JanrainSimulator():
            return JanrainProbe(url)
        case SnapTradeSimulator():
            return SnapTradeProbe(url, simulator.client_id, simulator.consumer_key)
    raise TypeError(simulator.kind)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_value_is_accepted_or_refused(kind: str) -> None:
    simulator = simulated(kind)
    async with running(simulator) as url, probing(simulator, url) as probe:
        assert await probe.call(ID, SECRET) is True
        assert await probe.call(ID, "another") is False
        assert await probe.call("nobody", SECRET) is False


@pytest.mark.parametrize(
    "fault",
    [{"status": 500}, {"status": 429}, {"how": How.DROP}, {"how": How.TRUNCATE}, {"how": How.MALFORMED}],
    ids=str,
)
@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_no_verdict_is_none(kind: str, fault: dict[str, Any]) -> None:
    simulator = simulated(kind)
    async with running(simulator) as url, probing(simulator, url) as probe:
        simulator.add_fault(**fault, times=None)  # aiohttp asks again by itself after a GET that was reset
        assert await probe.call(ID, SECRET) is None
        simulator.clear_faults()
        assert await probe.call(ID, SECRET) is True


@pytest.mark.parametrize("kind", KINDS)
async def test_nobody_answers(kind: str) -> None:
    async with probing(simulated(kind), "http://127.0.0.1:1") as probe:
        assert await probe.call(ID, SECRET) is None


async def test_a_janrain_client_that_may_not_count_is_known_all_the_same() -> None:
    simulator = JanrainSimulator()
    simulator.create({"client_id": ID, "client_secret": SECRET, "may_count": False})
    async with running(simulator) as url, JanrainProbe(url) as probe:
        assert await probe.call(ID, SECRET) is True
        assert await probe.call(ID, "another") is False
