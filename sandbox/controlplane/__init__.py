"""A Kubernetes control plane as three plain processes in a private directory; see `ControlPlane`."""

from sandbox.controlplane.endpoint import Endpoint
from sandbox.controlplane.lifecycle import ControlPlane, ControlPlaneError
from sandbox.controlplane.resources import ApplyError, Resources, documents

__all__ = ["ApplyError", "ControlPlane", "ControlPlaneError", "Endpoint", "Resources", "documents"]
