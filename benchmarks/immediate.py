"""A provider that kills the old value at once: how long pods must do without, in round trips to the API server."""

from __future__ import annotations

import base64
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

import httpx

from benchmarks.counting import CountingProxy
from sandbox.controlplane.endpoint import Endpoint
from sandbox.stage import NAMESPACE, SERVICE_ACCOUNT, Stage, wait_until

_PLACE: Final = "immediate"
_KEY: Final = "USER_SECRET"
_SECRET: Final = f"/api/v1/namespaces/{_PLACE}/secrets/user"
_GROUP: Final = "keyturn.dev/v1alpha1"
_ROTATION: Final = f"/apis/{_GROUP}/namespaces/{_PLACE}/clientsecretrotations/user"
_PAUSE: Final = 0.3
_MERGE: Final = {"Content-Type": "application/merge-patch+json"}


@dataclass(frozen=True)
class Immediate:
    """seconds: from each answer of the provider until the Secret is written. round_trips: of one write of it each."""

    seconds: list[float]
    round_trips: list[float]

    def quantile(self, share: float) -> float:
        """The time that this share of the rotations did not exceed, in round trips."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / statistics.median(self.round_trips)


def measure_immediate(stage: Stage, times: int, say: Callable[[str], None]) -> Immediate:
    """Rotate a SnapTrade user's secret so often; operator and yardstick go through the same proxy, in turn.

    Both write once in a while: the hundredth write of a client that does nothing else is twice as fast as its first.
    """
    endpoint = stage.control_plane.service_account_endpoint(NAMESPACE, SERVICE_ACCOUNT)
    proxy = CountingProxy(endpoint)
    serving = proxy.running()
    url = stage.do(serving.__aenter__())
    try:
        through = Endpoint(url, endpoint.ca_file, endpoint.token)
        path = stage.control_plane.directory / "kubeconfig-immediate"
        operator = stage.operator(kubeconfig=through.write_kubeconfig(path, "immediate"))
        user = _User(stage)
        user.rotate()  # warm: connections, caches, compiled code
        found = Immediate([], [])
        with _Yardstick(through) as yardstick:
            for number in range(times):
                proxy.answered.clear()
                answered = user.rotate()
                written = next(at for method, what, at in proxy.answered if (method, what) == ("PATCH", _SECRET))
                found.seconds.append(written - answered)
                time.sleep(_PAUSE)
                found.round_trips.append(yardstick.write(number))
                time.sleep(_PAUSE)
        operator.stop()
    finally:
        stage.do(serving.__aexit__(None, None, None))
    say(f"Immediate: the Secret is written after {found.quantile(0.5):.2f} round trips")
    return found


class _User:
    """A user at SnapTrade, with the Secret and its rotation."""

    def __init__(self, stage: Stage) -> None:
        self._account = stage.snaptrade("immediate")
        self._http = stage.api.http
        self._requests = 0
        made = self._account.simulator.create({})
        self._id: str = made["client_id"]
        stage.apply(self._objects(made["client_secret"]))

    def rotate(self) -> float:
        """Rotate once; when the provider had replaced the value, in epoch seconds."""
        self._requests += 1
        request = str(self._requests)
        body = json.dumps({"spec": {"rotationRequest": request}})
        self._http.patch(_ROTATION, content=body, headers=_MERGE).raise_for_status()

        def ended() -> bool:
            found: dict[str, Any] = self._http.get(_ROTATION).raise_for_status().json()
            last = (found.get("status") or {}).get("lastRotation") or {}
            if last.get("request") == request and last["result"] != "Completed":
                raise RuntimeError(f"the rotation ended {last['result']}: {last['message']}")
            return last.get("request") == request and not found["metadata"].get("finalizers")

        wait_until(ended, "the rotation has ended")
        times = self._account.simulator.counters[self._id]["start"]["applied"].times
        return float(times[-1])

    def _objects(self, value: str) -> list[dict[str, Any]]:
        simulator = self._account.simulator
        ref = {"name": "project", "key": "secret"}
        block = {"clientId": simulator.client_id, "secretRef": ref, "baseUrl": self._account.url}
        rotation = {
            "providerRef": {"name": "snaptrade"},
            "clientId": self._id,
            "secretRef": {"name": "user", "key": _KEY},
            "acceptDowntime": True,
            "soak": "0s",
        }
        objects: list[dict[str, Any]] = [
            _secret("project", "secret", simulator.consumer_key),
            _secret("user", _KEY, value),
            _ours("RotationProvider", "snaptrade", {"snaptrade": block}),
            _ours("ClientSecretRotation", "user", rotation),
        ]
        for item in objects:
            item["metadata"]["namespace"] = _PLACE
        return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _PLACE}}, *objects]


class _Yardstick:
    """A client with an open connection, which writes the same Secret."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._http = httpx.Client(base_url=endpoint.server, headers=endpoint.headers(), timeout=30, trust_env=False)

    def __enter__(self) -> Self:
        self.write(0)
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def write(self, number: int) -> float:
        """Write once; the seconds that it took."""
        data = {"yardstick": base64.b64encode(str(number).encode()).decode()}
        begun = time.perf_counter()
        self._http.patch(_SECRET, content=json.dumps({"data": data}), headers=_MERGE).raise_for_status()
        return time.perf_counter() - begun


def _ours(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": _GROUP, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _secret(name: str, key: str, value: str) -> dict[str, Any]:
    data = {key: base64.b64encode(value.encode()).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
