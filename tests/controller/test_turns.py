"""Rate limits: kept to by all objects of an account together, without a worker that waits, and in a fair order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.api.provider import RateLimit
from keyturn.api.semantics import Effect, Failure, Outcome
from keyturn.controller.allowance import Allowance
from keyturn.controller.turn import LONG_SECONDS, TurnKey
from keyturn.controller.turns import Turns
from tests.controller.virtual import virtually

ACCOUNT, ACME = "stytch/project", ("RotationProvider", "ns", "acme")
OTHER = ("RotationProvider", "other", "acme")


def failed(failure: Failure, seconds: float | None = None) -> Outcome:
    return Outcome(Effect.NOT_APPLIED, failure, "", None if seconds is None else timedelta(seconds=seconds))


class Desk:
    """Objects that want to call: each is looked at again when it is woken, as by the work queue."""

    def __init__(self, rate: int = 10, burst: int = 3) -> None:
        self.turns = Turns(self._wake, lambda: datetime(2026, 11, 22, tzinfo=UTC))
        self.allowance = self.turns.allowance(ACCOUNT, ACME, RateLimit(requests_per_second=rate, burst=burst))
        self.sent: list[tuple[str, float]] = []
        """Who sent a request, and when."""
        self._wishes: dict[TurnKey, Callable[[], None]] = {}

    @property
    def order(self) -> list[str]:
        return [name for name, _ in self.sent]

    @property
    def times(self) -> list[float]:
        return [round(when, 2) for _, when in self.sent]

    def call(
        self, name: str, *, tenant: str = "ns", hurried: bool = False, at: Allowance | None = None, needs: int = 1,
        wants: int = 0, makes: int = 1,
    ) -> None:  # fmt: skip
        """A pass that makes requests if it may, and is repeated when its turn has come."""
        key, allowance = (tenant, name), at or self.allowance

        def look() -> None:
            turn = self.turns.begin_pass(key, tenant, hurried=hurried)
            if turn.take(allowance, needs, wants):
                for _ in range(makes):
                    allowance.sent()
                    allowance.ended()
                    self.sent.append((name, asyncio.get_running_loop().time()))
            self.turns.end_pass(turn)

        self._wishes[key] = look
        look()

    def _wake(self, key: TurnKey) -> None:
        asyncio.get_running_loop().call_soon(self._wishes[key])


def at_a_desk(test: Callable[[Desk], Awaitable[None]], rate: int = 10, burst: int = 3) -> None:
    async def run() -> None:
        await test(Desk(rate, burst))

    virtually(run())


def test_a_burst_and_then_the_rate_in_the_order_of_asking() -> None:
    async def test(desk: Desk) -> None:
        for name in "abcdef":
            desk.call(name)
        assert desk.order == ["a", "b", "c"]
        await asyncio.sleep(60)
        assert desk.order == [*"abcdef"]
        assert desk.times == [0, 0, 0, 0.1, 0.2, 0.3]
        for name in "ghij":
            desk.call(name)
        assert desk.order[6:] == ["g", "h", "i"], "a long quiet time saves up no more than the burst"

    at_a_desk(test)


WISHES = st.lists(
    st.tuples(st.floats(0, 3), st.sampled_from("ab"), st.booleans(), st.integers(1, 4), st.integers(0, 4)), max_size=40
)


@settings(deadline=None, max_examples=60)
@given(WISHES, st.integers(1, 20), st.integers(4, 20))
def test_no_window_holds_more_than_burst_and_rate_allow_and_everybody_is_served(
    wishes: list[tuple[float, str, bool, int, int]], rate: int, burst: int
) -> None:
    async def test(desk: Desk) -> None:
        expected = 0
        for number, (pause, tenant, hurried, needs, makes) in enumerate(wishes):
            await asyncio.sleep(pause)
            expected += min(makes, needs)
            desk.call(str(number), tenant=tenant, hurried=hurried, needs=needs, makes=min(makes, needs))
        await asyncio.sleep(4 * len(wishes) / rate + 1)
        assert len(desk.sent) == expected
        for first in range(expected):
            for last in range(first, expected):
                seconds = desk.sent[last][1] - desk.sent[first][1]
                assert last - first + 1 <= burst + seconds * rate + 1e-6

    at_a_desk(test, rate, burst)


def test_an_operation_larger_than_the_burst_is_made_and_paid_back() -> None:
    async def test(desk: Desk) -> None:
        desk.call("large", needs=3, makes=3)
        desk.call("next")
        await asyncio.sleep(10)
        assert desk.sent == [("large", 0), ("large", 0), ("large", 0), ("next", desk.sent[3][1])]
        assert 3 <= desk.sent[3][1] < 3.1

    at_a_desk(test, rate=1, burst=1)


def test_what_has_begun_goes_first_but_never_for_ever_and_tenants_take_turns() -> None:
    async def test(desk: Desk) -> None:
        desk.call("taken")
        for number in range(3):
            desk.call(f"scheduled {number}")
        for number in range(6):
            desk.call(f"begun {number}", hurried=True)
        desk.call("begun of another", tenant="other", hurried=True)
        await asyncio.sleep(60)
        begun = ["begun 0", "begun of another", "begun 1", "begun 2"]
        assert desk.order[1:7] == [*begun, "scheduled 0", "begun 3"]
        assert desk.order[-2:] == ["scheduled 1", "scheduled 2"]

    at_a_desk(test, rate=1, burst=1)


def test_the_place_in_line_is_kept_by_who_looks_again() -> None:
    async def test(desk: Desk) -> None:
        for name in ("taken", "first", "second"):
            desk.call(name)
        desk.call("first")
        await asyncio.sleep(60)
        assert desk.order == ["taken", "first", "second"]

    at_a_desk(test, rate=1, burst=1)


def test_objects_of_one_account_share_it_and_a_low_limit_slows_down_only_its_own() -> None:
    async def test(desk: Desk) -> None:
        same = desk.turns.allowance(ACCOUNT, OTHER, RateLimit(requests_per_second=10, burst=3))
        for name in "abc":
            desk.call(name)
            desk.call(name.upper(), tenant="other", at=same)
        await asyncio.sleep(60)
        assert desk.times == [0, 0, 0, 0.1, 0.2, 0.3]
        assert sorted(desk.order[:3]) == ["A", "a", "b"]
        slow = desk.turns.allowance(ACCOUNT, OTHER, RateLimit(requests_per_second=1, burst=1))
        desk.sent.clear()
        begun = asyncio.get_running_loop().time()
        for name in "abc":
            desk.call(name.upper(), tenant="other", at=slow)
        for name in "abcd":
            desk.call(name)
        await asyncio.sleep(60)
        waits = {name: round(when - begun, 1) for name, when in desk.sent}
        assert waits == {"A": 0, "a": 0, "b": 0, "c": 0.1, "d": 0.2, "B": 1, "C": 2}

    at_a_desk(test)


def test_objects_of_other_accounts_share_nothing() -> None:
    async def test(desk: Desk) -> None:
        other = desk.turns.allowance("another", OTHER, RateLimit(requests_per_second=1, burst=1))
        desk.allowance.heard(failed(Failure.RATE_LIMITED, 3600))
        desk.call("theirs", at=other)
        desk.call("ours")
        assert desk.order == ["theirs"]

    at_a_desk(test)


def test_what_was_set_aside_and_not_used_is_there_for_the_next() -> None:
    async def test(desk: Desk) -> None:
        desk.call("asks for much", needs=1, wants=3)
        desk.call("next")
        desk.call("and the next")
        assert desk.times == [0, 0, 0]

    at_a_desk(test)


def test_nobody_calls_while_the_provider_wants_to_be_left_alone() -> None:
    async def test(desk: Desk) -> None:
        for failure, seconds in ((Failure.RATE_LIMITED, 30), (Failure.UNREACHABLE, 60), (Failure.RATE_LIMITED, 5)):
            desk.allowance.heard(failed(failure, seconds))
        for name in "abcd":
            desk.call(name)
        await asyncio.sleep(59.9)
        assert desk.sent == []
        await asyncio.sleep(60)
        assert desk.times == [60, 60, 60, 60.1]

    at_a_desk(test)


def test_who_is_told_to_be_slower_without_a_time_goes_on_at_the_steady_rate() -> None:
    async def test(desk: Desk) -> None:
        desk.allowance.heard(failed(Failure.RATE_LIMITED))
        desk.allowance.heard(failed(Failure.UNREACHABLE))
        for name in "ab":
            desk.call(name)
        await asyncio.sleep(60)
        assert desk.times == [0.1, 0.2]

    at_a_desk(test)


def test_no_more_is_sent_than_the_provider_has_left() -> None:
    async def test(desk: Desk) -> None:
        desk.allowance.sent()  # which is on its way while the answer to the other one comes
        desk.allowance.sent()
        desk.allowance.told(250, 3, 30)
        desk.allowance.ended()
        desk.allowance.told(250, 7, 29)  # of the same window, and older
        desk.allowance.ended()
        for name in "abcd":
            desk.call(name)
        await asyncio.sleep(29)
        assert desk.order == ["a", "b"]
        await asyncio.sleep(60)
        assert [*zip(desk.order, desk.times, strict=True)][2:] == [("c", 30), ("d", 30)]

    at_a_desk(test, burst=20)


def test_what_was_set_aside_is_void_when_the_provider_takes_nothing_more() -> None:
    async def test(desk: Desk) -> None:
        turn = desk.turns.begin_pass(("ns", "one"), "ns", hurried=False)
        assert turn.take(desk.allowance, 1, 5)
        desk.allowance.sent()
        desk.allowance.told(250, 0, 30)
        desk.allowance.ended()
        assert not turn.take(desk.allowance, 1, 1)
        await asyncio.sleep(31)
        assert turn.take(desk.allowance, 1, 1)
        desk.allowance.heard(failed(Failure.RATE_LIMITED, 30))
        assert not turn.take(desk.allowance, 1, 1)

    at_a_desk(test, burst=20)


def test_an_operation_that_never_fits_what_the_provider_takes_is_made_all_the_same() -> None:
    async def test(desk: Desk) -> None:
        desk.allowance.told(2, 2, 30)
        desk.call("large", needs=4, makes=3)
        assert desk.order == ["large"] * 3

    at_a_desk(test, burst=20)


def test_who_waits_long_says_so_and_names_the_limit() -> None:
    async def test(desk: Desk) -> None:
        turns = [desk.turns.begin_pass(("ns", str(number)), "ns", hurried=False) for number in range(8)]
        asked = [(turn.take(desk.allowance, 1, 0), turn.long) for turn in turns]
        assert asked == [(True, False), *[(False, False)] * 4, *[(False, True)] * 3], "the last will wait for long"
        said = desk.allowance.held_back(turns[7])
        assert (said.effect, said.failure) == (Effect.NOT_APPLIED, Failure.HELD_BACK)
        assert "spec.rateLimit of RotationProvider acme allows 1 requests in a second" in said.message
        desk.allowance.heard(failed(Failure.RATE_LIMITED, 60))
        assert "left alone until 2026-11-22T00:01:00Z" in desk.allowance.held_back(turns[7]).message
        assert all(turn.long for turn in turns[1:])
        await asyncio.sleep(LONG_SECONDS)
        assert turns[1].long

    at_a_desk(test, rate=1, burst=1)


def test_who_is_gone_leaves_its_place_and_what_was_set_aside() -> None:
    async def test(desk: Desk) -> None:
        desk.call("taken")
        gone = desk.turns.begin_pass(("ns", "gone"), "ns", hurried=True)
        assert not gone.take(desk.allowance, 1, 0)
        desk.turns.end_pass(gone)
        desk.call("next")
        desk.turns.forget(("ns", "gone"))
        await asyncio.sleep(1.1)
        assert desk.order == ["taken", "next"]

    at_a_desk(test, rate=1, burst=1)


def test_what_comes_while_the_pass_still_runs_is_kept_for_the_next_one() -> None:
    async def test(desk: Desk) -> None:
        desk.call("taken")
        desk.call("slow")
        slow = desk.turns.begin_pass(("ns", "slow"), "ns", hurried=False)
        assert not slow.take(desk.allowance, 1, 0)
        await asyncio.sleep(1.5)
        desk.call("other")
        desk.turns.end_pass(slow)
        assert slow.held == 0, "it was woken meanwhile, and has called"
        await asyncio.sleep(2)
        assert desk.order == ["taken", "slow", "other"]

    at_a_desk(test, rate=1, burst=1)


def test_who_waits_at_an_object_that_is_gone_looks_again() -> None:
    async def test(desk: Desk) -> None:
        desk.call("taken")
        desk.call("waits")
        moved = desk.turns.allowance("another", ACME, RateLimit())
        assert moved is not desk.allowance
        desk.allowance = moved
        desk.call("waits", at=moved)
        await asyncio.sleep(0)
        assert desk.order[:2] == ["taken", "waits"]
        assert desk.times[1] == 0

    at_a_desk(test, rate=1, burst=1)


def test_a_higher_limit_holds_at_once() -> None:
    async def test(desk: Desk) -> None:
        for name in "abc":
            desk.call(name)
        desk.turns.allowance(ACCOUNT, ACME, RateLimit(requests_per_second=100, burst=1))
        await asyncio.sleep(1)
        assert desk.times == [0, 0.01, 0.02]

    at_a_desk(test, rate=1, burst=1)


def test_after_a_pause_each_gets_to_try_though_the_provider_goes_on_refusing() -> None:
    """Also who needs longer from being woken to the call: the quick one would be refused for everybody, for ever."""

    async def test(desk: Desk) -> None:
        refused, asked = failed(Failure.RATE_LIMITED, 2), list[str]()

        def ask(name: str, seconds: float) -> Callable[[], None]:
            async def work() -> None:
                turn = desk.turns.begin_pass(("ns", name), "ns", hurried=False)
                await asyncio.sleep(seconds)
                if turn.take(desk.allowance, 1, 1):
                    asked.append(name)
                    desk.allowance.heard(refused)
                    asyncio.get_running_loop().call_later(2, look)
                desk.turns.end_pass(turn)

            def look() -> None:
                working.append(asyncio.create_task(work()))

            return look

        working: list[asyncio.Task[None]] = []
        for name, seconds in (("quick", 0.0), ("slow", 0.1)):
            desk._wishes["ns", name] = ask(name, seconds)
            desk._wishes["ns", name]()
        await asyncio.sleep(20)
        assert asked.count("slow") in (4, 5)
        assert asked.count("quick") in (4, 5)

    at_a_desk(test)


def test_all_go_on_when_the_first_call_after_a_pause_was_well_or_was_not_made() -> None:
    async def test(desk: Desk) -> None:
        desk.allowance.heard(failed(Failure.RATE_LIMITED, 30))
        for name in "abc":
            desk.call(name, makes=0)
        await asyncio.sleep(29)
        desk.call("d", wants=2)
        await asyncio.sleep(2)
        assert [round(when) for _, when in desk.sent] == [30]
        desk.allowance.heard(failed(Failure.RATE_LIMITED, 30))
        turn = desk.turns.begin_pass(("ns", "first"), "ns", hurried=False)
        assert not turn.take(desk.allowance, 1, 1)
        desk.turns.end_pass(turn)
        desk._wishes["ns", "first"] = lambda: None
        desk.call("second")
        await asyncio.sleep(40)
        assert desk.order == ["d"], "the first one is at work"
        desk.allowance.heard(Outcome(Effect.APPLIED))
        await asyncio.sleep(0.1)
        assert desk.order == ["d", "second"]

    at_a_desk(test)
