"""Rate limits from end to end, seen from the provider's side: ours, and what a provider says of its own."""

from __future__ import annotations

import time

from sandbox.simulators.faults import How
from tests.e2e.apilog import recorded
from tests.e2e.many import operator_calls, put_many, wait_completed
from tests.e2e.scene import Scene

RATE, BURST, COUNT = 4, 6, 8


def test_two_objects_of_one_account_keep_to_its_limit_together(scene: Scene) -> None:
    """What has begun is brought to its end before more begins; who waits says so, without many writes."""
    limit = {"rateLimit": {"requestsPerSecond": RATE, "burst": BURST}}
    scene.put_provider(around=limit)
    scene.put_provider(name="second", around=limit)
    with recorded(scene) as log:
        ones = put_many(scene, COUNT) + put_many(scene, COUNT, "s", providerRef={"name": "second"})
        scene.operator(kubeconfig=log.kubeconfig)
        scene.wait(lambda: any("RateLimited" in one.reasons() for one in ones), "somebody says why nothing happens")
        wait_completed(ones)
        times = [call.time for call in operator_calls(scene)]
        for first in range(len(times)):
            for last in range(first + BURST, len(times)):
                # What was set aside for a call may be sent a moment later.
                assert last - first + 1 <= 2 * BURST + (times[last] - times[first]) * RATE + 1
        starts = sorted(when for one in ones for when in one.applied("start"))
        ends = sorted(when for one in ones for when in one.applied("rotate"))
        assert ends[COUNT // 2] < starts[-1], "rotations that have begun wait behind others that begin"
        for one in ones:
            writes = [
                request
                for request in log.about(scene)
                if request.path.endswith(f"/{one.name}/status") and not request.dry_run
            ]
            assert len(writes) <= 9, f"{one.name}: {len(writes)} writes of its status"


def test_the_whole_account_waits_as_long_as_the_provider_asks(scene: Scene) -> None:
    """429 with Retry-After for one rotation: nobody else asks either, be it through another object."""
    scene.put_provider(name="second")
    scene.operator()
    scene.wait(lambda: len(operator_calls(scene)) >= 2, "both objects are checked")
    (one,) = put_many(scene, 1, "a", request=None)
    scene.wait(lambda: "CredentialVerified" in one.reasons(), "it is known")
    scene.account.simulator.add_fault("get", status=429, headers={"Retry-After": "15"}, caller="keyturn")
    begun = time.time()
    scene.patch(one.path, {"spec": {"rotationRequest": "a"}})
    scene.wait(lambda: "ProviderRateLimited" in one.reasons(), "the limit is said")
    limited = max(call.time for call in operator_calls(scene))
    assert limited >= begun
    (other,) = put_many(scene, 1, "b", providerRef={"name": "second"})
    scene.wait(lambda: "RateLimited" in other.reasons(), "the other one says what it waits for")
    said = next(item for item in other.status()["conditions"] if item["type"] == "Reconciling")["message"]
    assert "left alone until" in said
    wait_completed([one, other])
    later = [call.time for call in operator_calls(scene) if call.time > limited]
    assert later[0] - limited > 14.5


def test_what_snaptrade_says_is_left_is_kept_to(snaptrade_scene: Scene) -> None:
    """X-RateLimit-Remaining and -Reset come with every answer (PROVIDERS.md A2): at nothing left, nothing is sent."""
    scene = snaptrade_scene
    scene.operator()
    scene.wait(lambda: operator_calls(scene), "the account is checked")
    (one,) = put_many(scene, 1, "a", request=None, acceptDowntime=True)
    scene.wait(lambda: "CredentialVerified" in one.reasons(), "it is known")
    spent = {"X-RateLimit-Limit": "250", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "4"}
    scene.account.simulator.add_fault("*", how=How.PROPER, headers=spent, caller="keyturn")
    known = len(operator_calls(scene))
    scene.patch(one.path, {"spec": {"rotationRequest": "a"}})
    wait_completed([one])
    first, second = operator_calls(scene)[known : known + 2]
    assert second.time - first.time > 3.5
