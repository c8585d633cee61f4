"""The calls that pods make: one implementation for each provider simulator."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

import aiohttp

USER_AGENT = "pod-client"


class TrafficProbe(Protocol):
    """Uses a credential once, at the provider."""

    async def call(self, client_id: str, secret: str) -> bool | None:
        """True: accepted. False: the provider refused the credential. None: no such verdict, the call failed."""
        ...


class StytchProbe:
    """Asks Stytch for access tokens, as a machine client does. An asynchronous context manager: one shared session."""

    def __init__(self, base_url: str, project_id: str) -> None:
        self._url = f"{base_url}/v1/public/{project_id}/oauth2/token"

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            headers={"User-Agent": USER_AGENT}, timeout=aiohttp.ClientTimeout(total=10), trust_env=False
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.close()

    async def call(self, client_id: str, secret: str) -> bool | None:
        """A token call; OAuth errors are 400 or 401 (PROVIDERS.md A3)."""
        body = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
        try:
            async with self._http.post(self._url, json=body) as answer:
                await answer.read()
                return {200: True, 400: False, 401: False}.get(answer.status)
        except (aiohttp.ClientError, TimeoutError):
            return None
