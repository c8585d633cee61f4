"""A real Kubernetes on a bare machine, for the demo, the tests and the benchmarks.

- `sandbox.assets` finds or provides the control plane's binaries,
- `sandbox.controlplane` starts etcd, kube-apiserver and kube-controller-manager in a private directory and stops them,
- `sandbox.kubelet` is a stand-in for the kubelet: it makes pods Running, Ready and gone, without containers,
- `sandbox.simulators` behave as the providers' APIs do,
- `sandbox.traffic` gives every pod a client, so that a rotation is proven by counted calls.

`python -m sandbox up` starts the cluster and prints how to use it. Nothing in here is part of the operator.
"""
