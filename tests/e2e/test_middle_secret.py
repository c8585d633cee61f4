"""The Secret in the middle of a rotation: edited, put back to its first value, deleted; see test_middle.py.

Before the new value is in it, what somebody else puts in is left alone, and the rotation is withdrawn. After that the
new value is taken back from the provider as well, because pods may have started on the other one (SecretReverted). Pods
that run are never rolled back on to a value that the provider refuses: that is asked for instead (I3).

- Put back to the first value before the new one is written, nothing has changed. Deleted and created again in between,
  that is the same.
- Verifying and Distributing do not differ but in Keyturn's attempts to write; where one would repeat the other, it is
  left out.
- In Finalizing the provider was not told yet, and everything is as while soaking. `Finalized` is the moment after it:
  only the new value is left, so that is what goes back into the Secret, as soon as nothing of somebody else's is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from typing import Final

import pytest

from sandbox.stage import Stage
from sandbox.traffic.report import fingerprint
from tests.e2e.acts import THEIRS, edit_value, put_empty_secret, remove_secret, revert_value
from tests.e2e.ends import cancelled, completed
from tests.e2e.middle import Case, Change, all_played, each
from tests.e2e.scene import Scene

_CHANGED: Final = "was changed by somebody else; their value was left in place (SecretChanged)"
_DELETED: Final = "Secret m2m was deleted (SecretChanged)"
_REVERTED: Final = "another tool took it back (SecretReverted)"
_WORD: Final = "cancelled by annotation keyturn.dev/cancel"


def replace_secret(scene: Scene) -> None:
    """An edit, while nobody can change a Secret."""
    remove_secret(scene)
    edit_value(scene)


def remove_and_put_back(scene: Scene) -> None:
    remove_secret(scene)
    revert_value(scene)


def asked_for(scene: Scene, reason: str = "SecretNotFound") -> None:
    """The Secret is; nothing but that is waited for."""
    assert "Secret m2m was deleted: create it" in scene.wait_stalled(reason)


def not_used(scene: Scene) -> None:
    """A value that the provider refuses: pods stay where they are."""
    message = scene.wait_stalled("SecretChanged")
    for part in ("Secret m2m, key CLIENT_SECRET", "the provider refuses the value", "remove the key"):
        assert part in message
    assert scene.restarts() == 1


def noticed_late(says: Change, then: Change) -> Change:
    """What is not looked at while the phase is held is said, and mended, once it is let go."""

    def end(scene: Scene) -> None:
        says(scene)
        put_empty_secret(scene)
        then(scene)

    return end


def has_ended(scene: Scene) -> None:
    """Although its phase is still held."""
    scene.wait_phase("Cancelled")


def theirs(scene: Scene, because: str, web: int) -> None:
    """Cancelled, with what somebody put in still there: no pod was restarted on to it."""
    scene.wait_ended("Cancelled")
    last = scene.status()["lastRotation"]["message"]
    assert because in last
    assert "Secret m2m keeps the value that somebody else put in" in last
    assert scene.secret()["CLIENT_SECRET"] == THEIRS
    assert scene.restarts() == web
    client = scene.account.simulator.clients[scene.client_id]
    assert (client.current.value, client.pending) == (scene.first_secret, None)
    assert scene.calls()["refused"] == 0
    assert not any(fingerprint(THEIRS) in pod.values for pod in scene.traffic())


BACK: Final = partial(cancelled, because=_REVERTED, web=2)
UNTOUCHED: Final = partial(cancelled, because=_DELETED, web=0)
SAID_AFTER: Final = partial(asked_for, reason="SecretChanged")

CASES: Final = (
    Case("edited", "Starting", edit_value, partial(theirs, because=_CHANGED, web=0)),
    Case("edited", "Distributing", replace_secret, partial(theirs, because=_CHANGED, web=0)),
    Case("edited", "RollingOut", edit_value, BACK, not_used, put_empty_secret),
    Case("edited", "Soaking", edit_value, noticed_late(not_used, BACK)),
    Case("edited", "Finalizing", edit_value, noticed_late(not_used, BACK)),
    Case("edited", "Finalized", edit_value, completed, lambda at: at.wait_stalled("SecretChanged"), put_empty_secret),
    Case("edited", "Cancelling", edit_value, partial(theirs, because=_WORD, web=2)),
    Case("reverted", "RollingOut", revert_value, BACK, has_ended),
    Case("reverted", "Soaking", revert_value, BACK),
    Case("reverted", "Finalizing", revert_value, BACK, has_ended),
    Case("reverted", "Finalized", revert_value, completed),
    Case("removed and put back", "Starting", remove_and_put_back, completed),
    Case("removed", "Verifying", remove_secret, noticed_late(asked_for, UNTOUCHED)),
    Case("removed", "Distributing", remove_secret, UNTOUCHED, asked_for, put_empty_secret),
    Case("removed", "RollingOut", remove_secret, BACK, asked_for, put_empty_secret),
    Case("removed", "Soaking", remove_secret, noticed_late(asked_for, BACK)),
    Case("removed", "Finalizing", remove_secret, noticed_late(asked_for, BACK)),
    Case("removed", "Finalized", remove_secret, completed, SAID_AFTER, put_empty_secret),
    Case("removed", "Cancelling", remove_secret, partial(cancelled, because=_WORD, web=2), asked_for, put_empty_secret),
)


@pytest.fixture(scope="module")
def played(stage: Stage, request: pytest.FixtureRequest) -> Iterator[dict[str, Future[None]]]:
    with all_played(stage, request, CASES) as results:
        yield results


@each(CASES)
def test_secret(played: dict[str, Future[None]], case: Case) -> None:
    """Each row, as the functions that it names say."""
    played[case.name].result()
