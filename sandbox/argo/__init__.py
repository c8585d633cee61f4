"""A stand-in for the controller of Argo Rollouts, and its CustomResourceDefinition; see `RolloutsStandIn`."""

from sandbox.argo.crd import ROLLOUTS
from sandbox.argo.standin import RolloutsStandIn

__all__ = ["ROLLOUTS", "RolloutsStandIn"]
