"""Every kind of workload at providers that take nothing back: judged by traffic and by restarts (I3, I4, I7)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from sandbox.stage import Stage
from tests.e2e.table import Row, rows
from tests.e2e.tableplay import Played, judge, laid

_WAYS: Final = "envfrom volume"
ROLLED: Final = rows("deployment statefulset parallel daemonset rollout", _WAYS)
BY_HAND: Final = rows("ondelete replicaset pod", _WAYS)
JOBS: Final = rows("job cronjob", _WAYS)
_DAY: Final = 24 * 3600.0


@pytest.fixture(scope="module", autouse=True)
def rollouts(stage: Stage) -> Iterator[None]:
    with stage.rollouts():
        yield


def play(stage: Stage, provider: str, **spec: Any) -> Iterator[Played]:
    """Until it is completed; with a Timed provider, until the old value has died as well."""
    with laid(stage, f"table-{provider}", [*ROLLED, *BY_HAND, *JOBS], provider) as table:
        table.rotate("a", **spec)
        table.wait_states(Ready=ROLLED, Held=[*BY_HAND, *JOBS])
        table.delete_pods(BY_HAND)
        table.end_jobs(JOBS)
        table.run_cronjobs(JOBS)

        def died() -> float:
            if provider == "snaptrade":
                return table.applied("start")
            table.scene.account.simulator.advance(_DAY + 60)
            return time.time()

        yield table.played("Completed", died)


@pytest.fixture(scope="module")
def timed(stage: Stage) -> Iterator[Played]:
    yield from play(stage, "janrain", overlap="24h")


@pytest.fixture(scope="module")
def immediate(stage: Stage) -> Iterator[Played]:
    yield from play(stage, "snaptrade", acceptDowntime=True)


def assert_replaced_once(played: Played, row: Row) -> None:
    replaced = row.kind != "job"
    assert played.restarts(row) == (1 if row.what.restarted else 0, row.pods(1 if replaced else 0))
    assert row.rolled or row.remedy in played.messages(row, "Held")


@pytest.mark.parametrize("row", [*ROLLED, *BY_HAND, *JOBS], ids=str)
def test_timed(timed: Played, row: Row) -> None:
    """Nothing is refused, also when the overlap is over."""
    judge(timed, row)
    assert_replaced_once(timed, row)


@pytest.mark.parametrize("row", [*ROLLED, *BY_HAND, *JOBS], ids=str)
def test_immediate(immediate: Played, row: Row) -> None:
    """Refused is only what still calls with the old value after the provider's switch."""
    judge(immediate, row, switch=immediate.died)
    assert_replaced_once(immediate, row)
