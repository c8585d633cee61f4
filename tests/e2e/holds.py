"""Holding a rotation in a phase for as long as a test wants, by the provider, the API server, or a pod."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from sandbox.simulators.faults import How
from tests.e2e import gate
from tests.e2e.acts import cancel, delete_pod, edit, hurry, put_pod
from tests.e2e.crash import HOLD, calls, let_verify
from tests.e2e.scene import Scene

Release = Callable[[], None]
Spec = dict[str, Any]

_LATE: Final = 5.0


@contextmanager
def held(scene: Scene, phase: str, spec: Spec) -> Iterator[Release]:
    """Put the rotation, and hold it in this phase until what this gives is called.

    Besides the phases: `Finalized`, when the old value is dropped and Keyturn does not know it yet, for some seconds;
    and `Completed`, where there is nothing to hold.
    """
    with ExitStack() as stack:
        stack.callback(scene.account.simulator.clear_faults)
        yield _HOLDS[phase](scene, stack, spec)


def _starting(scene: Scene, stack: ExitStack, spec: Spec) -> Release:
    """The provider fails to start, and shows that nothing has begun."""
    return _failing(scene, "start", spec)


def _verifying(scene: Scene, stack: ExitStack, spec: Spec) -> Release:
    """The provider does not know the new value yet."""
    scene.account.simulator.switches.propagation_delay = HOLD
    scene.put_rotation(**spec)
    scene.wait_phase("Verifying")
    return lambda: let_verify(scene)


def _distributing(scene: Scene, stack: ExitStack, spec: Spec) -> Release:
    """The API server refuses to change Secrets; they can be deleted and created."""
    let_go = _verifying(scene, stack, spec)
    gated = stack.enter_context(ExitStack())
    gated.enter_context(gate.refused(scene, gate.WRITE_SECRET))
    let_go()
    scene.wait_phase("Distributing")

    def release() -> None:
        gated.close()
        hurry(scene)

    return release


def _rolling_out(scene: Scene, stack: ExitStack, spec: Spec) -> Release:
    """Everything is restarted, but for a pod on the old value that nobody replaces."""
    put_pod(scene, "batch")
    scene.put_rotation(**spec)
    _wait_for_pod(scene, "RollingOut", "batch")
    return lambda: delete_pod(scene, "batch")


def _soaking(scene: Scene, stack: ExitStack, spec: Spec) -> Release:
    """The soak is long, and shortened in the end."""
    scene.put_rotation(**{"soak": "1h", **spec})
    scene.wait_phase("Soaking")
    return lambda: edit(scene, soak="0s")


def _finalizing(scene: Scene, stack: ExitStack, spec: Spec) -> Release:
    """The provider fails to drop the old value."""
    return _failing(scene, "rotate", spec)


def _finalized(scene: Scene, stack: ExitStack, spec: Spec) -> Release:
    """The provider has dropped the old value, and takes its time to say so."""
    scene.account.simulator.add_fault("rotate", How.PROPER, delay=_LATE, caller="keyturn")
    scene.put_rotation(**spec)
    scene.wait(lambda: scene.applied("rotate"), "the old value is dropped")
    return lambda: None


def _cancelling(scene: Scene, stack: ExitStack, spec: Spec) -> Release:
    """The way back of what was rolled out: all is restored, but for a pod on the new value that nobody replaces."""
    _soaking(scene, stack, spec)
    put_pod(scene, "late")
    cancel(scene)
    _wait_for_pod(scene, "Cancelling", "late")
    return lambda: delete_pod(scene, "late")


def _completed(scene: Scene, stack: ExitStack, spec: Spec) -> Release:
    scene.put_rotation(**spec)
    scene.wait_ended()
    return lambda: None


def _failing(scene: Scene, operation: str, spec: Spec) -> Release:
    scene.account.simulator.add_fault(operation, times=None, caller="keyturn")
    scene.put_rotation(**spec)
    scene.wait(lambda: calls(scene, operation), f"a call of {operation}")

    def release() -> None:
        scene.account.simulator.clear_faults()
        hurry(scene)

    return release


def _wait_for_pod(scene: Scene, phase: str, pod: str) -> None:
    """Until the rotation waits in this phase for nothing but a pod without a controller."""

    def waits() -> bool:
        status = scene.status()
        said = [item["message"] for item in status.get("conditions", []) if item["reason"] == "RolloutHeld"]
        return bool(status.get("phase") == phase and said and f"Pod/{pod}" in said[0])

    scene.wait(waits, f"{phase}, waiting for Pod/{pod}")


_HOLDS: Final[dict[str, Callable[[Scene, ExitStack, Spec], Release]]] = {
    "Starting": _starting,
    "Verifying": _verifying,
    "Distributing": _distributing,
    "RollingOut": _rolling_out,
    "Soaking": _soaking,
    "Finalizing": _finalizing,
    "Finalized": _finalized,
    "Cancelling": _cancelling,
    "Completed": _completed,
}
