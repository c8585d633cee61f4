"""A small synchronous Kubernetes client: applies YAML documents of any kind, mints tokens."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml

from sandbox.controlplane.endpoint import Endpoint

FIELD_MANAGER = "keyturn-sandbox"

_DISCOVERY_PATIENCE = 5.0


class ApplyError(Exception):
    """An object could not be applied; the message names it and says what the API server answered."""


class Resources:
    """Server-side apply over one HTTP connection pool; close it, or use it as a context manager."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.http = httpx.Client(
            base_url=endpoint.server,
            headers=endpoint.headers(),
            verify=endpoint.ssl_context(),
            timeout=30,
            # Threads share it, and httpcore may close an idle connection as surplus or expired just when another
            # thread begins to use it (encode/httpcore issue 1110): so none is ever surplus or expired.
            limits=httpx.Limits(max_connections=100, max_keepalive_connections=None, keepalive_expiry=None),
        )
        self._kinds: dict[str, dict[str, dict[str, Any]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.http.close()

    def apply(self, objects: Iterable[dict[str, Any]]) -> None:
        """Server-side apply `objects` in the order given; CustomResourceDefinitions are waited for until Established.

        An object of a namespaced kind that names no namespace goes to "default". Conflicts are forced.
        Raises ApplyError.
        """
        for obj in objects:
            path = self.path(obj)
            definition = obj["kind"] == "CustomResourceDefinition"
            answer = self._define(path, obj) if definition else self._apply(path, obj)
            if answer.is_error:
                raise ApplyError(f"cannot apply {_label(obj)}: {_message(answer)}")
            if definition:
                self._wait_established(obj, path)

    def _apply(self, path: str, obj: dict[str, Any]) -> httpx.Response:
        return self.http.patch(
            path,
            params={"fieldManager": FIELD_MANAGER, "force": "true"},
            content=yaml.safe_dump(obj),
            headers={"Content-Type": "application/apply-patch+yaml"},
        )

    def _define(self, path: str, obj: dict[str, Any]) -> httpx.Response:
        """Create or replace: servers before 1.25 refuse to *apply* a CRD with CEL rules, but drop them when written."""
        params = {"fieldManager": FIELD_MANAGER}
        answer = self.http.post(path.rpartition("/")[0], params=params, json=obj)
        if answer.status_code != httpx.codes.CONFLICT:
            return answer
        version = self.http.get(path).raise_for_status().json()["metadata"]["resourceVersion"]
        replaced = {**obj, "metadata": {**obj["metadata"], "resourceVersion": version}}
        return self.http.put(path, params=params, json=replaced)

    def path(self, obj: dict[str, Any]) -> str:
        """The URL path of `obj`; ApplyError when the server does not serve its kind."""
        group_version, name = obj["apiVersion"], obj["metadata"]["name"]
        prefix = f"/apis/{group_version}" if "/" in group_version else f"/api/{group_version}"
        resource = self._discover(prefix, obj)
        namespace = f"/namespaces/{obj['metadata'].get('namespace', 'default')}" if resource["namespaced"] else ""
        return f"{prefix}{namespace}/{resource['name']}/{name}"

    def token(self, namespace: str, name: str, seconds: int) -> str:
        """A token for ServiceAccount `name`, by the TokenRequest API; ApplyError when it does not exist."""
        answer = self.http.post(
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token",
            json={
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": seconds},
            },
        )
        if answer.is_error:
            raise ApplyError(f"no token for ServiceAccount {namespace}/{name}: {_message(answer)}")
        return str(answer.json()["status"]["token"])

    def run_now(self, namespace: str, cron_job: str) -> None:
        """Have a CronJob that runs every minute run at once, by telling it that its last run was two minutes ago."""
        versions = self.http.get("/apis/batch").raise_for_status().json()["versions"]
        known = [f"/apis/{each['groupVersion']}" for each in versions]
        prefix = next(path for path in known if "CronJob" in self._load(path))
        ago = datetime.now(UTC) - timedelta(minutes=2)
        self.http.patch(
            f"{prefix}/namespaces/{namespace}/cronjobs/{cron_job}/status",
            json={"status": {"lastScheduleTime": ago.strftime("%Y-%m-%dT%H:%M:%SZ")}},
            headers={"Content-Type": "application/merge-patch+json"},
        ).raise_for_status()

    def attach(self, namespace: str, pod: str, container: dict[str, Any]) -> None:
        """Add an ephemeral container to a running pod, as `kubectl debug` does. Raises ApplyError.

        Servers up to 1.21 have a kind of its own for that; later ones take the pod.
        """
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/ephemeralcontainers"
        found = self.http.get(path)
        if found.is_error:
            raise ApplyError(f"no ephemeral container for Pod {namespace}/{pod}: {_message(found)}")
        whole = found.json()
        holder = whole if whole["kind"] == "EphemeralContainers" else whole["spec"]
        defaults = {"terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent"}
        holder["ephemeralContainers"] = [*(holder.get("ephemeralContainers") or []), defaults | container]
        answer = self.http.put(path, json=whole)
        if answer.is_error:
            raise ApplyError(f"no ephemeral container for Pod {namespace}/{pod}: {_message(answer)}")

    def _discover(self, prefix: str, obj: dict[str, Any]) -> dict[str, Any]:
        """What the server says about the kind of `obj`; a kind that has just been defined may take a moment."""
        deadline = time.monotonic() + _DISCOVERY_PATIENCE
        while True:
            kinds = self._kinds.get(prefix) or self._load(prefix)
            if obj["kind"] in kinds:
                return kinds[obj["kind"]]
            if time.monotonic() > deadline:
                raise ApplyError(
                    f"cannot apply {_label(obj)}: the API server serves no {obj['kind']} in {obj['apiVersion']};"
                    " apply its CustomResourceDefinition first"
                )
            self._kinds.pop(prefix, None)
            time.sleep(0.05)

    def _load(self, prefix: str) -> dict[str, dict[str, Any]]:
        answer = self.http.get(prefix)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return {}
        answer.raise_for_status()
        kinds = {item["kind"]: item for item in answer.json()["resources"] if "/" not in item["name"]}
        self._kinds[prefix] = kinds
        return kinds

    def _wait_established(self, obj: dict[str, Any], path: str) -> None:
        deadline = time.monotonic() + 20
        conditions: list[dict[str, Any]] = []
        while time.monotonic() < deadline:
            conditions = self.http.get(path).raise_for_status().json().get("status", {}).get("conditions") or []
            if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                return
            time.sleep(0.05)
        reasons = "; ".join(f"{c['type']}={c['status']}: {c.get('message', '')}" for c in conditions)
        raise ApplyError(f"{_label(obj)} was not established within 20 s: {reasons or 'no condition was set'}")


def documents(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """All YAML documents in `paths`; of a folder, those in its *.yaml files, by name.

    Empty documents and kustomize's own are left out.

    Raises ApplyError for a path that does not exist or holds no manifest.
    """
    found: list[dict[str, Any]] = []
    for path in paths:
        files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        if not files or not all(file.is_file() for file in files):
            raise ApplyError(f"no manifests at {path}: give a YAML file or a folder with *.yaml files")
        for file in files:
            for document in filter(None, yaml.safe_load_all(file.read_text())):
                if str(document.get("apiVersion")).startswith("kustomize.config.k8s.io/"):
                    continue
                if "kind" not in document or "name" not in document.get("metadata", {}):
                    raise ApplyError(f"{file} holds a document without kind or metadata.name, so it can't be applied")
                found.append(document)
    return found


def _label(obj: dict[str, Any]) -> str:
    metadata = obj["metadata"]
    return f"{obj['kind']} " + "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))


def _message(answer: httpx.Response) -> str:
    try:
        return f"{answer.status_code}: {answer.json()['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code}: {answer.text[:500]}"
