"""Rotations with a whole table of workloads: what is done around them, and what was seen of them."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sandbox.controlplane.components import minor
from sandbox.stage import Stage, wait_until
from sandbox.traffic.consumption import Way
from sandbox.traffic.report import PodTraffic, fingerprint
from tests.e2e.crash import HOLD, let_verify
from tests.e2e.recorder import Recorder
from tests.e2e.scene import Scene
from tests.e2e.table import ACCOUNT, DEBUGGER, GATE, KINDS, OTHER, RUN, Client, Row

Target = dict[str, Any]
Pods = list[dict[str, Any]]
_PATIENCE = 180.0
_PAUSE = 0.4


@dataclass(frozen=True)
class Played:
    """A rotation that is over.

    wanted, dead: fingerprints of the value that is in force now, and of the one that is not. died: when the provider
    dropped that one, in seconds since the epoch. changes: how often the spec of each workload was changed since the
    rotation was asked for, by kind and name. targets: what status said of each workload, in order, without repetitions.
    record: the newest status.rotation that was seen. traffic: of all pods that ran since the rotation was asked for.
    """

    summary: dict[str, Any]
    record: dict[str, Any]
    wanted: str
    dead: str
    died: float
    changes: dict[tuple[str, str], int]
    targets: dict[tuple[str, str], list[Target]]
    traffic: list[PodTraffic]

    def traffic_of(self, row: Row) -> list[PodTraffic]:
        return [pod for pod in self.traffic if row.has(pod.pod)]

    def restarts(self, row: Row) -> tuple[int, int]:
        """How often its spec was changed (0 for what has no generation, as pods), and how many pods it has had."""
        return self.changes.get(row.key, 0), len({pod.uid for pod in self.traffic_of(row)})

    def seen(self, row: Row, field: str) -> set[Any]:
        """What its target has had in this field."""
        return {target[field] for target in self.targets.get(row.key, [])}

    def messages(self, row: Row, state: str) -> str:
        """What its target said in this state."""
        told = self.targets.get(row.key, [])
        return "\n".join(target.get("message", "") for target in told if target["state"] == state)

    def at(self, field: str) -> float:
        """A time of the record, in seconds since the epoch."""
        return datetime.fromisoformat(self.record[field]).timestamp()


class Table:
    """The rows in a scene of their own, with one rotation after the other."""

    def __init__(self, scene: Scene, recorder: Recorder) -> None:
        self.scene = scene
        self._recorder = recorder
        other = scene.account.simulator.create({})
        batch = "batch/v1" if minor(scene.stage.control_plane.version) > 20 else "batch/v1beta1"
        self._client = Client(scene.account.kind, scene.client_id, str(other["client_id"]), scene.first_secret, batch)
        self._rows: dict[str, Row] = {}
        self._gates: dict[str, str] = {}
        self._jobs = itertools.count(1)
        self._begun = 0.0
        self._values: list[str] = [scene.first_secret]
        self._before: dict[tuple[str, str], int] = {}
        scene.put_secret(OTHER, {"CLIENT_SECRET": str(other["client_secret"])})
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}}
        scene.put({**account, "imagePullSecrets": [{"name": "m2m"}]})
        accounts = f"/api/v1/namespaces/{scene.namespace}/serviceaccounts/default"
        scene.wait(lambda: scene.get(accounts), "pods can be made")

    # --- what happens ------------------------------------------------------------------------------------------------

    def put(self, rows: Collection[Row]) -> None:
        """Make the workloads, and wait until all run."""
        self._rows |= {row.name: row for row in rows}
        self._set_gate([row for row in rows if row.ends], RUN)
        client = replace(self._client, good=self._values[-1])
        objects = [obj for row in rows for obj in client.objects(row)]
        for obj in objects:
            obj["metadata"]["namespace"] = self.scene.namespace
        self.scene.stage.apply(objects)
        self.run_cronjobs(rows)
        self.wait_running(rows)

    def attach_debuggers(self, rows: Iterable[Row]) -> None:
        """Give the pods of the rows that read the Secret in this way their ephemeral containers."""
        pods, debugged = self._pods(), [row for row in rows if row.way == "debug"]
        for row in debugged:
            for pod in pods[row.name]:
                self.scene.stage.api.attach(self.scene.namespace, pod["metadata"]["name"], DEBUGGER)

        def silent() -> list[str]:
            running = [pod.pod for pod in self.scene.running()]
            return [row.name for row in debugged if not any(map(row.has, running))]

        self._patiently(silent, "the ephemeral containers call")

    def run_cronjobs(self, rows: Iterable[Row]) -> None:
        """What their controller does when it is time."""
        cronjobs = [row for row in rows if row.kind == "cronjob"]
        self._set_gate(cronjobs, RUN)
        version = self._client.cron_version
        jobs = []
        for row in cronjobs:
            found = self.scene.get(f"/apis/{version}/namespaces/{self.scene.namespace}/cronjobs/{row.name}") or {}
            owner = {"apiVersion": version, "kind": "CronJob", "name": row.name, "uid": found["metadata"]["uid"]}
            name = f"{row.name}-{next(self._jobs)}"
            metadata = {
                "name": name,
                "namespace": self.scene.namespace,
                "ownerReferences": [{**owner, "controller": True}],
            }
            jobs.append(
                {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": self._client.job_spec(row)}
            )
        self.scene.stage.apply(jobs)

    def end_jobs(self, rows: Iterable[Row]) -> None:
        """Let the pods of jobs end, among these rows."""
        jobs = [row for row in rows if row.ends]
        self._set_gate(jobs, "over")
        self._wait_pods(jobs, lambda row, pods: not pods, "the jobs have ended")

    @contextmanager
    def replacing(self, rows: Collection[Row]) -> Iterator[None]:
        """Until all pods that there were before are gone, and others run."""
        before = self._pods()
        yield

        def complete(row: Row, pods: Pods) -> bool:
            uids = {pod["metadata"]["uid"] for pod in pods}
            return _all_run(row, pods) and not uids.intersection(pod["metadata"]["uid"] for pod in before[row.name])

        self._wait_pods(rows, complete, "the pods are replaced")

    def delete_pods(self, rows: Collection[Row]) -> None:
        """What a person does who is told to: pods are deleted, made again, and run."""
        found, alone = self._pods(), [row for row in rows if row.kind == "pod"]
        with self.replacing(rows):
            for name in [pod["metadata"]["name"] for row in rows for pod in found[row.name]]:
                self.scene.delete(f"/api/v1/namespaces/{self.scene.namespace}/pods/{name}")
            self._wait_pods(alone, lambda row, pods: not pods, "the pods are gone")
            self.put(alone)

    def rotate(self, request: str, between: Callable[[], None] | None = None, **spec: Any) -> None:
        """Ask for a rotation, and wait until the new value is in the Secret.

        between: what happens when that value is known, and in nobody's hands yet.
        """
        self._begun = time.time()
        self._before = self._generations()
        if between is not None:
            self.scene.account.simulator.switches.propagation_delay = HOLD
        self.scene.put_rotation(request, **spec)
        if between is not None:
            self.scene.wait_phase("Verifying", seconds=_PATIENCE)
            between()
            let_verify(self.scene)
        self.scene.wait_phase("RollingOut", seconds=_PATIENCE)
        self._values.append(self.scene.secret()["CLIENT_SECRET"])

    # --- waiting -----------------------------------------------------------------------------------------------------

    def wait_running(self, rows: Iterable[Row]) -> None:
        """Until each row has as many pods as it should have, all ready."""
        self._wait_pods(rows, _all_run, "all run")

    def wait_states(self, **expected: Iterable[Row]) -> None:
        """Until status.rotation.targets shows rows in these states.

        What reads the Secret no more, or is gone, needs not be there to be Ready.
        """
        wanted = [(state, row) for state, rows in expected.items() for row in rows]

        def missing() -> list[str]:
            listed = (self.scene.status().get("rotation") or {}).get("targets", [])
            states = {(target["kind"], target["name"]): target["state"] for target in listed}
            found = [
                (row, state, states.get(row.key, "Ready" if row.may_vanish else "missing")) for state, row in wanted
            ]
            return [f"{row} {actual} instead of {state}" for row, state, actual in found if actual != state]

        self._patiently(missing, "the targets are in these states")

    def _wait_pods(self, rows: Iterable[Row], done: Callable[[Row, Pods], bool], what: str) -> None:
        def missing() -> list[str]:
            pods = self._pods()
            return [row.name for row in rows if not done(row, pods[row.name])]

        self._patiently(missing, what)

    def _patiently(self, missing: Callable[[], list[str]], what: str) -> None:
        left: list[str] = []

        def none() -> bool:
            left[:] = missing()
            return not left

        try:
            wait_until(none, what, seconds=_PATIENCE, pause=_PAUSE)
        except TimeoutError as error:
            raise AssertionError(f"{error}: {', '.join(left)}") from None

    # --- what there is -----------------------------------------------------------------------------------------------

    def played(self, phase: str, died: Callable[[], float]) -> Played:
        """End it: every pod that runs has called with the value in force since the rotation is over.

        died: asked when it is over, when the other value died; it may see to that.
        """
        scene = self.scene
        scene.wait_ended(phase, _PATIENCE)
        dropped, ended = died(), time.time()
        previous, issued = map(fingerprint, self._values[-2:])
        wanted, dead = (issued, previous) if phase == "Completed" else (previous, issued)
        assert fingerprint(scene.secret()["CLIENT_SECRET"]) == wanted
        if wanted == previous:
            self._values.pop()

        def silent() -> list[str]:
            return [
                pod.pod
                for pod in scene.running()
                if not self._row_of(pod.pod).stranger and last_call(pod, wanted) < ended
            ]

        self._patiently(silent, "all pods call with the value in force")
        summary = scene.status()["lastRotation"]
        after = self._generations()
        records = self._records(summary["id"])
        return Played(
            summary=summary,
            record=records[-1],
            wanted=wanted,
            dead=dead,
            died=dropped,
            changes={key: generation - self._before.get(key, 1) for key, generation in after.items()},
            targets=_targets(records),
            traffic=[pod for pod in scene.traffic() if pod.stopped is None or pod.stopped > self._begun],
        )

    def applied(self, operation: str) -> float:
        """When the provider carried out its last call of this operation, by the clock of this machine."""
        simulator = self.scene.account.simulator
        times = simulator.counters[self.scene.client_id][operation]["applied"].times
        return float(times[-1] - simulator.now() + time.time())

    def _records(self, rotation: str) -> list[dict[str, Any]]:
        records = [status["rotation"] for status in self._recorder.statuses() if status.get("rotation")]
        return [record for record in records if record["id"] == rotation]

    def path(self, row: Row) -> str:
        """Of the workload, at the API server."""
        return f"/apis/{row.what.version}/namespaces/{self.scene.namespace}/{row.what.kind.lower()}s/{row.name}"

    def _generations(self) -> dict[tuple[str, str], int]:
        found = {}
        for kind, version in {(what.kind, what.version) for what in KINDS.values() if what.counted}:
            path = f"/apis/{version}/namespaces/{self.scene.namespace}/{kind.lower()}s"
            for item in (self.scene.get(path) or {}).get("items", []):
                found[kind, item["metadata"]["name"]] = item["metadata"]["generation"]
        return found

    def _pods(self) -> defaultdict[str, Pods]:
        """All pods that have not ended, by the names of their rows."""
        listed = self.scene.get(f"/api/v1/namespaces/{self.scene.namespace}/pods") or {}
        found: defaultdict[str, Pods] = defaultdict(list)
        for pod in listed["items"]:
            if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
                found[pod["metadata"]["labels"]["app"]].append(pod)
        return found

    def _row_of(self, pod: str) -> Row:
        return next(row for row in self._rows.values() if row.has(pod))

    def _set_gate(self, rows: Iterable[Row], value: str) -> None:
        self._gates |= {row.name: value for row in rows}
        self.scene.put_secret(GATE, self._gates)


@contextmanager
def laid(stage: Stage, name: str, rows: Collection[Row], provider: str = "stytch") -> Iterator[Table]:
    """A table in a namespace of its own, with these rows; and an operator."""
    with Scene.in_new_namespace(stage, name, provider) as scene, Recorder(scene) as recorder:
        table = Table(scene, recorder)
        table.put(rows)
        table.attach_debuggers(rows)
        scene.operator()
        yield table


def _targets(records: Iterable[dict[str, Any]]) -> dict[tuple[str, str], list[Target]]:
    seen: defaultdict[tuple[str, str], list[Target]] = defaultdict(list)
    for record in records:
        for target in record.get("targets", []):
            known = seen[target["kind"], target["name"]]
            if not known or known[-1] != target:
                known.append(target)
    return dict(seen)


def last_call(pod: PodTraffic, value: str) -> float:
    """When the pod called with this value last, and was accepted; long ago where it never did."""
    calls = pod.values.get(value)
    return (calls.accepted.last if calls is not None else None) or 0.0


def _all_run(row: Row, pods: Pods) -> bool:
    return len(pods) == row.replicas and all(map(_is_ready, pods))


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def judge(played: Played, row: Row, switch: float | None = None) -> None:
    """What must be true of every row in every outcome, as the provider and the pods saw it.

    switch: where the provider drops the old value at once, when it did; else nothing may be refused.
    """
    traffic = played.traffic_of(row)
    assert sum(pod.calls.accepted.count for pod in traffic) > 0
    for pod in traffic:
        allowed = pod.values.keys() - {played.wanted} if switch is not None else ()
        refused = [calls.refused.first or 0.0 for value, calls in pod.values.items() if calls.refused.count]
        assert not [value for value, calls in pod.values.items() if calls.refused.count and value not in allowed]
        assert all(first >= (switch or 0.0) for first in refused)
        if switch is None:
            assert last_call(pod, played.dead) < played.died
        if switch is None and played.dead in pod.values and pod.way is Way.SNAPSHOT:
            assert pod.stopped is not None, "it held the value"
            assert pod.stopped < played.died, "it held the value"
    running = {pod.uid for pod in traffic if pod.stopped is None}
    assert row.may_vanish or len(running) == row.replicas
