"""The order of restarts: waves, their soak, and how many at a time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from keyturn.api.observed import Pod, Workload
from keyturn.rotation.waves import Turn, next_turn
from tests.unit.consumers import CANCELLED, OURS, ZERO, at, pod, record, view, web


def fleet(**states: tuple[int | None, str]) -> tuple[list[Workload], list[Pod]]:
    """By name: the wave, and `old`, `rolling`, `ready` or `paused`."""
    workloads, pods = [], []
    for name, (wave, state) in states.items():
        stamp = OURS if state in ("rolling", "ready") else None
        paused = "spec.paused is set" if state == "paused" else None
        workloads.append(web(stamp, name=name, wave=wave, settled=state != "rolling", paused=paused))
        pods.append(pod(11 if state == "ready" else 5, stamp if state == "ready" else None, owner=("Deployment", name)))
    return workloads, pods


def turn(of: tuple[list[Workload], list[Pod]], *, now: float = 60, **more: Any) -> Turn:
    since = {field: more.pop(field) for field in ("wave", "wave_ready_time") if field in more}
    return next_turn(view(*of, record(10, **since), now=now, **more))


def names(of: Turn) -> list[str]:
    return [workload.name for workload in of.restart]


def test_without_waves_all_at_once() -> None:
    assert names(turn(fleet(a=(0, "old"), b=(0, "rolling"), c=(None, "old")))) == ["a", "c"]


def test_lowest_wave_first() -> None:
    assert names(turn(fleet(a=(1, "old"), b=(-1, "old"), c=(0, "old")))) == ["b"]


@pytest.mark.parametrize(("first", "restarted"), [("rolling", []), ("ready", ["b"]), ("paused", [])])
def test_a_wave_waits_for_those_before_it(first: str, restarted: list[str]) -> None:
    found = turn(fleet(a=(0, first), b=(1, "old")))
    assert names(found) == restarted
    assert restarted or found.waiting_for == "wave 1 waits for Deployment/a of wave 0"


def test_a_wave_soaks_before_the_next_one() -> None:
    ready = fleet(canary=(0, "ready"), rest=(1, "old"), more=(1, "old"))
    first = turn(ready, wave_soak="30s")
    assert (names(first), first.wave, first.ready_time) == ([], 1, ZERO + timedelta(seconds=60))
    later = turn(ready, wave_soak="30s", now=89, wave=1, wave_ready_time=at(60))
    assert (names(later), later.ready_time) == ([], at(60))
    assert names(turn(ready, wave_soak="30s", now=90, wave=1, wave_ready_time=at(60))) == ["rest", "more"]
    # So does a clock that was set back: no hour is waited for.
    assert turn(ready, wave_soak="30s", now=20, wave=1, wave_ready_time=at(60)).ready_time == at(20)
    # Whoever is behind again lets the soak begin anew.
    again = turn(fleet(canary=(0, "rolling"), rest=(1, "old")), wave_soak="30s", now=89, wave=1, wave_ready_time=at(60))
    assert again.ready_time is None
    # The soak of an earlier wave does not count for the next one.
    third = fleet(canary=(0, "ready"), rest=(1, "ready"), more=(2, "old"))
    assert turn(third, wave_soak="30s", now=99, wave=1, wave_ready_time=at(60)).ready_time == at(99)
    # What is left of a wave that has begun follows at once.
    begun = fleet(canary=(0, "ready"), rest=(1, "rolling"), more=(1, "old"))
    assert names(turn(begun, wave_soak="30s")) == ["more"]


def test_no_more_at_a_time_than_wanted() -> None:
    of = fleet(a=(0, "rolling"), b=(0, "old"), c=(0, "old"))
    assert names(turn(of, max_concurrent=2)) == ["b"]
    found = turn(of, max_concurrent=1)
    assert names(found) == []
    assert found.waiting_for == "spec.rollout.maxConcurrent: 1 workload(s) are restarting"
    assert names(turn(fleet(a=(0, "ready"), b=(0, "old")), max_concurrent=1)) == ["b"]


def test_without_an_overlap_nobody_waits() -> None:
    of = fleet(a=(0, "rolling"), b=(1, "old"), c=(2, "old"))
    found = next_turn(view(*of, record(10), max_concurrent=1, wave_soak="1h"), at_once=True)
    assert names(found) == ["b", "c"]


def test_the_way_back_knows_no_waves() -> None:
    workloads = [web(OURS, name="a", wave=0), web(OURS, name="b", wave=1), web(CANCELLED, name="c", settled=False)]
    back = record(10, 30, cancelling=True)
    assert names(next_turn(view(workloads, [], back))) == ["a", "b"]
    assert names(next_turn(view(workloads, [], back, max_concurrent=2))) == ["a"]
