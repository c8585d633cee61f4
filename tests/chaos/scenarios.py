"""The rotations that are struck: each provider's way to its end, and the way of a rollout that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sandbox.controlplane.resources import documents
from sandbox.stage import ROOT, Stage
from tests.e2e.scene import Scene

PROVIDERS: Final = "stytch", "janrain", "snaptrade"
SUCCESS: Final = "success"
CANCEL: Final = "cancel"
REPLICAS: Final = 2
_WHEN_STAMPED: Final = "sandbox.keyturn.dev/behavior-when-stamped"


@dataclass(frozen=True, order=True, slots=True)
class Scenario:
    """outcome: `success`; or `cancel`: a rollout that fails, and goes back where the provider takes the value back.

    Where it does not, the rotation stops (`RolloutFailed`) until the workload is mended, and goes on to its end.
    """

    provider: str
    outcome: str

    def __str__(self) -> str:
        return f"{self.provider} {self.outcome}"

    @property
    def phase(self) -> str:
        """The one in which it ends."""
        return "Cancelled" if self.outcome == CANCEL and self.provider == "stytch" else "Completed"

    @property
    def mended(self) -> bool:
        """Whether a person must mend the workload."""
        return self.outcome == CANCEL and self.provider != "stytch"

    @property
    def refused(self) -> bool:
        """Whether calls may be refused: only where the user has accepted it."""
        return self.provider == "snaptrade"


SCENARIOS: Final = tuple(Scenario(provider, outcome) for provider in PROVIDERS for outcome in (SUCCESS, CANCEL))


@contextmanager
def staged(stage: Stage, scenario: Scenario) -> Iterator[Scene]:
    """The scene of a scenario, with its workload and the right to a Lease of its own; the rotation is not there yet."""
    with Scene.in_new_namespace(stage, str(scenario), scenario.provider) as scene:
        for obj in _lease_rights(scene.namespace):
            scene.put(obj)
        # Longer than the soak: what is dropped as soon as the new pods are ready is refused to the old ones.
        behaviour = {"sandbox.keyturn.dev/terminate-after": "1500ms"}
        if scenario.outcome == CANCEL:
            behaviour[_WHEN_STAMPED] = "never-ready"
        deadline = 1 if scenario.outcome == CANCEL else None
        scene.put_deployment(replicas=REPLICAS, annotations=behaviour, progress_deadline=deadline)
        yield scene


def rotate(scene: Scene, scenario: Scenario) -> None:
    """Ask for the rotation."""
    scene.put_rotation(acceptDowntime=scenario.provider == "snaptrade", soak="500ms")


def provider_block(scene: Scene, url: str) -> dict[str, Any]:
    """What the provider object says when it is reached at `url`."""
    if scene.provider != "janrain":
        return {"baseUrl": url}
    return {"baseUrl": url, "readBack": {"baseUrl": url, "appId": scene.account.simulator.app_id}}


def mend(scene: Scene) -> None:
    """Let the application run with the new value."""
    mended = {"spec": {"template": {"metadata": {"annotations": {_WHEN_STAMPED: None}}}}}
    scene.patch(scene.deployment_path(), mended)


def _lease_rights(namespace: str) -> list[dict[str, Any]]:
    """What ships for Keyturn's own namespace, for another one."""
    shipped = documents([ROOT / "manifests" / "rbac.yaml"])
    rights = [item for item in shipped if item["kind"] in ("Role", "RoleBinding")]
    return [{**item, "metadata": {**item["metadata"], "namespace": namespace}} for item in rights]
