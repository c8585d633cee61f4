"""A rotation under a fault that lasts: the plan of one, and what stands in the operator's way meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from tests.chaos.checks import Expected
from tests.chaos.clocks import clock_folder, with_clock
from tests.chaos.disturbances import Disturbance
from tests.chaos.play import Plan
from tests.chaos.scenarios import SUCCESS, Scenario
from tests.chaos.sites import api_write
from tests.chaos.strike import Guards, When
from tests.e2e.proxy import Exchange
from tests.e2e.scene import Scene

STYTCH: Final = Scenario("stytch", SUCCESS)


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong for a while, in some scenarios.

    disturb: makes what is in the way; given `full`, the real thing, else one that is milder and shorter. since: the
    request of the operator, as `Site.what` names it, right before which it begins; with the rotation when empty.
    seconds: how long, in short and in full; None: until the end. options: of the operator. clock: whether the operator
    has a clock of its own. prescribed: what it leads to.
    """

    name: str
    disturb: Callable[[bool], Disturbance]
    scenarios: tuple[Scenario, ...] = (STYTCH,)
    since: str = ""
    seconds: tuple[float, float] | None = None
    options: tuple[str, ...] = ()
    clock: bool = False
    prescribed: Expected = Expected()  # noqa: RUF009 - frozen

    def __str__(self) -> str:
        return self.name


class FaultGuards(Guards):
    """A disturbance in front of what else stands before the API server and the provider."""

    def __init__(self, scene: Scene, fault: Fault, *, full: bool) -> None:
        super().__init__(scene)
        self._since = fault.since
        self._seconds = fault.seconds[full] if fault.seconds is not None else None
        self._disturbance = fault.disturb(full)
        self._disturbance.prepare(scene, self)
        self._watches = set[Exchange]()
        self._asked_for = False
        self._started = False
        self._over = False

    def begin(self, act: Callable[[When], None], site: Any, when: When | None) -> None:
        super().begin(act, site, when)
        self._asked_for = True
        if not self._since:
            self._scene.stage.do(self._start())

    async def api(self, exchange: Exchange) -> web.StreamResponse:
        self._begin_at(api_write(exchange))
        if not exchange.is_watch:
            return await self._disturbed(exchange)
        self._watches.add(exchange)
        try:
            return await self._disturbed(exchange)
        finally:
            self._watches.discard(exchange)

    async def provider(self, exchange: Exchange) -> web.StreamResponse:
        self._begin_at(self._operations.name(exchange))
        return await super().provider(exchange)

    async def _disturbed(self, exchange: Exchange) -> web.StreamResponse:
        if self._started and (not self._over or self._disturbance.stays):
            return await self._disturbance.api(exchange, super().api)
        return await super().api(exchange)

    def _begin_at(self, what: str | None) -> None:
        if self._asked_for and not self._started and self._since and what == self._since:
            self._start_now()

    async def _start(self) -> None:
        self._start_now()

    def _start_now(self) -> None:
        self._started = True
        self._disturbance.started()
        if self._disturbance.cuts_watches:
            for watch in self._watches:
                watch.drop()
        if self._seconds is not None:
            asyncio.get_running_loop().call_later(self._seconds, self._end)

    def _end(self) -> None:
        self._over = True
        self._disturbance.over()


@dataclass(frozen=True)
class FaultPlan(Plan):
    """A rotation with a fault. full: as long and as bad as it gets."""

    fault: Fault = Fault("nothing", lambda _: Disturbance())
    full: bool = False

    def __str__(self) -> str:
        return f"{self.scenario}, {self.fault}{', in full' if self.full else ''}"

    @property
    def options(self) -> tuple[str, ...]:
        return self.fault.options

    @property
    def lasting(self) -> float:
        return self.fault.seconds[self.full] if self.fault.seconds is not None else 0.0

    @property
    def expected(self) -> Expected:
        return self.fault.prescribed

    def guards(self, scene: Scene) -> Guards:
        return FaultGuards(scene, self.fault, full=self.full)

    def code(self, scene: Scene, code: Path | None) -> Path | None:
        return with_clock(clock_folder(scene), code) if self.fault.clock else code
