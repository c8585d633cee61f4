"""Who may hold which value: the table of cases, to the second."""

from __future__ import annotations

import pytest

from keyturn.api.observed import Pod, Workload
from keyturn.api.rotation import RestartPolicy
from keyturn.rotation.consumers import cancel_stamp, to_restart
from tests.unit.consumers import CANCELLED, OTHER, OURS, at, pod, record, view, web


@pytest.mark.parametrize(
    ("created", "stamp", "distributed", "expected"),
    [
        (5, None, 10, True),
        (10, None, 10, True),  # the same second: may have been just before
        (11, None, 10, False),
        (10, OURS, 10, False),  # the stamp was set after the value was written
        (5, OTHER, 10, True),
        (11, CANCELLED, 10, False),
        (5, None, None, True),
        (99, None, None, True),  # nothing was written yet
    ],
)
def test_holds_previous(created: float, stamp: str | None, distributed: float | None, expected: bool) -> None:
    one = pod(created, stamp)
    assert view([], [one], record(distributed)).unsafe(one) is expected


@pytest.mark.parametrize(
    ("created", "started", "stamp", "restored", "expected"),
    [
        (5, 6, None, 30, False),
        (5, None, None, 30, False),
        (5, 10, None, 30, True),  # a container that started anew in the same second
        (5, 20, None, 30, True),
        (10, 10, None, 30, True),
        (20, 21, None, 30, True),
        (20, 21, OURS, 30, True),
        (30, 31, None, 30, True),  # the same second as the way back
        (31, 32, None, 30, False),
        (31, 32, OURS, 30, False),  # the old template, but the Secret was restored before
        (30, 31, CANCELLED, 30, False),
        (20, 21, None, None, True),  # not restored yet
        (99, 99, OURS, None, True),
    ],
)
def test_holds_pending(
    created: float, started: float | None, stamp: str | None, restored: float | None, expected: bool
) -> None:
    one = pod(created, stamp, started)
    assert view([], [one], record(10, restored, cancelling=True)).unsafe(one) is expected


def test_nothing_holds_what_was_never_written() -> None:
    one = pod(99, OURS, 99)
    assert not view([], [one], record(None, cancelling=True)).unsafe(one)


@pytest.mark.parametrize(
    ("workload", "created", "cancelling", "expected"),
    [
        (web(), 5, False, True),
        (web(OURS), 5, False, False),  # once is enough (I7)
        (web(), 11, False, False),  # its pods are new already
        (web(restartable=False), 5, False, False),
        (web(template_time=at(11)), 5, False, False),  # somebody else restarts it
        (web(template_time=at(10)), 5, False, True),
        (web(paused="spec.paused is set"), 5, False, False),
        (web(OTHER), 5, False, True),
        (web(observed=False), 5, False, False),  # its controller must say first what it does
        (web(OURS), 15, True, True),
        (web(OURS), 5, True, True),  # no pod of the new template yet, but there would be
        (web(CANCELLED), 15, True, False),
        (web(), 15, True, True),
        (web(), 5, True, False),
        (web(OURS), 31, True, True),
    ],
)
def test_to_restart(workload: Workload, created: float, cancelling: bool, expected: bool) -> None:
    now = record(10, 30 if cancelling else None, cancelling=cancelling)
    assert (to_restart(view([workload], [pod(created)], now)) == (workload,)) is expected
    assert to_restart(view([workload], [pod(created)], now, restart=RestartPolicy.NEVER)) == ()


def test_stamps_of_both_directions_differ() -> None:
    assert cancel_stamp(record()) == CANCELLED


def live(created: float, stamp: str | None = None) -> Pod:
    return pod(created, stamp, created, live=True, volume=True)


@pytest.mark.parametrize(
    ("restart", "created", "now", "unsafe", "restarted"),
    [
        (RestartPolicy.ALWAYS, 5, 20, True, True),
        (RestartPolicy.ALWAYS, 5, 999, True, True),  # nobody said that the application reads the file again
        (RestartPolicy.NEVER, 5, 999, True, False),
        (RestartPolicy.ENV_ONLY, 5, 20, True, False),
        (RestartPolicy.ENV_ONLY, 5, 70, False, False),
        (RestartPolicy.ENV_ONLY, 11, 12, False, False),
    ],
)
def test_volumes_follow_the_secret(
    restart: RestartPolicy, created: float, now: float, unsafe: bool, restarted: bool
) -> None:
    """`restart: EnvOnly` trusts volumes, a minute after the Secret was written here, and nothing else does."""
    seen = view([web()], [live(created)], record(10), now=now, restart=restart, volume_refresh="1m")
    assert bool(seen.unsafe_pods) is unsafe
    assert bool(to_restart(seen)) is restarted


@pytest.mark.parametrize(
    ("restart", "created", "stamp", "now", "unsafe"),
    [
        (RestartPolicy.ALWAYS, 5, None, 40, True),  # its volume showed the new value for a while
        (RestartPolicy.ALWAYS, 5, None, 90, False),
        (RestartPolicy.ALWAYS, 20, None, 90, True),  # what it read at its start, it may have kept
        (RestartPolicy.ENV_ONLY, 20, None, 90, False),
        (RestartPolicy.ENV_ONLY, 20, None, 89, True),
        (RestartPolicy.ALWAYS, 31, CANCELLED, 32, False),
    ],
)
def test_volumes_follow_the_secret_back(
    restart: RestartPolicy, created: float, stamp: str | None, now: float, unsafe: bool
) -> None:
    """I3: a pod that was never restarted may see the new value in its volumes, and shortly after it was taken back."""
    going_back = record(10, 30, cancelling=True)
    seen = view([], [live(created, stamp)], going_back, now=now, restart=restart, volume_refresh="1m")
    assert bool(seen.unsafe_pods) is unsafe


@pytest.mark.parametrize(
    ("restart", "created", "started", "expected"),
    [
        (RestartPolicy.ALWAYS, 20, 21, True),  # it came after the new value, and may have kept what it read then
        (RestartPolicy.ALWAYS, 5, 20, True),  # a container that started anew
        (RestartPolicy.ALWAYS, 5, 6, False),  # only its volumes have changed
        (RestartPolicy.ENV_ONLY, 20, 21, False),
        (RestartPolicy.NEVER, 20, 21, False),
    ],
)
def test_who_began_with_the_new_value_is_restarted_on_the_way_back(
    restart: RestartPolicy, created: float, started: float, expected: bool
) -> None:
    """I4, I9: without it, a pod that reads a volume and came after the new value would be waited for without end."""
    seen = view([web()], [pod(created, None, started, live=True)], record(10, 30, cancelling=True), restart=restart)
    assert bool(to_restart(seen)) is expected


def test_who_reads_by_env_too_is_restarted_for_it() -> None:
    seen = view([web()], [live(5), pod(5)], record(10), restart=RestartPolicy.ENV_ONLY)
    assert [one.name for one in to_restart(seen)] == ["web"]


def test_a_volume_beside_another_way_shows_the_new_value_all_the_same() -> None:
    """I3, I4: nobody restarted the pod, and still its volume had the value that is about to die."""
    mixed = pod(5, None, 5, live=False, volume=True)
    going_back = record(10, 30, cancelling=True)
    early = view([web()], [mixed], going_back, now=40, volume_refresh="1m")
    assert early.unsafe(mixed)
    assert to_restart(early) == ()
    assert not view([web()], [mixed], going_back, now=90, volume_refresh="1m").unsafe(mixed)
