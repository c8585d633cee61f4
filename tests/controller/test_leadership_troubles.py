"""Replicas under everything that a network can do, in virtual time; and what is said of what is in the way."""

from __future__ import annotations

import asyncio
import logging
import random
from itertools import pairwise
from typing import Any

import pytest
from typer.testing import CliRunner

from keyturn.cli.main import app
from keyturn.cluster.errors import Forbidden, NotFound, Unavailable
from keyturn.cluster.leases import Lease
from keyturn.controller.leadership import Leadership, Timing, new_identity
from tests.controller import fakelease
from tests.controller.fakelease import LOOK, TIMING, FakeLease, Line, Replica, run, until


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (Forbidden("get leases keyturn in namespace keyturn-system: 403"), "manifests/rbac.yaml"),
        (NotFound("post leases in namespace nowhere: 404"), "--lease-namespace"),
        (Unavailable("get leases keyturn: no answer from the API server"), ""),
    ],
)
def test_what_is_in_the_way_is_said_once(caplog: pytest.LogCaptureFixture, error: Exception, remedy: str) -> None:
    class Denied(Line):
        async def read(self) -> Lease | None:
            raise error

    async def test() -> None:
        caplog.set_level(logging.INFO, "keyturn")
        campaign = asyncio.create_task(
            Leadership(Denied(FakeLease()), "one", TIMING, fakelease.now).campaign(asyncio.Event().wait)  # type: ignore[arg-type]
        )
        await asyncio.sleep(60)
        campaign.cancel()
        (said,) = caplog.messages
        assert str(error) in said
        assert remedy in said

    run(test)


def test_no_error_ends_the_campaign(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Line):
        async def read(self) -> Lease | None:
            if fakelease.now() < 5:
                raise ValueError("an answer that is no JSON")
            return await super().read()

    async def test() -> None:
        one = Replica(FakeLease(), "one")
        one.leadership = Leadership(Broken(one.line.server), "one", TIMING, fakelease.now)
        one.start()
        assert await until(one) <= 5 + LOOK
        assert "no JSON" in caplog.text

    run(test)


@pytest.mark.parametrize("wrong", [(15, 15, 2), (15, 10, 10), (15, 10, 0), (10, 15, 2), (15, 2, 10), (15, -1, -2)])
def test_times_that_do_not_fit_together_are_refused(wrong: tuple[int, float, float]) -> None:
    with pytest.raises(ValueError, match="each must be longer than the next"):
        Timing(*wrong)


def test_options_that_do_not_fit_together_end_the_start() -> None:
    """I10"""
    ended = CliRunner().invoke(app, ["run", "--lease-duration", "9"], env={"COLUMNS": "200"})
    assert ended.exit_code == 2
    assert "each must be longer than the next: 9, 10 and 2 seconds" in ended.output


def test_no_two_processes_have_one_name_by_chance() -> None:
    assert new_identity() != new_identity()


def overlaps(replicas: list[Replica], end: float) -> list[Any]:
    """Pairs of times in which two replicas worked."""
    times = sorted((term[0], term[1] if len(term) > 1 else end, one.name) for one in replicas for term in one.terms)
    return [(first, then) for first, then in pairwise(times) if then[0] < first[1]]


@pytest.mark.parametrize("seed", range(15))
def test_never_two_whatever_the_network_does(seed: int) -> None:
    """Replicas whose clocks disagree by hours, each with outages, slow and lost replies, stops and kills of its own."""

    async def test() -> None:
        chance, server = random.Random(seed), FakeLease()
        replicas = [Replica(server, f"r{number}", ahead=chance.uniform(-9999, 9999)).start() for number in range(3)]
        everybody = list(replicas)
        for number in range(150):
            await asyncio.sleep(chance.uniform(0.1, 12))
            assert sum(one.leadership.leads for one in replicas) <= 1
            victim = chance.randrange(3)
            line = replicas[victim].line
            match chance.randrange(7):
                case 0:
                    line.down = not line.down
                case 1:
                    line.deaf = not line.deaf
                case 2:
                    line.delay = chance.choice([0.01, 0.5, 3.0, 6.0])
                case 3 | 4:
                    line.down, line.deaf, line.delay = False, False, 0.01
                case 5 | 6 as how:
                    await (replicas[victim].stop() if how == 5 else replicas[victim].kill())
                    replicas[victim] = Replica(server, f"r{number}-{victim}", ahead=chance.uniform(-9999, 9999)).start()
                    everybody.append(replicas[victim])
        assert overlaps(everybody, fakelease.now()) == []
        for one in replicas:
            one.line.down, one.line.deaf, one.line.delay = False, False, 0.01
        await asyncio.sleep(TIMING.duration + TIMING.renew_deadline + 2 * LOOK)
        assert sum(one.working for one in replicas) == 1, "somebody always takes it up again"

    run(test)
