"""Everything that can be wrong with what a user gives, and how it is put right: one row for each."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from sandbox.simulators.faults import How
from sandbox.simulators.stytch import IssuedSecret, new_secret
from tests.e2e.scene import Scene

Change = Callable[[Scene], object]


@dataclass(frozen=True)
class Bad:
    """One thing that is wrong.

    reason: of the condition; says: what its message must name. stalled: only a person can mend it.
    spoil: makes the surroundings bad, correct: good again. spec: of the rotation.
    by_rule: a newer API server refuses it itself.
    """

    name: str
    reason: str
    says: tuple[str, ...]
    correct: Change
    spoil: Change = lambda scene: None
    spec: dict[str, Any] = field(default_factory=dict)
    stalled: bool = True
    phase: str = "Preparing"
    by_rule: bool = False


def remove(name: str) -> Change:
    return lambda scene: scene.delete(f"/api/v1/namespaces/{scene.namespace}/secrets/{name}")


def put_credentials(scene: Scene) -> None:
    scene.put_secret("project", {"secret": scene.account.simulator.project_secret})


def put_value(scene: Scene) -> None:
    scene.put_secret("m2m", {"CLIENT_SECRET": scene.first_secret, "OTHER": "untouched"})


def put_rotation(scene: Scene) -> None:
    scene.put_rotation()


def remove_provider(scene: Scene) -> None:
    scene.delete(f"/apis/keyturn.dev/v1alpha1/namespaces/{scene.namespace}/rotationproviders/stytch")


def put_unencrypted_provider(scene: Scene) -> None:
    scene.put_provider(baseUrl="http://stytch.example.com")


def put_provider(scene: Scene) -> None:
    scene.put_provider()


def refuse(status: int, **headers: str) -> Change:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda scene: scene.account.simulator.add_fault(
        "get", How.STATUS, status=status, headers=named, times=None, caller="keyturn"
    )


def answer(scene: Scene) -> None:
    scene.account.simulator.clear_faults()


def make_immutable(scene: Scene) -> None:
    scene.patch(scene.secret_path, {"immutable": True})


def replace_value(scene: Scene) -> None:
    remove("m2m")(scene)
    put_value(scene)


def make_binary(scene: Scene) -> None:
    scene.patch(scene.secret_path, {"data": {"CLIENT_SECRET": base64.b64encode(b"\xff\xfe\x00").decode()}})


def start_elsewhere(scene: Scene) -> None:
    simulator = scene.account.simulator
    simulator.clients[scene.client_id].pending = IssuedSecret(new_secret(), simulator.now())


def cancel_elsewhere(scene: Scene) -> None:
    scene.account.simulator.clients[scene.client_id].pending = None


def add_writer(scene: Scene) -> None:
    """Another rotation, of another client, writes to the same key."""
    scene.put_rotation(name="other", clientId=scene.account.simulator.create({})["client_id"])


def add_rival(scene: Scene) -> None:
    """Another rotation of the same client, with a Secret of its own."""
    scene.put_secret("own", {"CLIENT_SECRET": scene.first_secret})
    scene.put_rotation(name="other", secretRef={"name": "own", "key": "CLIENT_SECRET"})


def remove_other(scene: Scene) -> None:
    scene.delete(scene.rotation_path.replace("/billing", "/other"))


def elsewhere(scene: Scene) -> str:
    return f"{scene.namespace}-2"


def add_rival_elsewhere(scene: Scene) -> None:
    """A rotation of the same client in another namespace, of the same account under another name."""
    block = {
        "projectId": scene.account.simulator.project_id,
        "secretRef": {"name": "project", "key": "secret", "namespace": scene.namespace},
        "baseUrl": scene.account.url,
    }
    provider = {"kind": "ClusterRotationProvider", "name": elsewhere(scene)}
    spec = {
        "providerRef": provider,
        "clientId": scene.client_id,
        "secretRef": {"name": "m2m", "key": "CLIENT_SECRET"},
        "rotationRequest": "a",
    }
    api = {"apiVersion": "keyturn.dev/v1alpha1"}
    there = {"namespace": elsewhere(scene)}
    scene.stage.apply(
        [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": elsewhere(scene)}},
            {
                **api,
                "kind": "ClusterRotationProvider",
                "metadata": {"name": provider["name"]},
                "spec": {"stytch": block, "namespaces": [elsewhere(scene)]},
            },
            {**api, "kind": "ClientSecretRotation", "metadata": {"name": "billing", **there}, "spec": spec},
        ]
    )


def remove_rival_elsewhere(scene: Scene) -> None:
    scene.delete(scene.rotation_path.replace(scene.namespace, elsewhere(scene)))
    scene.delete(f"/apis/keyturn.dev/v1alpha1/clusterrotationproviders/{elsewhere(scene)}")
    scene.delete(f"/api/v1/namespaces/{elsewhere(scene)}")


CASES: Final = (
    Bad("missing Secret", "SecretNotFound", ("Secret m2m", "create it"), put_value, remove("m2m")),
    Bad(
        "missing key",
        "SecretKeyNotFound",
        ("Secret m2m", "key CLIENT_SECRET", "add it"),
        put_value,
        lambda scene: scene.put_secret("m2m", {"OTHER": "untouched"}),
    ),
    Bad(
        "immutable Secret",
        "SecretNotWritable",
        ("Secret m2m", "immutable", "replace it"),
        replace_value,
        make_immutable,
    ),
    Bad("binary value", "SecretNotWritable", ("Secret m2m", "key CLIENT_SECRET", "binary"), put_value, make_binary),
    Bad(
        "oversized value",
        "SecretNotWritable",
        ("Secret m2m", "key CLIENT_SECRET", "more than 16384 bytes"),
        put_value,
        lambda scene: scene.put_secret("m2m", {"CLIENT_SECRET": "x" * 16385, "OTHER": "untouched"}),
    ),
    Bad(
        "missing provider", "ProviderNotFound", ("RotationProvider stytch", "create it"), put_provider, remove_provider
    ),
    Bad(
        "unencrypted provider",
        "ProviderInvalid",
        ("RotationProvider stytch", "spec.stytch.baseUrl", "https://"),
        put_provider,
        put_unencrypted_provider,
        by_rule=True,
    ),
    Bad(
        "missing credentials",
        "CredentialsNotFound",
        ("RotationProvider stytch", "Secret project", "create it with the key secret"),
        put_credentials,
        remove("project"),
    ),
    Bad(
        "missing credential key",
        "CredentialsNotFound",
        ("RotationProvider stytch", "Secret project", "key secret", "add it"),
        put_credentials,
        lambda scene: scene.put_secret("project", {"other": "x"}),
    ),
    Bad(
        "wrong credentials",
        "ProviderUnauthorized",
        ("401", 'key "secret" of Secret "project"'),
        put_credentials,
        lambda scene: scene.put_secret("project", {"secret": "secret-test-of-another-project"}),
    ),
    Bad(
        "unknown client",
        "ClientNotFound",
        ("m2m-client-test-nobody", "Correct the client id"),
        put_rotation,
        spec={"clientId": "m2m-client-test-nobody"},
    ),
    Bad(
        "unreachable provider",
        "ProviderUnreachable",
        ("http://127.0.0.1:1", "connection refused"),
        put_provider,
        lambda scene: scene.put_provider(baseUrl="http://127.0.0.1:1"),
        stalled=False,
    ),
    Bad("provider limits", "ProviderRateLimited", ("429",), answer, refuse(429, Retry_After="2"), stalled=False),
    Bad("provider is down", "ProviderUnreachable", ("503",), answer, refuse(503), stalled=False),
    Bad(
        "keys overwrite each other",
        "InvalidSpec",
        ("spec.secretRef.clientIdKey", "must differ from spec.secretRef.key"),
        put_rotation,
        spec={"secretRef": {"name": "m2m", "key": "CLIENT_SECRET", "clientIdKey": "CLIENT_SECRET"}},
        phase="Idle",
        by_rule=True,
    ),
    Bad(
        "rotation begun elsewhere",
        "ForeignRotation",
        ("somebody else", "complete or cancel it"),
        cancel_elsewhere,
        start_elsewhere,
        phase="Blocked",
    ),
    Bad("two write one key", "SecretConflict", ("other", "Secret m2m, key CLIENT_SECRET"), remove_other, add_writer),
    Bad("two rotate one client", "ClientConflict", ("other", "same account", "delete one"), remove_other, add_rival),
    Bad(
        "two namespaces rotate one client",
        "ClientConflict",
        ("-2/billing", "same account", "delete one"),
        remove_rival_elsewhere,
        add_rival_elsewhere,
    ),
)
