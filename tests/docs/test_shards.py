"""docs/fleet.md and the component for shards say what the code does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from os.path import relpath
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from keyturn.cli.main import app
from keyturn.controller.crew import lease_of_replica, lease_of_shard
from keyturn.controller.leadership import Timing
from tests.docs.pages import ROOT, section, table

SHARDS = section((ROOT / "docs" / "fleet.md").read_text(), "Shards")
COMPONENT = ROOT / "manifests" / "components" / "shards"
RBAC = ROOT / "manifests" / "rbac.yaml"


def load(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def test_the_leases_are_called_as_the_page_says() -> None:
    named = [row[0].split("`")[1] for row in table(SHARDS, "Lease in the operator's namespace")]
    assert named[0] == "keyturn"
    assert lease_of_replica("some pod", 5).startswith(named[1].replace("N", "5").rstrip("…"))
    assert lease_of_shard(0, 5) == named[2].replace("N", "5")


def test_the_component_grants_leases_in_keyturns_own_namespace_and_nothing_else() -> None:
    role, binding = load(COMPONENT / "role.yaml")
    verbs = ["delete", "get", "list", "patch"]
    assert role["rules"] == [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs}]
    (base,) = [document for document in load(RBAC) if document["kind"] == "RoleBinding"]
    assert binding["subjects"] == base["subjects"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == base["metadata"]["namespace"]


def test_the_component_sets_what_the_command_reads_and_the_page_says() -> None:
    (deployment,) = load(COMPONENT / "deployment.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    ((variable, value),) = ((one["name"], one["value"]) for one in container["env"])
    group: Any = typer.main.get_command(app)
    (option,) = [one for one in group.commands["run"].params if one.envvar == variable]
    replicas = deployment["spec"]["replicas"]
    assert (option.name, replicas, int(value)) == ("shards", 3, 12)
    assert "three\nreplicas, twelve shards" in SHARDS
    assert round((12 + 2 * replicas) / (0.875 * Timing().retry_period)) == 10
    assert "ten\nwrites for three replicas and twelve shards" in SHARDS


def test_the_kustomization_of_the_page_can_be_built(tmp_path: Path) -> None:
    kubectl = shutil.which("kubectl")
    about = ["version", "--client", "--output=json"]
    if not kubectl or "kustomizeVersion" not in json.loads(subprocess.check_output([kubectl, *about])):
        pytest.skip("no kubectl of 1.24 or newer: older ones carry a kustomize that knows no folders as resources")
    (shown,) = re.findall(r"```yaml\n(.*?)```", SHARDS, re.DOTALL)
    (tmp_path / "kustomization.yaml").write_text(shown.replace("../manifests", relpath(ROOT / "manifests", tmp_path)))
    built = subprocess.run([kubectl, "kustomize", tmp_path], check=True, capture_output=True, text=True).stdout
    (deployment,) = [item for item in yaml.safe_load_all(built) if item["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert deployment["spec"]["replicas"] == 5
    assert {"name": "KEYTURN_SHARDS", "value": "20"} in container["env"]
    assert "KEYTURN_IDENTITY" in {variable["name"] for variable in container["env"]}
