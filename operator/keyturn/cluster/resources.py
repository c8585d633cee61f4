"""The kinds of objects that Keyturn speaks of."""

from __future__ import annotations

from typing import Final

from keyturn.api.base import API_VERSION
from keyturn.cluster.client import Resource

ROTATIONS: Final = Resource(API_VERSION, "clientsecretrotations", "ClientSecretRotation")
PROVIDERS: Final = Resource(API_VERSION, "rotationproviders", "RotationProvider")
CLUSTER_PROVIDERS: Final = Resource(
    API_VERSION, "clusterrotationproviders", "ClusterRotationProvider", namespaced=False
)
SECRETS: Final = Resource("v1", "secrets", "Secret")
PODS: Final = Resource("v1", "pods", "Pod")
EVENTS: Final = Resource("v1", "events", "Event")
DEPLOYMENTS: Final = Resource("apps/v1", "deployments", "Deployment")
REPLICASETS: Final = Resource("apps/v1", "replicasets", "ReplicaSet")
