"""Which workloads are restarted, by what spec.rollout says: judged by traffic and by restarts (I3, I4, I7)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from sandbox.stage import Stage
from tests.e2e.crash import let_the_second_of_the_write_pass
from tests.e2e.table import Row, rows
from tests.e2e.tableplay import Played, Table, judge, laid

ROWS: Final = [
    *rows("deployment", "env envfrom volume projected subpath init csi quietpull quietaccount mixed"),
    *rows("statefulset daemonset rollout ondelete replicaset pod", "env volume quietpull"),
]
FOLLOWING: Final = [row for row in ROWS if row.way in ("volume", "projected", "quietpull", "quietaccount")]
"""They come to see a new value without a restart."""
STARTED: Final = [row for row in ROWS if row not in FOLLOWING]
BY_HAND: Final = [row for row in ROWS if row.what.by_hand]
_REFRESH: Final = 6
_ENV_ONLY: Final = {"restart": "EnvOnly", "volumeRefresh": f"{_REFRESH}s"}


@pytest.fixture(scope="module", autouse=True)
def rollouts(stage: Stage) -> Iterator[None]:
    with stage.rollouts():
        yield


@pytest.fixture(scope="module")
def table(stage: Stage) -> Iterator[Table]:
    with laid(stage, "policies", ROWS) as whole:
        yield whole


def restart_by_user(table: Table, row: Row) -> None:
    """What kubectl rollout restart does, or its counterpart for Argo Rollouts."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    template = {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}}}
    table.scene.patch(table.path(row), {"spec": {"restartAt": now} if row.kind == "rollout" else template})


# --- EnvOnly ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cancelled(table: Table) -> Played:
    table.rotate("a", rollout=_ENV_ONLY)
    by_hand = [row for row in STARTED if row.what.by_hand]
    table.wait_states(Ready=[row for row in ROWS if row not in by_hand], Held=by_hand)
    word = {"keyturn.dev/cancel": table.scene.status()["rotation"]["id"]}
    table.scene.patch(table.scene.rotation_path, {"metadata": {"annotations": word}})
    return table.played("Cancelled", lambda: table.applied("cancel"))


@pytest.fixture(scope="module")
def completed(table: Table, cancelled: Played) -> Played:
    table.rotate("b", rollout=_ENV_ONLY)
    by_hand = [row for row in STARTED if row.what.by_hand]
    table.wait_states(Ready=[row for row in ROWS if row not in by_hand], Held=by_hand)
    table.delete_pods(by_hand)
    return table.played("Completed", lambda: table.applied("rotate"))


def test_volumes_have_their_time(cancelled: Played, completed: Played) -> None:
    """I4: no value dies before every volume shows the other one."""
    assert cancelled.died >= cancelled.at("restoredTime") + _REFRESH
    assert completed.died >= completed.at("distributedTime") + _REFRESH


@pytest.mark.parametrize("row", FOLLOWING, ids=str)
def test_env_only_leaves_alone_what_follows(cancelled: Played, completed: Played, row: Row) -> None:
    """Forward and back; all the same it is named, and waited for."""
    for played in (cancelled, completed):
        judge(played, row)
        assert played.restarts(row) == (0, row.pods())
        assert "in their volumes until" in played.messages(row, "Waiting")


@pytest.mark.parametrize("row", STARTED, ids=str)
def test_env_only_restarts_what_reads_at_its_start(cancelled: Played, completed: Played, row: Row) -> None:
    """What only a person replaces was left alone in the one that was cancelled."""
    judge(cancelled, row)
    judge(completed, row)
    changes = 1 if row.what.restarted else 0
    assert cancelled.restarts(row) == (2 * changes, row.pods(2 if row.rolled else 0))
    assert completed.restarts(row) == (changes, row.pods(1))


