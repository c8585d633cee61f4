"""Every kind of workload, with every way to read the Secret, forward and back: judged by traffic and by restarts.

All rows share a rotation that is completed, and then one that is cancelled; then each row is looked at by itself.
I3: nothing refused. I4: no pod has a value when it dies. I7: restarted once, and once more on the way back; or never.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from sandbox.assets import provide
from sandbox.controlplane import ControlPlane
from sandbox.stage import Stage
from tests.e2e.table import Row, rows
from tests.e2e.tableplay import Played, Table, judge, laid

_EVERY: Final = "env envfrom volume projected subpath init csi pull account debug"
_SOME: Final = "env volume account debug"
ROLLED: Final = [*rows("deployment statefulset daemonset", _EVERY), *rows("parallel rollout referring", _SOME)]
BY_HAND: Final = [*rows("pod", _EVERY), *rows("ondelete lazydaemonset replicaset", _SOME)]
JOBS: Final = rows("job", _EVERY)
CRONJOBS: Final = rows("cronjob", _SOME)
EARLY: Final = rows("deployment statefulset daemonset rollout", "env", "early")
"""They come when the new value is known, and in nobody's hands yet."""
EDITED: Final = Row("deployment", "none", "edited")
"""It begins to read the Secret then."""
_NEWCOMERS: Final = "deployment statefulset daemonset rollout ondelete replicaset pod job"
LATE: Final = rows(_NEWCOMERS, "env volume", "late")
"""They come when the new value is in the Secret; that of the rotation which is completed."""
LATER: Final = rows(_NEWCOMERS, "env volume", "later")
"""The same for the one that is cancelled."""
AGAIN: Final = rows("job", "env volume", "again")
"""Jobs that run when that one begins."""
BROKEN: Final = [
    *rows("deployment statefulset daemonset rollout", "env", "broken"),
    Row("deployment", "volume", "broken"),
]
"""They do not become ready with its new value."""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """A control plane of its own: with so many pods, each may call only now and then."""
    with ControlPlane.start(provide()) as control_plane, Stage(control_plane, call_rate=0.5) as running:
        running.install()
        with running.rollouts():
            yield running


@pytest.fixture(scope="module")
def table(stage: Stage) -> Iterator[Table]:
    with laid(stage, "table", [*ROLLED, *BY_HAND, *JOBS, *CRONJOBS, EDITED]) as whole:
        yield whole


def edit(table: Table, row: Row) -> None:
    """What a user does with kubectl edit: the workload reads the Secret from now on."""
    containers = [{"name": "app", "image": "app", "envFrom": [{"secretRef": {"name": "m2m"}}]}]
    client = {
        "client.sandbox.keyturn.dev/secret": "m2m/CLIENT_SECRET",
        "client.sandbox.keyturn.dev/id": table.scene.client_id,
    }
    template = {"metadata": {"annotations": client}, "spec": {"containers": containers}}
    with table.replacing([row]):
        table.scene.patch(table.path(row), {"spec": {"template": template}})


# --- forward ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def completed(table: Table) -> Played:
    def between() -> None:
        table.put(EARLY)
        edit(table, EDITED)

    table.rotate("forward", between)
    table.wait_states(Ready=[*ROLLED, *EARLY, EDITED], Held=[*BY_HAND, *JOBS, *CRONJOBS])
    table.put(LATE)
    table.delete_pods(BY_HAND)
    table.end_jobs([*JOBS, *CRONJOBS])
    table.run_cronjobs(CRONJOBS)
    return table.played("Completed", lambda: table.applied("rotate"))


@pytest.mark.parametrize("row", [*ROLLED, *EARLY], ids=str)
def test_completed_restarted_once(completed: Played, row: Row) -> None:
    judge(completed, row)
    assert completed.restarts(row) == (1, row.pods(1))
    # What an ephemeral container read may be over before anybody could write down that it was waited for.
    assert row.way == "debug" or True in completed.seen(row, "restarted")
    if row.kind == "referring":
        assert completed.changes["Deployment", row.name] == 0, "nothing runs of what it refers to"


def test_completed_edited_in_the_middle(completed: Played) -> None:
    """The user's change and one restart: a workload that starts to read the Secret is included."""
    judge(completed, EDITED)
    assert completed.restarts(EDITED) == (2, 3)


@pytest.mark.parametrize("row", BY_HAND, ids=str)
def test_completed_by_hand(completed: Played, row: Row) -> None:
    """A template may be changed, the pods are replaced by a person; who has been told which, and how."""
    judge(completed, row)
    assert completed.restarts(row) == (1 if row.what.restarted else 0, row.pods(1))
    told = completed.messages(row, "Held")
    assert row.remedy in told
    assert row.kind == "pod" or f"({row.name}-" in told, "which ones"


@pytest.mark.parametrize("row", [*JOBS, *CRONJOBS], ids=str)
def test_completed_jobs(completed: Played, row: Row) -> None:
    """What runs is waited for, what a CronJob starts afterwards is not."""
    judge(completed, row)
    assert completed.restarts(row) == (0, row.pods(1 if row.kind == "cronjob" else 0))
    assert row.remedy in completed.messages(row, "Held")


