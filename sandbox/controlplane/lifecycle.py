"""`ControlPlane`: from binaries to a ready API server, and back to nothing."""

import secrets
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from sandbox.assets.locate import Assets
from sandbox.controlplane import certificates, components
from sandbox.controlplane.endpoint import Endpoint
from sandbox.controlplane.processes import ComponentError, Processes, free_port
from sandbox.controlplane.resources import Resources, documents

_ATTEMPTS = 3
_PATIENCE = 60.0


class ControlPlaneError(Exception):
    """The control plane did not come up; the message names the component and quotes its log."""


class ControlPlane:
    """etcd, kube-apiserver and kube-controller-manager on free loopback ports, ready when `start` returns.

    It ends with `stop`, at the end of a `with` block, or with this process, however that ends; its directory with it.

    Attributes: `directory` (private, holds logs and keys), `version` ("1.20.2"), `server` (URL), `ca_file`,
    `admin_token`, `endpoint` (those three in one), `kubeconfig` (the administrator's).
    """

    def __init__(self, processes: Processes, assets: Assets) -> None:
        """Use `start`."""
        self._processes = processes
        self._binaries = assets.directory
        self.version = assets.version
        self.directory = processes.directory
        self.admin_token = secrets.token_hex(16)
        self._credentials = certificates.create(self.directory)
        self._etcd_port, self._apiserver_port, self._manager_port = free_port(), free_port(), free_port()
        self.server = f"https://127.0.0.1:{self._apiserver_port}"
        self.ca_file = self._credentials.ca_file
        self.endpoint = Endpoint(self.server, self.ca_file, self.admin_token)
        self.kubeconfig = self.endpoint.write_kubeconfig(self.directory / "kubeconfig", "admin")
        self._tokens = self.directory / "tokens.csv"
        self._tokens.write_text(f'{self.admin_token},admin,admin,"system:masters"\n')

    @classmethod
    def start(cls, assets: Assets) -> Self:
        """Start a control plane from `assets` (see `sandbox.assets.provide`) and return it when it is ready.

        Ready means: /readyz answers 200, the controller manager is healthy, and namespace "default" exists and can have
        pods. Ports are chosen before they are bound, so a start is repeated when one was taken in between. Raises
        ControlPlaneError.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            processes = Processes()
            try:
                control_plane = cls(processes, assets)
                control_plane._bring_up()
            except ComponentError as error:
                processes.stop()
                if "address already in use" not in str(error) or attempt == _ATTEMPTS:
                    raise ControlPlaneError(f"Kubernetes {assets.version} did not start: {error}") from error
            except BaseException:
                processes.stop()
                raise
            else:
                return control_plane
        raise AssertionError("the last attempt returns or raises")

    def stop(self) -> None:
        """End all processes and remove the directory. It is no error to call it twice."""
        self._processes.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def kill_apiserver(self) -> None:
        """End the API server with SIGKILL, as an outage; `restart_apiserver` ends the outage."""
        self._processes.kill("kube-apiserver")
        while _answers(self._apiserver_port):
            time.sleep(0.01)

    def restart_apiserver(self) -> None:
        """Start the API server again, on the same port and data, and return when it is ready."""
        self.kill_apiserver()
        self._start_apiserver()

    def apply(self, objects: Iterable[dict[str, Any]]) -> None:
        """Server-side apply `objects` in order; CRDs are waited for until Established. Raises ApplyError."""
        with Resources(self.endpoint) as resources:
            resources.apply(objects)

    def install_manifests(self, paths: Iterable[Path]) -> None:
        """`apply` all YAML documents in these files, and in the *.yaml files of these folders. Raises ApplyError."""
        self.apply(documents(paths))

    def service_account_endpoint(self, namespace: str, name: str, *, seconds: int = 86400) -> Endpoint:
        """The endpoint with a fresh token (TokenRequest API) of a ServiceAccount; ApplyError when it does not exist."""
        with Resources(self.endpoint) as resources:
            return Endpoint(self.server, self.ca_file, resources.token(namespace, name, seconds))

    def service_account_kubeconfig(self, namespace: str, name: str, *, seconds: int = 86400) -> Path:
        """A kubeconfig, in the control plane's directory, that is this ServiceAccount; ApplyError without it."""
        endpoint = self.service_account_endpoint(namespace, name, seconds=seconds)
        return endpoint.write_kubeconfig(self.directory / f"kubeconfig-{namespace}-{name}", f"{namespace}:{name}")

    def log(self, component: str, lines: int = 20) -> str:
        """The last lines of the log of etcd, kube-apiserver or kube-controller-manager."""
        return self._processes.log(component, lines)

    def _bring_up(self) -> None:
        self._processes.start("etcd", components.etcd(self._binaries, self._etcd_port, self.directory.name))
        self._processes.wait("etcd", self._etcd_is_healthy, _PATIENCE)
        self._start_apiserver()
        manager = components.controller_manager(
            self._binaries, self._manager_port, self.kubeconfig, self._credentials, self.version
        )
        self._processes.start("kube-controller-manager", manager)
        address = f"https://127.0.0.1:{self._manager_port}"
        with httpx.Client(base_url=address, verify=self.endpoint.ssl_context()) as http:
            self._processes.wait("kube-controller-manager", lambda: _ok(http, "/healthz"), _PATIENCE)
        with Resources(self.endpoint) as resources:
            account = "/api/v1/namespaces/default/serviceaccounts/default"  # no pod is admitted without one
            self._processes.wait("kube-controller-manager", lambda: _ok(resources.http, account), _PATIENCE)

    def _start_apiserver(self) -> None:
        argv = components.apiserver(
            self._binaries, self._apiserver_port, self._etcd_port, self._credentials, self._tokens, self.version
        )
        self._processes.start("kube-apiserver", argv)
        with Resources(self.endpoint) as resources:
            http = resources.http
            self._processes.wait("kube-apiserver", lambda: _ok(http, "/readyz"), _PATIENCE)
            self._processes.wait("kube-apiserver", lambda: _ok(http, "/api/v1/namespaces/default"), _PATIENCE)

    def _etcd_is_healthy(self) -> bool:
        """Whether it answers and is this one, not another process that was faster to take the port.

        The other components prove who they are by their certificates.
        """
        try:
            answer = httpx.post(f"http://127.0.0.1:{self._etcd_port}/v3/cluster/member/list", json={}, timeout=1)
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK and self.directory.name in answer.text


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _ok(http: httpx.Client, path: str) -> bool:
    try:
        return http.get(path, timeout=2).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
