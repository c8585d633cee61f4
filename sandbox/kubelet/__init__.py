"""The kubelet stand-in: shows the API what a kubelet would, without running any container.

Pods choose what happens to them by annotations; see `sandbox.kubelet.behaviour`.
"""

from sandbox.kubelet.behaviour import Behaviour, Kind, unless
from sandbox.kubelet.hooks import NoHooks, PodHooks
from sandbox.kubelet.standin import KubeletStandIn
from sandbox.kubelet.thread import in_thread

__all__ = ["Behaviour", "Kind", "KubeletStandIn", "NoHooks", "PodHooks", "in_thread", "unless"]
