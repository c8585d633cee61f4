"""Who works, and when, in virtual time: never two, never long nobody."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from keyturn.cluster.leases import Lease, now
from keyturn.controller.leadership import Leadership, NotLeading, Timing
from tests.controller import fakelease
from tests.controller.fakelease import AT_ONCE, LOOK, TIMING, FakeLease, Line, Replica, run, until


def held_by(holder: str | None) -> FakeLease:
    """A Lease that was written long ago by somebody else's clock."""
    server = FakeLease()
    server.lease = Lease(holder, 15, "2020-01-01T00:00:00.000000Z", "2020-01-01T00:00:00.000000Z", 3, "1")
    server.version = 1
    return server


# --- beginning ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", [FakeLease(), held_by(None)], ids=["no Lease", "released"])
def test_a_lease_that_nobody_holds_is_taken_at_once(server: FakeLease) -> None:
    async def test() -> None:
        one = Replica(server, "one").start()
        assert await until(one) < AT_ONCE
        assert server.lease is not None
        assert (server.lease.holder, server.lease.duration) == ("one", 15)

    run(test)


def test_a_holder_is_waited_for_as_long_as_it_says_by_our_own_clock() -> None:
    """The times in the Lease are years old, which may be the holder's clock: they do not count."""

    async def test() -> None:
        server = held_by("dead")
        one = Replica(server, "one").start()
        waited = await until(one)
        assert 15 <= waited <= 15 + LOOK
        assert server.lease is not None
        assert server.lease.transitions == 4

    run(test)


def test_the_duration_that_counts_is_the_holders() -> None:
    async def test() -> None:
        server = held_by("dead")
        one = Replica(server, "one", Timing(4, 2.0, 1.0)).start()
        assert await until(one) >= 15

    run(test)


def test_a_process_that_is_started_again_under_its_name_begins_at_once() -> None:
    async def test() -> None:
        server = held_by("pod-1")
        again = Replica(server, "again", identity="pod-1").start()
        assert await until(again) < AT_ONCE
        assert server.lease is not None
        assert server.lease.transitions == 3, "the holder is the same"

    run(test)


def test_of_two_living_processes_with_one_name_the_older_one_stops() -> None:
    """It must not be so; if it is, then they do not take turns."""

    async def test() -> None:
        server = FakeLease()
        old = Replica(server, "old", identity="pod-1").start()
        await until(old)
        young = Replica(server, "young", identity="pod-1").start()
        await until(young)
        assert await until(old, working=False) <= LOOK
        await asyncio.sleep(60)
        assert young.working
        assert not old.working

    run(test)


# --- handing over ------------------------------------------------------------------------------------------------


def test_only_one_works_and_the_other_follows_when_it_is_stopped() -> None:
    async def test() -> None:
        server = FakeLease()
        one, two = Replica(server, "one").start(), Replica(server, "two")
        await until(one)
        two.start()
        await asyncio.sleep(120)
        assert not two.working
        await one.stop()
        assert server.lease is not None
        assert server.lease.holder is None
        assert await until(two) <= LOOK
        assert len(one.terms) == len(two.terms) == 1

    run(test)


def test_the_lease_is_given_back_only_when_the_work_has_ended() -> None:
    async def test() -> None:
        server = FakeLease()
        line = Line(server)
        ended: list[float] = []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(3)
                ended.append(fakelease.now())

        campaign = asyncio.create_task(Leadership(line, "one", TIMING, fakelease.now).campaign(work))
        await asyncio.sleep(1)
        campaign.cancel()
        await asyncio.gather(campaign, return_exceptions=True)
        time, released = server.writes[-1]
        assert released.holder is None
        assert time >= ended[0]

    run(test)


def test_a_killed_leader_is_followed_within_the_lease_and_two_looks() -> None:
    async def test() -> None:
        server = FakeLease()
        one, two = Replica(server, "one").start(), Replica(server, "two")
        await until(one)
        two.start()
        await asyncio.sleep(30)
        await one.kill()
        assert TIMING.duration - LOOK <= await until(two) <= TIMING.duration + 2 * LOOK

    run(test)


def test_a_lease_that_was_taken_with_the_reply_lost_is_ours() -> None:
    async def test() -> None:
        server = FakeLease()
        one = Replica(server, "one")
        one.line.delay = 3.0  # a look and a write take longer than the renew deadline
        one.start()
        await asyncio.sleep(9.5)
        assert server.lease is not None
        assert server.lease.holder == "one"
        one.line.delay = 0.01
        assert await until(one) <= TIMING.renew_deadline + LOOK
        (_, first), (_, second) = server.writes
        assert first.acquired == second.acquired, "one term, found again"

    run(test)


