"""Finds or provides etcd, kube-apiserver and kube-controller-manager; see `provide`."""

from sandbox.assets.locate import Assets, AssetsError
from sandbox.assets.provide import provide

__all__ = ["Assets", "AssetsError", "provide"]
