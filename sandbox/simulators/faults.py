"""Faults: what a simulator does to a call instead of answering it properly."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

HUGE_BODY = 4 * 1024 * 1024
REDIRECT_TARGET = "/_sim/redirected"


@dataclass(frozen=True, slots=True)
class Reply:
    """A proper answer: a status and a JSON body."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The body's bytes."""
        return json.dumps(self.body).encode()


class How(StrEnum):
    """What the caller gets to see."""

    PROPER = "proper"
    """The proper answer; useful with `delay`."""
    STATUS = "status"
    """`status`, with `body` or an error body of the provider's shape."""
    DROP = "drop"
    """A connection reset and no answer."""
    TRUNCATE = "truncate"
    """Half of the answer, then the end of the connection."""
    MALFORMED = "malformed"
    """The right status with a body that is no JSON."""
    HUGE = "huge"
    """A JSON body of 4 MiB."""
    REDIRECT = "redirect"
    """A 307 to `/_sim/redirected` of the same simulator."""


class Fault(BaseModel):
    """A fault for the next calls of one operation; faults of one operation are used up in the order they were set."""

    model_config = ConfigDict(extra="forbid")

    operation: str = "*"
    """The operation's name, `*` for all."""
    caller: str = ""
    """Only for callers whose User-Agent begins like this: `keyturn` is the operator, `pod-client` the pods."""
    how: How = How.STATUS
    """What the caller sees."""
    apply: bool = False
    """Whether the call takes effect all the same."""
    times: int | None = Field(default=1, ge=1)
    """For how many calls; null: until faults are cleared."""
    delay: float = Field(default=0, ge=0, le=600)
    """Seconds between the effect (or its absence) and the answer."""
    status: int = Field(default=500, ge=200, le=599)
    """The HTTP status of `status`."""
    headers: dict[str, str] = {}
    """Further headers of the answer, such as Retry-After."""
    body: Any = None
    """The body of `status` instead of the provider's error."""


class Faults:
    """The faults in waiting."""

    def __init__(self) -> None:
        self.waiting: list[Fault] = []

    def take(self, operation: str, caller: str) -> Fault | None:
        """The fault for a call of this operation by this User-Agent, used up once."""
        for fault in self.waiting:
            if fault.operation in (operation, "*") and caller.startswith(fault.caller):
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times == 0:
                        self.waiting.remove(fault)
                return fault
        return None


async def answer(request: web.Request, fault: Fault, proper: Reply) -> web.StreamResponse:
    """Answer as the fault says; `proper` is what the provider would have said."""
    if fault.delay:
        await asyncio.sleep(fault.delay)
    headers = {**proper.headers, **fault.headers}
    match fault.how:
        case How.PROPER | How.STATUS:
            return web.json_response(proper.body, status=proper.status, headers=headers)
        case How.DROP:
            return drop(request)
        case How.TRUNCATE:
            return await _truncate(request, proper, headers)
        case How.MALFORMED:
            half = proper.encode()[:-1]
            return web.Response(body=half, status=proper.status, headers=headers, content_type="application/json")
        case How.HUGE:
            return web.json_response({"padding": "x" * HUGE_BODY}, headers=headers)
        case How.REDIRECT:
            return web.Response(status=307, headers={**headers, "Location": REDIRECT_TARGET})


def drop(request: web.Request) -> web.Response:
    """Reset the connection of a request; what this returns goes nowhere."""
    if transport := request.transport:
        connection = transport.get_extra_info("socket")
        # Lingering for no time makes the kernel send a reset instead of an orderly end.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()  # goes nowhere


async def _truncate(request: web.Request, proper: Reply, headers: dict[str, str]) -> web.StreamResponse:
    body = proper.encode()
    response = web.StreamResponse(status=proper.status, headers={**headers, "Content-Type": "application/json"})
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport:
        request.transport.close()
    return response
