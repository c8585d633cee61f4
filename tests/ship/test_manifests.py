"""The manifests say exactly what the operator may do, and run it with nothing to spare."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from keyturn.api.base import KubeModel
from keyturn.api.provider import ProviderSpec
from keyturn.api.rotation import RotationSpec
from keyturn.cli.main import app
from keyturn.cluster import leases

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

# Everything the operator may do in a cluster. A line added here is a decision: say in the commit why it is needed.
GRANTED = {
    ("keyturn.dev", "clientsecretrotations"): {"get", "list", "patch", "watch"},
    ("keyturn.dev", "clientsecretrotations/status"): {"patch"},
    ("keyturn.dev", "clusterrotationproviders"): {"get", "list", "watch"},
    ("keyturn.dev", "clusterrotationproviders/status"): {"patch"},
    ("keyturn.dev", "rotationproviders"): {"get", "list", "watch"},
    ("keyturn.dev", "rotationproviders/status"): {"patch"},
    ("keyturn.dev", "rotationpolicies"): {"get", "list", "watch"},
    ("keyturn.dev", "rotationpolicies/status"): {"patch"},
    ("", "namespaces"): {"get", "list", "watch"},
    ("", "secrets"): {"create", "delete", "get", "patch"},
    ("", "pods"): {"delete", "list", "watch"},
    ("", "events"): {"create"},
    ("apps", "deployments"): {"get", "list", "patch", "watch"},
    ("apps", "statefulsets"): {"get", "list", "patch", "watch"},
    ("apps", "daemonsets"): {"get", "list", "patch", "watch"},
    ("argoproj.io", "rollouts"): {"get", "list", "patch", "watch"},
    ("apps", "replicasets"): {"list"},
    ("apps", "controllerrevisions"): {"list"},
    ("batch", "jobs"): {"list"},
    ("batch", "cronjobs"): {"list"},
}


def load(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def resources(folder: Path) -> list[dict[str, Any]]:
    """What a kustomization of plain resources stands for."""
    found = []
    for entry in load(folder / "kustomization.yaml")[0]["resources"]:
        path = folder / entry
        found += resources(path) if path.is_dir() else load(path)
    return found


def one(kind: str) -> dict[str, Any]:
    (found,) = [document for document in resources(MANIFESTS) if document["kind"] == kind]
    return found


@pytest.fixture
def container() -> dict[str, Any]:
    (found,) = one("Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_base_holds_all_that_an_installation_needs() -> None:
    names = sorted((document["kind"], document["metadata"]["name"]) for document in resources(MANIFESTS))
    assert names == [
        ("ClusterRole", "keyturn"),
        ("ClusterRoleBinding", "keyturn"),
        ("CustomResourceDefinition", "clientsecretrotations.keyturn.dev"),
        ("CustomResourceDefinition", "clusterrotationproviders.keyturn.dev"),
        ("CustomResourceDefinition", "rotationpolicies.keyturn.dev"),
        ("CustomResourceDefinition", "rotationproviders.keyturn.dev"),
        ("Deployment", "keyturn"),
        ("Namespace", "keyturn-system"),
        ("Role", "keyturn"),
        ("RoleBinding", "keyturn"),
        ("ServiceAccount", "keyturn"),
    ]


def test_kubectl_builds_the_same_base() -> None:
    kubectl = shutil.which("kubectl")
    about = ["version", "--client", "--output=json"]
    if not kubectl or "kustomizeVersion" not in json.loads(subprocess.check_output([kubectl, *about])):
        pytest.skip("no kubectl of 1.24 or newer: older ones carry a kustomize that knows no folders as resources")
    built = subprocess.run([kubectl, "kustomize", MANIFESTS], check=True, capture_output=True, text=True).stdout

    def by_identity(documents: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
        return {(document["kind"], document["metadata"]["name"]): document for document in documents}

    assert by_identity(list(yaml.safe_load_all(built))) == by_identity(resources(MANIFESTS))


def test_every_crd_file_is_installed() -> None:
    files = {path.name for path in (ROOT / "crds").glob("*.yaml")} - {"kustomization.yaml"}
    assert files == set(load(ROOT / "crds" / "kustomization.yaml")[0]["resources"])


def test_rbac_grants_exactly_what_is_intended() -> None:
    granted: dict[tuple[str, str], set[str]] = {}
    for rule in one("ClusterRole")["rules"]:
        assert set(rule) == {"apiGroups", "resources", "verbs"}
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                granted.setdefault((group, resource), set()).update(rule["verbs"])
    assert granted == GRANTED


def test_of_leases_only_the_one_that_is_used_can_be_read_and_written() -> None:
    create, use = one("Role")["rules"]
    assert create == {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]}
    assert use == {**create, "resourceNames": [leases.NAME], "verbs": ["get", "patch"]}
    assert one("Role")["metadata"]["namespace"] == one("Namespace")["metadata"]["name"]


def test_secrets_are_reached_by_name_only_and_nothing_is_granted_by_wildcard() -> None:
    for rule in one("ClusterRole")["rules"]:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        if "secrets" in rule["resources"]:
            assert not {"list", "watch", "deletecollection"} & set(rule["verbs"])


def test_the_role_is_bound_to_the_account_that_the_pod_runs_as() -> None:
    account, deployment = one("ServiceAccount"), one("Deployment")
    identity = {"name": account["metadata"]["name"], "namespace": account["metadata"]["namespace"]}
    for kind in ("ClusterRole", "Role"):
        binding = one(f"{kind}Binding")
        assert binding["subjects"] == [{"kind": "ServiceAccount", **identity}]
        assert binding["roleRef"]["kind"] == kind
        assert binding["roleRef"]["name"] == one(kind)["metadata"]["name"]
        assert binding["metadata"].get("namespace") == one(kind)["metadata"].get("namespace")
    assert deployment["spec"]["template"]["spec"]["serviceAccountName"] == identity["name"]
    assert deployment["metadata"]["namespace"] == identity["namespace"] == one("Namespace")["metadata"]["name"]


def test_pod_meets_the_restricted_pod_security_standard(container: dict[str, Any]) -> None:
    pod = one("Deployment")["spec"]["template"]["spec"]
    assert one("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "volumes", "initContainers"} & set(pod)


def test_pod_runs_the_user_of_the_image_and_the_version_of_the_project(container: dict[str, Any]) -> None:
    deployment = one("Deployment")
    pod = deployment["spec"]["template"]
    dockerfile = (ROOT / "Dockerfile").read_text()
    user = pod["spec"]["securityContext"]
    assert f"\nUSER {user['runAsUser']}:{user['runAsGroup']}\n" in dockerfile
    assert f'org.opencontainers.image.version="{VERSION}"' in dockerfile
    assert container["image"] == f"keyturn:{VERSION}"
    assert deployment["metadata"]["labels"]["app.kubernetes.io/version"] == VERSION
    assert pod["metadata"]["labels"]["app.kubernetes.io/version"] == VERSION
    assert deployment["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


def test_replicas_tell_themselves_apart_by_what_no_other_pod_has(container: dict[str, Any]) -> None:
    """The option that takes the identity is named by its variable; the kubelet fills in what stands before it."""
    places = {name: value["fieldRef"]["fieldPath"] for name, value in variables(container, "valueFrom").items()}
    identity = variables(container, "value")["KEYTURN_IDENTITY"]
    used = re.findall(r"\$\((\w+)\)", identity)
    assert [places[name] for name in used] == ["metadata.name", "metadata.uid"]
    order = [variable["name"] for variable in container["env"]]
    assert max(map(order.index, used)) < order.index("KEYTURN_IDENTITY")
    assert places["KEYTURN_NAMESPACE"] == "metadata.namespace"
    group: Any = typer.main.get_command(app)
    known = {option.envvar for option in group.commands["run"].params}
    assert {"KEYTURN_IDENTITY", "KEYTURN_NAMESPACE"} <= known
    assert one("Deployment")["spec"]["replicas"] == 2


def variables(container: dict[str, Any], source: str) -> dict[str, Any]:
    return {variable["name"]: variable[source] for variable in container["env"] if source in variable}


def test_probes_reach_a_declared_port(container: dict[str, Any]) -> None:
    ports = {port["name"] for port in container["ports"]}
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports


def leaves(value: object, path: str = "") -> dict[str, object]:
    if isinstance(value, dict):
        return {name: leaf for key, item in value.items() for name, leaf in leaves(item, f"{path}.{key}").items()}
    return {path: value}


@pytest.mark.parametrize("path", sorted((MANIFESTS / "samples").glob("*.yaml")), ids=lambda path: path.stem)
def test_samples_are_understood_to_the_last_field(path: Path) -> None:
    models: dict[str, type[KubeModel]] = {
        "ClientSecretRotation": RotationSpec,
        "RotationProvider": ProviderSpec,
        "ClusterRotationProvider": ProviderSpec,
    }
    ours = [document for document in load(path) if document["apiVersion"] == "keyturn.dev/v1alpha1"]
    assert ours
    for document in ours:
        understood = models[document["kind"]].model_validate(document["spec"]).to_wire()
        assert leaves(document["spec"]).items() <= leaves(understood).items()
