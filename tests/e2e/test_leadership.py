"""Two replicas: one works, the other follows it; and a leader that comes back from the dead does nothing (I1, I9).

Leases are short here: a leader is given up after six seconds.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from aiohttp import web

from keyturn.cluster.client import Kube
from keyturn.cluster.leases import LeaseObject
from keyturn.controller.controller import Controller
from keyturn.controller.crew import Single
from keyturn.controller.leadership import Leadership, Timing
from keyturn.controller.metrics import Metrics
from keyturn.controller.settings import Settings
from keyturn.providers.addresses import AddressRule, parse_networks
from sandbox.simulators.faults import How
from sandbox.stage import NAMESPACE, Operator
from tests.e2e.apilog import recorded
from tests.e2e.crash import assert_completed, calls
from tests.e2e.proxy import Exchange, pass_on
from tests.e2e.scene import Scene

LEASE: Final = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/keyturn"
DURATION: Final = 6
RETRY: Final = 0.5
SHORT: Final = ("--lease-duration", str(DURATION), "--renew-deadline", "5", "--retry-period", str(RETRY))
TAKEN_OVER: Final = DURATION + 2 * RETRY + 2.0
"""Seconds in which a leader that says nothing is replaced, on a machine with other things to do."""


class Pair:
    """Operators `first`, which leads, and `second`, each with a log of its own."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.operators: list[Operator] = []

    def start(self, kubeconfig: Path | None = None) -> None:
        """Return when the one leads and the other knows everything. kubeconfig: of the first one."""
        self.first = self._replica("first", kubeconfig)
        self.scene.wait(lambda: self.holder() == "first", "the first one leads")
        self.second = self._replica("second")
        self.scene.wait(lambda: "standing by: first holds the lease" in self.second.log.read_text(), "a replica")

    def _replica(self, name: str, kubeconfig: Path | None = None) -> Operator:
        log = self.scene.stage.control_plane.directory / f"{self.scene.namespace}-{name}.log"
        self.scene.log = log  # what is shown when a test fails
        options = ("--log-format", "text", "--debug", "--identity", name, *SHORT)
        operator = self.scene.stage.operator(*options, log=log, kubeconfig=kubeconfig)
        self.operators.append(operator)
        return operator

    def holder(self) -> str | None:
        lease = self.scene.get(LEASE) or {"spec": {}}
        found: str | None = lease["spec"].get("holderIdentity")
        return found

    def wait_for_second(self) -> None:
        self.scene.wait(lambda: self.holder() == "second", "the second one leads", TAKEN_OVER)

    def freeze(self) -> None:
        os.kill(self.first.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Return when the first one has noticed."""
        os.kill(self.first.pid, signal.SIGCONT)
        self.wait_for_log(self.first, "standing by: second holds the lease")

    def wait_for_log(self, operator: Operator, text: str) -> None:
        self.scene.wait(lambda: text in operator.log.read_text(), f"{text!r} in {operator.log}:\n{operator.tail()}")


def begin_pair(scene: Scene) -> Iterator[Pair]:
    def clear() -> None:
        if scene.get(LEASE) is not None:
            scene.delete(LEASE)

    clear()
    pair = Pair(scene)
    yield pair
    for operator in pair.operators:
        if operator.alive():
            os.kill(operator.pid, signal.SIGCONT)
        operator.kill()
    clear()


@pytest.fixture
def pair(scene: Scene) -> Iterator[Pair]:
    """Not started yet, with two pods that read the Secret and call with it."""
    scene.put_deployment(replicas=2)
    yield from begin_pair(scene)


@pytest.fixture
def snaptrade_pair(snaptrade_scene: Scene) -> Iterator[Pair]:
    snaptrade_scene.put_deployment(replicas=2)
    yield from begin_pair(snaptrade_scene)


def all_calls(scene: Scene) -> int:
    """All requests of operators to the provider."""
    return sum(calls(scene, operation) for operation in list(scene.account.simulator.calls))


def seconds_until(condition: Callable[[], Any]) -> float:
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() < begun + 60
        time.sleep(0.02)
    return time.monotonic() - begun


def health(operator: Operator) -> dict[str, Any]:
    answer = httpx.get(f"http://{operator.health}/healthz").raise_for_status()
    facts: dict[str, Any] = answer.json()["keyturn"]
    return facts


def test_only_the_leader_works_and_hands_over_when_it_is_stopped(pair: Pair) -> None:
    """The one that stands by knows everything and says that it is well; a stop costs a look at the Lease, no more."""
    scene = pair.scene
    pair.start()
    scene.put_rotation(None)
    scene.wait(lambda: health(pair.second)["rotations"] >= 1, "the second one knows the rotation")
    scene.put_rotation("a")
    scene.wait_ended()
    assert health(pair.first)["leading"] is True
    assert health(pair.second)["leading"] is False
    log = pair.second.log.read_text()
    assert "phase" not in log
    assert "provider" not in log

    os.kill(pair.first.pid, signal.SIGTERM)
    assert seconds_until(lambda: pair.holder() == "second") < 2
    scene.put_rotation("b")
    scene.wait_phase("Starting", "Verifying", "Distributing", "RollingOut", "Finalizing")
    scene.wait_ended()
    assert pair.first.stop() == 0
    assert pair.first.log.read_text().rstrip().endswith("stopped")
    assert (scene.applied("start"), scene.applied("rotate"), scene.applied("cancel")) == (2, 2, 0)
    assert scene.restarts() == 2
    assert scene.calls()["refused"] == 0
    assert "phase" in pair.second.log.read_text()


def test_the_other_one_completes_what_a_killed_leader_began(pair: Pair) -> None:
    """I3, I7, I9: kill -9 in the middle of the rollout."""
    scene = pair.scene
    scene.put_deployment("slow", replicas=1, annotations={"sandbox.keyturn.dev/ready-after": "2s"})
    pair.start()
    scene.put_rotation()
    scene.wait(lambda: scene.restarts("slow") == 1, "the restart")
    pair.first.kill()
    pair.wait_for_second()
    assert_completed(scene)
    assert scene.restarts("slow") == 1
    assert scene.get(LEASE)["spec"]["leaseTransitions"] == 1  # type: ignore[index]


def test_a_leader_that_thaws_in_the_rollout_undoes_nothing(pair: Pair) -> None:
    """I1, I7: by then the other one has completed; nothing is written and nobody is called."""
    scene = pair.scene
    scene.put_deployment("slow", replicas=1, annotations={"sandbox.keyturn.dev/ready-after": "2s"})
    pair.start()
    scene.put_rotation()
    scene.wait(lambda: scene.restarts("slow") == 1, "the restart")
    pair.freeze()
    pair.wait_for_second()
    assert_completed(scene)
    objects = [scene.rotation_path, scene.secret_path, scene.deployment_path(), scene.deployment_path("slow")]
    before, called = [scene.get(path) for path in objects], all_calls(scene)
    pair.thaw()
    assert [scene.get(path) for path in objects] == before
    assert all_calls(scene) == called
    assert "the lease is lost" in pair.first.log.read_text()
    assert health(pair.first)["leading"] is False


def test_a_leader_that_thaws_right_before_its_call_does_not_make_it(pair: Pair) -> None:
    """I5: everything was ready for the start call, but for the API server's word that the journal is there."""
    scene, thawing = pair.scene, threading.Event()

    async def keep_waiting(exchange: Exchange) -> web.StreamResponse:
        opens = exchange.method == "POST" and exchange.path.endswith("/secrets") and "dryRun" not in exchange.query
        if not opens:
            return await pass_on(exchange)
        answer = await exchange.forward()
        await asyncio.to_thread(thawing.wait, 60)
        return answer

    with recorded(scene, keep_waiting) as log:
        pair.start(log.kubeconfig)
        scene.put_rotation()
        seconds_until(scene.journals)
        pair.freeze()
        assert calls(scene, "start") == 0, "frozen too late to show anything"
        pair.wait_for_second()
        assert_completed(scene)
        called = all_calls(scene)
        thawing.set()
        pair.thaw()
        pair.wait_for_log(pair.first, "the lease is lost")
        assert (calls(scene, "start"), all_calls(scene)) == (1, called)
        assert_completed(scene)


def test_who_does_not_lead_writes_nothing_though_told_to_work(scene: Scene) -> None:
    """I1: every part that writes or calls asks for leadership; this one never had it.

    First with a provider that would be called, then with credentials that are missing, which would be said.
    """
    scene.put_rotation()
    scene.stage.do(work_without_leading(scene))
    scene.delete(f"/api/v1/namespaces/{scene.namespace}/secrets/project")
    scene.stage.do(work_without_leading(scene))
    assert scene.status() == {}
    assert (scene.get(provider_path(scene)) or {}).get("status") is None
    assert all_calls(scene) == 0


def provider_path(scene: Scene) -> str:
    return scene.rotation_path.replace("clientsecretrotations/billing", "rotationproviders/stytch")


async def work_without_leading(scene: Scene) -> None:
    kube = await Kube.connect(scene.stage.control_plane.kubeconfig)
    leadership = Leadership(LeaseObject(kube, NAMESPACE), "nobody", Timing())
    settings = Settings(addresses=AddressRule(parse_networks(["127.0.0.0/8"])))
    controller = Controller(kube, settings, None, Single(leadership), lambda: datetime.now(UTC), Metrics())
    controller._working.add(0)
    provider = await asyncio.to_thread(scene.get, provider_path(scene))
    assert provider is not None
    for raw in (await asyncio.to_thread(scene.rotation), provider):
        controller.seen(raw, False)
    try:
        await controller.rotate((scene.namespace, "billing"))
        await controller.check(("RotationProvider", scene.namespace, "stytch"))
    finally:
        await controller._accounts.aclose()
        await controller._observers.aclose()
        await kube.aclose()


def test_an_answer_that_a_successor_has_withdrawn_does_not_come_back(pair: Pair) -> None:
    """I2, I9: the former leader has an answer; the other one has cancelled that start, and made one of its own."""
    scene = pair.scene
    pair.start()
    scene.account.simulator.add_fault("start", How.PROPER, delay=2.0, caller="keyturn")
    scene.put_rotation(soak="8s")
    scene.wait(lambda: scene.applied("start"), "the provider has issued a value")
    pair.freeze()
    pair.wait_for_second()
    scene.wait_phase("Soaking")
    journal = scene.secret(scene.journals()[0])
    pair.thaw()
    pair.wait_for_log(pair.first, "the new value is dropped: this rotation went on without it")
    assert scene.secret(scene.journals()[0]) == journal
    assert journal["pending"] == scene.secret()["CLIENT_SECRET"]
    found = scene.get(f"/api/v1/namespaces/{scene.namespace}/secrets/{scene.journals()[0]}")
    assert found is not None
    assert "keyturn.dev/withdrawn" in found["metadata"]["annotations"], (
        "it would have been kept from coming earlier, too"
    )
    assert_completed(scene, starts=2, cancels=1)


def test_an_answer_that_nobody_else_has_is_stored_by_the_former_leader(snaptrade_pair: Pair) -> None:
    """I2, I5, I9: at SnapTrade the other one can only say that the value is lost, until it is there after all."""
    pair, scene = snaptrade_pair, snaptrade_pair.scene
    pair.start()
    scene.account.simulator.add_fault("start", How.PROPER, delay=2.0, caller="keyturn")
    scene.put_rotation(acceptDowntime=True)
    scene.wait(lambda: scene.applied("start"), "the provider has switched")
    pair.freeze()
    pair.wait_for_second()
    scene.wait_stalled("SecretLost")
    pair.thaw()
    scene.wait_ended()
    assert (scene.applied("start"), calls(scene, "start")) == (1, 1)
    assert scene.account.simulator.accepts(scene.client_id, scene.secret()["CLIENT_SECRET"])
    assert scene.restarts() == 1
