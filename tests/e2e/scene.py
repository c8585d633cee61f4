"""One rotation's surroundings in a namespace of its own, and what a test wants to know of them."""

from __future__ import annotations

import base64
import itertools
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sandbox.assets import find_kubectl
from sandbox.stage import Account, Operator, Stage, wait_until
from sandbox.traffic.report import PodTraffic

_numbers = itertools.count(1)
_STAMP = "keyturn.dev/rotation"
# By provider: the field that names the account, with the simulator's attribute for it; the attribute of the credential.
CREDENTIALS: Final = {
    "stytch": (("projectId", "project_id"), "project_secret"),
    "janrain": (("clientId", "owner_id"), "owner_secret"),
    "snaptrade": (("clientId", "client_id"), "consumer_key"),
}
_MERGE = {"Content-Type": "application/merge-patch+json"}


def encode(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


@dataclass
class Scene:
    """Names are fixed: Secret `m2m`, rotation `billing`, Deployment `web`; and a provider object named as its kind,

    `stytch` unless another is asked for, with its credential in the Secret `project`.
    """

    stage: Stage
    namespace: str
    account: Account[Any]
    client_id: str
    first_secret: str
    log: Path

    @classmethod
    @contextmanager
    def in_new_namespace(
        cls, stage: Stage, name: str, provider: str = "stytch", client: dict[str, str] | None = None
    ) -> Iterator[Scene]:
        """provider: `stytch`, `janrain` or `snaptrade`. client: what its client must be like, for the simulator."""
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
        namespace = f"{slug}-{next(_numbers)}"
        account: Account[Any] = getattr(stage, provider)(namespace)
        made = account.simulator.create(client or {})
        log = stage.control_plane.directory / f"{namespace}.log"
        scene = cls(stage, namespace, account, made["client_id"], made["client_secret"], log)
        stage.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}])
        scene.put_secret("project", {"secret": scene.credential})
        scene.put_secret("m2m", {"CLIENT_SECRET": scene.first_secret, "OTHER": "untouched"})
        scene.put_provider()
        operators: list[Operator] = []
        scene._operators = operators
        try:
            yield scene
        finally:
            for operator in operators:
                operator.kill()
            scene._leave()

    _operators: list[Operator] | None = None

    @property
    def operators(self) -> list[Operator]:
        """Those that were started, the newest last."""
        return self._operators or []

    def _leave(self) -> None:
        """Begin to delete the namespace: what is left here must not keep the machine, or the next operator, busy."""
        rotations = self.rotation_path.rpartition("/")[0]
        for item in (self.get(rotations) or {}).get("items", []):
            body = json.dumps({"metadata": {"finalizers": None}})
            path = f"{rotations}/{item['metadata']['name']}"
            self.stage.api.http.patch(path, content=body, headers=_MERGE)
            self.stage.api.http.delete(path)
        self.stage.api.http.delete(self.policy_path)
        self.stage.api.http.delete(f"/api/v1/namespaces/{self.namespace}")

    # --- what there is -------------------------------------------------------------------------------------------

    def put(self, obj: dict[str, Any]) -> None:
        if obj["kind"] not in ("ClusterRotationProvider", "RotationPolicy"):
            obj["metadata"].setdefault("namespace", self.namespace)
        self.stage.apply([obj])

    def put_secret(self, name: str, data: dict[str, str], **more: Any) -> None:
        values = {key: encode(value) for key, value in data.items()}
        self.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": values, **more})

    @property
    def provider(self) -> str:
        """What the provider is called: the kind of its simulator."""
        return str(self.account.simulator.kind)

    @property
    def credential(self) -> str:
        """What authenticates Keyturn to the provider."""
        return str(getattr(self.account.simulator, CREDENTIALS[self.provider][1]))

    def put_provider(
        self,
        *,
        kind: str = "RotationProvider",
        name: str | None = None,
        around: dict[str, Any] | None = None,
        **overrides: Any,
    ) -> None:
        """overrides: fields of the provider's block. around: fields beside it. One for the cluster has our name."""
        (field, attribute), _ = CREDENTIALS[self.provider]
        place = {} if kind == "RotationProvider" else {"namespace": self.namespace}
        block = {
            field: getattr(self.account.simulator, attribute),
            "secretRef": {"name": "project", "key": "secret", **place},
            "baseUrl": self.account.url,
            **overrides,
        }
        name = name or (self.provider if kind == "RotationProvider" else self.namespace)
        self.put(_keyturn(kind, name, {self.provider: block, **(around or {})}))

    def put_rotation(self, request: str | None = "a", *, name: str = "billing", **spec: Any) -> None:
        """A rotation, `billing` unless named; no soak unless asked for, so that tests are quick."""
        whole = {
            "providerRef": {"name": self.provider},
            "clientId": self.client_id,
            "secretRef": {"name": "m2m", "key": "CLIENT_SECRET"},
            "soak": "0s",
            **({"rotationRequest": request} if request is not None else {}),
            **spec,
        }
        self.put(_keyturn("ClientSecretRotation", name, whole))

    def put_policy(self, **spec: Any) -> None:
        """A RotationPolicy with the namespace's name, which covers this namespace unless it says otherwise."""
        ours = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}}}
        self.put(_keyturn("RotationPolicy", self.namespace, {**ours, **spec}))

    @property
    def policy_path(self) -> str:
        return f"/apis/keyturn.dev/v1alpha1/rotationpolicies/{self.namespace}"

    def put_deployment(
        self,
        name: str = "web",
        *,
        replicas: int = 3,
        pod_spec: dict[str, Any] | None = None,
        annotations: dict[str, str] | None = None,
        progress_deadline: int | None = None,
        wait: bool = True,
    ) -> None:
        """A Deployment whose pods read the Secret (by envFrom unless told otherwise) and call the provider with it."""
        client = {
            "client.sandbox.keyturn.dev/kind": self.account.kind,
            "client.sandbox.keyturn.dev/secret": "m2m/CLIENT_SECRET",
            "client.sandbox.keyturn.dev/id": self.client_id,
        }
        by_env = {"containers": [{"name": "app", "image": "app", "envFrom": [{"secretRef": {"name": "m2m"}}]}]}
        template = {
            "metadata": {"labels": {"app": name}, "annotations": {**client, **(annotations or {})}},
            "spec": pod_spec or by_env,
        }
        spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
        if progress_deadline is not None:
            spec["progressDeadlineSeconds"] = progress_deadline
        self.put({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec})
        if wait:
            self.wait_available(name, replicas)

    def restart_by_user(self, name: str = "web") -> None:
        """What `kubectl rollout restart` does."""
        stamp = {"kubectl.kubernetes.io/restartedAt": datetime.now(UTC).isoformat()}
        self.patch(self.deployment_path(name), {"spec": {"template": {"metadata": {"annotations": stamp}}}})

    def operator(self, *options: str, kubeconfig: Path | None = None) -> Operator:
        """Start an operator under the shipped ServiceAccount; its log is appended to `log`."""
        started = self.stage.operator("--log-format", "text", "--debug", *options, log=self.log, kubeconfig=kubeconfig)
        if self._operators is not None:
            self._operators.append(started)
        return started

    # --- what happened -------------------------------------------------------------------------------------------

    def get(self, path: str) -> dict[str, Any] | None:
        """GET any path of the API, as the administrator; None when there is nothing."""
        answer = self.stage.api.http.get(path)
        if answer.status_code == 404:
            return None
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    def patch(self, path: str, patch: dict[str, Any]) -> None:
        self.stage.api.http.patch(path, content=json.dumps(patch), headers=_MERGE).raise_for_status()

    def delete(self, path: str) -> None:
        self.stage.api.http.delete(path).raise_for_status()

    @property
    def rotation_path(self) -> str:
        return f"/apis/keyturn.dev/v1alpha1/namespaces/{self.namespace}/clientsecretrotations/billing"

    @property
    def secret_path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/secrets/m2m"

    def deployment_path(self, name: str = "web") -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{name}"

    def rotation(self) -> dict[str, Any]:
        found = self.get(self.rotation_path)
        assert found is not None
        return found

    def status(self) -> dict[str, Any]:
        return self.rotation().get("status") or {}

    def condition(self, kind: str) -> dict[str, Any] | None:
        return next((item for item in self.status().get("conditions", []) if item["type"] == kind), None)

    def secret(self, name: str = "m2m") -> dict[str, str]:
        found = self.get(f"/api/v1/namespaces/{self.namespace}/secrets/{name}")
        assert found is not None
        return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}

    def journals(self) -> list[str]:
        listed = self.get(f"/api/v1/namespaces/{self.namespace}/secrets")
        assert listed is not None
        return [item["metadata"]["name"] for item in listed["items"] if "journal" in item["metadata"]["name"]]

    def restarts(self, name: str = "web") -> int:
        """How many pod templates this Deployment has had after its first one."""
        return len(self._templates(name)) - 1

    def stamps(self, name: str = "web") -> set[str]:
        """The rotations, and cancellations of rotations, for which Keyturn has restarted this Deployment."""
        annotations = [item["metadata"].get("annotations") or {} for item in self._templates(name)]
        return {found[_STAMP] for found in annotations if _STAMP in found}

    def _templates(self, name: str) -> list[dict[str, Any]]:
        listed = self.get(f"/apis/apps/v1/namespaces/{self.namespace}/replicasets")
        assert listed is not None
        owned = [item for item in listed["items"] if item["metadata"]["ownerReferences"][0]["name"] == name]
        return [item["spec"]["template"] for item in owned]

    def events(self) -> list[dict[str, Any]]:
        """The Events about the rotation."""
        listed = self.get(f"/api/v1/namespaces/{self.namespace}/events")
        assert listed is not None
        return [item for item in listed["items"] if item["involvedObject"]["kind"] == "ClientSecretRotation"]

    def traffic(self) -> list[PodTraffic]:
        return [pod for pod in self.stage.traffic().pods if pod.namespace == self.namespace]

    def running(self) -> list[PodTraffic]:
        """The traffic of the pods whose containers have not ended."""
        return [pod for pod in self.traffic() if pod.stopped is None]

    def calls(self) -> dict[str, int]:
        pods = self.traffic()
        return {
            "accepted": sum(pod.calls.accepted.count for pod in pods),
            "refused": sum(pod.calls.refused.count for pod in pods),
            "failed": sum(pod.calls.failed.count for pod in pods),
        }

    def applied(self, operation: str) -> int:
        """How often the provider carried out start, rotate or cancel for the client."""
        return int(self.account.simulator.counted(self.client_id, operation, "applied"))

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        command = [str(find_kubectl()), "--kubeconfig", str(self.stage.control_plane.kubeconfig)]
        done = subprocess.run(
            [*command, "--namespace", self.namespace, *arguments], capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    # --- waiting -------------------------------------------------------------------------------------------------

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
        try:
            return wait_until(condition, what, seconds=seconds)
        except TimeoutError as error:
            tail = "\n".join(self.log.read_text().splitlines()[-40:]) if self.log.exists() else "no operator log"
            status = json.dumps(self.get(self.rotation_path), indent=1)
            raise AssertionError(f"{error}\n{status}\n{tail}") from None

    def wait_phase(self, *phases: str, seconds: float = 60) -> str:
        found = self.wait(
            lambda: (phase := self.status().get("phase")) in phases and phase, f"phase {'/'.join(phases)}", seconds
        )
        return str(found)

    def wait_ended(self, phase: str = "Completed", seconds: float = 60) -> None:
        """Until the rotation has ended so, and nothing of it is left."""
        self.wait_phase(phase, seconds=seconds)
        self.wait(lambda: not self.rotation()["metadata"].get("finalizers"), "the finalizer is gone", seconds)
        assert self.journals() == []

    def wait_stalled(self, reason: str, seconds: float = 60) -> str:
        """Until the condition Stalled has this reason; its message."""

        def found() -> str | None:
            stalled = self.condition("Stalled")
            return stalled["message"] if stalled and stalled["reason"] == reason else None

        return str(self.wait(found, f"Stalled with reason {reason}", seconds))

    def wait_available(self, name: str, replicas: int) -> None:
        def available() -> bool:
            found = self.get(self.deployment_path(name)) or {}
            return bool(found.get("status", {}).get("availableReplicas", 0) == replicas)

        self.wait(available, f"{replicas} pods of {name} available")


def _keyturn(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "keyturn.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
