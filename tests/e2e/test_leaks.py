"""I8: no secret value, in any form, in anything that people, programs or log collectors get to read."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote, quote_plus

import httpx
import pytest

from sandbox.simulators.faults import How, Reply
from sandbox.simulators.stytch import IssuedSecret, StytchSimulator
from sandbox.stage import Operator
from tests.e2e.crash import begin_and_hold_verifying, let_verify
from tests.e2e.scene import Scene
from tests.e2e.scene import encode as encoded

# Characters that look different in base64, in URLs and in JSON.
PROJECT_SECRET: Final = 'canary-project/+ "secret"&=%?'
FIRST_SECRET: Final = 'canary-first/+ "value"&=%?~1234'
NEW_SECRET: Final = 'canary-second/+ "value"&=%?~5678'
ACCESS_TOKEN: Final = "canary-token/+&=%?"


def forms(value: str) -> Iterator[str]:
    """How a value may look in a text."""
    yield value
    yield from (json.dumps(value)[1:-1], quote(value), quote(value, safe=""), quote_plus(value))
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(value.encode()).decode().rstrip("=")
    yield repr(value)[1:-1]


class LeakySimulator(StytchSimulator):
    """A provider that issues canaries, and puts everything that a call told it into its errors, in every form."""

    refusing = False
    """Whether the new secret is refused for ever."""
    sent = ""
    """The secret of the newest token call."""

    def accepts(self, client_id: str, secret: str) -> bool:
        self.sent = secret
        return super().accepts(client_id, secret) and not (self.refusing and secret == NEW_SECRET)

    def _oauth_error(self, error: str, description: str) -> Reply:
        text = "you sent " + " ".join(forms(self.sent))
        return super()._oauth_error(error, f"{description} {text}")

    def leak(self, status: int, operation: str) -> dict[str, Any]:
        # Stytch itself knows only hashes of what it has issued: a value can come back only from a call that held it.
        held = [NEW_SECRET] if operation == "token" else [PROJECT_SECRET, self.authorization]
        text = "you sent " + " ".join(form for value in held for form in forms(value))
        told = {"error_type": "upstream", "error_message": text, "error": "upstream", "error_description": text}
        return {"status_code": status, "request_id": "r-1", **told}

    @property
    def authorization(self) -> str:
        return base64.b64encode(f"{self.project_id}:{PROJECT_SECRET}".encode()).decode()


def canaries(simulator: LeakySimulator) -> set[str]:
    values = (PROJECT_SECRET, FIRST_SECRET, NEW_SECRET, ACCESS_TOKEN, simulator.authorization)
    return {form for value in values for form in forms(value)} | {"canary"}


@pytest.fixture
def leaky(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> LeakySimulator:
    """The scene's provider with canaries for everything that is secret."""
    simulator = scene.account.simulator
    simulator.__class__ = LeakySimulator
    assert isinstance(simulator, LeakySimulator)
    simulator.project_secret = PROJECT_SECRET
    simulator.clients[scene.client_id].current = IssuedSecret(FIRST_SECRET, 0)
    scene.first_secret = FIRST_SECRET
    monkeypatch.setattr("sandbox.simulators.stytch.new_secret", lambda: NEW_SECRET)
    monkeypatch.setattr("sandbox.simulators.stytch.secrets.token_urlsafe", lambda length: ACCESS_TOKEN)
    scene.put_secret("project", {"secret": PROJECT_SECRET})
    scene.put_secret("m2m", {"CLIENT_SECRET": FIRST_SECRET, "OTHER": "untouched"})
    return simulator


def told(scene: Scene, operator: Operator) -> dict[str, str]:
    """Everything that can be read without the right to read Secrets, by where it was found."""
    found = {"log": scene.log.read_text(), "health": httpx.get(f"http://{operator.health}/healthz").text}
    found["metrics"] = httpx.get(f"http://{operator.health}/metrics").text
    groups = {
        "/apis/keyturn.dev/v1alpha1": ("clientsecretrotations", "rotationproviders"),
        "/api/v1": ("secrets", "events", "pods", "configmaps"),
        "/apis/apps/v1": ("deployments", "replicasets"),
    }
    for prefix, plurals in groups.items():
        for plural in plurals:
            listed = scene.get(f"{prefix}/namespaces/{scene.namespace}/{plural}")
            assert listed is not None
            for item in listed["items"]:
                if plural == "secrets":
                    item.pop("data", None)
                found[f"{plural}/{item['metadata']['name']}"] = json.dumps(item, ensure_ascii=False)
    return found


