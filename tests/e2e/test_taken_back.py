"""Something in the cluster takes back what Keyturn writes, such as an admission webhook that guards pod templates."""

from __future__ import annotations

import json
import time

from aiohttp import web

from tests.e2e.apilog import recorded
from tests.e2e.proxy import Exchange, pass_on
from tests.e2e.scene import Scene


async def without_stamp(exchange: Exchange) -> web.StreamResponse:
    """As a mutating webhook would: the patch of a workload is accepted, and its annotation is not kept."""
    if exchange.method == "PATCH" and "/deployments/" in exchange.path:
        body = json.loads(exchange.body)
        body["spec"]["template"]["metadata"]["annotations"].clear()
        exchange.body = json.dumps(body).encode()
    return await pass_on(exchange)


def test_a_restart_that_is_taken_back_for_good_is_said_and_ends_by_its_timeout(scene: Scene) -> None:
    """I3, I7, I9, I12: nothing was restarted, so nothing is lost; and it is not tried in a circle."""
    scene.put_deployment(replicas=1)
    # A pod that starts in the second in which the new value is written may hold it, and could not be restarted here.
    time.sleep(1)
    scene.put_rotation("a", rollout={"timeout": "10s"})
    with recorded(scene, without_stamp) as log:
        scene.operator(kubeconfig=log.kubeconfig)
        scene.wait(lambda: "WriteNotSeen" in json.dumps(scene.status()), "it is said in the status")
        scene.wait_ended("Cancelled")
        tries = [one for one in log.about(scene) if one.what == "deployments/web" and one.method == "PATCH"]
    assert 1 < len([one for one in tries if not one.dry_run]) < 10
    assert scene.secret()["CLIENT_SECRET"] == scene.first_secret
    assert scene.account.simulator.accepts(scene.client_id, scene.first_secret)
    assert scene.calls()["refused"] == 0
    assert (scene.get(scene.deployment_path()) or {})["metadata"]["generation"] == 1
