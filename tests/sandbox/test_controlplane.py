"""The control plane starts, can be used, and leaves nothing behind however its owner ends."""

import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from sandbox.assets import Assets, provide
from sandbox.controlplane import (
    ApplyError,
    ControlPlane,
    ControlPlaneError,
    Resources,
    components,
    documents,
    lifecycle,
)
from sandbox.controlplane.processes import free_port

WIDGETS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.sandbox.test"},
    "spec": {
        "group": "sandbox.test",
        "names": {"kind": "Widget", "plural": "widgets"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {"size": {"type": "integer", "minimum": 1}},
                    }
                },
            }
        ],
    },
}


def widget(size: int) -> dict[str, object]:
    return {"apiVersion": "sandbox.test/v1", "kind": "Widget", "metadata": {"name": "one"}, "size": size}


@pytest.fixture
def resources(control_plane: ControlPlane) -> Iterator[Resources]:
    with Resources(control_plane.endpoint) as client:
        yield client


def eventually(condition: Callable[[], bool], what: str, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def processes_in(directory: str) -> list[str]:
    """Command lines of the living processes that work in `directory` or were told its name."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if directory in command or str((entry / "cwd").readlink()).startswith(directory):
                found.append(command)
        except OSError:
            continue
    return found


def assert_nothing_left(directory: str) -> None:
    eventually(lambda: not Path(directory).exists(), f"{directory} is removed")
    eventually(lambda: not processes_in(directory), f"no process in {directory}")


def test_a_started_control_plane_is_ready_and_private(control_plane: ControlPlane, resources: Resources) -> None:
    assert resources.http.get("/readyz").text == "ok"
    assert resources.http.get("/version").json()["gitVersion"] == f"v{control_plane.version}"
    assert resources.http.get("/api/v1/namespaces/default").status_code == 200
    assert stat.S_IMODE(control_plane.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(control_plane.kubeconfig.stat().st_mode) == 0o600
    assert len(processes_in(str(control_plane.directory))) == 4


@pytest.mark.parametrize(
    ("version", "apiserver", "manager"),
    [
        ("1.20.2", ["BoundServiceAccountTokenVolume=true,EphemeralContainers=true"], ["CronJobControllerV2=true"]),
        ("1.22.0", ["EphemeralContainers=true"], []),
        ("1.36.0", [], []),
    ],
)
def test_only_older_versions_are_told_what_later_ones_do_anyway(
    version: str, apiserver: list[str], manager: list[str], control_plane: ControlPlane
) -> None:
    files = control_plane._credentials
    somewhere = Path("/somewhere")
    servers = components.apiserver(somewhere, 1, 2, files, somewhere, version)
    managers = components.controller_manager(somewhere, 1, somewhere, files, version)
    assert [flag for flag in servers if "gates" in flag] == [f"--feature-gates={gates}" for gates in apiserver]
    assert [flag for flag in managers if "gates" in flag] == [f"--feature-gates={gates}" for gates in manager]


def test_a_stranger_is_refused(control_plane: ControlPlane) -> None:
    context = control_plane.endpoint.ssl_context()
    assert httpx.get(f"{control_plane.server}/api/v1/secrets", verify=context).status_code == 403
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(control_plane.server)


def test_a_custom_resource_can_be_applied_right_after_its_definition(resources: Resources) -> None:
    resources.apply([WIDGETS, widget(2)])
    resources.apply([widget(3)])
    assert resources.http.get(resources.path(widget(3))).json()["size"] == 3


def test_a_refused_object_is_named_with_the_servers_reason(resources: Resources) -> None:
    resources.apply([WIDGETS])
    with pytest.raises(ApplyError, match=r"cannot apply Widget one: 422: .*size.*greater than or equal to 1"):
        resources.apply([widget(0)])


def test_an_unknown_kind_is_named(resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.controlplane.resources._DISCOVERY_PATIENCE", 0.2)
    gadget = {"apiVersion": "sandbox.test/v1", "kind": "Gadget", "metadata": {"name": "one"}}
    with pytest.raises(ApplyError, match=r"serves no Gadget in sandbox\.test/v1; apply its CustomResourceDefinition"):
        resources.apply([gadget])


def test_manifests_are_read_from_folders_without_kustomizes_own(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("kind: B\napiVersion: v1\nmetadata: {name: b}\n---\n---\n")
    (tmp_path / "a.yaml").write_text("kind: A\napiVersion: v1\nmetadata: {name: a}\n")
    (tmp_path / "kustomization.yaml").write_text("kind: Kustomization\napiVersion: kustomize.config.k8s.io/v1beta1\n")
    assert [document["kind"] for document in documents([tmp_path])] == ["A", "B"]
    with pytest.raises(ApplyError, match=r"no manifests at .*missing"):
        documents([tmp_path / "missing"])


def test_a_service_account_has_its_own_rights_and_no_more(control_plane: ControlPlane, resources: Resources) -> None:
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}],
    }
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}}
    resources.apply([account, role, binding])
    with Resources(control_plane.service_account_endpoint("default", "reader")) as reader:
        assert reader.http.get("/api/v1/namespaces/default/configmaps").status_code == 200
        refused = reader.http.get("/api/v1/namespaces/default/secrets")
    assert 'User "system:serviceaccount:default:reader" cannot list' in refused.json()["message"]
    assert "reader" in control_plane.service_account_kubeconfig("default", "reader").read_text()
    with pytest.raises(ApplyError, match="no token for ServiceAccount default/nobody: 404"):
        control_plane.service_account_endpoint("default", "nobody")


def test_a_component_that_fails_is_quoted_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "etcd").write_text("#!/bin/sh\necho flag provided but not defined; exit 2\n")
    (tmp_path / "etcd").chmod(0o755)
    with pytest.raises(ControlPlaneError, match=r"1\.2\.3 did not start: etcd ended with code 2\..*\nflag provided"):
        ControlPlane.start(Assets(tmp_path, "1.2.3", "test"))
    assert [path.name for path in tmp_path.iterdir()] == ["etcd"]


class Stranger(BaseHTTPRequestHandler):
    """Whatever has taken the port: it answers every request, but it is not our etcd."""

    def do_POST(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


def test_a_second_one_starts_beside_the_first_though_a_port_was_taken(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as stranger:
        threading.Thread(target=stranger.serve_forever).start()
        ports = [stranger.server_port]
        monkeypatch.setattr(lifecycle, "free_port", lambda: ports.pop() if ports else free_port())
        try:
            second = ControlPlane.start(provide())
        finally:
            stranger.shutdown()
    with second:
        for one in (control_plane, second):
            with Resources(one.endpoint) as client:
                assert client.http.get("/readyz").status_code == 200
        assert second.directory != control_plane.directory
    assert_nothing_left(str(second.directory))


def test_nothing_outlives_an_owner_that_is_killed() -> None:
    script = (
        "from sandbox.assets import provide\n"
        "from sandbox.controlplane import ControlPlane\n"
        "print(ControlPlane.start(provide()).directory, flush=True)\n"
        "import time; time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    directory = owner.stdout.readline().strip()
    assert len(processes_in(directory)) == 4
    owner.kill()
    owner.communicate()
    assert_nothing_left(directory)


class CommandLine:
    """`python -m sandbox` with a cache of its own and this session's binaries."""

    def __init__(self, cache: Path) -> None:
        self._environment = {**os.environ, "KEYTURN_CACHE": str(cache), "KUBEBUILDER_ASSETS": str(provide().directory)}

    def start(self, *words: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-u", "-m", "sandbox", *words]
        return subprocess.Popen(argv, env=self._environment, stdout=subprocess.PIPE, text=True)

    def __call__(self, *words: str) -> tuple[int, str]:
        process = self.start(*words)
        said, _ = process.communicate(timeout=60)
        return process.returncode, said


@pytest.fixture
def command_line(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


def test_ctrl_c_ends_everything(command_line: CommandLine) -> None:
    up = command_line.start("up")
    assert up.stdout is not None
    directory = up.stdout.readline().split()[-1]
    assert up.stdout.readline() == f"export KUBECONFIG={directory}/kubeconfig\n"
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=20)
    assert up.returncode == 0
    assert_nothing_left(directory)
    assert command_line("status") == (3, "No sandbox is running. Start one with: python -m sandbox up\n")


def test_a_detached_sandbox_is_found_again_and_ended(command_line: CommandLine, tmp_path: Path) -> None:
    code, said = command_line("up", "--detach")
    assert code == 0
    found = re.search(r"export KUBECONFIG=(\S+)/kubeconfig", said)
    assert found
    try:
        assert command_line("status") == (0, said)
        assert command_line("up") == (0, f"{said}It was running already.\n")
    finally:
        assert command_line("down") == (0, "Stopped.\n")
    assert_nothing_left(found[1])
    assert command_line("down") == (0, "No sandbox is running.\n")


def test_the_state_of_a_dead_sandbox_is_not_believed(command_line: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "sandbox.json").write_text('{"pid": 1, "version": "", "server": "", "kubeconfig": "", "directory": ""}')
    assert command_line("status")[0] == 3
    assert command_line("down") == (0, "No sandbox is running.\n")
