"""One look at a Rollout: read it and what belongs to it, do what is due, write its status."""

from datetime import UTC, datetime
from typing import Final

from sandbox.argo import desired, status
from sandbox.argo.desired import GROUP_VERSION, HASH, InvalidSpec, Obj
from sandbox.argo.status import Seen
from sandbox.kubelet.api import API, APIError

ROLLOUTS_PATH: Final = f"/apis/{GROUP_VERSION}/rollouts"
REVISION: Final = "rollout.argoproj.io/revision"
WORKLOAD_GENERATION: Final = "rollout.argoproj.io/workload-generation"

_MERGE = "application/merge-patch+json"
_AGAIN = 0.2
_AGAIN_INVALID = 20.0
Key = tuple[str, str]


class Sync:
    """Nothing is remembered from one look to the next; everything is read anew."""

    def __init__(self, api: API) -> None:
        self._api = api

    async def once(self, key: Key) -> float | None:
        """Bring a Rollout one step further; in how many seconds to look again when nothing happens before."""
        rollout = await self._api.get(_path(*key))
        if rollout is None or rollout["metadata"].get("deletionTimestamp"):
            return None
        now = datetime.now(UTC)
        if "replicas" not in rollout["spec"]:
            await self._api.call("PATCH", _path(*key), {"spec": {"replicas": 1}}, _MERGE)
            return _AGAIN
        try:
            workload_generation = await self._resolve(rollout)
            desired.check(rollout["spec"])
        except InvalidSpec as why:
            await self._show(rollout, status.invalid(rollout, str(why), now))
            return _AGAIN_INVALID  # what it refers to may come yet
        current = desired.template_hash(rollout["spec"]["template"])
        owned = await self._replicasets(rollout, current)
        restarted_at, again = await self._restart(rollout, current, owned, now)
        if not rollout["spec"].get("paused"):
            owned = await self._scale(rollout, owned)
        after = status.of(Seen(rollout, current, owned, restarted_at, workload_generation, now))
        await self._show(rollout, after)
        waits = [wait for wait in (again, status.deadline(rollout, after, now)) if wait is not None]
        return max(_AGAIN, min(waits)) if waits else None

    async def _resolve(self, rollout: Obj) -> str | None:
        """Put the template and selector of spec.workloadRef into `rollout`; the workload's generation.

        As upstream (rollout/temlateref.go), the generation is noted as an annotation as well. Raises InvalidSpec.
        """
        spec, reference = rollout["spec"], rollout["spec"].get("workloadRef")
        if not reference:
            return None
        kind = f"{reference.get('apiVersion')}/{reference.get('kind')}"
        if kind != "apps/v1/Deployment":
            raise InvalidSpec(f"workload of type {kind} is not supported")
        namespace, name = key_of(rollout)
        deployment = await self._api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/{reference['name']}")
        if deployment is None:
            raise InvalidSpec(f'deployments.apps "{reference["name"]}" not found')
        spec["template"] = deployment["spec"]["template"]
        spec.setdefault("selector", deployment["spec"]["selector"])
        generation = str(deployment["metadata"]["generation"])
        if (rollout["metadata"].get("annotations") or {}).get(WORKLOAD_GENERATION) != generation:
            note = {"metadata": {"annotations": {WORKLOAD_GENERATION: generation}}}
            await self._api.call("PATCH", _path(namespace, name), note, _MERGE)
        return generation

    async def _replicasets(self, rollout: Obj, current: str) -> list[Obj]:
        """Its ReplicaSets, the oldest revision first and the one of the newest template last, which is made if need be.

        Revisions are counted as a Deployment's are: going back to a template makes it the newest (rollout/sync.go).
        """
        namespace, name = key_of(rollout)
        path = f"/apis/apps/v1/namespaces/{namespace}/replicasets"
        owned = [each for each in (await self._api.call("GET", path))["items"] if _is_owned(each, rollout)]
        old = sorted((each for each in owned if each["metadata"]["labels"][HASH] != current), key=_revision)
        found = next((each for each in owned if each not in old), None)
        revision = {"metadata": {"annotations": {REVISION: str(1 + max(map(_revision, old), default=0))}}}
        if found is None:
            found = await self._api.call("POST", path, desired.replicaset(rollout, current))
        if _revision(found) <= max(map(_revision, old), default=0):
            found = await self._api.call("PATCH", f"{path}/{found['metadata']['name']}", revision, _MERGE)
            await self._api.call("PATCH", _path(namespace, name), revision, _MERGE)
        return [*old, found]

    async def _restart(
        self, rollout: Obj, current: str, owned: list[Obj], now: datetime
    ) -> tuple[str | None, float | None]:
        """Evict pods for spec.restartAt (rollout/restart.go): status.restartedAt, and when to look again."""
        spec, before = rollout["spec"], rollout.get("status") or {}
        wished, restarted = spec.get("restartAt"), before.get("restartedAt")
        if before.get("currentPodHash") not in (None, current):
            return wished, None  # a new template restarts everything
        if not desired.needs_restart(spec, restarted, now):
            comes = wished and not desired.same_time(wished, restarted)
            return restarted, (datetime.fromisoformat(wished) - now).total_seconds() if comes else None
        namespace, _ = key_of(rollout)
        listed = await self._api.call("GET", f"/api/v1/namespaces/{namespace}/pods")
        pods = [pod for pod in listed["items"] if any(_is_owned(pod, each) for each in owned)]
        chosen, due = desired.to_restart(spec, owned, pods, now)
        evicted = [await self._evict(pod) for pod in chosen]
        return (wished, None) if due == sum(evicted) else (restarted, _AGAIN)

    async def _evict(self, pod: Obj) -> bool:
        """Whether it was evicted; a PodDisruptionBudget may forbid that for now."""
        namespace, name = key_of(pod)
        eviction = {"kind": "Eviction", "apiVersion": await self._eviction(), "metadata": {"name": name}}
        try:
            await self._api.once("POST", f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", eviction)
        except APIError as error:
            if error.status != 429:
                raise
            return False
        return True

    async def _eviction(self) -> str:
        """The version in which this server takes evictions: policy/v1beta1 up to 1.21."""
        resources = (await self._api.call("GET", "/api/v1"))["resources"]
        found = next(each for each in resources if each["name"] == "pods/eviction")
        return f"{found['group']}/{found['version']}"

    async def _scale(self, rollout: Obj, owned: list[Obj]) -> list[Obj]:
        """The ReplicaSets as they are afterwards."""
        *old, new = owned
        scaled = []
        for each, replicas in desired.scales(rollout["spec"], new, old):
            if each["spec"]["replicas"] == replicas:
                scaled.append(each)
                continue
            namespace, name = key_of(each)
            version = {"resourceVersion": each["metadata"]["resourceVersion"]}
            body = {"metadata": version, "spec": {"replicas": replicas}}
            path = f"/apis/apps/v1/namespaces/{namespace}/replicasets/{name}"
            scaled.append(await self._api.call("PATCH", path, body, _MERGE))
        return scaled

    async def _show(self, rollout: Obj, after: Obj) -> None:
        before = rollout.get("status") or {}
        changed = {field: value for field, value in after.items() if before.get(field) != value}
        if changed:
            await self._api.call("PATCH", f"{_path(*key_of(rollout))}/status", {"status": changed}, _MERGE)


def key_of(obj: Obj) -> Key:
    """Namespace and name."""
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _path(namespace: str, name: str) -> str:
    return f"/apis/{GROUP_VERSION}/namespaces/{namespace}/rollouts/{name}"


def _is_owned(obj: Obj, owner: Obj) -> bool:
    return any(each["uid"] == owner["metadata"]["uid"] for each in obj["metadata"].get("ownerReferences") or [])


def _revision(replicaset: Obj) -> int:
    return int((replicaset["metadata"].get("annotations") or {}).get(REVISION, 0))
