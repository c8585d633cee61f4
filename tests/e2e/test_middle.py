"""Users in the middle: what they do to a rotation, and to what it refers to, while each phase runs.

The phase is held until it has happened, so that it is met for certain; then it is let go, and judged by its end: the
calls that the provider carried out, what is left, the restarts, and the traffic (I3, I7, I10, I11).

event and phase             Starting Verifying Distributing RollingOut Soaking Finalizing Cancelling
spec edited, made invalid      tour     tour        tour        tour     tour      tour       tour
suspended                      tour     tour        tour        tour     tour      tour       tour
provider object lost           tour     tour        tour        tour     tour      tour       tour
credentials lost               tour     tour         -           -        -        tour       tour
workloads come, go, change     tour     tour        tour        tour     tour      tour       tour
keyturn.dev/cancel             here    test_cancel  here    test_cancel test_cancel here        -
object deleted              test_deletion here      here  test_deletion test_deletion test_del. here
namespace deleted              here  test_deletion   -    test_deletion  here      here       here

`tour`: one rotation in each phase goes through all of what must not change its end. Beside this module:

- test_middle_secret.py: the Secret edited, reverted and deleted;
- test_middle_targets.py: other tools that undo what Keyturn does, without end;
- test_middle_forward.py: Janrain and SnapTrade, where no way leads back;
- test_middle_killed.py: the same with kill -9 in between;
- tests/model/test_interference.py, test_middle.py, test_userword.py and test_fuzz.py: everything at every single write,
  the journal and what others do at the provider, two things at once, and `onFailure: Hold` in each phase.

Left out (-): credentials that no call of the phase needs are not missed before the next; what is cancelled already
cannot be cancelled; and Distributing is, for a namespace that goes, no other than Verifying.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import pytest

from sandbox.controlplane.components import minor
from sandbox.stage import Stage
from tests.e2e.acts import (
    break_credentials,
    break_spec,
    cancel,
    delete,
    delete_namespace,
    edit,
    hurry,
    mend_spec,
    put_credentials,
    put_provider,
    remove_credentials,
    remove_provider,
)
from tests.e2e.ends import cancelled, completed, gone, nobody_refused, wait_gone, wait_not_stalled
from tests.e2e.middle import Case, Change, all_played, each, nothing
from tests.e2e.scene import Scene

PHASES: Final = "Starting", "Verifying", "Distributing", "RollingOut", "Soaking", "Finalizing", "Cancelling"
_WORD: Final = "cancelled by annotation keyturn.dev/cancel"
_NO_CLIENT: Final = {"client.sandbox.keyturn.dev/kind": ""}
_READS_NOTHING: Final = {"containers": [{"name": "app", "image": "app"}]}

# --- the tour --------------------------------------------------------------------------------------------------------


def prepare_tour(scene: Scene) -> None:
    """What is deleted, what begins to read the Secret, and what the spec speaks of in the middle."""
    scene.put_deployment("doomed", replicas=1, wait=False)
    scene.put_deployment("idle", replicas=1, pod_spec=_READS_NOTHING, annotations=_NO_CLIENT, wait=False)
    other = scene.account.simulator.create({"client_id": other_client(scene)})
    scene.put_secret("other", {"CLIENT_SECRET": other["client_secret"]})
    for name in ("doomed", "idle"):
        scene.wait_available(name, 1)


def other_client(scene: Scene) -> str:
    return f"other-{scene.namespace}"


def tour(scene: Scene, phase: str) -> None:
    """Everything that must not change how the rotation ends: what Keyturn cannot work with is said, until it can."""
    edit(scene, suspend=True, clientId=other_client(scene), secretRef={"name": "other", "key": "CLIENT_SECRET"})
    if minor(scene.stage.control_plane.version) < 25:
        break_spec(scene)
        if phase not in ("Finalizing", "Cancelling"):  # which end whatever the spec says
            assert "spec.overlap" in scene.wait_stalled("InvalidSpec")
        mend_spec(scene)
        wait_not_stalled(scene, "InvalidSpec")
    remove_provider(scene)
    if phase != "Cancelling":  # which needs it only when all pods have been rolled back
        assert "RotationProvider stytch does not exist: create it" in scene.wait_stalled("ProviderNotFound")
    put_provider(scene)
    wait_not_stalled(scene, "ProviderNotFound")
    change_workloads(scene, phase)
    lose_credentials(scene, phase)
    scene.wait_phase(phase)


def lose_credentials(scene: Scene, phase: str) -> None:
    """Said in the phases in which they are used."""
    if phase == "Verifying":  # which needs the account, but not its secret
        remove_credentials(scene)
        reason = "CredentialsNotFound"
    elif phase in ("Starting", "Finalizing", "Cancelling"):
        break_credentials(scene)
        reason = "ProviderUnauthorized"
    else:
        return
    hurry(scene)
    assert "project" in scene.wait_stalled(reason)
    put_credentials(scene)
    hurry(scene)
    wait_not_stalled(scene, reason)


def change_workloads(scene: Scene, phase: str) -> None:
    """One goes, one comes, and one begins to read the Secret."""
    record = scene.status()["rotation"]
    written = record.get("restoredTime") or record.get("distributedTime")
    if written is not None:
        over = datetime.fromisoformat(written) + timedelta(seconds=1)
        scene.wait(lambda: datetime.now(UTC) > over, "the second of the write is over")
    scene.delete(scene.deployment_path("doomed"))
    for name in ("fresh", "idle"):
        scene.put_deployment(name, replicas=1, wait=False)
    for name in ("fresh", "idle"):
        scene.wait_available(name, 1)
    scene.wait(lambda: len(scene.running()) >= 3, "they call")


def end_of_tour(scene: Scene, phase: str) -> None:
    """What came before the value in force was written was restarted with the rest; what came after it was not."""
    late = phase in PHASES[PHASES.index("RollingOut") :]
    own = {"fresh": 0, "idle": 1} if late else {"fresh": 1, "idle": 2}
    if phase == "Cancelling":
        cancelled(scene, _WORD, web=2, **own)
    else:
        completed(scene, web=1, **own)

    def ready() -> bool:
        found = scene.condition("Ready") or {}
        return found["status"] == "True" and "Secret other" in found["message"]

    scene.wait(ready, "Ready speaks of what the spec names by now")
    assert (scene.condition("Rotating") or {})["reason"] == "Suspended"
    other = other_client(scene)
    assert scene.account.simulator.counters[other].keys() <= {"get", "token"}, "nothing was changed about it"
    assert scene.account.simulator.accepts(other, scene.secret("other")["CLIENT_SECRET"])


# --- the user's word, and deletion -----------------------------------------------------------------------------------


def has_ended(scene: Scene) -> None:
    """Although its phase is still held."""
    scene.wait_phase("Cancelled")


def namespace_gone(scene: Scene) -> None:
    """It gets stuck on nothing, although the phase is still held."""
    scene.wait(lambda: scene.get(f"/api/v1/namespaces/{scene.namespace}") is None, "the namespace is gone", 90)


def by_word(phase: str, *, restarts: int = 0, starts: int = 1) -> Case:
    end = partial(cancelled, because=_WORD, web=restarts, starts=starts)
    return Case("cancel", phase, cancel, end, has_ended)


def deletion(policy: str, phase: str, *, restarts: int, says: Change = nothing) -> Case:
    end = partial(gone, forward=restarts == 1, web=restarts)
    return Case(f"deleted ({policy})", phase, delete, end, says, spec={"deletionPolicy": policy})


def whole_namespace(phase: str) -> Case:
    return Case("namespace deleted", phase, delete_namespace, nobody_refused, namespace_gone)


CASES: Final = (
    *(Case("tour", at, partial(tour, phase=at), partial(end_of_tour, phase=at), before=prepare_tour) for at in PHASES),
    *map(whole_namespace, ("Starting", "Soaking", "Finalizing", "Cancelling")),
    deletion("Cancel", "Verifying", restarts=0, says=wait_gone),
    deletion("Finalize", "Verifying", restarts=1),
    deletion("Cancel", "Distributing", restarts=0, says=wait_gone),
    deletion("Finalize", "Distributing", restarts=1),
    deletion("Finalize", "Cancelling", restarts=2),
    by_word("Starting", starts=0),
    by_word("Distributing"),
    by_word("Finalizing", restarts=2),
)


@pytest.fixture(scope="module")
def played(stage: Stage, request: pytest.FixtureRequest) -> Iterator[dict[str, Future[None]]]:
    with all_played(stage, request, CASES) as results:
        yield results


@each(CASES)
def test_middle(played: dict[str, Future[None]], case: Case) -> None:
    """Each row, as the functions that it names say."""
    played[case.name].result()