def assert_tight(scene: Scene, simulator: LeakySimulator, operator: Operator) -> None:
    assert operator.alive()
    for place, text in told(scene, operator).items():
        leaked = [canary for canary in canaries(simulator) if canary in text]
        assert not leaked, f"{place} holds {leaked}"


def say_everything(simulator: LeakySimulator, operation: str, status: int, times: int | None = None) -> None:
    body = simulator.leak(status, operation)
    simulator.add_fault(operation, How.STATUS, status=status, body=body, times=times, caller="keyturn")


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_rotation_with_every_kind_of_error_tells_nothing(scene: Scene, leaky: LeakySimulator, style: str) -> None:
    for operation, status in (("get", 500), ("get", 429), ("start", 503), ("token", 500), ("rotate", 502)):
        say_everything(leaky, operation, status, times=1)
    leaky.add_fault("start", How.TRUNCATE, apply=True, caller="keyturn")
    leaky.add_fault("rotate", How.MALFORMED, apply=True, caller="keyturn")
    scene.put_deployment(replicas=1)
    operator = scene.operator("--log-format", style)
    scene.put_rotation(secretRef={"name": "m2m", "key": "CLIENT_SECRET", "previousKey": "PREVIOUS"})
    scene.wait_ended(seconds=60)
    assert scene.secret()["CLIENT_SECRET"] == NEW_SECRET
    assert "Stytch answered 502" in scene.log.read_text() + json.dumps(scene.status())
    assert_tight(scene, leaky, operator)


@pytest.mark.parametrize(
    ("operation", "status", "reason"),
    [("get", 401, "ProviderUnauthorized"), ("get", 404, "ClientNotFound"), ("get", 422, "ProviderRejected")],
)
def test_a_refusal_that_echoes_secrets_tells_nothing(
    scene: Scene, leaky: LeakySimulator, operation: str, status: int, reason: str
) -> None:
    say_everything(leaky, operation, status)
    operator = scene.operator()
    scene.put_rotation()
    assert "[redacted]" in scene.wait_stalled(reason)
    assert_tight(scene, leaky, operator)


def test_a_failed_verification_that_echoes_secrets_tells_nothing(scene: Scene, leaky: LeakySimulator) -> None:
    """The way back, up to Cancelled."""
    scene.put_deployment(replicas=1)
    leaky.refusing = True
    operator = scene.operator()
    scene.put_rotation(verify={"timeout": "1s"})
    scene.wait_ended("Cancelled")
    assert leaky.clients[scene.client_id].pending is None
    assert scene.secret()["CLIENT_SECRET"] == FIRST_SECRET
    assert "you sent [redacted]" in str(scene.status()) + str(scene.events())
    assert_tight(scene, leaky, operator)


def test_a_journal_that_somebody_damaged_is_named_and_tells_nothing(scene: Scene, leaky: LeakySimulator) -> None:
    """I10, with a value in it that would be quoted by an error that nobody thought of."""
    operator = begin_and_hold_verifying(scene)
    journal = scene.journals()[0]
    path = f"/api/v1/namespaces/{scene.namespace}/secrets/{journal}"
    binary = base64.b64encode(b"\xff" + FIRST_SECRET.encode()).decode()
    scene.patch(path, {"data": {"previous": binary}})
    message = scene.wait_stalled("Invalid")
    assert journal in message
    assert "settle the rotation at the provider" in message
    assert "Traceback" not in scene.log.read_text()
    assert_tight(scene, leaky, operator)
    scene.patch(path, {"data": {"previous": encoded(FIRST_SECRET)}})
    let_verify(scene)
    scene.wait_ended(seconds=70)
    assert scene.applied("start") == 1
    assert_tight(scene, leaky, operator)
