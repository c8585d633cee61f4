"""What happens in the middle where no way leads back: at Janrain (Timed) and SnapTrade (Immediate); see test_middle.py.

After the call the old value will die, or is dead, so everything ends on the new one. What is taken out of the Secret is
written again as soon as there is room for it; what somebody else put in is theirs until they take it out. Undisturbed
rotations, lost answers and rollouts that get stuck are in test_timed.py, test_immediate.py, test_lost.py and
test_never_ready.py; the other phases in tests/model/test_middle.py and test_semantics.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

import pytest

from sandbox.controlplane.components import minor
from sandbox.stage import Stage
from tests.e2e.acts import (
    break_spec,
    cancel,
    delete,
    edit_value,
    mend_spec,
    put_empty_secret,
    put_provider,
    remove_provider,
    remove_secret,
    revert_value,
)
from tests.e2e.ends import completed, gone, wait_not_stalled
from tests.e2e.middle import Case, all_played, each
from tests.e2e.scene import Scene

_CONSENT: Final = {"acceptDowntime": True}


def made_room(scene: Scene, reason: str) -> None:
    """As the message asks, once nothing holds the phase; then it goes on by itself."""
    message = scene.wait_stalled(reason)
    assert "Secret m2m" in message
    assert "remove the key to have the new value written" in message
    put_empty_secret(scene)
    completed(scene)


def known_to_be_gone(scene: Scene) -> None:
    """Another rotation that names the provider object says so: the operator has heard of it."""
    scene.put_rotation(None, name="other", clientId="other", secretRef={"name": "other", "key": "CLIENT_SECRET"})
    path = f"{scene.rotation_path.rpartition('/')[0]}/other"
    scene.wait(lambda: "ProviderNotFound" in str((scene.get(path) or {}).get("status")), "it is said")


def provider_asked_for(scene: Scene) -> None:
    """Only when everything runs on the new value: that needs nobody, and what comes then does."""
    assert f"RotationProvider {scene.provider} does not exist: create it" in scene.wait_stalled("ProviderNotFound")
    put_provider(scene)
    completed(scene)


def remove_all(scene: Scene) -> None:
    """The provider object, and then the rotation."""
    remove_provider(scene)
    delete(scene)


def cancelled_in_vain(scene: Scene) -> None:
    answer = "keyturn.dev/cancel: the provider cannot take the new value back"
    scene.wait(lambda: answer in str(scene.status()["conditions"]), "an answer")


def spoil_spec(scene: Scene) -> None:
    """Newer API servers refuse it themselves."""
    if minor(scene.stage.control_plane.version) < 25:
        break_spec(scene)


def not_stopped(scene: Scene) -> None:
    """A spec that cannot be read holds nothing up; what is wrong with it is said afterwards."""
    completed(scene)
    if minor(scene.stage.control_plane.version) < 25:
        assert "spec.overlap" in scene.wait_stalled("InvalidSpec")
        mend_spec(scene)
        wait_not_stalled(scene, "InvalidSpec")


REVERTED: Final = partial(made_room, reason="SecretReverted")
CHANGED: Final = partial(made_room, reason="SecretChanged")
FORWARD: Final = partial(gone, forward=True)


def at_both(provider: str, spec: dict[str, Any]) -> Iterator[Case]:
    """As soon as the new value is out."""
    case = partial(Case, phase="RollingOut", provider=provider, spec=spec)
    yield case("secret removed", act=remove_secret, end=completed)
    yield case("secret edited", act=edit_value, end=REVERTED)
    yield case("provider lost", act=remove_provider, end=provider_asked_for, says=known_to_be_gone)
    yield case("all deleted", act=remove_all, end=FORWARD)


CASES: Final = (
    *at_both("janrain", {}),
    *at_both("snaptrade", _CONSENT),
    Case("secret edited", "Verifying", edit_value, CHANGED, provider="janrain"),
    Case("secret removed", "Distributing", remove_secret, completed, provider="janrain"),
    Case("secret removed", "Soaking", remove_secret, completed, provider="janrain"),
    Case("secret reverted", "Soaking", revert_value, REVERTED, provider="janrain"),
    Case("deleted", "Verifying", delete, FORWARD, provider="janrain"),
    Case("deleted", "Soaking", delete, FORWARD, provider="janrain"),
    Case("deleted", "RollingOut", delete, FORWARD, provider="snaptrade", spec=_CONSENT),
    Case("cancel", "RollingOut", cancel, completed, cancelled_in_vain, provider="snaptrade", spec=_CONSENT),
    Case("spec invalid", "RollingOut", spoil_spec, not_stopped, provider="snaptrade", spec=_CONSENT),
)


@pytest.fixture(scope="module")
def played(stage: Stage, request: pytest.FixtureRequest) -> Iterator[dict[str, Future[None]]]:
    with all_played(stage, request, CASES) as results:
        yield results


@each(CASES)
def test_forward(played: dict[str, Future[None]], case: Case) -> None:
    """Each row, as the functions that it names say."""
    played[case.name].result()
