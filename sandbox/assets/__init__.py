"""Finds or provides etcd, kube-apiserver, kube-controller-manager and kubectl; see `provide` and `find_kubectl`."""

from sandbox.assets.locate import Assets, AssetsError
from sandbox.assets.provide import find_kubectl, provide

__all__ = ["Assets", "AssetsError", "find_kubectl", "provide"]
