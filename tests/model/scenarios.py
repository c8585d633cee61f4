"""Rotations under different circumstances, each from the moment before it becomes due, with the end it must have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from keyturn.api.rotation import (
    CreationPolicy,
    FailurePolicy,
    Phase,
    RolloutSpec,
    RotationSpec,
    SecretRef,
    VerifyMode,
    VerifySpec,
)
from tests.model.fakecluster import SECOND
from tests.model.fakeprovider import ORIGINAL
from tests.model.lab import Lab


def make_spec(secret_ref: dict[str, Any] | None = None, **changes: Any) -> RotationSpec:
    ref = SecretRef(name="app", key="SECRET").model_copy(update=secret_ref or {})
    spec = RotationSpec.model_validate(
        {
            "providerRef": {"name": "stytch"},
            "clientId": "client-1",
            "secretRef": {"name": "app", "key": "SECRET"},
            "rotationRequest": "a",
            "soak": "0s",
        }
    )
    return spec.model_copy(update={"secret_ref": ref, **changes})


@dataclass(frozen=True)
class Scenario:
    """`phase`: where it ends. `fresh`: whether the Secret then holds a new value. `restarts`: of each workload."""

    name: str
    build: Callable[[], Lab]
    phase: Phase = Phase.COMPLETED
    fresh: bool = True
    restarts: int = 1


def make_lab(spec: RotationSpec | None = None, *, offset: timedelta = timedelta()) -> Lab:
    """Two Deployments that run on the old value."""
    lab = Lab(spec or make_spec())
    lab.hold(ORIGINAL)
    lab.deploy("web", 2)
    lab.deploy("worker", 1, grace=3 * SECOND, start_delay=2 * SECOND)
    lab.elapse(6 * SECOND + offset)
    return lab


def _owner() -> Lab:
    lab = Lab(make_spec(secret_ref={"creation_policy": CreationPolicy.OWNER}))
    lab.deploy("web", 2)
    lab.elapse(2 * SECOND)
    return lab


def _slow_provider() -> Lab:
    lab = make_lab()
    lab.provider.propagation = 8 * SECOND
    return lab


def _unaccepted() -> Lab:
    lab = make_lab(make_spec(verify=VerifySpec(timeout=10 * SECOND)))
    lab.provider.rejects_new = True
    return lab


def _sick(spec: RotationSpec | None = None) -> Lab:
    """Pods of the new template never become ready."""
    lab = make_lab(spec or make_spec(rollout=RolloutSpec(timeout=12 * SECOND)))
    lab.namespace.deployments["web"].sick = lambda stamp: stamp is not None and not stamp.endswith("cancelled")
    return lab


def _given_up() -> Lab:
    lab = _sick(make_spec())
    lab.after(10 * SECOND, lambda: setattr(lab.namespace.deployments["web"], "gives_up", True))
    return lab


def _held_then_patient() -> Lab:
    """The rollout takes longer than allowed; the user allows more."""
    spec = make_spec(on_failure=FailurePolicy.HOLD, rollout=RolloutSpec(timeout=12 * SECOND))
    lab = make_lab(spec)
    lab.namespace.deployments["worker"].grace = 30 * SECOND
    lab.after(25 * SECOND, lambda: lab.edit_spec(rollout=RolloutSpec(timeout=600 * SECOND)))
    return lab


def _held_then_cancelled() -> Lab:
    lab = _sick(make_spec(on_failure=FailurePolicy.HOLD, rollout=RolloutSpec(timeout=12 * SECOND)))
    lab.after(25 * SECOND, lambda: lab.edit_spec(on_failure=FailurePolicy.CANCEL))
    return lab


def _lingering() -> Lab:
    lab = _sick()
    lab.provider.linger = 30 * SECOND
    return lab


def _crowd() -> Lab:
    """Pods that no workload of ours owns, one of them slow to end; and a workload that is scaled to nothing."""
    lab = make_lab(make_spec(soak=10 * SECOND))
    stray = lab.namespace.add_pod(None)
    lab.deploy("idle", 0)
    lab.elapse(2 * SECOND)
    lab.after(15 * SECOND, lambda: lab.namespace.end_pods([stray], 10 * SECOND))
    return lab


def _waves(spec: RotationSpec | None = None) -> Lab:
    """A canary, whose pods are replaced slowly, before the others; and one restart at a time."""
    lab = make_lab(spec or make_spec(rollout=RolloutSpec(max_concurrent=1, wave_soak=5 * SECOND)))
    lab.namespace.deployments["worker"].wave = -1
    lab.deploy("web-b", 1)
    lab.deploy("idle", 0)
    lab.elapse(3 * SECOND)
    return lab


def _waves_cancelled() -> Lab:
    """The canary came up, and those after it do not."""
    lab = _waves(make_spec(rollout=RolloutSpec(wave_soak=2 * SECOND, timeout=25 * SECOND)))
    for name in ("web", "web-b"):
        lab.namespace.deployments[name].sick = lambda stamp: stamp is not None and not stamp.endswith("cancelled")
    return lab


def _ordered() -> Lab:
    """As `never ready`, with a StatefulSet: its broken pod has to be deleted on the way back."""
    lab = make_lab(make_spec(rollout=RolloutSpec(timeout=12 * SECOND)))
    web = lab.namespace.deployments["web"]
    web.ordered, web.sick = True, lambda stamp: stamp is not None and not stamp.endswith("cancelled")
    return lab


def _paused() -> Lab:
    """Held for longer than the rollout may take, until the user resumes the Deployment."""
    lab = make_lab(make_spec(rollout=RolloutSpec(timeout=12 * SECOND)))
    web = lab.namespace.deployments["web"]
    web.paused = True
    lab.after(30 * SECOND, lambda: setattr(web, "paused", False))
    return lab


_SOAKED = make_spec(soak=10 * SECOND)
_DOUBLE = make_spec(secret_ref={"previous_key": "OLD", "client_id_key": "ID"})
_TRUSTING = make_spec(verify=VerifySpec(mode=VerifyMode.SKIP))

SCENARIOS = [
    Scenario("plain", make_lab),
    Scenario("soak", lambda: make_lab(_SOAKED)),
    Scenario("previous key", lambda: make_lab(_DOUBLE)),
    Scenario("unverified", lambda: make_lab(_TRUSTING)),
    Scenario("new secret", _owner),
    Scenario("slow provider", _slow_provider),
    Scenario("late in the second", lambda: make_lab(offset=timedelta(milliseconds=650))),
    Scenario("strays", _crowd),
    Scenario("waves", _waves),
    Scenario("paused", _paused),
    Scenario("waves, cancelled", _waves_cancelled, Phase.CANCELLED, fresh=False, restarts=2),
    Scenario("not accepted", _unaccepted, Phase.CANCELLED, fresh=False, restarts=0),
    Scenario("never ready", _sick, Phase.CANCELLED, fresh=False, restarts=2),
    Scenario("dropped values linger", _lingering, Phase.CANCELLED, fresh=False, restarts=2),
    Scenario("never ready, in order", _ordered, Phase.CANCELLED, fresh=False, restarts=2),
    Scenario("given up", _given_up, Phase.CANCELLED, fresh=False, restarts=2),
    Scenario("held, then more time", _held_then_patient),
    Scenario("held, then cancelled", _held_then_cancelled, Phase.CANCELLED, fresh=False, restarts=2),
]
