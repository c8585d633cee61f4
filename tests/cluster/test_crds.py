"""The definitions in a real API server: established, completing and refusing specs, readable with kubectl."""

import subprocess
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from keyturn.api.base import API_VERSION
from keyturn.api.conditions import ConditionStatus, ConditionType, merge_conditions
from keyturn.api.crd import schema_for
from keyturn.api.policy import POLICY_KIND
from keyturn.api.provider import ProviderKind, ProviderStatus
from keyturn.api.rotation import (
    CronInForce,
    LabelRequirement,
    LabelSelector,
    Phase,
    Result,
    RolloutSpec,
    RolloutTarget,
    RotationRecord,
    RotationSpec,
    RotationStatus,
    RotationSummary,
    SelectorOperator,
    Subject,
    Target,
    TargetKind,
    TargetState,
)
from keyturn.api.rules import ROTATION_KIND, Invalid
from sandbox.assets import provide
from sandbox.assets.provide import find_kubectl
from sandbox.controlplane import ControlPlane, Resources
from sandbox.controlplane.components import minor
from tests.api.bad_samples import BAD
from tests.api.samples import BASES, GOOD, Bad, Good, complete, label, spec_of, validate, without_nulls

FILES = sorted((Path(__file__).parents[2] / "crds").glob("keyturn.dev_*.yaml"))
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
Kubectl = Callable[..., list[str]]


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane.start(provide()) as running:
        yield running


@pytest.fixture(scope="module")
def enforces_cel(control_plane: ControlPlane) -> bool:
    """API servers before 1.25 drop the rules."""
    return minor(control_plane.version) >= 25


@pytest.fixture(scope="module")
def http(control_plane: ControlPlane) -> Iterator[httpx.Client]:
    """An administrator's client, with the definitions in place."""
    control_plane.install_manifests(FILES)
    with Resources(control_plane.endpoint) as resources:
        yield resources.http


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    name = f"crds-{uuid.uuid4().hex[:8]}"
    control_plane.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}])
    return name


@pytest.fixture
def kubectl(control_plane: ControlPlane, namespace: str) -> Kubectl:
    """Runs kubectl in the test's namespace and returns the lines that it prints."""
    command = [str(find_kubectl()), f"--kubeconfig={control_plane.kubeconfig}", f"--namespace={namespace}"]

    def run(*arguments: str) -> list[str]:
        return subprocess.run([*command, *arguments], check=True, capture_output=True, text=True).stdout.splitlines()

    return run


def collection(kind: str, namespace: str) -> str:
    if kind == POLICY_KIND:
        return f"/apis/{API_VERSION}/rotationpolicies"
    inner = "" if kind == ProviderKind.CLUSTER_ROTATION_PROVIDER else f"/namespaces/{namespace}"
    return f"/apis/{API_VERSION}{inner}/{kind.lower()}s"


def made(kind: str, spec: object, name: str = "sample") -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def tried(http: httpx.Client, kind: str, spec: object) -> httpx.Response:
    """The server's answer to a creation that it is asked not to keep."""
    return http.post(collection(kind, "default"), params={"dryRun": "All"}, json=made(kind, spec))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_definitions_are_established_and_kept_to_the_letter(http: httpx.Client, enforces_cel: bool, path: Path) -> None:
    sent = yaml.safe_load(path.read_text("utf-8"))
    answer = http.get(f"{DEFINITIONS}/{sent['metadata']['name']}").json()
    conditions = {condition["type"]: condition["status"] for condition in answer["status"]["conditions"]}
    assert conditions == {"Established": "True", "NamesAccepted": "True"}  # NonStructuralSchema would be a third
    if not enforces_cel:
        del schema_of(sent)["properties"]["spec"]["x-kubernetes-validations"]
    assert schema_of(answer) == schema_of(sent)