# --- Never -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def untouched(table: Table, completed: Played) -> Played:
    rolled = [row for row in ROWS if row.rolled]
    table.rotate("c", rollout={"restart": "Never"})
    table.wait_states(Waiting=rolled, Held=BY_HAND)
    let_the_second_of_the_write_pass(table.scene)
    for row in rolled:
        restart_by_user(table, row)
    table.delete_pods(BY_HAND)
    return table.played("Completed", lambda: table.applied("rotate"))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_never_waits_for_the_user(untouched: Played, row: Row) -> None:
    """The one change is the user's, also to what follows: nobody said that it does."""
    judge(untouched, row)
    assert untouched.restarts(row) == (1 if row.rolled else 0, row.pods(1))
    assert True not in untouched.seen(row, "restarted")
    told = untouched.messages(row, "Waiting" if row.rolled else "Held")
    assert ("spec.rollout.restart is Never: restart it" if row.rolled else row.remedy) in told


# --- targets, selector, discover -------------------------------------------------------------------------------------

NAMED: Final = rows("deployment statefulset ondelete", "none", "named")
SELECTED: Final = rows("daemonset rollout", "none", "selected")
READER: Final = Row("deployment", "env", "reader")
_CHOSEN: Final[dict[str, Any]] = {
    "targets": [{"kind": row.what.kind, "name": row.name} for row in NAMED],
    "selector": {"matchLabels": {"uses": "m2m"}},
}


@pytest.fixture(scope="module")
def choosing(stage: Stage) -> Iterator[Table]:
    with laid(stage, "chosen", [*NAMED, *SELECTED, READER]) as whole:
        for row in SELECTED:
            whole.scene.patch(whole.path(row), {"metadata": {"labels": {"uses": "m2m"}}})
        yield whole


@pytest.fixture(scope="module")
def chosen(choosing: Table) -> Played:
    """A target that is missing; without it, until who was not chosen was restarted by the user."""
    scene = choosing.scene
    absent = [*_CHOSEN["targets"], {"kind": "Deployment", "name": "absent"}]
    scene.put_rotation("a", rollout={**_CHOSEN, "discover": False, "targets": absent})
    assert "Deployment/absent" in scene.wait_stalled("TargetNotFound")
    assert scene.applied("start") == 0
    choosing.rotate("a", rollout={**_CHOSEN, "discover": False})
    by_hand = [row for row in NAMED if row.what.by_hand]
    choosing.wait_states(Ready=[row for row in [*NAMED, *SELECTED] if row.rolled], Held=by_hand)
    with choosing.replacing([READER]):
        restart_by_user(choosing, READER)
    choosing.delete_pods(by_hand)
    return choosing.played("Completed", lambda: choosing.applied("rotate"))


@pytest.fixture(scope="module")
def added(choosing: Table, chosen: Played) -> Played:
    """The same targets and selector, besides what is found."""
    choosing.rotate("b", rollout=_CHOSEN)
    by_hand = [row for row in NAMED if row.what.by_hand]
    choosing.wait_states(Ready=[row for row in [*NAMED, *SELECTED, READER] if row.rolled], Held=by_hand)
    choosing.delete_pods(by_hand)
    return choosing.played("Completed", lambda: choosing.applied("rotate"))


@pytest.mark.parametrize("row", [*NAMED, *SELECTED], ids=str)
def test_chosen_by_name_or_label(chosen: Played, added: Played, row: Row) -> None:
    """Restarted and waited for, though nothing in its pods says that it reads the Secret."""
    for played in (chosen, added):
        judge(played, row)
        assert played.restarts(row) == (1, row.pods(1))
        assert True in played.seen(row, "restarted")


def test_only_what_was_found_or_chosen_counts(chosen: Played, added: Played) -> None:
    """With discover false, who reads the Secret and was not chosen is left to the user."""
    judge(chosen, READER)
    judge(added, READER)
    assert READER.key not in chosen.targets
    assert True in added.seen(READER, "restarted")
    assert (chosen.restarts(READER), added.restarts(READER)) == ((1, READER.pods(1)), (1, READER.pods(1)))
