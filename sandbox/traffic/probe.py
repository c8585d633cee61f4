"""The calls that pods make: one implementation for each provider simulator.

None of it is Keyturn's code: what the pods prove must not rest on what is to be proven.
"""

from __future__ import annotations

import base64
import json
import time
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import quote

import aiohttp
from yarl import URL

from sandbox.simulators.snaptrade import signature

USER_AGENT = "pod-client"


class TrafficProbe(Protocol):
    """Uses a credential once, at the provider."""

    async def call(self, client_id: str, secret: str) -> bool | None:
        """True: accepted. False: the provider refused the credential. None: no such verdict, the call failed."""
        ...


class _HttpProbe:
    """An asynchronous context manager: one shared session."""

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            headers={"User-Agent": USER_AGENT}, timeout=aiohttp.ClientTimeout(total=10), trust_env=False
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.close()

    async def _ask(self, method: str, url: URL | str, **content: Any) -> tuple[int, Any] | None:
        """Status and JSON of an answer; None when there is no complete one."""
        try:
            async with self._http.request(method, url, **content) as answer:
                return answer.status, json.loads(await answer.read())
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None


class StytchProbe(_HttpProbe):
    """Asks Stytch for access tokens, as a machine client does."""

    def __init__(self, base_url: str, project_id: str) -> None:
        self._url = f"{base_url}/v1/public/{project_id}/oauth2/token"

    async def call(self, client_id: str, secret: str) -> bool | None:
        """A token call; OAuth errors are 400 or 401 (PROVIDERS.md A3)."""
        body = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
        answer = await self._ask("POST", self._url, json=body)
        return {200: True, 400: False, 401: False}.get(answer[0]) if answer else None


class JanrainProbe(_HttpProbe):
    """Counts users at Janrain, as the client."""

    def __init__(self, base_url: str) -> None:
        self._url = f"{base_url}/entity.count"

    async def call(self, client_id: str, secret: str) -> bool | None:
        """Errors have status 200: code 402 refuses the credential, 403 knows it and forbids the call (A1)."""
        login = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
        headers = {"Authorization": f"Basic {login}"}
        answer = await self._ask("POST", self._url, data={"type_name": "user"}, headers=headers)
        if answer is None or answer[0] != 200 or not isinstance(answer[1], dict):
            return None
        if answer[1].get("stat") == "ok":
            return True
        return {403: True, 402: False}.get(answer[1].get("code", 0))


class SnapTradeProbe(_HttpProbe):
    """Lists a user's connections at SnapTrade: the application holds the API key, the pod the user's secret."""

    def __init__(self, base_url: str, client_id: str, consumer_key: str) -> None:
        self._base = base_url
        self._client_id = client_id
        self._consumer_key = consumer_key

    async def call(self, client_id: str, secret: str) -> bool | None:
        """A signed GET; 401 refuses the user's secret, as the API key's own signature is in order (A2)."""
        members = {"userId": client_id, "userSecret": secret, "clientId": self._client_id}
        query = "&".join(f"{name}={quote(value)}" for name, value in members.items())
        target = f"/authorizations?{query}&timestamp={int(time.time())}"
        headers = {"Signature": signature(self._consumer_key, target)}
        answer = await self._ask("GET", URL(self._base + target, encoded=True), headers=headers)
        return {200: True, 401: False}.get(answer[0]) if answer else None
