"""Command lines of the three components, for Kubernetes 1.20 and everything after it."""

import re
from pathlib import Path

from sandbox.controlplane.certificates import Credentials

CONTROLLERS = (
    "cronjob",
    "daemonset",
    "deployment",
    "disruption",
    "garbagecollector",
    "job",
    "namespace",
    "replicaset",
    "root-ca-cert-publisher",
    "serviceaccount",
    "statefulset",
)

# What later versions do without being told: the gate, and the last minor version 1.x that needs it.
_APISERVER_GATES = {
    "BoundServiceAccountTokenVolume": 20,  # tokens in projected volumes, so that pods need no Secret with a token
    "EphemeralContainers": 22,
}
_MANAGER_GATES = {"CronJobControllerV2": 20}  # the one before looks at its CronJobs every 10 seconds


def etcd(binaries: Path, port: int, name: str) -> list[str]:
    """etcd on a loopback port, without fsync: its data never outlives the process. `name` tells it from others."""
    url = f"http://127.0.0.1:{port}"
    return [
        str(binaries / "etcd"),
        f"--name={name}",
        "--data-dir=etcd",
        f"--initial-cluster={name}=http://127.0.0.1:0",
        "--initial-advertise-peer-urls=http://127.0.0.1:0",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        "--listen-peer-urls=http://127.0.0.1:0",
        "--unsafe-no-fsync",
        "--quota-backend-bytes=8589934592",
        "--log-level=warn",
    ]


def apiserver(
    binaries: Path, port: int, etcd_port: int, credentials: Credentials, tokens: Path, version: str
) -> list[str]:
    """kube-apiserver on a loopback port; RBAC, a token file for the administrator, ServiceAccount tokens."""
    return [
        str(binaries / "kube-apiserver"),
        f"--etcd-servers=http://127.0.0.1:{etcd_port}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={credentials.serving_certificate}",
        f"--tls-private-key-file={credentials.serving_key}",
        "--cert-dir=certificates",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={credentials.token_public_key}",
        f"--service-account-signing-key-file={credentials.token_key}",
        f"--token-auth-file={tokens}",
        "--authorization-mode=RBAC",
        "--endpoint-reconciler-type=none",
        "--max-requests-inflight=2000",
        "--max-mutating-requests-inflight=1000",
        "--profiling=false",
        *_gates(_APISERVER_GATES, version),
    ]


def controller_manager(
    binaries: Path, port: int, kubeconfig: Path, credentials: Credentials, version: str
) -> list[str]:
    """kube-controller-manager with the controllers that rollouts, jobs and clean deletion need, at high rates."""
    argv = [
        str(binaries / "kube-controller-manager"),
        f"--kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={credentials.serving_certificate}",
        f"--tls-private-key-file={credentials.serving_key}",
        f"--controllers={','.join(CONTROLLERS)}",
        "--leader-elect=false",
        f"--root-ca-file={credentials.ca_file}",
        "--concurrent-deployment-syncs=20",
        "--concurrent-replicaset-syncs=20",
        "--concurrent-statefulset-syncs=20",
        "--concurrent-gc-syncs=50",
        "--concurrent-namespace-syncs=20",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--profiling=false",
        *_gates(_MANAGER_GATES, version),
    ]
    if minor(version) < 24:
        # Until 1.23 there was an insecure port beside the secure one, and it is the same for every instance.
        argv.append("--port=0")
    return argv


def minor(version: str) -> int:
    """20 for "v1.20.2" or "1.20.2"; ValueError for anything that is not a version 1.x of Kubernetes."""
    match = re.match(r"v?1\.(\d+)", version)
    if match is None:
        raise ValueError(f"{version!r} is not a version of Kubernetes, such as 1.20.2")
    return int(match[1])


def _gates(gates: dict[str, int], version: str) -> list[str]:
    needed = [f"{gate}=true" for gate, last in gates.items() if minor(version) <= last]
    return [f"--feature-gates={','.join(needed)}"] if needed else []
