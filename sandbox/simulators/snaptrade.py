"""SnapTrade's users and their secrets, as PROVIDERS.md A2 describes them.

What is not settled there is a switch. Requests are judged by the bytes that came: path and query as they were sent.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field

from sandbox.simulators.base import Call, Route, Simulator
from sandbox.simulators.faults import Reply

LEGACY_PREFIX = "/api/v1"
LIMIT_WINDOW = 60


class SnapTradeSwitches(BaseModel):
    """What nobody outside SnapTrade knows for sure, or what an account may have set up."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    timestamp_tolerance: float | None = Field(default=None, ge=0)
    """How far, in seconds, a timestamp may be from the simulator's clock; null: any will do."""
    timestamp_code: int | str = "1075"
    """The code of a 401 for a timestamp too far away; the number is made up."""
    signature_code: int | str = "1076"
    """The code of a 401 for a signature that does not match."""
    user_code: int | str = "1083"
    """The code of a 401 for an unknown user or a wrong secret of it."""
    error_fields: Literal["", "default_"] = ""
    """What stands before `detail` and `code` in errors: the servers say nothing, the page says `default_`."""
    refused_user_status: Literal[400, 401] = 401
    """The status of a reset for an unknown user or with a wrong secret."""
    answers_user_id: bool = True
    """Whether a reset repeats the user's id: both members are optional in the schema."""
    commercial: bool = True
    """Whether the API key is a commercial one; personal ones may not reset, list or register users."""
    legacy_prefix: bool = True
    """Whether the prefix /api/v1 is still served."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """How many signed calls a minute are answered; null: any number."""
    rate_limit_headers: bool = True
    """Whether answers carry the X-RateLimit-… headers."""
    propagation_delay: float = Field(default=0, ge=0)
    """For how many seconds a new secret is refused; the old one dies at once all the same."""


@dataclass(slots=True)
class SnapTradeUser:
    """A user, its one secret, and since when it is accepted, in epoch seconds."""

    user_id: str
    secret: str
    valid_from: float
    connections: int = 1


class SnapTradeSimulator(Simulator):
    """One API key with its users."""

    kind: ClassVar[str] = "snaptrade"
    switches: SnapTradeSwitches

    def __init__(
        self,
        client_id: str = "SIMULATED-TEST",
        consumer_key: str = "simulated-consumer-key",
        switches: SnapTradeSwitches | None = None,
    ) -> None:
        super().__init__(switches or SnapTradeSwitches())
        self.client_id = client_id
        self.consumer_key = consumer_key
        self.users: dict[str, SnapTradeUser] = {}
        self._window = (0, 0)

    def routes(self) -> Iterable[Route]:
        """The operations, each with and without the legacy prefix; `start` is resetUserSecret."""
        operations = [
            ("start", "POST", "/snapTrade/resetUserSecret", self._reset),
            ("register", "POST", "/snapTrade/registerUser", self._register),
            ("delete", "DELETE", "/snapTrade/deleteUser", self._delete),
            ("list", "GET", "/snapTrade/listUsers", self._list),
            ("authorizations", "GET", "/authorizations", self._authorizations),
        ]
        for name, method, path, handler in operations:
            yield Route(name, method, path, self._signed(handler))
            yield Route(name, method, LEGACY_PREFIX + path, self._legacy(self._signed(handler)))
        yield Route("status", "GET", "/", lambda _: Reply(200, {"version": 153, "online": True}))

    def client_of(self, call: Call) -> str | None:
        """The user that a call names, in its body or its query."""
        body = call.json()
        named = body.get("userId") if isinstance(body, dict) else _query(call).get("userId")
        return named if isinstance(named, str) else None

    def create(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Make a user; client_id and client_secret (its id and its secret) are optional."""
        user_id = str(wanted.get("client_id") or wanted.get("userId") or f"user-{uuid.uuid4()}")
        if user_id in self.users:
            raise ValueError(f"user {user_id} exists already")
        user = SnapTradeUser(user_id, str(wanted.get("client_secret") or new_secret()), self.now())
        self.users[user_id] = user
        return {"client_id": user_id, "client_secret": user.secret}

    def clients_state(self) -> dict[str, Any]:
        """The users, with the number of their connections and since when their secret is accepted."""
        return {
            user.user_id: {"connections": user.connections, "valid_from": user.valid_from}
            for user in self.users.values()
        }

    def accepts(self, client_id: str, secret: str) -> bool:
        """Whether a call with this user's secret would be answered now."""
        user = self.users.get(client_id)
        return user is not None and user.valid_from <= self.now() and _same(user.secret, secret)

    def error(self, status: int) -> Reply:
        """An error as the servers word them."""
        # Of these numbers only the signature's is known; the others are made up.
        known: dict[int, tuple[int | str, str]] = {
            400: ("1010", "Unable to verify data sent"),
            401: (self.switches.signature_code, "Unable to verify signature sent"),
            403: ("1012", "You do not have permission to perform this action."),
            404: ("1011", "Not found."),
            429: ("1029", "Request was throttled."),
        }
        return self._error(status, *known.get(status, ("1000", "Encountered an unexpected exception.")))

    def _error(self, status: int, code: int | str, detail: str) -> Reply:
        before = self.switches.error_fields
        body = {f"{before}detail": detail, "status_code": status, f"{before}code": code}
        return Reply(status, body, {"x-request-id": str(uuid.uuid4())})

    def _signed(self, handler: Callable[[Call], Reply]) -> Callable[[Call], Reply]:
        """Let only calls that the API key has signed get to a handler, and only so many."""

        def handle(call: Call) -> Reply:
            left, rest = self._take()
            reply = self._refusal(call, left) or handler(call)
            if self.switches.rate_limit_headers and self.switches.requests_per_minute is not None:
                reply.headers["X-RateLimit-Limit"] = str(self.switches.requests_per_minute)
                reply.headers["X-RateLimit-Remaining"] = str(max(left, 0))
                reply.headers["X-RateLimit-Reset"] = str(rest)
            return reply

        return handle

    def _legacy(self, handler: Callable[[Call], Reply]) -> Callable[[Call], Reply]:
        def handle(call: Call) -> Reply:
            if not self.switches.legacy_prefix:
                return self.error(404)
            reply = handler(call)
            reply.headers["Deprecation"] = "@1781222400"
            return reply

        return handle

    def _take(self) -> tuple[int, int]:
        """Count a call: how many are left in this minute (negative: too many), and its seconds that are left."""
        window, number = int(self.now()) // LIMIT_WINDOW, 1
        if self._window[0] == window:
            number += self._window[1]
        self._window = (window, number)
        limit = self.switches.requests_per_minute
        return (limit - number if limit is not None else 1), LIMIT_WINDOW - int(self.now()) % LIMIT_WINDOW

    def _refusal(self, call: Call, left: int) -> Reply | None:
        query = _query(call)
        if query.get("clientId") != self.client_id:
            return self.error(401)
        if not _same(call.header("Signature") or "", signature(self.consumer_key, call.target, call.json())):
            return self.error(401)
        if not self._in_time(query.get("timestamp", "")):
            return self._error(401, self.switches.timestamp_code, "Invalid timestamp")
        return self.error(429) if left < 0 else None

    def _in_time(self, timestamp: str) -> bool:
        if not (timestamp.isascii() and timestamp.isdigit()):
            return False
        tolerance = self.switches.timestamp_tolerance
        return tolerance is None or abs(self.now() - int(timestamp)) <= tolerance

    def _bad_user(self, status: int = 401) -> Reply:
        return self._error(status, self.switches.user_code, "Invalid userID or userSecret provided")

    def _reset(self, call: Call) -> Reply:
        if not self.switches.commercial:
            return self.error(403)
        body = call.json()
        if not isinstance(body, dict) or not all(isinstance(body.get(name), str) for name in ("userId", "userSecret")):
            return self.error(400)
        user = self.users.get(body["userId"])
        if user is None or not self.accepts(user.user_id, body["userSecret"]):
            return self._bad_user(self.switches.refused_user_status)
        user.secret, user.valid_from = new_secret(), self.now() + self.switches.propagation_delay
        self.count(user.user_id, "start", "applied")
        return self._shown(user)

    def _shown(self, user: SnapTradeUser) -> Reply:
        named = {"userId": user.user_id} if self.switches.answers_user_id else {}
        return Reply(200, {**named, "userSecret": user.secret}, {"x-request-id": str(uuid.uuid4())})

    def _authorizations(self, call: Call) -> Reply:
        query = _query(call)
        user_id = query.get("userId", "")
        accepted = self.accepts(user_id, query.get("userSecret", ""))
        self.count(user_id, "authorizations", "accepted" if accepted else "refused")
        if not accepted:
            return self._bad_user()
        connections = range(self.users[user_id].connections)
        return Reply(200, [{"id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{user_id}/{one}"))} for one in connections])

    def _list(self, _: Call) -> Reply:
        return Reply(200, list(self.users)) if self.switches.commercial else self.error(403)

    def _register(self, call: Call) -> Reply:
        if not self.switches.commercial:
            return self.error(403)
        body = call.json()
        wanted = body.get("userId") if isinstance(body, dict) else None
        if not isinstance(wanted, str) or not wanted or wanted in self.users:
            return self.error(400)
        self.create({"userId": wanted})
        self.users[wanted].connections = 0  # they come back only when the end user connects again
        return self._shown(self.users[wanted])

    def _delete(self, call: Call) -> Reply:
        user_id = _query(call).get("userId", "")
        if self.users.pop(user_id, None) is None:
            return self.error(404)
        detail = "User queued for deletion. It is irreversible."
        return Reply(200, {"status": "deleted", "detail": detail, "userId": user_id})


def signature(consumer_key: str, target: str, content: object = None) -> str:
    """What SnapTrade wants in the Signature header of a request with this target and JSON body (PROVIDERS.md A2)."""
    path, _, query = target.partition("?")
    signed = {"content": content or None, "path": path, "query": query}
    text = json.dumps(signed, separators=(",", ":"), sort_keys=True)
    return base64.b64encode(hmac.new(consumer_key.encode(), text.encode(), hashlib.sha256).digest()).decode()


def new_secret() -> str:
    """A secret of the vendor's form, a UUID."""
    return str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))


def _query(call: Call) -> dict[str, str]:
    return dict(parse_qsl(call.target.partition("?")[2], keep_blank_values=True))


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(errors="surrogateescape"), other.encode(errors="surrogateescape"))
