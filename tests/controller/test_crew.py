"""Which replica works on which shard, and when, in virtual time: never two on one, and none left for long."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest

from keyturn.cluster.errors import Forbidden
from keyturn.cluster.leases import NAME, Lease
from keyturn.controller.crew import lease_of_replica, lease_of_shard
from keyturn.controller.leadership import NotLeading, Timing
from tests.controller.fakecrew import Cluster, Folder, Replica, Scenario, until
from tests.controller.fakelease import LOOK, TIMING, now
from tests.controller.virtual import virtually

TAKEN_OVER = TIMING.duration + 3 * LOOK


def play(scenario: Scenario) -> Cluster:
    async def whole() -> Cluster:
        cluster = Cluster()
        await scenario(cluster)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        return cluster

    cluster = virtually(whole())
    assert cluster.problems == []
    return cluster


async def crew(cluster: Cluster, *names: str, count: int = 3) -> None:
    """Start them, and wait until every shard is owned and nobody has more than a fair share."""
    for name in names:
        cluster.replica(name, count)
    await until(lambda: fair(cluster, count))


def fair(cluster: Cluster, count: int) -> bool:
    shares = list(cluster.shares().values())
    return sum(shares) == count and max(shares) - min(shares) <= 1


def test_one_replica_takes_all_and_shares_with_those_that_come() -> None:
    async def scenario(cluster: Cluster) -> None:
        first = cluster.replica("one", 4)
        assert await until(lambda: len(first.shards.held()) == 4) < 1
        cluster.replica("two", 4)
        assert await until(lambda: fair(cluster, 4)) <= 3 * LOOK
        cluster.replica("three", 4)
        assert await until(lambda: fair(cluster, 4)) <= 3 * LOOK
        assert sorted(cluster.shares().values()) == [1, 1, 2]
        assert {shard for _, shard in first.wound_down} == {shard for _, shard in first.taken} - first.shards.held()

    play(scenario)


def test_at_rest_nothing_moves_and_the_leases_cost_what_the_page_says() -> None:
    async def scenario(cluster: Cluster) -> None:
        await crew(cluster, "one", "two", "three", count=6)
        taken, written, begun = [len(one.taken) for one in cluster.replicas], cluster.written(), now()
        await asyncio.sleep(60)
        assert [len(one.taken) for one in cluster.replicas] == taken
        rate = (cluster.written() - written) / (now() - begun)
        # Each shard, and two for each replica, every 1.5 to 2 seconds.
        assert (6 + 2 * 3) / 2.0 * 0.9 <= rate <= (6 + 2 * 3) / 1.5

    play(scenario)


def test_a_shard_is_released_only_when_its_passes_have_ended() -> None:
    async def scenario(cluster: Cluster) -> None:
        first = cluster.replica("one", 2)
        first.slow = 30.0
        await until(lambda: len(first.shards.held()) == 2)
        begun = now()
        second = cluster.replica("two", 2)
        await asyncio.sleep(25)
        assert len(first.shards.held()) == 2, "it is renewed for as long"
        await until(lambda: len(second.shards.held()) == 1)
        ((ended, shard),) = first.wound_down
        assert second.taken[0][1] == shard
        assert begun + 30 <= ended <= second.taken[0][0] <= ended + LOOK + 0.2

    play(scenario)


def test_a_killed_replica_is_replaced_within_the_lease_and_its_lease_does_not_stay() -> None:
    async def scenario(cluster: Cluster) -> None:
        await crew(cluster, "one", "two", "three")
        members = {name for name in cluster.names() if "member" in name}
        await cluster.replicas[1].kill()
        begun = now()
        dead = cluster.replicas.pop(1)
        assert await until(lambda: fair(cluster, 3)) <= TAKEN_OVER
        (orphan,) = {shard for _, shard in dead.taken} - {shard for _, shard in dead.wound_down}
        ((taken, _),) = [found for one in cluster.replicas for found in one.taken if found[0] > begun]
        assert taken >= begun + TIMING.duration - LOOK, "not before its lease was over"
        assert orphan in cluster.replicas[0].shards.held() | cluster.replicas[1].shards.held()
        await until(lambda: len(members & cluster.names()) == 2)

    play(scenario)


def test_one_that_is_stopped_hands_over_at_once_and_leaves_nothing() -> None:
    async def scenario(cluster: Cluster) -> None:
        await crew(cluster, "one", "two", "three")
        await cluster.replicas.pop().stop()
        assert len([name for name in cluster.names() if "member" in name]) == 2
        assert await until(lambda: fair(cluster, 3)) <= LOOK
        for one in cluster.replicas:
            await one.stop()
        assert cluster.names() == {NAME, *(f"{NAME}-{shard}-of-3" for shard in range(3))}
        assert [cluster.holder(name) for name in sorted(cluster.names())] == [None] * 4

    play(scenario)


def test_a_frozen_replica_that_thaws_may_do_nothing() -> None:
    """The clock has gone on without it: asked before any timer has run."""

    async def scenario(cluster: Cluster) -> None:
        await crew(cluster, "one", "two")
        frozen = cluster.replicas[0]
        held = frozen.shards.held()
        frozen.frozen = TIMING.renew_deadline + 0.1
        assert frozen.shards.held() == frozenset()
        for shard in held:
            with pytest.raises(NotLeading):
                frozen.shards.check(shard)
        await until(lambda: fair(cluster, 3))

    play(scenario)


@pytest.mark.parametrize("lease", [NAME, lease_of_replica("one", 2), lease_of_shard(0, 2)])
def test_each_of_the_three_leases_must_have_been_renewed(lease: str) -> None:
    """One of them could not be for a while; then the process froze, and thaws: asked before any timer has run."""

    async def scenario(cluster: Cluster) -> None:
        one = cluster.replica("one", 2)
        await until(lambda: len(one.shards.held()) == 2)
        await asyncio.sleep(20)
        (line,) = [line for line in one.folder.lines if line.server is cluster.leases[lease]]
        line.down = True
        await asyncio.sleep(TIMING.renew_deadline - LOOK)
        one.shards.check(0)
        one.frozen = LOOK + 0.5
        with pytest.raises(NotLeading):
            one.shards.check(0)
        assert 0 not in one.shards.held()

    play(scenario)


def test_a_shard_that_was_lost_is_not_acted_on_though_others_are_held() -> None:
    """The question is about the shard, not about the process."""

    async def scenario(cluster: Cluster) -> None:
        one = cluster.replica("one", 2)
        await until(lambda: len(one.shards.held()) == 2)
        cluster.leases[f"{NAME}-1-of-2"].put(Lease("thief", 15, "t", "t", 7))
        await until(lambda: one.shards.held() == {0})
        one.shards.check(0)
        with pytest.raises(NotLeading):
            one.shards.check(1)

    play(scenario)


def test_an_outage_ends_all_work_in_time_and_it_is_taken_up_again() -> None:
    async def scenario(cluster: Cluster) -> None:
        await crew(cluster, "one", "two", "three")
        for one in cluster.replicas:
            one.folder.cut()
        await until(lambda: not any(cluster.shares().values()))
        await asyncio.sleep(40)
        for one in cluster.replicas:
            one.folder.cut(down=False)
        await until(lambda: fair(cluster, 3), TAKEN_OVER + 3 * LOOK)

    play(scenario)


def test_a_server_that_hangs_is_an_outage_and_what_was_given_up_is_asked_for_again() -> None:
    """What was held cannot be given back then, and trying to may be cut short."""

    async def scenario(cluster: Cluster) -> None:
        await crew(cluster, "one", "two", "three")
        for _ in range(3):
            for one in cluster.replicas:
                one.folder.hang(1000.0)
            await until(lambda: not any(cluster.shares().values()))
            await asyncio.sleep(6)
            for one in cluster.replicas:
                one.folder.hang(0.01)
            await until(lambda: fair(cluster, 3), TAKEN_OVER + 3 * LOOK)

    play(scenario)


# --- another number of shards --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(3, 1), (3, 2), (2, 6)])
def test_another_number_of_shards_waits_until_the_last_of_the_old_one_has_gone(before: int, after: int) -> None:
    """As in a rolling update: the new replicas are there before the old ones go, one by one."""

    async def scenario(cluster: Cluster) -> None:
        old = [cluster.replica(f"old-{number}", before) for number in range(2)]
        await until(lambda: sum(cluster.shares().values()) == before)
        new = [cluster.replica(f"new-{number}", after) for number in range(2)]
        await asyncio.sleep(30)
        assert not any(one.taken for one in new)
        await old[0].stop()
        await until(lambda: len(old[1].shards.held()) == before)
        await asyncio.sleep(30)
        assert not any(one.taken for one in new)
        await old[1].stop()
        assert await until(lambda: sum(cluster.shares().values()) == after) <= 2 * LOOK, "at once, not after a lease"
        if after > 1:
            await until(lambda: not any(name.endswith(f"-of-{before}") for name in cluster.names()))

    play(scenario)


def test_shards_begin_when_the_one_lease_is_given_back() -> None:
    """An upgrade from none to some: whoever asks first is next, and the other waits for it."""

    async def scenario(cluster: Cluster) -> None:
        old = [cluster.replica(f"old-{number}", 1) for number in range(2)]
        await until(lambda: sum(cluster.shares().values()) == 1)
        new = cluster.replica("new", 3)
        await asyncio.sleep(30)
        assert not new.taken
        for one in old:
            await one.stop()
            await asyncio.sleep(LOOK)
        assert len(new.shards.held()) == 3

    play(scenario)


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (3, 2)])
def test_another_number_of_shards_follows_a_killed_one_after_its_lease(before: int, after: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        old = cluster.replica("old", before)
        await until(lambda: len(old.shards.held()) == before)
        new = cluster.replica("new", after)
        await asyncio.sleep(20)
        await old.kill()
        took = await until(lambda: len(new.shards.held()) == after)
        assert TIMING.duration - LOOK <= took <= TAKEN_OVER

    play(scenario)


def test_the_last_one_of_a_layout_does_not_release_it_under_one_that_was_cut_off_just_now() -> None:
    """Its member Lease is not over yet, so it may still act."""

    async def scenario(cluster: Cluster) -> None:
        await crew(cluster, "one", "two", count=2)
        one, two = cluster.replicas
        one.folder.cut()
        await two.stop()
        assert cluster.holder(NAME) == "shards=2"
        new = cluster.replica("new", 1)
        await until(lambda: bool(new.shards.held()))
        assert not one.shards.held()

    play(scenario)


def test_one_with_another_number_of_shards_is_no_member_of_ours() -> None:
    async def scenario(cluster: Cluster) -> None:
        await crew(cluster, "one", "two", count=2)
        cluster.replica("other", 3)
        await asyncio.sleep(30)
        assert sorted(cluster.shares().values()) == [0, 1, 1]

    play(scenario)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_to_the_replicas_no_part_has_two_owners(seed: int) -> None:
    """Replicas of several layouts come, go, die and are cut off; `Cluster.begin` is the judge."""
    chance = random.Random(seed)

    async def scenario(cluster: Cluster) -> None:
        for number in range(30):
            await asyncio.sleep(chance.uniform(0, 12))
            living = [one for one in cluster.replicas if not one.task.done()]
            if len(living) < 2 or (len(living) < 5 and chance.random() < 0.4):
                cluster.replica(f"r{number}", chance.choice([1, 2, 3, 3, 3]))
            else:
                await disturb(chance.choice(living), chance)
        for one in cluster.replicas:
            if one.count != 3:
                await one.stop()
            one.folder.cut(down=False)
        cluster.replicas = [one for one in cluster.replicas if not one.task.done()]
        cluster.replica("last", 3)
        await until(lambda: fair(cluster, 3), 300)

    play(scenario)


async def disturb(one: Replica, chance: random.Random) -> None:
    match chance.choice(["stop", "kill", "cut", "mend", "slow"]):
        case "stop":
            await one.stop()
        case "kill":
            await one.kill()
        case "cut":
            one.folder.cut()
        case "mend":
            one.folder.cut(down=False)
        case "slow":
            one.slow = chance.uniform(0, 20)


def test_the_common_lease_lasts_as_long_as_any_of_its_holders_counts_on() -> None:
    """Replicas with other times renew it, too, as in a rolling update that changes them."""

    async def scenario(cluster: Cluster) -> None:
        cluster.replica("long", 2)
        cluster.replica("short", 2, Timing(6, 5.0, 0.5))
        await until(lambda: fair(cluster, 2))
        await asyncio.sleep(30)
        written = cluster.leases[NAME].writes[-20:]
        assert {lease.duration for _, lease in written} == {TIMING.duration}

    play(scenario)


# --- what is said ----------------------------------------------------------------------------------------------------


def test_what_is_in_the_way_is_said_with_its_remedy_and_once(caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(self: Folder) -> dict[str, Lease]:
        raise Forbidden("get leases in namespace keyturn-system: 403")

    async def scenario(cluster: Cluster) -> None:
        caplog.set_level(logging.WARNING, "keyturn.controller.crew")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Folder, "list", refuse)
            cluster.replica("one")
            await asyncio.sleep(30)
        (said,) = caplog.messages
        assert "get leases in namespace keyturn-system: 403" in said
        assert "manifests/components/shards" in said
        await until(lambda: fair(cluster, 3))

    play(scenario)


def test_a_replica_says_what_it_holds_when_that_changes(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(cluster: Cluster) -> None:
        caplog.set_level(logging.INFO, "keyturn.controller.crew")
        await crew(cluster, "one", "two", count=2)
        await asyncio.sleep(30)

    play(scenario)
    said = [text for text in caplog.messages if "share" in text]
    assert "2 replicas share 2 shards; this one holds: 0" in said
    assert "2 replicas share 2 shards; this one holds: 1" in said
    assert len(said) <= 6
