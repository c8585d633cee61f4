"""The few asynchronous API calls that the stand-in makes, patient with outages, and an endless watch."""

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import aiohttp

from sandbox.controlplane.endpoint import Endpoint

log = logging.getLogger(__name__)

_WATCH_SECONDS = 300
_LONGEST_PAUSE = 1.0


class APIError(Exception):
    """The API server refused a call; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class API:
    """An asynchronous context manager around one HTTP session."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            self._endpoint.server,
            headers=self._endpoint.headers(),
            connector=aiohttp.TCPConnector(ssl=self._endpoint.ssl_context(), limit=50),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=30),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.close()

    async def call(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        """The answer's JSON. Outages, 429 and 5xx are waited out, however long; APIError for any other refusal."""
        pause = 0.05
        while True:
            try:
                return await self.once(method, path, body, content_type)
            except APIError as error:
                if error.status < 500 and error.status != 429:
                    raise
                log.debug("%s %s: %s", method, path, error)
            except (aiohttp.ClientError, TimeoutError) as error:
                log.debug("%s %s: %r", method, path, error)
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def once(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        """As `call`, tried once: APIError for every refusal, aiohttp.ClientError or TimeoutError for an outage."""
        data = None if body is None else json.dumps(body)
        async with self._http.request(method, path, data=data, headers={"Content-Type": content_type}) as answer:
            await _refuse(answer)
            return await answer.json()

    async def get(self, path: str) -> Any | None:
        """The object, or None when there is none."""
        try:
            return await self.call("GET", path)
        except APIError as error:
            if error.status == 404:
                return None
            raise

    async def watch(self, path: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Endlessly: a ("LISTED", list) first and whenever the thread was lost, between them the watch's own events.

        After an outage the watch goes on where it was; only when the server says that it can't (410), it lists anew.
        """
        version = ""
        while True:
            if not version:
                listed = await self.call("GET", path)
                version = listed["metadata"]["resourceVersion"]
                yield "LISTED", listed
            try:
                async for event in self._events(path, version):
                    if event["type"] == "ERROR":
                        log.debug("watch of %s: %s", path, event["object"])
                        version = ""
                        break
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        yield event["type"], event["object"]
            except APIError as error:
                log.debug("watch of %s: %s", path, error)
                version = "" if error.status == 410 else version
                await asyncio.sleep(0.2)
            except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError) as error:
                log.debug("watch of %s: %r", path, error)
                await asyncio.sleep(0.2)

    async def _events(self, path: str, version: str) -> AsyncIterator[dict[str, Any]]:
        parameters = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        patience = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=_WATCH_SECONDS + 10)
        async with self._http.get(path, params=parameters, timeout=patience) as answer:
            await _refuse(answer)
            rest = b""
            # Not aiohttp's own lines: those must fit into its buffer, and pods need not.
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield json.loads(line)


async def _refuse(answer: aiohttp.ClientResponse) -> None:
    if answer.status >= 400:
        raise APIError(answer.status, (await answer.text())[:500])
