"""The rows of the table: workloads of every kind that read the Secret `m2m`, each in its own way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from sandbox.kubelet import Kind as Behaviour
from sandbox.kubelet import unless

ACCOUNT: Final = "puller"
"""The ServiceAccount that has the Secret among its imagePullSecrets."""
OTHER: Final = "other"
"""The Secret of another client, which is not rotated: with it call the pods that do not read `m2m`."""
GATE: Final = "gate"
"""A Secret with a key for each row of Jobs: their pods run for as long as it holds RUN."""
RUN: Final = "run"
DEBUGGER: Final = {"name": "debugger", "image": "app", "envFrom": [{"secretRef": {"name": "m2m"}}]}
"""The ephemeral container that makes a row of the way `debug` a reader."""

_FROM_KEY: Final = [{"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "m2m", "key": "CLIENT_SECRET"}}}]
_FROM_ALL: Final = [{"secretRef": {"name": "m2m"}}]
_SECRET: Final = {"secret": {"secretName": "m2m"}}
_STRANGER: Final = {"containers": [{"name": "app", "image": "app", "envFrom": [{"secretRef": {"name": OTHER}}]}]}


def _app(**container: Any) -> dict[str, Any]:
    return {"name": "app", "image": "app", **container}


def _mounted(volume: dict[str, Any], **mount: Any) -> dict[str, Any]:
    mounts = [{"name": "credentials", "mountPath": "/credentials", **mount}]
    return {"containers": [_app(volumeMounts=mounts)], "volumes": [{"name": "credentials", **volume}]}


WAYS: Final[dict[str, dict[str, Any]]] = {
    "env": {"containers": [_app(env=_FROM_KEY)]},
    "envfrom": {"containers": [_app(envFrom=_FROM_ALL)]},
    "volume": _mounted(_SECRET),
    "projected": _mounted({"projected": {"sources": [{"secret": {"name": "m2m"}}]}}),
    "subpath": _mounted(_SECRET, subPath="CLIENT_SECRET"),
    "init": {"initContainers": [{**_app(env=_FROM_KEY), "name": "init"}], "containers": [_app()]},
    "csi": _mounted({"csi": {"driver": "csi.example.com", "nodePublishSecretRef": {"name": "m2m"}}}),
    "pull": {"containers": [_app()], "imagePullSecrets": [{"name": "m2m"}]},
    "account": {"containers": [_app()], "serviceAccountName": ACCOUNT},
    "quietpull": {**_STRANGER, "imagePullSecrets": [{"name": "m2m"}]},
    "quietaccount": {**_STRANGER, "serviceAccountName": ACCOUNT},
    "debug": {"containers": [_app()]},
    "mixed": {**_mounted(_SECRET), "containers": [{**_mounted(_SECRET)["containers"][0], "env": _FROM_KEY}]},
    "none": _STRANGER,
}
"""Pod specs. Where images are pulled with the Secret, containers call with the value that was there when they started;
of the quiet ones, with that of another Secret. `debug` reads it once it has its ephemeral container, `none` never does.
"""


@dataclass(frozen=True)
class Kind:
    """What tells one kind of row from the others.

    restarted: Keyturn changes its spec. by_hand: only who deletes the pods replaces them. remedy: what a person is told
    to do, where that is needed.
    """

    kind: str
    version: str = "apps/v1"
    spec: dict[str, Any] = field(default_factory=dict)
    restarted: bool = True
    by_hand: bool = False
    remedy: str = ""

    @property
    def counted(self) -> bool:
        """Whether the API server counts the changes of its spec, in metadata.generation."""
        return self.version not in ("v1", "batch/v1")


_LAZY: Final = {"updateStrategy": {"type": "OnDelete"}}
_DELETE: Final = "spec.updateStrategy is OnDelete: delete them"
_ARGO: Final = "argoproj.io/v1alpha1"
_CANARY: Final[dict[str, Any]] = {"strategy": {"canary": {}}}
_ENDS: Final = "must end, or be deleted"

KINDS: Final[dict[str, Kind]] = {
    "deployment": Kind("Deployment"),
    "statefulset": Kind("StatefulSet", spec={"serviceName": "m2m"}),
    "parallel": Kind("StatefulSet", spec={"serviceName": "m2m", "podManagementPolicy": "Parallel"}),
    "ondelete": Kind("StatefulSet", spec={"serviceName": "m2m", **_LAZY}, by_hand=True, remedy=_DELETE),
    "daemonset": Kind("DaemonSet"),
    "lazydaemonset": Kind("DaemonSet", spec=_LAZY, by_hand=True, remedy=_DELETE),
    "replicaset": Kind("ReplicaSet", restarted=False, by_hand=True, remedy="does not replace its pods: delete them"),
    "rollout": Kind("Rollout", _ARGO, _CANARY),
    "referring": Kind("Rollout", _ARGO, _CANARY),
    "job": Kind("Job", "batch/v1", restarted=False, remedy=f"it {_ENDS}"),
    "cronjob": Kind("CronJob", "batch/v1", restarted=False, remedy=f"its jobs {_ENDS}"),
    "pod": Kind("Pod", "v1", restarted=False, by_hand=True, remedy="it must end or be deleted"),
}


@dataclass(frozen=True)
class Row:
    """One workload. No row's name is the beginning of another's, up to a dash: pods are told by their names.

    role: what is special about it; part of its name.
    """

    kind: str
    way: str = "env"
    role: str = ""
    replicas: int = 1

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.role, self.kind, self.way)))

    @property
    def what(self) -> Kind:
        return KINDS[self.kind]

    @property
    def remedy(self) -> str:
        return self.what.remedy

    @property
    def ends(self) -> bool:
        """Whether its pods end by themselves."""
        return self.what.version == "batch/v1"

    @property
    def key(self) -> tuple[str, str]:
        """Its kind and name, as status.targets has them."""
        return self.what.kind, self.name

    def pods(self, replaced: int = 0) -> int:
        """How many pods call with the Secret, if its pods are replaced so often: only the first has its debugger."""
        return 1 if self.way == "debug" else self.replicas * (1 + replaced)

    @property
    def rolled(self) -> bool:
        """Whether Keyturn's restart replaces its pods."""
        return self.what.restarted and not self.what.by_hand

    @property
    def stranger(self) -> bool:
        """Whether its containers call as another client."""
        return WAYS[self.way]["containers"] is _STRANGER["containers"]

    @property
    def may_vanish(self) -> bool:
        """Whether it is no target any more when its pods have been replaced."""
        return self.ends or self.kind == "pod" or self.way == "debug"

    def has(self, pod: str) -> bool:
        """Whether a pod of this name is one of its own."""
        return pod == self.name or pod.startswith(f"{self.name}-")

    def __str__(self) -> str:
        return self.name


