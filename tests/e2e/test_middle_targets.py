"""Other tools that undo what Keyturn does: reported, not fought, and safe in the end (I4, I7).

Two write without end what they have in Git: the Secret's first value, and a Deployment without Keyturn's annotation.
As Keyturn's writes are all that they find to undo, counting theirs is counting Keyturn's.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import pytest

from sandbox.stage import Stage
from tests.e2e.acts import cancel, put_ordered, take_stamp_off
from tests.e2e.ends import cancelled, completed
from tests.e2e.gitops import GitOps, keep_the_first_value, keep_unstamped
from tests.e2e.middle import Case, all_played, each
from tests.e2e.scene import Scene

_WORD: Final = "cancelled by annotation keyturn.dev/cancel"
_IMPATIENT: Final = {"timeout": "10s"}


def put_slow(scene: Scene) -> None:
    """Its old pods live until the new ones have become ready, which takes them longer than the tool."""
    scene.put_deployment("slow", replicas=2, annotations={"sandbox.keyturn.dev/ready-after": "2s"})


def keeps_the_secret() -> Case:
    tool = GitOps(keep_the_first_value)

    def end(scene: Scene) -> None:
        restarts = scene.wait(lambda: scene.status().get("phase") == "Cancelled" and scene.restarts() + 1, "Cancelled")
        assert restarts - 1 in (0, 2), "never one way only"
        cancelled(scene, "another tool took it back (SecretReverted)", web=restarts - 1)
        assert tool.writes == 1, "Keyturn wrote the new value once"
        tool.stop()

    return Case("a tool keeps the Secret", "Verifying", tool.start, end)


def said(scene: Scene, workload: str = "Deployment/slow") -> str:
    message = scene.wait_stalled("TargetReverted")
    assert f"{workload}: another tool took keyturn.dev/rotation off its template" in message
    assert "restart it" in message
    return message


def keeps_the_template_until_the_timeout() -> Case:
    tool = GitOps(keep_unstamped("slow"))

    def end(scene: Scene) -> None:
        said(scene)
        cancelled(scene, "(TargetReverted)", web=2)
        assert tool.writes == 1, "Keyturn stamped it once, and it needed no way back"
        tool.stop()

    return Case(
        "a tool keeps the template", "Verifying", tool.start, end, before=put_slow, spec={"rollout": _IMPATIENT}
    )


def keeps_the_template_until_the_user_restarts() -> Case:
    tool = GitOps(keep_unstamped("slow"))

    def end(scene: Scene) -> None:
        scene.wait_phase("Blocked")
        assert "both values stay valid" in said(scene)
        assert tool.writes == 1
        tool.stop()
        scene.restart_by_user("slow")
        completed(scene)

    spec = {"rollout": _IMPATIENT, "onFailure": "Hold"}
    return Case("a tool keeps the template (Hold)", "Verifying", tool.start, end, before=put_slow, spec=spec)


def keeps_the_template_on_the_way_back() -> Case:
    """The pods of the template that the tool keeps run on the new value by then."""
    tool = GitOps(keep_unstamped("slow"))

    def act(scene: Scene) -> None:
        tool.start(scene)
        scene.wait(lambda: tool.writes, "the stamp is taken off")
        scene.wait_available("slow", 2)
        scene.wait_phase("Soaking")
        cancel(scene)

    def says(scene: Scene) -> None:
        assert "may still run on the new value" in said(scene)
        assert tool.writes == 2, "stamped once in each direction"
        assert scene.applied("cancel") == 0

    def mend(scene: Scene) -> None:
        tool.stop()
        scene.restart_by_user("slow")

    end = partial(cancelled, because=_WORD, web=2)
    return Case("a tool keeps the template on the way back", "Soaking", act, end, says, mend, put_slow)


def keeps_a_stateful_set() -> Case:
    """Its controller goes back pod by pod: one at least has not been replaced at all."""
    tool = GitOps(keep_unstamped("ordered", "statefulsets"))

    def end(scene: Scene) -> None:
        said(scene, "StatefulSet/ordered")
        assert tool.writes == 1
        tool.stop()
        scene.kubectl("rollout", "restart", "statefulset/ordered")
        completed(scene)

    slowly = partial(put_ordered, annotations={"sandbox.keyturn.dev/ready-after": "1s"})
    return Case("a tool keeps a StatefulSet", "Verifying", tool.start, end, before=slowly)


def unstamp(scene: Scene) -> None:
    """Once: its pods are replaced by such of the earlier template, which read the value that is in the Secret now.

    Not in the second of the write: pods of an earlier template are told apart by their age alone, which is in seconds.
    """
    running = scene.status()["rotation"]
    written = datetime.fromisoformat(running.get("restoredTime") or running["distributedTime"])
    scene.wait(lambda: datetime.now(UTC) >= written + timedelta(seconds=1), "the second of the write is over")
    assert take_stamp_off(scene)


CASES: Final = (
    keeps_the_secret(),
    keeps_the_template_until_the_timeout(),
    keeps_the_template_until_the_user_restarts(),
    keeps_the_template_on_the_way_back(),
    keeps_a_stateful_set(),
    Case("stamp taken off", "RollingOut", unstamp, completed),
    Case("stamp taken off", "Soaking", unstamp, completed),
    Case("stamp taken off", "Finalizing", unstamp, completed),
    Case("stamp taken off", "Cancelling", unstamp, partial(cancelled, because=_WORD, web=2)),
)


@pytest.fixture(scope="module")
def played(stage: Stage, request: pytest.FixtureRequest) -> Iterator[dict[str, Future[None]]]:
    with all_played(stage, request, CASES) as results:
        yield results


@each(CASES)
def test_targets(played: dict[str, Future[None]], case: Case) -> None:
    """Each row, as the functions that it names say."""
    played[case.name].result()
