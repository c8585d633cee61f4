"""A provider account whose calls are counted and timed."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from datetime import timedelta
from typing import TypeVar

from pydantic import SecretStr

from keyturn.api.semantics import Capabilities, Inspection, Issued, Outcome, Verification
from keyturn.controller.metrics import Metrics, ProviderOperation
from keyturn.providers.base import Provider

Answer = Outcome | Issued | Inspection | Verification
T = TypeVar("T", bound=Answer)


class MeasuredProvider:
    """See `Provider`, whose answers are handed on as they are."""

    def __init__(self, provider: Provider, kind: str, metrics: Metrics) -> None:
        self._provider = provider
        self._kind = kind
        self._metrics = metrics

    @property
    def capabilities(self) -> Capabilities:
        return self._provider.capabilities

    async def check(self) -> Outcome:
        return await self._measured(ProviderOperation.CHECK, self._provider.check())

    async def inspect(self, client_id: str, *, previous: SecretStr | None, pending: SecretStr | None) -> Inspection:
        call = self._provider.inspect(client_id, previous=previous, pending=pending)
        return await self._measured(ProviderOperation.INSPECT, call)

    async def start(self, client_id: str, *, current: SecretStr | None, overlap: timedelta) -> Issued:
        call = self._provider.start(client_id, current=current, overlap=overlap)
        return await self._measured(ProviderOperation.START, call)

    async def verify(self, client_id: str, secret: SecretStr) -> Verification:
        return await self._measured(ProviderOperation.VERIFY, self._provider.verify(client_id, secret))

    async def finalize(self, client_id: str) -> Outcome:
        return await self._measured(ProviderOperation.FINALIZE, self._provider.finalize(client_id))

    async def cancel(self, client_id: str) -> Outcome:
        return await self._measured(ProviderOperation.CANCEL, self._provider.cancel(client_id))

    async def aclose(self) -> None:
        await self._provider.aclose()

    async def _measured(self, operation: ProviderOperation, call: Awaitable[T]) -> T:
        """A call that is broken off, or not permitted any more, has no outcome and is not counted."""
        begun = time.monotonic()
        answer = await call
        self._metrics.provider_call(self._kind, operation, _outcome(answer).failure, time.monotonic() - begun)
        return answer


def _outcome(answer: Answer) -> Outcome:
    return answer if isinstance(answer, Outcome) else answer.outcome
