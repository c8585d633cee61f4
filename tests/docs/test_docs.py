"""The pages for users say of fields, options, rights and stored things what the code and the manifests say."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from datetime import timedelta
from os.path import relpath
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import SecretStr

from keyturn.api.base import KubeModel, format_duration
from keyturn.api.provider import (
    CredentialRef,
    JanrainSpec,
    ProviderSpec,
    SnapTradeSpec,
    StytchSpec,
)
from keyturn.api.rules import PROVIDER_BLOCKS
from keyturn.cli.main import app
from keyturn.cluster.secrets import Owner
from keyturn.controller.logs import LogFormat, configure
from keyturn.controller.spool import Entry, Spool
from keyturn.providers.http import HttpClient
from keyturn.providers.registry import PROVIDERS
from tests.docs.pages import LIFECYCLE, OPERATIONS, PROVIDERS_PAGE, ROOT, section, table

MANIFESTS = ROOT / "manifests"
SAMPLES = sorted((MANIFESTS / "samples").glob("*.yaml"))
SPOOL = section(OPERATIONS, "The spool")


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_every_sample_is_shown_as_it_ships(path: Path) -> None:
    shown = re.sub(r"\A(#.*\n)+", "", path.read_text())
    assert f"```yaml\n{shown}```" in PROVIDERS_PAGE
    assert f"](../manifests/samples/{path.name})" in PROVIDERS_PAGE


def test_the_secrets_to_make_are_those_that_the_samples_name() -> None:
    """The commands in the heads of the samples, and those of the page, make what the objects refer to."""
    for path in SAMPLES:
        text = path.read_text()
        made = {name: set(re.findall(r"literal=(\w+)=", rest)) for name, rest in re.findall(r"generic (\S+)(.*)", text)}
        documents = list(yaml.safe_load_all(text))
        for document in documents:
            if document["apiVersion"] == "keyturn.dev/v1alpha1":
                spec = document["spec"]
                ref = next((spec[block] for block in PROVIDER_BLOCKS if block in spec), spec)["secretRef"]
                assert {ref["key"], ref.get("clientIdKey", ref["key"])} <= made[ref["name"]], path.name
        commands = re.findall(r"^#   (kubectl create secret generic .*)$", text, re.MULTILINE)
        assert commands
        assert path.stem == "cluster-provider" or all(command in PROVIDERS_PAGE for command in commands)


def fields(model: type[KubeModel], prefix: str = "") -> dict[str, str]:
    """The fields of a block and their defaults, as the tables write them; references have a table of their own."""
    found = {}
    for field in model.model_fields.values():
        alias, default = prefix + str(field.alias), field.get_default()
        inner = [
            kind
            for kind in (field.annotation, *getattr(field.annotation, "__args__", ()))
            if isinstance(kind, type) and issubclass(kind, KubeModel) and kind is not CredentialRef
        ]
        if not inner or field.is_required() or default is None:
            written = format_duration(default) if isinstance(default, timedelta) else default
            found[alias] = "required" if field.is_required() else "-" if default is None else f"`{written}`"
        for kind in inner:
            found |= fields(kind, f"{alias}.")
    return found


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("Fields of `spec.stytch`", StytchSpec),
        ("Fields of `spec.janrain`", JanrainSpec),
        ("Fields of `spec.snaptrade`", SnapTradeSpec),
    ],
)
def test_every_field_of_a_block_is_described(heading: str, model: type[KubeModel]) -> None:
    rows = table(section(PROVIDERS_PAGE, heading), "field")
    assert {row[0].strip("`"): row[1] for row in rows} == fields(model)


def test_every_field_beside_the_blocks_is_described() -> None:
    text = section(PROVIDERS_PAGE, "What all provider objects have in common")
    common = {
        name: default for name, default in fields(ProviderSpec).items() if name.split(".")[0] not in PROVIDER_BLOCKS
    }
    shown = {row[0].strip("`"): row[1] for row in table(text, "field")}
    assert shown == {**common, **fields(CredentialRef)}


def test_each_provider_is_called_by_its_kind() -> None:
    header, *rows = [
        line.split(" | ") for line in section(PROVIDERS_PAGE, "Overview").splitlines() if line.startswith("|")
    ]
    kinds = next(row for row in rows if row[0] == "| kind")
    blocks = next(row for row in rows if row[0] == "| block")
    shown = {re.sub(r"\W|spec", "", block): kind.strip(" |") for block, kind in zip(blocks[1:], kinds[1:], strict=True)}
    assert shown == {name: entry.capabilities.semantics for name, entry in PROVIDERS.items()}
    assert len(header) == len(blocks)


def test_a_call_ends_when_the_pages_say() -> None:
    """What the grace period is made of."""
    spec = ProviderSpec()
    connect, read = (span.total_seconds() for span in (spec.timeouts.connect, spec.timeouts.read))
    assert HttpClient(spec)._deadline == 3 * connect + 2 * read == 135
    for page in (PROVIDERS_PAGE, OPERATIONS):
        assert "`3 * connect + 2 * read`" in page
        assert "135 s" in page
    deployment = yaml.safe_load((MANIFESTS / "deployment.yaml").read_text())
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert f"`terminationGracePeriodSeconds` is {grace}." in OPERATIONS
    assert grace > 135


def test_every_option_is_described() -> None:
    group: Any = typer.main.get_command(app)
    shown = {row[0]: row[1:3] for row in table(section(OPERATIONS, "Settings"), "option")}
    known = {}
    for option in group.commands["run"].params:
        variables = [str(option.envvar)] if option.envvar else []
        default = option.default.value if isinstance(option.default, LogFormat) else option.default
        known[f"`{option.opts[0]}`"] = [
            f"`{variables[0]}`" if variables else "-",
            f"`{default}`" if default not in (None, False) else "-",
        ]
    assert shown == known


def test_every_right_is_explained() -> None:
    files = [MANIFESTS / "rbac.yaml", *MANIFESTS.glob("components/*/role.yaml")]
    documents = [item for path in files for item in yaml.safe_load_all(path.read_text())]
    roles = [item for item in documents if item["kind"] in ("ClusterRole", "Role")]
    granted: defaultdict[str, set[str]] = defaultdict(set)
    shown: defaultdict[str, set[str]] = defaultdict(set)
    for rule in [rule for role in roles for rule in role["rules"]]:
        for resource in rule["resources"]:
            granted[resource] |= set(rule["verbs"])
    for _, resources, verbs, _ in table(section(OPERATIONS, "Rights"), "group"):
        for resource in re.findall(r"`([\w/]+)`", resources):
            shown[resource] |= set(verbs.split(", "))
    assert shown == granted


def test_every_field_of_a_log_entry_is_described() -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure(LogFormat.JSON)
        formatter = root.handlers[0].formatter
    finally:
        root.handlers[:], root.level = handlers, level
    assert formatter is not None
    try:
        raise ValueError("for a traceback")
    except ValueError:
        record = logging.LogRecord("keyturn", logging.ERROR, "", 0, "said", None, sys.exc_info())
    record.__dict__ |= {"object": "a/b", "rotation": "c"}
    rows = table(section(OPERATIONS, "Logs"), "field")
    assert sorted(row[0].strip("`") for row in rows) == sorted(json.loads(formatter.format(record)))


@pytest.mark.parametrize("page", [PROVIDERS_PAGE, OPERATIONS, LIFECYCLE], ids=["providers", "operations", "lifecycle"])
def test_tests_that_are_named_exist(page: str) -> None:
    for path in re.findall(r"\btests/[\w/.]+\.py", page):
        assert (ROOT / path).exists(), path


def test_names_of_stored_things_are_those_of_the_code() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "operator" / "keyturn").rglob("*.py"))
    for name in re.findall(r"`keyturn\.dev/(\w+)`", section(OPERATIONS, "What is stored where")):
        assert f'{{GROUP}}/{name}"' in code, name
    assert 'f"keyturn-journal-{owner.uid}"' in code


# --- the spool ---------------------------------------------------------------------------------------------------


def rendered(folder: Path) -> list[dict[str, Any]]:
    """What kubectl makes of a kustomization as the page shows it."""
    kubectl = shutil.which("kubectl")
    about = ["version", "--client", "--output=json"]
    if not kubectl or "kustomizeVersion" not in json.loads(subprocess.check_output([kubectl, *about])):
        pytest.skip("no kubectl of 1.24 or newer: older ones carry a kustomize that knows no folders as resources")
    (kustomization,) = [block for block in re.findall(r"```yaml\n(.*?)```", SPOOL, re.DOTALL) if "components:" in block]
    text = kustomization.replace("../manifests", relpath(MANIFESTS, folder))
    (folder / "kustomization.yaml").write_text(text)
    built = subprocess.run([kubectl, "kustomize", folder], check=True, capture_output=True, text=True).stdout
    return list(yaml.safe_load_all(built))


def test_the_component_mounts_what_the_environment_names(tmp_path: Path) -> None:
    built = {(item["kind"], item["metadata"]["name"]): item for item in rendered(tmp_path)}
    pod = built["Deployment", "keyturn"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    places = {variable["name"]: Path(variable["value"]) for variable in container["env"] if "value" in variable}
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}

    claim = volumes["spool"]["persistentVolumeClaim"]["claimName"]
    assert built["PersistentVolumeClaim", claim]["metadata"]["namespace"] == "keyturn-system"
    assert places["KEYTURN_SPOOL_DIR"] == Path(mounts["spool"]["mountPath"])
    assert not mounts["spool"].get("readOnly")

    secret, key = re.findall(r"generic ([\w-]+).*\n.*literal=(\w+)=", SPOOL)[0]
    assert volumes["spool-keys"]["secret"]["secretName"] == secret
    assert places["KEYTURN_SPOOL_KEY_FILE"] == Path(mounts["spool-keys"]["mountPath"]) / key
    assert volumes["spool-keys"]["secret"]["defaultMode"] == 0o440, "readable by the group that owns the volume"
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    assert container["image"] == "registry.example.com/keyturn:0.1.0"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.skipif(not shutil.which("openssl"), reason="the page makes the key with openssl")
def test_the_key_is_one_and_the_files_can_be_read_as_shown(tmp_path: Path) -> None:
    (command,) = re.findall(r"\$\((openssl.*)\)\"", SPOOL)
    keys, folder = tmp_path / "keys", tmp_path / "spool"
    keys.write_text(subprocess.check_output(command, shell=True, text=True))  # noqa: S602 - as the page shows it
    spool = Spool.open(folder, keys)
    spool.keep(Entry(Owner("ns", "billing", "uid"), "rotation-1", SecretStr("the-value")))
    (program,) = re.findall(r"python -c '\n(.*?)'\n```", SPOOL, re.DOTALL)
    program = program.replace("/etc/keyturn/spool/keys", str(keys)).replace("/var/lib/keyturn/spool", str(folder))
    shown = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert "uid-rotation-1.pending" in shown
    assert "the-value" in shown
