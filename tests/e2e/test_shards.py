"""Three replicas that share the work: each rotation has one owner, whoever comes, dies, freezes or is replaced.

Leases are short here: a replica is given up after six seconds.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from keyturn.cluster.client import Kube
from keyturn.controller.controller import Controller
from keyturn.controller.crew import Shards, Work
from keyturn.controller.metrics import Metrics
from keyturn.controller.settings import Settings
from keyturn.controller.sharding import shard_of
from keyturn.providers.addresses import AddressRule, parse_networks
from tests.e2e.crash import HOLD, calls, let_verify
from tests.e2e.fleet import TAKEN_OVER, Fleet, fleet
from tests.e2e.scene import Scene


@pytest.fixture
def six(scene: Scene) -> Iterator[Fleet]:
    """Six shards, with a namespace in each."""
    with fleet(scene, 6) as found:
        yield found


def hold_verifying(six: Fleet, request: str) -> None:
    """Bring all rotations to a place in their middle where they stay."""
    six.scene.account.simulator.switches.propagation_delay = HOLD
    six.rotate(request)
    six.scene.wait(lambda: six.phases() == {"Verifying"}, "all rotations are in their middle")


def test_rotations_spread_and_a_killed_replica_is_replaced(six: Fleet) -> None:
    """I5, I6, I9: those in the middle are brought to their end by others, with no second call."""
    six.start("one", "two", "three")
    owned = six.wait_shared("one", "two", "three")
    hold_verifying(six, "a")
    for name, shards in owned.items():
        worked_on = {
            namespace for namespace in six.clients if f"phase Verifying  [object={namespace}/" in six.log(name)
        }
        assert {shard_of(namespace, 6) for namespace in worked_on} == shards

    six.replicas["one"].kill()
    six.wait_shared("two", "three", seconds=TAKEN_OVER)
    let_verify(six.scene)
    six.wait_ended("a")
    assert six.applied("start") == six.applied("rotate") == [1] * 6
    assert calls(six.scene, "start") == 6

    six.start("four")
    six.wait_shared("two", "three", "four")
    six.rotate("b")
    six.wait_ended("b")
    assert six.applied("start") == six.applied("rotate") == [2] * 6
    six.scene.wait(
        lambda: len([name for name in six.leases() if "member" in name]) == 3, "the dead one's Lease is gone"
    )


def test_a_replica_that_thaws_undoes_nothing_and_gets_its_share_again(six: Fleet) -> None:
    """I1, I5: by then others have completed what was its; nothing is written, and nobody is called."""
    six.start("one", "two", "three")
    six.wait_shared("one", "two", "three")
    hold_verifying(six, "a")
    six.freeze("one")
    six.wait_shared("two", "three", seconds=TAKEN_OVER)
    let_verify(six.scene)
    six.wait_ended("a")
    before, called = six.objects(), six.received()
    six.thaw("one")
    six.wait_shared("one", "two", "three")
    assert "is lost" in six.log("one")
    assert six.objects() == before
    assert six.received() == called
    assert six.applied("start") == six.applied("rotate") == [1] * 6


def test_replicas_with_another_number_of_shards_wait_for_the_last_of_the_old_ones(six: Fleet) -> None:
    """I6: as in a rolling update, from six shards to none; and what was the old ones' is taken up."""
    six.start("one", "two")
    six.wait_shared("one", "two")
    hold_verifying(six, "a")
    six.start("new", count=1)
    six.wait_log("new", "standing by: shards=6 holds the lease")
    os.kill(six.replicas["one"].pid, signal.SIGTERM)
    six.wait_shared("two")
    assert six.shards("new") == set()
    os.kill(six.replicas["two"].pid, signal.SIGTERM)
    six.wait_shared("new", count=1, seconds=TAKEN_OVER)
    let_verify(six.scene)
    six.wait_ended("a")
    assert six.applied("start") == six.applied("rotate") == [1] * 6
    assert six.leases()["keyturn"] == "new"
    assert not [name for name in six.leases() if "member" in name]


class Both:
    """Two shards, both ours: in each of two processes, as if no Lease had kept them apart."""

    count = 2

    def check(self, shard: int) -> None:
        pass

    def held(self) -> frozenset[int]:
        return frozenset({0, 1})

    async def campaign(self, work: Work) -> None:
        await asyncio.Event().wait()


def test_two_rotations_of_one_client_that_begin_at_the_same_time_both_see_each_other(six: Fleet) -> None:
    """I6: in two namespaces, each known to one process only, as if the watches of both lagged behind."""
    scene, (first, second, *_) = six.scene, six.clients
    six.clients = {first: six.clients[first], second: six.clients[first]}
    six.rotate("a")
    shards: Shards = Both()

    async def begin(kube: Kube, namespace: str) -> None:
        settings = Settings(addresses=AddressRule(parse_networks(["127.0.0.0/8"])))
        controller = Controller(kube, settings, None, shards, lambda: datetime.now(UTC), Metrics())
        controller._working = {0, 1}
        provider = f"/apis/keyturn.dev/v1alpha1/clusterrotationproviders/{scene.namespace}"
        for raw in (six.rotation(namespace), scene.get(provider)):
            assert raw is not None
            controller.seen(raw, False)
        try:
            await controller.rotate((namespace, "billing"))
        finally:
            await controller._accounts.aclose()
            await controller._observers.aclose()

    async def both() -> None:
        kube = await Kube.connect(scene.stage.control_plane.kubeconfig)
        try:
            await asyncio.gather(begin(kube, first), begin(kube, second))
        finally:
            await kube.aclose()

    scene.stage.do(both())
    for namespace in (first, second):
        (stalled,) = [one for one in six.rotation(namespace)["status"]["conditions"] if one["type"] == "Stalled"]
        assert stalled["reason"] == "ClientConflict"
    assert calls(scene, "start") == 0