def rows(kinds: str, ways: str, role: str = "") -> list[Row]:
    """All combinations. Those that read the Secret by `env` have two pods where there can be two."""
    single = ("daemonset", "lazydaemonset", "job", "cronjob", "pod")
    return [
        Row(kind, way, role, 2 if way == "env" and kind not in single else 1)
        for kind in kinds.split()
        for way in ways.split()
    ]


@dataclass(frozen=True)
class Client:
    """What the pods call, and as whom. good: the value with which broken rows work."""

    provider: str
    client_id: str
    other_id: str
    good: str
    cron_version: str = "batch/v1"

    def annotations(self, row: Row) -> dict[str, str]:
        """What a row's pods are told to do."""
        told = {
            "client.sandbox.keyturn.dev/kind": self.provider,
            "client.sandbox.keyturn.dev/secret": f"{OTHER if row.stranger else 'm2m'}/CLIENT_SECRET",
            "client.sandbox.keyturn.dev/id": self.other_id if row.stranger else self.client_id,
        }
        if row.ends:
            ends = unless(Behaviour.CRASH_LOOP, GATE, row.name, RUN)
            told |= {**ends, "sandbox.keyturn.dev/behavior": "run", "sandbox.keyturn.dev/run-for": "10ms"}
        if row.role == "broken":
            told |= unless(Behaviour.NEVER_READY, "m2m", "CLIENT_SECRET", self.good)
        return told

    def objects(self, row: Row) -> list[dict[str, Any]]:
        """A row's workload, and what that refers to."""
        what, spec = row.what, WAYS[row.way]
        meta = {"labels": {"app": row.name}, "annotations": self.annotations(row)}
        template = {"metadata": meta, "spec": spec}
        selector = {"matchLabels": {"app": row.name}}
        match row.kind:
            case "pod":
                return [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": row.name, **meta}, "spec": spec}]
            case "job":
                return [_object("batch/v1", "Job", row.name, self.job_spec(row))]
            case "cronjob":
                whole = {"schedule": "0 3 * * *", "suspend": True, "jobTemplate": {"spec": self.job_spec(row)}}
                return [_object(self.cron_version, "CronJob", row.name, whole)]
            case "referring":
                source = {"replicas": 0, "selector": selector, "template": template}
                reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": row.name}
                whole = {"replicas": row.replicas, "workloadRef": reference, **what.spec}
                return [
                    _object("apps/v1", "Deployment", row.name, source),
                    _object(what.version, what.kind, row.name, whole),
                ]
        replicas = {} if what.kind == "DaemonSet" else {"replicas": row.replicas}
        whole = {**replicas, "selector": selector, "template": template, **what.spec}
        return [_object(what.version, what.kind, row.name, whole)]

    def job_spec(self, row: Row) -> dict[str, Any]:
        """Of a Job whose pod runs until the gate says otherwise, and fails then: the Job is over."""
        spec = WAYS[row.way]
        gate = {"name": "gate", "secret": {"secretName": GATE}}
        app, *others = spec["containers"]
        mounts = [*app.get("volumeMounts", []), {"name": "gate", "mountPath": "/gate"}]
        whole = {
            **spec,
            "containers": [{**app, "volumeMounts": mounts}, *others],
            "volumes": [*spec.get("volumes", []), gate],
            "restartPolicy": "Never",
        }
        meta = {"labels": {"app": row.name}, "annotations": self.annotations(row)}
        return {"backoffLimit": 0, "template": {"metadata": meta, "spec": whole}}


def _object(version: str, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}