@pytest.mark.parametrize("row", LATE, ids=str)
def test_completed_started_after_the_cutover(completed: Played, row: Row) -> None:
    """Never restarted, never waited for by name."""
    judge(completed, row)
    assert completed.restarts(row) == (0, row.pods())
    assert not {"Held", "Pending"} & completed.seen(row, "state")
    assert True not in completed.seen(row, "restarted")


# --- and back --------------------------------------------------------------------------------------------------------

_ALONE: Final = ("env",)
"""Rows of this way are not touched by a person."""
TOUCHED: Final = [row for row in BY_HAND if row.way not in _ALONE]
UNTOUCHED: Final = [row for row in [*BY_HAND, *LATE] if row.what.by_hand and row not in TOUCHED]
ENDED: Final = [row for row in [*CRONJOBS, *AGAIN] if row.way not in _ALONE]
RUN_ON: Final = [row for row in [*CRONJOBS, *AGAIN, *LATE] if row.ends and row not in ENDED]
ROLLED_BACK: Final = [*ROLLED, *EARLY, EDITED, *(row for row in LATE if row.rolled)]


@pytest.fixture(scope="module")
def cancelled(table: Table, completed: Played) -> Played:
    table.put([*BROKEN, *AGAIN])
    table.attach_debuggers([*ROLLED, *BY_HAND, *CRONJOBS])
    table.rotate("back", rollout={"timeout": "15m", "volumeRefresh": "6s"})
    table.wait_states(Ready=ROLLED_BACK, Held=[*TOUCHED, *UNTOUCHED, *ENDED, *RUN_ON], Rolling=BROKEN)
    table.put(LATER)
    table.delete_pods(TOUCHED)
    table.end_jobs(ENDED)
    table.run_cronjobs(ENDED)
    table.scene.patch(table.scene.rotation_path, {"spec": {"rollout": {"timeout": "10s"}}})
    table.scene.wait_phase("Cancelling")
    gone = [row for row in [*TOUCHED, *ENDED] if row.way == "debug"]
    held = [row for row in [*TOUCHED, *LATER, *ENDED] if not row.rolled and row.role != "again" and row not in gone]
    moving = [row for row in [*ROLLED_BACK, *BROKEN, *LATER] if row.rolled]
    table.wait_states(Ready=[*moving, *UNTOUCHED, *RUN_ON], Held=held)
    table.delete_pods([row for row in held if row.what.by_hand])
    table.end_jobs(held)
    return table.played("Cancelled", lambda: table.applied("cancel"))


@pytest.mark.parametrize("row", ROLLED_BACK, ids=str)
def test_cancelled_there_and_back(cancelled: Played, row: Row) -> None:
    """Restarted once, and once more; but what an ephemeral container read is not read by the next pod."""
    judge(cancelled, row)
    times = 1 if row.way == "debug" else 2
    assert cancelled.restarts(row) == (times, row.pods(times))


@pytest.mark.parametrize("row", BROKEN, ids=str)
def test_cancelled_broken(cancelled: Played, row: Row) -> None:
    """Restarted as often as the others. Of two pods, one was replaced on the way there."""
    judge(cancelled, row)
    assert cancelled.restarts(row) == (2, 3 if row.replicas == 1 else 5)


@pytest.mark.parametrize("row", TOUCHED, ids=str)
def test_cancelled_replaced_by_hand(cancelled: Played, row: Row) -> None:
    """Replaced in both directions, each time by a person who was told to."""
    judge(cancelled, row)
    times = 1 if row.way == "debug" else 2
    assert cancelled.restarts(row) == (times if row.what.restarted else 0, row.pods(times))
    told = cancelled.messages(row, "Held")
    assert ("old value" in told, "new value" in told) == (True, times == 2)


@pytest.mark.parametrize("row", UNTOUCHED, ids=str)
def test_cancelled_left_alone(cancelled: Played, row: Row) -> None:
    """Held on the way there, and good as they are on the way back."""
    judge(cancelled, row)
    assert cancelled.restarts(row) == (2 if row.what.restarted else 0, row.pods())
    assert "new value" not in cancelled.messages(row, "Held")


@pytest.mark.parametrize("row", [*ENDED, *RUN_ON], ids=str)
def test_cancelled_jobs(cancelled: Played, row: Row) -> None:
    """One that a CronJob started on the way there must end on the way back."""
    judge(cancelled, row)
    assert cancelled.restarts(row) == (0, row.pods(1 if row.kind == "cronjob" and row in ENDED else 0))
    assert "old value" in cancelled.messages(row, "Held")


@pytest.mark.parametrize("row", LATER, ids=str)
def test_cancelled_started_after_the_cutover(cancelled: Played, row: Row) -> None:
    """They began with the new value, so they are restarted on the way back, and only then."""
    judge(cancelled, row)
    assert cancelled.restarts(row) == (1 if row.what.restarted else 0, row.pods(0 if row.ends else 1))
