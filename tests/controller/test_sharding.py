"""How shards are divided: evenly, by all alike, and without moving what need not move."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.controller.sharding import View, plan, quotas, shard_of

QUICK = settings(max_examples=60, deadline=None)
MEMBERS = st.integers(1, 9).map(lambda count: [f"replica-{number}" for number in range(count)])


@st.composite
def views(draw: st.DrawFn) -> View:
    """Any state that replicas can come upon: with shards that nobody has, and more than their share with some."""
    members = draw(MEMBERS)
    holders = draw(st.lists(st.sampled_from([*members, None]), min_size=1, max_size=20))
    return View(frozenset(members), tuple(holders))


def settled(view: View) -> View:
    """What becomes of it when everybody does what its plan says, again and again. Fails when that has no end."""
    for _ in range(4):
        plans = {member: plan(member, view) for member in sorted(view.members)}
        holders = list(view.holders)
        for member, found in plans.items():
            for shard in found.give_back:
                assert view.holders[shard] == member
                holders[shard] = None
        for member, found in plans.items():
            for shard in found.take:
                assert view.holders[shard] is None
                assert holders[shard] is None, "two replicas that see the same ask for the same shard"
                holders[shard] = member
        after = View(view.members, tuple(holders))
        if after == view:
            return view
        view = after
    raise AssertionError(f"no end: {view}")


@QUICK
@given(views())
def test_shards_come_to_be_divided_evenly_and_none_is_left(view: View) -> None:
    after = settled(view)
    counts = Counter(after.holders)
    assert None not in counts
    shares = [counts[member] for member in view.members]
    assert max(shares) - min(shares) <= 1
    assert max(shares) <= -(-len(view.holders) // len(view.members))


@QUICK
@given(views())
def test_nothing_moves_without_need(view: View) -> None:
    """A shard changes hands only where its holder has more than its share; and nobody gives back to take another.

    Where shards do not come out even, the larger shares are with those that have the most.
    """
    before, after = Counter(view.holders), settled(view)
    moved = Counter(old for old, new in zip(view.holders, after.holders, strict=True) if old not in (None, new))
    due = quotas(view)
    for member in view.members:
        assert moved[member] == max(before[member] - due[member], 0)
        found = plan(member, view)
        assert not (found.give_back and found.take)
    base, extra = divmod(len(view.holders), len(view.members))
    most = sorted((before[member] for member in view.members), reverse=True)
    assert moved.total() == sum(max(held - base - (place < extra), 0) for place, held in enumerate(most))


@QUICK
@given(views(), st.data())
def test_a_dead_replica_is_replaced_and_a_new_one_gets_its_share(view: View, data: st.DataObject) -> None:
    after = settled(view)
    joined = settled(View(after.members | {"new"}, after.holders))
    assert Counter(joined.holders)["new"] >= len(view.holders) // (len(view.members) + 1)
    dead = data.draw(st.sampled_from(sorted(joined.members)))
    left = tuple(None if holder == dead else holder for holder in joined.holders)
    rest = settled(View(joined.members - {dead}, left))
    kept = sum(old == new for old, new in zip(left, rest.holders, strict=True) if old is not None)
    assert kept == sum(holder is not None for holder in left), "only what was the dead one's has moved"


def test_a_holder_that_is_no_member_any_more_counts_until_its_lease_is_over() -> None:
    """Its own Lease was deleted by a person, say."""
    view = View(frozenset({"a"}), ("a", "b", None))
    assert quotas(view) == {"a": 2, "b": 1}
    assert plan("a", view).take == (2,)


@pytest.mark.parametrize(("count", "shards"), [(1, [0, 0, 0]), (3, [1, 0, 2]), (16, [13, 4, 2])])
def test_a_namespace_is_in_the_same_shard_for_ever(count: int, shards: list[int]) -> None:
    """Two versions of Keyturn share the work during an upgrade: another hash would have two of them own a namespace."""
    assert [shard_of(name, count) for name in ("default", "team-a", "ünïcode")] == shards


def test_namespaces_spread() -> None:
    counts = Counter(shard_of(f"team-{number}", 12) for number in range(6000))
    assert min(counts.values()) > 420
    assert max(counts.values()) < 580