def test_a_stop_releases_what_a_lost_reply_has_hidden() -> None:
    """The version that is known is not that of the last renewal, which was under way when the process was stopped."""

    async def test() -> None:
        server = FakeLease()
        one = Replica(server, "one").start()
        await until(one)
        assert server.lease is not None
        server.put(server.lease)
        await one.stop()
        assert server.lease.holder is None

    run(test)


def test_who_stands_by_releases_nothing() -> None:
    """Not even one that has asked for the lease before, and does not know what became of that."""

    async def test() -> None:
        server = held_by(None)
        one, two = Replica(server, "one"), Replica(server, "two").start()
        one.line.delay = 0.05
        one.start()
        await until(two)
        await asyncio.sleep(10)
        assert not one.working
        await one.stop()
        await asyncio.sleep(10)
        assert len(two.terms) == 1
        assert server.lease is not None
        assert server.lease.holder == "two"

    run(test)


# --- losing ------------------------------------------------------------------------------------------------------


def test_an_outage_ends_the_work_before_anybody_else_may_begin_and_it_is_taken_up_again() -> None:
    async def test() -> None:
        server = FakeLease()
        one, two = Replica(server, "one").start(), Replica(server, "two")
        await until(one)
        two.start()
        await asyncio.sleep(30)
        last, _ = server.writes[-1]
        one.line.down = two.line.down = True
        await until(one, working=False)
        assert fakelease.now() <= last + TIMING.renew_deadline
        assert not one.leadership.leads
        await asyncio.sleep(120)
        assert not one.working
        assert not two.working
        one.line.down = two.line.down = False
        await asyncio.sleep(LOOK)
        assert one.working != two.working

    run(test)


def test_alone_an_outage_shorter_than_the_deadline_is_not_felt() -> None:
    async def test() -> None:
        one = Replica(FakeLease(), "one").start()
        await until(one)
        for _ in range(20):
            one.line.down = True
            await asyncio.sleep(TIMING.renew_deadline - 2 * LOOK)
            one.line.down = False
            await asyncio.sleep(3)
        assert len(one.terms) == 1
        assert one.working

    run(test)


def test_a_server_that_hangs_is_an_outage() -> None:
    """Every request is bounded: the work ends in time although no request ever fails."""

    async def test() -> None:
        server = FakeLease()
        one = Replica(server, "one").start()
        await until(one)
        last, _ = server.writes[-1]
        one.line.delay = 1000.0
        await until(one, working=False)
        assert fakelease.now() <= last + TIMING.renew_deadline + AT_ONCE

    run(test)


def test_a_lease_that_another_holds_ends_the_work_at_the_next_renewal() -> None:
    async def test() -> None:
        server = FakeLease()
        one = Replica(server, "one").start()
        await until(one)
        server.put(Lease("thief", 15, now(), now(), 7))
        assert await until(one, working=False) <= LOOK
        with pytest.raises(NotLeading):
            one.leadership.check()

    run(test)


def test_a_person_who_edits_the_lease_ends_nothing() -> None:
    async def test() -> None:
        server = FakeLease()
        one = Replica(server, "one").start()
        await until(one)
        assert server.lease is not None
        server.put(server.lease)  # a label, say: nothing but the version changes
        await asyncio.sleep(30)
        assert len(one.terms) == 1

    run(test)


def test_a_lease_that_is_deleted_stays_with_its_holder() -> None:
    """Who stands by has seen that it was held, and gives the holder its time."""

    async def test() -> None:
        server = FakeLease()
        one, two = Replica(server, "one").start(), Replica(server, "two")
        await until(one)
        two.start()
        await asyncio.sleep(10)
        server.delete()
        await asyncio.sleep(60)
        assert server.lease is not None
        assert server.lease.holder == "one"
        assert len(one.terms) == 1
        assert not two.terms

    run(test)


def test_a_frozen_process_that_thaws_may_do_nothing() -> None:
    """The clock has gone on without it: the question is answered by the clock, before any timer has run."""

    async def test() -> None:
        server, frozen = FakeLease(), 0.0
        leadership = Leadership(Line(server), "one", TIMING, lambda: fakelease.now() + frozen)
        campaign = asyncio.create_task(leadership.campaign(asyncio.Event().wait))  # type: ignore[arg-type]
        await asyncio.sleep(5)
        leadership.check()
        frozen = 10.1
        with pytest.raises(NotLeading):
            leadership.check()
        assert not leadership.leads
        campaign.cancel()

    run(test)


def test_work_that_fails_is_begun_again_and_said(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        server, begun = FakeLease(), list[float]()

        async def fail() -> None:
            begun.append(fakelease.now())
            raise KeyError("a defect")

        campaign = asyncio.create_task(Leadership(Line(server), "one", TIMING, fakelease.now).campaign(fail))
        await asyncio.sleep(20)
        campaign.cancel()
        pauses = [after - before for before, after in pairwise(begun)]
        assert min(pauses) > 1, "and not in a tight loop"
        assert "a defect" in caplog.text

    run(test)