def schema_of(definition: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


@pytest.mark.parametrize("sample", GOOD, ids=label)
def test_good_specs_are_completed_as_the_operator_completes_them(http: httpx.Client, sample: Good) -> None:
    answer = tried(http, sample.kind, spec_of(sample))
    assert answer.status_code == httpx.codes.CREATED, answer.text
    expected = complete(schema_for(sample.kind)["properties"]["spec"], without_nulls(spec_of(sample)))
    expected.pop("notYetInvented", None)
    assert answer.json()["spec"] == expected
    assert validate(sample.kind, answer.json()["spec"]) == validate(sample.kind, spec_of(sample))


@pytest.mark.parametrize("sample", BAD, ids=label)
def test_bad_specs_are_refused_naming_the_field(http: httpx.Client, enforces_cel: bool, sample: Bad) -> None:
    answer = tried(http, sample.kind, spec_of(sample))
    if sample.by_rule and not enforces_cel:
        assert answer.status_code == httpx.codes.CREATED
        assert isinstance(validate(sample.kind, answer.json()["spec"]), Invalid)
        return
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY, answer.text
    assert sample.place.partition("[")[0] in answer.json()["message"]  # 1.20 names the list, not the item


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("spec", [None, [], "text"], ids=str)
def test_a_spec_is_required(http: httpx.Client, kind: str, spec: object) -> None:
    answer = tried(http, kind, spec)
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert "spec" in answer.json()["message"]


def full_rollout() -> RolloutSpec:
    expression = LabelRequirement(key="tier", operator=SelectorOperator.IN, values=["back"])
    return RolloutSpec(
        targets=[RolloutTarget(kind=TargetKind.DEPLOYMENT, name="web")],
        selector=LabelSelector(match_labels={"app": "web"}, match_expressions=[expression]),
        max_concurrent=2,
    )


def full_status() -> RotationStatus:
    """A status with every field set; its last rotation has ended two hours ago, its next is due in an hour."""
    now = datetime.now(UTC).replace(microsecond=0)
    full = next(sample for sample in GOOD if sample.kind == ROTATION_KIND and sample.changes)
    spec = RotationSpec.model_validate(spec_of(full))
    summary = RotationSummary(
        id="r-1",
        reason="RotationRequest",
        request="2026-11-a",
        urgent="leaked",
        result=Result.COMPLETED,
        started_time=now - timedelta(hours=3, microseconds=1),
        finished_time=now - timedelta(hours=2),
        previous_refused=True,
        previous_valid_until=now - timedelta(hours=1),
        message="done",
    )
    record = RotationRecord(
        id="r-2",
        phase=Phase.ROLLING_OUT,
        reason="RotationRequest",
        request="2026-11-b",
        urgent="leaked again",
        account="stytch https://api.example.com/ project-1",
        subject=Subject(provider_ref=spec.provider_ref, client_id=spec.client_id, secret_ref=spec.secret_ref),
        started_time=now,
        phase_started_time=now,
        deadline=now,
        distributed_time=now,
        restored_time=now,
        previous_valid_until=now,
        cancel_reason="none",
        resumed="r-2-1",
        rollout=full_rollout(),
        held_since=now,
        wave=0,
        wave_ready_time=now,
        targets=[
            Target(
                kind="Deployment",
                name="web",
                state=TargetState.ROLLING,
                updated=1,
                desired=3,
                restarted=True,
                message="2 to go",
            ),
        ],
    )
    drafts = [
        (ConditionType.STALLED, ConditionStatus.TRUE, "ForeignRotation", "somebody else has started a rotation"),
        (ConditionType.READY, ConditionStatus.TRUE, "SecretRotated", "the Secret holds the value"),
    ]
    return RotationStatus(
        phase=Phase.BLOCKED,
        conditions=merge_conditions([], drafts, 1, now),
        observed_generation=1,
        rotation=record,
        last_rotation=summary,
        last_rotation_time=now - timedelta(hours=2),
        last_rotation_subject=record.subject,
        next_rotation_time=now + timedelta(hours=1),
        last_handled_rotation_request="2026-11-b",
        last_handled_urgent="leaked again",
        failures=1,
        cron_in_force=CronInForce(cron="0 3 * * 1", time_zone="Europe/Berlin", since=now),
        secret_since=now,
        secret_fingerprint="0123456789ab",
        history=[summary, summary],
    )


def unset(value: object, path: str = "status") -> list[str]:
    """Fields of a dumped model that are not set."""
    if isinstance(value, dict):
        return [name for key, item in value.items() for name in unset(item, f"{path}.{key}")]
    return [path] if value in (None, []) else []


def test_the_status_is_kept_to_the_letter_and_apart_from_the_spec(http: httpx.Client, namespace: str) -> None:
    status = full_status()
    assert unset(status.model_dump()) == []
    wire, place = status.to_wire(), collection(ROTATION_KIND, namespace)
    created = http.post(place, json={**made(ROTATION_KIND, spec_of(GOOD[0])), "status": wire}).json()
    assert "status" not in created

    merge = {"Content-Type": "application/merge-patch+json"}
    patch = {"status": wire, "spec": {"clientId": "another"}}
    answer = http.patch(f"{place}/sample/status", json=patch, headers=merge).raise_for_status().json()
    assert answer["status"] == wire
    assert RotationStatus.model_validate(answer["status"]) == status
    assert answer["spec"] == created["spec"]
    assert answer["metadata"]["generation"] == 1

    patch = {"spec": {"clientId": "another"}, "status": {"phase": "Idle"}}
    answer = http.patch(f"{place}/sample", json=patch, headers=merge).raise_for_status().json()
    assert answer["spec"]["clientId"] == "another"
    assert answer["status"] == wire
    assert answer["metadata"]["generation"] == 2


def put_rotation(http: httpx.Client, namespace: str, name: str, status: dict[str, Any] | None = None) -> None:
    place = collection(ROTATION_KIND, namespace)
    created = http.post(place, json=made(ROTATION_KIND, spec_of(GOOD[0]), name)).raise_for_status().json()
    if status is not None:
        http.put(f"{place}/{name}/status", json={**created, "status": status}).raise_for_status()


def cells(header: str, line: str) -> dict[str, str]:
    """A line of kubectl's table by the columns of its header."""
    starts = [index for index, letter in enumerate(header) if letter != " " and header[:index][-1:] in ("", " ")]
    ends = [*starts[1:], max(len(header), len(line))]
    return {header[start:end].strip(): line[start:end].strip() for start, end in zip(starts, ends, strict=True)}


def test_kubectl_prints_what_users_look_for(http: httpx.Client, namespace: str, kubectl: Kubectl) -> None:
    status = full_status().to_wire()
    put_rotation(http, namespace, "fresh")
    put_rotation(http, namespace, "stalled", status)
    header, fresh, stalled = kubectl("get", "csrot", "--output=wide")
    assert header.split() == ["NAME", "PHASE", "PROVIDER", "LAST", "NEXT", "READY", "AGE", "REASON"]
    shown = cells(header, stalled)
    assert shown.pop("AGE").endswith("s")
    assert shown == {
        "NAME": "stalled",
        "PHASE": "Blocked",
        "PROVIDER": "stytch-live",
        "LAST": "120m",
        "NEXT": status["nextRotationTime"],
        "READY": "True",
        "REASON": "ForeignRotation",
    }
    assert fresh.split()[:2] == ["fresh", "stytch-live"]
    assert kubectl("get", "csrot")[0].split() == ["NAME", "PHASE", "PROVIDER", "LAST", "NEXT", "READY", "AGE"]


def test_kubectl_waits_for_conditions_and_phases(http: httpx.Client, namespace: str, kubectl: Kubectl) -> None:
    put_rotation(http, namespace, "one", full_status().to_wire())
    assert kubectl("wait", "csrot/one", "--for=condition=Ready", "--timeout=5s") == [
        "clientsecretrotation.keyturn.dev/one condition met"
    ]
    assert kubectl("wait", "csrot/one", "--for=jsonpath={.status.phase}=Blocked", "--timeout=5s")


@pytest.mark.parametrize("kind", list(ProviderKind))
def test_kubectl_prints_whether_a_provider_works(
    http: httpx.Client, namespace: str, kubectl: Kubectl, kind: ProviderKind
) -> None:
    place = collection(kind, namespace)
    created = http.post(place, json=made(kind, BASES[kind])).raise_for_status().json()
    drafts = [(ConditionType.READY, ConditionStatus.FALSE, "ProviderUnauthorized", "the project secret is refused")]
    status = ProviderStatus(
        observed_generation=1, conditions=merge_conditions([], drafts, 1, datetime.now(UTC))
    ).to_wire()
    answer = http.put(f"{place}/sample/status", json={**created, "status": status}).raise_for_status().json()
    assert answer["status"] == status
    header, line = kubectl("get", kind.lower(), "--output=wide")
    assert header.split() == ["NAME", "READY", "AGE", "REASON"]
    assert (cells(header, line)["READY"], cells(header, line)["REASON"]) == ("False", "ProviderUnauthorized")


def test_the_category_shows_everything_of_keyturn(http: httpx.Client, namespace: str, kubectl: Kubectl) -> None:
    put_rotation(http, namespace, "mine")
    http.post(collection("RotationProvider", namespace), json=made("RotationProvider", BASES["RotationProvider"]))
    shown = kubectl("get", "keyturn", "--output=name")
    assert "clientsecretrotation.keyturn.dev/mine" in shown
    assert "rotationprovider.keyturn.dev/sample" in shown
