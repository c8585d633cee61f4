"""A provider account that keeps to its rate limit: a call whose turn has not come is answered with that, at once."""

from __future__ import annotations

from datetime import timedelta

from pydantic import SecretStr

from keyturn.api.semantics import Capabilities, Inspection, Issued, Outcome, Verdict, Verification
from keyturn.controller.allowance import Allowance
from keyturn.controller.turn import TURN
from keyturn.providers.base import Provider, Requests


class PacedProvider:
    """See `Provider`. Calls that are not made have the failure HELD_BACK; a start is always made: see `reserve_start`.

    An inspection is often followed by the call that it was made for, so both get their turn together.
    """

    def __init__(self, provider: Provider, requests: Requests, allowance: Allowance) -> None:
        self._provider = provider
        self._requests = requests
        self._allowance = allowance

    @property
    def capabilities(self) -> Capabilities:
        return self._provider.capabilities

    def reserve_start(self, *, inspected: bool) -> Outcome | None:
        """Set aside what a start takes, and the inspection before it; or why that has to wait.

        For before the intent is written: between that and the call nothing is waited for.
        """
        needed = self._requests.start + (0 if inspected else self._requests.inspect)
        held_back = self._held_back(needed)
        turn = TURN.get()
        if held_back is None and turn is not None:
            turn.keep(needed)
        return held_back

    async def check(self) -> Outcome:
        return self._held_back(self._requests.check) or self._heard(await self._provider.check())

    async def inspect(self, client_id: str, *, previous: SecretStr | None, pending: SecretStr | None) -> Inspection:
        held_back = self._held_back(self._requests.inspect, self._requests.inspect + 1)
        if held_back is not None:
            return Inspection(held_back)
        inspection = await self._provider.inspect(client_id, previous=previous, pending=pending)
        self._heard(inspection.outcome)
        return inspection

    async def start(self, client_id: str, *, current: SecretStr | None, overlap: timedelta) -> Issued:
        issued = await self._provider.start(client_id, current=current, overlap=overlap)
        self._heard(issued.outcome)
        return issued

    async def verify(self, client_id: str, secret: SecretStr) -> Verification:
        # Where the current value must be proven first, all that leads to a start gets its turn together.
        more = self._requests.inspect + self._requests.start if self.capabilities.needs_current else 0
        held_back = self._held_back(self._requests.verify, self._requests.verify + more)
        if held_back is not None:
            return Verification(Verdict.INCONCLUSIVE, held_back)
        verification = await self._provider.verify(client_id, secret)
        self._heard(verification.outcome)
        return verification

    async def finalize(self, client_id: str) -> Outcome:
        return self._held_back(self._requests.finalize) or self._heard(await self._provider.finalize(client_id))

    async def cancel(self, client_id: str) -> Outcome:
        return self._held_back(self._requests.cancel) or self._heard(await self._provider.cancel(client_id))

    async def aclose(self) -> None:
        await self._provider.aclose()

    def _held_back(self, needed: int, wanted: int = 0) -> Outcome | None:
        turn = TURN.get()
        if turn is None or turn.take(self._allowance, needed, wanted):
            return None
        return self._allowance.held_back(turn)

    def _heard(self, outcome: Outcome) -> Outcome:
        self._allowance.heard(outcome)
        return outcome
