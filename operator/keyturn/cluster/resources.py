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
POLICIES: Final = Resource(API_VERSION, "rotationpolicies", "RotationPolicy", namespaced=False)
NAMESPACES: Final = Resource("v1", "namespaces", "Namespace", namespaced=False)
SECRETS: Final = Resource("v1", "secrets", "Secret")
PODS: Final = Resource("v1", "pods", "Pod")
EVENTS: Final = Resource("v1", "events", "Event")
DEPLOYMENTS: Final = Resource("apps/v1", "deployments", "Deployment")
REPLICASETS: Final = Resource("apps/v1", "replicasets", "ReplicaSet")
STATEFULSETS: Final = Resource("apps/v1", "statefulsets", "StatefulSet")
DAEMONSETS: Final = Resource("apps/v1", "daemonsets", "DaemonSet")
CONTROLLERREVISIONS: Final = Resource("apps/v1", "controllerrevisions", "ControllerRevision")
JOBS: Final = Resource("batch/v1", "jobs", "Job")
CRONJOBS: Final = Resource("batch/v1", "cronjobs", "CronJob")
CRONJOBS_BETA: Final = Resource("batch/v1beta1", "cronjobs", "CronJob")
"""Of API servers before 1.21."""
ROLLOUTS: Final = Resource("argoproj.io/v1alpha1", "rollouts", "Rollout")
"""Of Argo Rollouts, where its CRD is installed."""
