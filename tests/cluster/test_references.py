"""Every way in which a pod can read a Secret is seen, and nothing that only looks like one."""

from __future__ import annotations

from typing import Any

import pytest

from keyturn.cluster.references import follows_secret, reads_secret, secret_names

ENV = {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "app", "key": "k"}}}]}
ENV_FROM = {"envFrom": [{"secretRef": {"name": "app"}}]}
OPTIONAL = {
    "envFrom": [{"configMapRef": {"name": "other"}}, {"prefix": "P_", "secretRef": {"name": "app", "optional": True}}]
}


def volume(**source: Any) -> dict[str, Any]:
    return {"volumes": [{"name": "v", **source}]}


READS = {
    "env": {"containers": [ENV]},
    "envFrom": {"containers": [ENV_FROM]},
    "optional envFrom": {"containers": [OPTIONAL]},
    "second container": {"containers": [{"name": "a"}, ENV]},
    "init container": {"initContainers": [ENV]},
    "ephemeral container": {"ephemeralContainers": [ENV_FROM]},
    "imagePullSecrets": {"imagePullSecrets": [{"name": "other"}, {"name": "app"}]},
    "volume": volume(secret={"secretName": "app", "items": [{"key": "k", "path": "p"}]}),
    "projected": volume(projected={"sources": [{"configMap": {"name": "x"}}, {"secret": {"name": "app"}}]}),
    "csi": volume(csi={"driver": "d", "nodePublishSecretRef": {"name": "app"}}),
    "azureFile": volume(azureFile={"secretName": "app", "shareName": "s"}),
    "cephfs": volume(cephfs={"secretRef": {"name": "app"}}),
    "cinder": volume(cinder={"secretRef": {"name": "app"}}),
    "flexVolume": volume(flexVolume={"secretRef": {"name": "app"}}),
    "iscsi": volume(iscsi={"secretRef": {"name": "app"}}),
    "rbd": volume(rbd={"secretRef": {"name": "app"}}),
    "scaleIO": volume(scaleIO={"secretRef": {"name": "app"}}),
    "storageos": volume(storageos={"secretRef": {"name": "app"}}),
}

READS_NOT = {
    "nothing": {},
    "nulls": {"containers": None, "volumes": None, "imagePullSecrets": None},
    "a ConfigMap": {
        "containers": [{"envFrom": [{"configMapRef": {"name": "app"}}]}],
        **volume(configMap={"name": "app"}),
    },
    "a claim": volume(persistentVolumeClaim={"claimName": "app"}),
    "a plain value": {"containers": [{"env": [{"name": "app", "value": "app"}]}]},
    "a field": {"containers": [{"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}]},
    "another Secret": {"containers": [{"envFrom": [{"secretRef": {"name": "app-2"}}]}]},
    "a projected token": volume(projected={"sources": [{"serviceAccountToken": {"path": "app"}}]}),
    "an empty csi": volume(csi={"driver": "app"}),
}


@pytest.mark.parametrize("spec", READS.values(), ids=READS.keys())
def test_readers_are_seen(spec: dict[str, Any]) -> None:
    """I4: a reader that is not seen would lose its value."""
    assert reads_secret(spec, "app")
    assert not reads_secret(spec, "ap")


@pytest.mark.parametrize("spec", READS_NOT.values(), ids=READS_NOT.keys())
def test_others_are_not(spec: dict[str, Any]) -> None:
    """I7: nothing is restarted that does not read the Secret."""
    assert not reads_secret(spec, "app")


def test_all_names_are_given() -> None:
    spec = {"containers": [ENV_FROM], "imagePullSecrets": [{"name": "pull"}], **volume(secret={"secretName": "files"})}
    assert sorted(secret_names(spec)) == ["app", "files", "pull"]


SECRET = {"secret": {"secretName": "app"}}
OTHER = {"secret": {"secretName": "other"}}
PROJECTED = {"projected": {"sources": [{"configMap": {"name": "x"}}, {"secret": {"name": "app"}}]}}
CSI = {"csi": {"driver": "d", "nodePublishSecretRef": {"name": "app"}}}


def mounted(source: dict[str, Any], group: str = "containers", **mount: str) -> dict[str, Any]:
    """A pod spec one of whose containers mounts this volume."""
    container = {"name": "a", "volumeMounts": [{"name": "other", "mountPath": "/o"}, {"name": "v", **mount}]}
    return {"containers": [{"name": "b"}], group: [container], **volume(**source)}


FOLLOWS = {
    "a volume": mounted(SECRET),
    "a projected volume": mounted(PROJECTED),
    "an empty subPath": mounted(SECRET, subPath=""),
    "an ephemeral container": mounted(SECRET, "ephemeralContainers"),
    "a volume that nobody mounts": volume(**SECRET),
    "imagePullSecrets": {"imagePullSecrets": [{"name": "app"}]},
    "a volume and imagePullSecrets": {**mounted(SECRET), "imagePullSecrets": [{"name": "app"}]},
    "another Secret by env": {
        **mounted(SECRET),
        "initContainers": [{"envFrom": [{"secretRef": {"name": "other"}}], "volumeMounts": [{"name": "x"}]}],
    },
    "another Secret by subPath": {**mounted(OTHER, subPath="k"), "imagePullSecrets": [{"name": "app"}]},
}

FOLLOWS_NOT = {
    "env": {"containers": [ENV]},
    "envFrom in an init container": {"initContainers": [ENV_FROM]},
    "subPath": mounted(SECRET, subPath="k"),
    "subPathExpr": mounted(PROJECTED, subPathExpr="$(K)"),
    "an init container": mounted(SECRET, "initContainers"),
    "csi": mounted(CSI),
    "azureFile": volume(azureFile={"secretName": "app", "shareName": "s"}),
    "a volume, and env": {**mounted(SECRET), "ephemeralContainers": [ENV]},
    "a volume, and csi": {**mounted(SECRET), "volumes": [{"name": "v", **SECRET}, {"name": "w", **CSI}]},
    "imagePullSecrets, and env": {"imagePullSecrets": [{"name": "app"}], "containers": [ENV]},
    "one mount of two": {
        "containers": [{"volumeMounts": [{"name": "v"}]}, {"volumeMounts": [{"name": "v", "subPath": "k"}]}],
        **volume(**SECRET),
    },
}


@pytest.mark.parametrize("spec", FOLLOWS.values(), ids=FOLLOWS.keys())
def test_what_shows_a_new_value_by_itself(spec: dict[str, Any]) -> None:
    """I7: with `restart: EnvOnly` it is not restarted."""
    assert reads_secret(spec, "app")
    assert follows_secret(spec, "app")


@pytest.mark.parametrize("spec", FOLLOWS_NOT.values(), ids=FOLLOWS_NOT.keys())
def test_what_does_not(spec: dict[str, Any]) -> None:
    """I3: it would go on with the old value for ever."""
    assert reads_secret(spec, "app")
    assert not follows_secret(spec, "app")
