"""The yardstick: a script that makes the calls of one rotation in order, as one would write it for one Deployment.

It keeps nothing safe: no journal, no status, no way back, and nothing that a crash could be resumed from.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx

from sandbox.controlplane.endpoint import Endpoint

_MERGE = {"Content-Type": "application/merge-patch+json"}


class StraightScript:
    """Rotates the secret of a Stytch client, with connections that are open already, as an operator's are."""

    def __init__(self, endpoint: Endpoint, url: str, project: str, project_secret: str) -> None:
        self._kube = httpx.Client(
            base_url=endpoint.server, headers=endpoint.headers(), verify=endpoint.ssl_context(), timeout=30
        )
        self._provider = httpx.Client(base_url=url, auth=(project, project_secret), timeout=30, trust_env=False)
        self._project = project

    def close(self) -> None:
        """Close the connections."""
        self._kube.close()
        self._provider.close()

    def connect(self) -> None:
        """Open the connections."""
        self._kube.get("/version").raise_for_status()
        self._provider.get("/")

    def rotate(self, client: str, namespace: str, secret: tuple[str, str], deployment: str, mark: str) -> None:
        """Inspect, start, verify, write the Secret, restart, wait for the rollout, finalize, try the old value."""
        managed = f"/v1/m2m/clients/{client}"
        name, key = secret
        self._provider.get(managed).raise_for_status()
        started = self._provider.post(f"{managed}/secrets/rotate/start", json={}).raise_for_status()
        value = started.json()["m2m_client"]["next_client_secret"]
        old = self._kube.get(f"/api/v1/namespaces/{namespace}/secrets/{name}").raise_for_status().json()["data"][key]
        wanted = {"grant_type": "client_credentials", "client_id": client, "client_secret": value}
        self._provider.post(f"/v1/public/{self._project}/oauth2/token", json=wanted).raise_for_status()
        self._patch(
            f"/api/v1/namespaces/{namespace}/secrets/{name}", {"data": {key: base64.b64encode(value.encode()).decode()}}
        )
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        template = {"metadata": {"annotations": {"restarted": mark}}}
        self._wait_for_rollout(path, self._patch(f"{path}/{deployment}", {"spec": {"template": template}}))
        self._provider.post(f"{managed}/secrets/rotate", json={}).raise_for_status()
        dropped = {**wanted, "client_secret": base64.b64decode(old).decode()}
        if self._provider.post(f"/v1/public/{self._project}/oauth2/token", json=dropped).is_success:
            raise RuntimeError("the provider still accepts the old value")

    def _patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = (
            self._kube.patch(path, content=json.dumps(body), headers=_MERGE).raise_for_status().json()
        )
        return answer

    def _wait_for_rollout(self, path: str, deployment: dict[str, Any]) -> None:
        """What `kubectl rollout status` does: watch, until only new pods are left and all are available."""
        meta = deployment["metadata"]
        query = {
            "watch": "true",
            "resourceVersion": meta["resourceVersion"],
            "fieldSelector": f"metadata.name={meta['name']}",
        }
        with self._kube.stream("GET", path, params=query) as stream:
            for line in stream.iter_lines():
                if _rolled_out(json.loads(line)["object"], meta["generation"]):
                    return
        raise TimeoutError(f"the rollout of {meta['name']} was not seen to end")


def _rolled_out(deployment: dict[str, Any], generation: int) -> bool:
    status, replicas = deployment.get("status") or {}, deployment["spec"]["replicas"]
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    return bool(status.get("observedGeneration", 0) >= generation and counts == [replicas] * 3)
