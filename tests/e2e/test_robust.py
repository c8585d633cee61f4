"""The operator as a process: how it ends, how it is found healthy, and what it does with credentials that change."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import httpx
import pytest
import yaml

from keyturn.cluster.client import Kube
from keyturn.cluster.resources import ROTATIONS
from keyturn.controller.index import Index
from keyturn.controller.sweep import Sweep
from sandbox.simulators.faults import How
from sandbox.stage import NAMESPACE, SERVICE_ACCOUNT, Operator
from tests.e2e.scene import Scene

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
START_SECONDS = 3.0


def end(operator: Operator, number: signal.Signals) -> tuple[int, float]:
    """The exit code, and how many seconds the end took."""
    begun = time.monotonic()
    code = operator.stop(number=number)
    return code, time.monotonic() - begun


def wait_ready(scene: Scene) -> None:
    scene.wait(lambda: (scene.condition("Ready") or {}).get("status") == "True", "Ready")


@SIGNALS
def test_ends_cleanly_when_idle(scene: Scene, number: signal.Signals) -> None:
    operator = scene.operator()
    scene.put_rotation(None)
    wait_ready(scene)
    code, seconds = end(operator, number)
    assert code == 0
    assert seconds < 5
    log = scene.log.read_text()
    for trouble in ("Traceback", "ERROR", "never retrieved", "Unclosed"):
        _, found, rest = log.partition(trouble)
        assert not found, found + rest[:3000]
    assert log.rstrip().endswith("stopped")


@SIGNALS
def test_ends_only_after_the_answer_is_in_the_journal(scene: Scene, number: signal.Signals) -> None:
    """I2: the provider has issued a value, and takes its time to say so."""
    scene.account.simulator.add_fault("start", How.PROPER, delay=START_SECONDS, caller="keyturn")
    operator = scene.operator()
    scene.put_rotation()
    scene.wait(lambda: scene.applied("start"), "the provider has issued a value")
    code, seconds = end(operator, number)
    assert code == 0
    assert seconds > START_SECONDS / 2, "it did not wait for the answer"
    pending = scene.account.simulator.clients[scene.client_id].pending
    assert pending is not None
    assert scene.secret(scene.journals()[0])["pending"] == pending.value
    assert scene.secret()["CLIENT_SECRET"] == scene.first_secret
    scene.operator()
    scene.wait_ended()
    assert (scene.applied("start"), scene.applied("cancel")) == (1, 0)
    assert scene.secret()["CLIENT_SECRET"] == pending.value


def test_says_that_it_is_alive(scene: Scene) -> None:
    operator = scene.operator()
    scene.put_rotation(None)
    wait_ready(scene)
    answer = httpx.get(f"http://{operator.health}/healthz")
    assert answer.status_code == 200
    facts: dict[str, Any] = answer.json()["keyturn"]
    assert facts["rotations"] >= 1
    assert {"waiting", "working"} <= facts.keys()


def test_a_token_that_is_replaced_is_read_again(scene: Scene) -> None:
    """The first one is refused; a kubeconfig that names a token file is enough to go on with the next."""
    control_plane = scene.stage.control_plane
    endpoint = control_plane.service_account_endpoint(NAMESPACE, SERVICE_ACCOUNT)
    token, kubeconfig = scene.log.with_suffix(".token"), scene.log.with_suffix(".kubeconfig")
    token.write_text("expired")
    content = endpoint.kubeconfig("keyturn")
    content["users"][0]["user"] = {"tokenFile": str(token)}
    kubeconfig.write_text(yaml.safe_dump(content))
    operator = scene.operator(kubeconfig=kubeconfig)
    scene.put_rotation()
    scene.wait(lambda: "401" in scene.log.read_text(), "the token is refused")
    token.write_text(endpoint.token)
    scene.wait_ended(seconds=60)
    assert operator.alive()
    assert endpoint.token not in scene.log.read_text()


def test_a_kubeconfig_that_cannot_be_used_is_named(scene: Scene) -> None:
    missing = scene.log.with_suffix(".nowhere")
    operator = scene.operator(kubeconfig=missing)
    scene.wait(lambda: not operator.alive(), "the process ends")
    assert operator.stop() == 1
    log = scene.log.read_text()
    assert str(missing) in log
    assert "Traceback" not in log


def test_the_sweep_finds_what_the_watch_has_missed(scene: Scene) -> None:
    """I9: a rotation that came, one that changed and one that went, without an event about any of them."""
    scene.put_rotation(None)
    scene.put_rotation(None, name="gone")
    scene.stage.do(sweep(scene))


async def sweep(scene: Scene) -> None:
    index, woken, news = Index(), list[tuple[str, bool]](), asyncio.Event()

    def seen(raw: dict[str, Any], deleted: bool) -> None:
        if raw["metadata"].get("namespace") == scene.namespace and raw["kind"] == ROTATIONS.kind:
            woken.append((raw["metadata"]["name"], deleted))
            key = scene.namespace, raw["metadata"]["name"]
            index.drop_rotation(key) if deleted else index.put_rotation(raw)
            news.set()

    async def found(*expected: tuple[str, bool]) -> None:
        async with asyncio.timeout(20):
            while not set(expected) <= set(woken):
                news.clear()
                await news.wait()
        woken.clear()

    kube = await Kube.connect(scene.stage.control_plane.kubeconfig)
    sweeping = asyncio.create_task(Sweep(kube, index, seen, interval=0.1).run(asyncio.Event()))
    try:
        await found(("billing", False), ("gone", False))
        await asyncio.to_thread(scene.put_rotation, "changed")
        await asyncio.to_thread(scene.delete, scene.rotation_path.replace("billing", "gone"))
        await found(("billing", False), ("gone", True))
        assert index.rotation((scene.namespace, "gone")) is None
        kept = index.rotation((scene.namespace, "billing"))
        assert kept is not None
        assert kept["spec"]["rotationRequest"] == "changed"
    finally:
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
        await kube.aclose()
