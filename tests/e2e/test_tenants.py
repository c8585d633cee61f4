"""What one tenant cannot do to the cluster, or to another tenant, by the provider objects that they may write."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from sandbox.controlplane.components import minor
from sandbox.stage import Stage
from tests.e2e.scene import Scene
from tests.e2e.test_providers_ready import OFTEN, wait_ready

CLUSTER = "ClusterRotationProvider"


@contextmanager
def listener(address: str) -> Iterator[socket.socket]:
    """Somebody within the cluster who can be connected to; `called` says whether anybody was."""
    with socket.create_server((address, 0)) as listening:
        listening.setblocking(False)
        yield listening


def called(listening: socket.socket) -> bool:
    """Whether a connection has come, which is ended."""
    try:
        listening.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@pytest.fixture
def for_the_cluster(scene: Scene) -> Iterator[str]:
    """The name of a ClusterRotationProvider that a test may put."""
    yield scene.namespace
    scene.delete(f"/apis/keyturn.dev/v1alpha1/clusterrotationproviders/{scene.namespace}")


def test_an_address_within_the_cluster_is_not_called(scene: Scene, for_the_cluster: str) -> None:
    """I10: said on both objects; corrected, the rotation goes on. An account of the cluster may be anywhere."""
    with listener("127.0.0.2") as inside:
        url = f"http://127.0.0.2:{inside.getsockname()[1]}"
        scene.put_provider(baseUrl=url)
        scene.put_rotation()
        scene.operator("--allow-provider-network", "127.0.0.1/32", *OFTEN)
        for message in (
            wait_ready(scene, "False", "ProviderAddressNotPermitted"),
            scene.wait_stalled("ProviderAddressNotPermitted"),
        ):
            for said in (url, "a loopback address", "Correct spec.stytch.baseUrl", "--allow-provider-network"):
                assert said in message
        assert scene.status()["phase"] == "Preparing"
        assert not called(inside)

        scene.put_provider(kind=CLUSTER, baseUrl=url, around={"namespaces": ["*"]})
        scene.wait(lambda: called(inside), f"the {CLUSTER} {for_the_cluster} is called there")

        scene.put_provider()
        wait_ready(scene, "True", "CredentialsAccepted")
        scene.wait_ended()
        assert (scene.applied("start"), scene.applied("rotate"), scene.applied("cancel")) == (1, 1, 0)


def test_an_address_that_is_forbidden_in_the_middle_is_waited_out(scene: Scene) -> None:
    """I9, I10: nothing is withdrawn for it, and nothing asked twice."""
    scene.put_deployment(replicas=1, annotations={"sandbox.keyturn.dev/ready-after": "3s"})
    scene.put_rotation()
    scene.operator("--allow-provider-network", "127.0.0.1/32", *OFTEN)
    scene.wait_phase("RollingOut")
    with listener("127.0.0.2") as inside:
        scene.put_provider(baseUrl=f"http://127.0.0.2:{inside.getsockname()[1]}")
        assert "spec.stytch.baseUrl" in scene.wait_stalled("ProviderAddressNotPermitted")
        assert not called(inside)
    scene.put_provider()
    scene.wait_ended()
    assert (scene.applied("start"), scene.applied("rotate"), scene.applied("cancel")) == (1, 1, 0)
    assert scene.restarts() == 1
    assert scene.calls()["refused"] == 0


def test_an_account_of_the_cluster_is_not_for_those_whom_it_does_not_list(scene: Scene, for_the_cluster: str) -> None:
    """I10: the rotation says so, the account itself works; listed, the rotation goes on."""
    scene.put_provider(kind=CLUSTER, around={"namespaces": ["somebody-else", f"{scene.namespace}-*"]})
    scene.put_rotation(providerRef={"kind": CLUSTER, "name": for_the_cluster})
    scene.operator(*OFTEN)
    wait_ready(scene, "True", "CredentialsAccepted", CLUSTER)
    message = scene.wait_stalled("ProviderNotPermitted")
    assert f"namespace {scene.namespace}" in message
    assert "spec.namespaces" in message
    assert scene.account.simulator.counted(scene.client_id, "get", "received") == 0, "not even asked about its client"
    scene.put_provider(kind=CLUSTER, around={"namespaces": [f"{scene.namespace[:-1]}*"]})
    scene.wait_ended()
    assert scene.applied("start") == 1


def test_a_secret_of_another_namespace_is_out_of_reach(stage: Stage, scene: Scene) -> None:
    """The good credentials are there, one namespace away, where the operator itself may read them."""
    with Scene.in_new_namespace(stage, "victim") as victim:
        victim.put_secret("project", {"secret": scene.credential})
        scene.put_secret("project", {"secret": "wrong"})
        foreign = {"name": "project", "key": "secret", "namespace": victim.namespace}
        if minor(stage.control_plane.version) >= 25:
            with pytest.raises(httpx.HTTPStatusError, match="422"):
                scene.put_provider(secretRef=foreign)
            return
        scene.put_provider(secretRef=foreign)
        scene.put_rotation()
        scene.operator(*OFTEN)
        assert "spec.stytch.secretRef.namespace" in wait_ready(scene, "False", "ProviderInvalid")
        assert "spec.stytch.secretRef.namespace" in scene.wait_stalled("ProviderInvalid")
        calls = [call for calls in scene.account.simulator.calls.values() for call in list(calls)]
        assert calls == []


class Trickle:
    """A provider that answers whatever it is asked byte by byte, and never to the end."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.held = 0

    def __enter__(self) -> Trickle:
        self._server = self._stage.do(asyncio.start_server(self._answer, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._stage.do(self._close())

    async def _close(self) -> None:
        self._server.close()

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.held += 1
        try:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.2)
        except ConnectionError:
            self.held -= 1
        finally:
            writer.close()


def test_a_provider_that_trickles_holds_up_its_own_namespace_only(stage: Stage, scene: Scene) -> None:
    """More of its rotations and provider objects than there are workers, all asked for before those of another one."""
    with Trickle(stage) as trickle:
        for number in range(6):
            scene.put_secret(f"m2m-{number}", {"CLIENT_SECRET": "s"})
            scene.put_rotation(
                name=f"slow-{number}",
                clientId=f"client-{number}",
                secretRef={"name": f"m2m-{number}", "key": "CLIENT_SECRET"},
            )
            scene.put_provider(name=f"slow-{number}", baseUrl=trickle.url)
        scene.put_provider(baseUrl=trickle.url)
        operator = scene.operator("--workers", "4")
        scene.wait(lambda: trickle.held == 4, "half of the workers for rotations are held, and of those for providers")
        with Scene.in_new_namespace(stage, "neighbour") as neighbour:
            neighbour.put_rotation()
            wait_ready(neighbour, "True", "CredentialsAccepted")
            neighbour.wait_ended(seconds=20)
        assert trickle.held == 4
        facts = httpx.get(f"http://{operator.health}/healthz").json()["keyturn"]
        assert (facts["working"], facts["waiting"]) == (2, 4), "they are waited for, and nobody has given up on them"
