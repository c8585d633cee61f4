"""The CustomResourceDefinition of Argo Rollouts, as far as Keyturn and the stand-in look at it.

From argoproj/argo-rollouts, manifests/crds/rollout-crd.yaml: names, the types of the fields below, the subresources
status and scale, and printer columns. Upstream lists every other field too; here they are kept as they come.
"""

from typing import Any, Final

_INTEGER: Final = {"type": "integer", "format": "int32"}
_TIME: Final = {"type": "string", "format": "date-time"}
_TEXT: Final = {"type": "string"}

_SPEC: Final = {
    "replicas": _INTEGER,
    "minReadySeconds": _INTEGER,
    "progressDeadlineSeconds": _INTEGER,
    "revisionHistoryLimit": _INTEGER,
    "paused": {"type": "boolean"},
    "restartAt": _TIME,
    "workloadRef": {"type": "object", "properties": {"apiVersion": _TEXT, "kind": _TEXT, "name": _TEXT}},
}
_STATUS: Final = {
    "HPAReplicas": _INTEGER,
    "availableReplicas": _INTEGER,
    "currentPodHash": _TEXT,
    "message": _TEXT,
    "observedGeneration": _TEXT,
    "phase": _TEXT,
    "readyReplicas": _INTEGER,
    "replicas": _INTEGER,
    "restartedAt": _TIME,
    "selector": _TEXT,
    "stableRS": _TEXT,
    "updatedReplicas": _INTEGER,
    "workloadObservedGeneration": _TEXT,
}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "x-kubernetes-preserve-unknown-fields": True}


def _column(name: str, path: str) -> dict[str, str]:
    return {"name": name, "type": "integer", "jsonPath": path}


ROLLOUTS: Final[dict[str, Any]] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "rollouts.argoproj.io"},
    "spec": {
        "group": "argoproj.io",
        "names": {
            "kind": "Rollout",
            "listKind": "RolloutList",
            "plural": "rollouts",
            "shortNames": ["ro"],
            "singular": "rollout",
        },
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "additionalPrinterColumns": [
                    _column("Desired", ".spec.replicas"),
                    _column("Current", ".status.replicas"),
                    _column("Up-to-date", ".status.updatedReplicas"),
                    _column("Available", ".status.availableReplicas"),
                ],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "required": ["spec"],
                        "properties": {"spec": _object(_SPEC), "status": _object(_STATUS)},
                    }
                },
                "subresources": {
                    "status": {},
                    "scale": {
                        "specReplicasPath": ".spec.replicas",
                        "statusReplicasPath": ".status.HPAReplicas",
                        "labelSelectorPath": ".status.selector",
                    },
                },
            }
        ],
    },
}
