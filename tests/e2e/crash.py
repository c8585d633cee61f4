"""Holding the operator where a test wants it, kill -9, and what must be true in the end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from sandbox.simulators.faults import How
from sandbox.stage import Operator
from tests.e2e.scene import Scene

HOLD: Final = 60.0
"""Seconds for which something is held: longer than any test waits."""


def hold(scene: Scene, operation: str, how: How = How.PROPER) -> None:
    """Let the operator wait for the answer to the next call of this operation."""
    scene.account.simulator.add_fault(operation, how, delay=HOLD, caller="keyturn")


def calls(scene: Scene, operation: str) -> int:
    """How many calls of this operation came from operators."""
    known = list(scene.account.simulator.calls[operation])
    return sum((call.header("User-Agent") or "").startswith("keyturn") for call in known)


def begin_and_hold_verifying(scene: Scene) -> Operator:
    """Start an operator and a rotation whose value the provider does not accept before `let_verify`."""
    scene.account.simulator.switches.propagation_delay = HOLD
    operator = scene.operator()
    scene.put_rotation()
    scene.wait_phase("Verifying")
    return operator


def let_verify(scene: Scene) -> None:
    """Let the provider accept every value that it has issued."""
    scene.account.simulator.switches.propagation_delay = 0
    scene.account.simulator.advance(HOLD)


def let_the_second_of_the_write_pass(scene: Scene) -> None:
    """The API server's times are whole seconds: within the one of the write, nobody can tell what came first."""
    written = datetime.fromisoformat(scene.status()["rotation"]["distributedTime"])
    scene.wait(lambda: datetime.now(UTC) > written + timedelta(seconds=1), "the second of the write is over")


def restart_operator(scene: Scene, operator: Operator) -> None:
    """kill -9, clear what held it, start the next one."""
    operator.kill()
    scene.account.simulator.clear_faults()
    scene.operator()


def assert_completed(scene: Scene, *, starts: int = 1, cancels: int = 0) -> None:
    """Completed, with the calls that the provider carried out, one restart and not one refused call."""
    scene.wait_ended()
    assert (scene.applied("start"), scene.applied("rotate"), scene.applied("cancel")) == (starts, 1, cancels)
    assert scene.account.simulator.accepts(scene.client_id, scene.secret()["CLIENT_SECRET"])
    assert not scene.account.simulator.accepts(scene.client_id, scene.first_secret)
    assert_one_ending(scene, "Completed", restarts=1)


def assert_cancelled(scene: Scene, *, restarts: int, starts: int = 1) -> None:
    """Cancelled: the previous value is back and the only one, each workload went there and back, nothing refused."""
    scene.wait_ended("Cancelled")
    assert (scene.applied("start"), scene.applied("rotate"), scene.applied("cancel")) == (starts, 0, starts)
    assert scene.secret() == {"CLIENT_SECRET": scene.first_secret, "OTHER": "untouched"}
    assert scene.account.simulator.accepts(scene.client_id, scene.first_secret)
    assert scene.account.simulator.clients[scene.client_id].pending is None
    assert_one_ending(scene, "Cancelled", restarts=restarts)


def assert_one_ending(scene: Scene, result: str, *, restarts: int) -> None:
    assert scene.restarts() == restarts
    assert scene.calls()["refused"] == 0
    status = scene.status()
    assert status.get("rotation") is None
    assert [past["result"] for past in status["history"]] == [result]
