"""Answers without a network."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx


class _Body(httpx.AsyncByteStream):
    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content


def answer(status: int, body: Any) -> httpx.Response:
    """A JSON answer that is read as one from the network is; httpx hands out its own answers only as a whole."""
    return httpx.Response(status, stream=_Body(json.dumps(body).encode()))
