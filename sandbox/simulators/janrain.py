"""Janrain's client secrets, as PROVIDERS.md A1 describes them: reset_secret, entity.count and the configuration API.

What is not settled there is a switch. One simulator serves both hosts of the real service: the Capture domain and the
configuration API. Errors of the Capture API come with HTTP status 200.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field

from sandbox.simulators.base import Call, Route, Simulator
from sandbox.simulators.faults import Reply

MAX_HOURS = 168
DATE_FORMAT = "%Y-%m-%d %H:%M:%S"

_ERRORS = {
    100: "missing_argument",
    200: "invalid_argument",
    310: "record_not_found",
    402: "invalid_client_credentials",
    403: "permission_error",
    480: "api_call_disabled",
    500: "unexpected_error",
    510: "rate_limit_error",
}
"""The texts from 300 on are made up: only the codes are known."""


class JanrainSwitches(BaseModel):
    """What nobody outside Janrain knows for sure, or what an application may have set up."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    second_reset: Literal["kills", "keeps"] = "kills"
    """What a second reset within the overlap does to the oldest secret: it dies at once, or lives out its time."""
    unknown_client_code: int = 310
    """The code of a reset for a client that does not exist."""
    default_hours: int | None = Field(default=None, ge=0, le=MAX_HOURS)
    """The overlap of a reset that leaves out hours_to_live; null refuses it as a missing argument."""
    clock_skew: float | None = Field(default=None, ge=0)
    """How far, in seconds, the Date of a signed call may be from the simulator's clock; null: any date will do."""
    read_back: Literal["_secret", "client_secret", "nested", "absent"] = "_secret"
    """Where the configuration API shows the secret: only `_secret` is documented."""
    signatures_at_configuration: bool = False
    """Whether the configuration API takes janrain-signed calls as well; only basic-auth is documented."""
    request_id_member: Literal["request_id", "request_token"] = "request_id"
    """What errors call the request's id; an older page has the second."""
    description_member: Literal["error_description", "message"] = "error_description"
    """What errors call their text; the official client takes both."""
    propagation_delay: float = Field(default=0, ge=0)
    """For how many seconds a new secret is refused. The old one works at least as long."""


@dataclass(slots=True)
class TimedSecret:
    """A secret, and between when and when it is accepted, in epoch seconds."""

    value: str
    valid_from: float
    valid_until: float = math.inf


@dataclass(slots=True)
class JanrainClient:
    """An API client. `held` are its secrets, the current one last."""

    client_id: str
    held: list[TimedSecret]
    description: str = ""
    owner: bool = False
    may_count: bool = True
    features: list[str] = field(default_factory=list)

    @property
    def current(self) -> TimedSecret:
        return self.held[-1]


class _Refused(Exception):
    def __init__(self, code: int, text: str, argument: str | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.argument = argument


class JanrainSimulator(Simulator):
    """One application with its owner client."""

    kind: ClassVar[str] = "janrain"
    switches: JanrainSwitches

    def __init__(
        self,
        owner_id: str = "owner0simulated0owner0simulated0",
        owner_secret: str = "simulated-owner-secret",
        app_id: str = "simulatedapp",
        switches: JanrainSwitches | None = None,
    ) -> None:
        super().__init__(switches or JanrainSwitches())
        self.owner_id = owner_id
        self.owner_secret = owner_secret
        self.app_id = app_id
        self.clients: dict[str, JanrainClient] = {}
        self.create({"client_id": owner_id, "client_secret": owner_secret, "owner": True})

    def routes(self) -> Iterable[Route]:
        """The operations: `start` is reset_secret, `count` entity.count, `read` a client of the configuration API."""
        return [
            Route("start", "POST", "/clients/reset_secret", self._answered(self._reset)),
            Route("count", "POST", "/entity.count", self._answered(self._count)),
            Route("read", "GET", "/config/{app_id}/clients/{client_id}", self._read),
        ]

    def client_of(self, call: Call) -> str | None:
        """The client whose secret is reset, read, or used for the call."""
        named = call.params.get("client_id") or _form(call).get("for_client_id")
        if named is None and (login := _login(call)):
            return login.client_id
        return named

    def create(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Make a client. All fields are optional: client_id, client_secret, description, owner, may_count, features."""
        client_id = str(wanted.get("client_id") or secrets.token_hex(16))
        secret = str(wanted.get("client_secret") or new_secret())
        if client_id in self.clients:
            raise ValueError(f"client {client_id} exists already")
        self.clients[client_id] = JanrainClient(
            client_id,
            [TimedSecret(secret, self.now())],
            description=str(wanted.get("description", "")),
            owner=bool(wanted.get("owner", False)),
            may_count=bool(wanted.get("may_count", True)),
            features=[str(feature) for feature in wanted.get("features", [])],
        )
        return {"client_id": client_id, "client_secret": secret}

    def clients_state(self) -> dict[str, Any]:
        """The clients, with the times between which each of their secrets is accepted."""
        return {
            client.client_id: {
                "owner": client.owner,
                "may_count": client.may_count,
                "secrets": [
                    {"valid_from": one.valid_from, "valid_until": None if one is client.current else one.valid_until}
                    for one in client.held
                ],
            }
            for client in self.clients.values()
        }

    def accepts(self, client_id: str, secret: str) -> bool:
        """Whether a call with this secret would be authenticated now."""
        return any(_same(value, secret) for value in self._accepted(client_id))

    def error(self, status: int) -> Reply:
        """An error with another HTTP status than 200, as what is before the API may give it."""
        codes = {400: 200, 401: 402, 403: 403, 404: 310, 429: 510, 503: 480}
        return Reply(status, self.error_body(codes.get(status, 500)))

    def error_body(self, code: int, text: str = "simulated", argument: str | None = None) -> dict[str, Any]:
        """The body of an error."""
        body: dict[str, Any] = {"stat": "error", "code": code, "error": _ERRORS.get(code, "unknown_error")}
        body[self.switches.description_member] = text
        if argument is not None:
            body["argument_name"] = argument
        return {**body, self.switches.request_id_member: secrets.token_hex(8)}

    def _accepted(self, client_id: str) -> list[str]:
        client = self.clients.get(client_id)
        now = self.now()
        return [one.value for one in client.held if one.valid_from <= now < one.valid_until] if client else []

    def _answered(self, handler: Callable[[Call, JanrainClient], dict[str, Any]]) -> Callable[[Call], Reply]:
        """Let only authenticated calls get to a handler; what it refuses is an error with status 200."""

        def handle(call: Call) -> Reply:
            try:
                return Reply(200, {"stat": "ok", **handler(call, self._authenticate(call))})
            except _Refused as refused:
                return Reply(200, self.error_body(refused.code, str(refused), refused.argument))

        return handle

    def _authenticate(self, call: Call) -> JanrainClient:
        """The client that makes a call, by either kind of Authorization."""
        login = _login(call)
        if login is not None:
            known = any(login.proves(value) for value in self._accepted(login.client_id))
            accepted = known and (login.date is None or self._in_time(login.date))
            if call.operation == "count":
                self.count(login.client_id, "count", "accepted" if accepted else "refused")
            if accepted:
                return self.clients[login.client_id]
        raise _Refused(402, "unknown client or wrong secret")

    def _in_time(self, date: str) -> bool:
        try:
            sent = datetime.strptime(date, DATE_FORMAT).replace(tzinfo=UTC).timestamp()
        except ValueError:
            return False
        return self.switches.clock_skew is None or abs(self.now() - sent) <= self.switches.clock_skew

    def _reset(self, call: Call, caller: JanrainClient) -> dict[str, Any]:
        if not caller.owner:
            raise _Refused(403, "only an owner may reset secrets")
        form = _form(call)
        if "for_client_id" not in form:
            raise _Refused(100, "for_client_id is missing", "for_client_id")
        hours = self._hours(form)
        client = self.clients.get(form["for_client_id"])
        if client is None:
            raise _Refused(self.switches.unknown_client_code, "no such client")
        now = self.now()
        begin = now + self.switches.propagation_delay
        client.current.valid_until = max(now + hours * 3600, begin)
        kept = client.held if self.switches.second_reset == "keeps" else client.held[-1:]
        client.held = [*kept, TimedSecret(new_secret(), begin)]
        self.count(client.client_id, "start", "applied")
        return {"new_secret": client.current.value}

    def _hours(self, form: dict[str, str]) -> int:
        text = form.get("hours_to_live")
        if text is None:
            if self.switches.default_hours is None:
                raise _Refused(100, "hours_to_live is missing", "hours_to_live")
            return self.switches.default_hours
        if not text.isascii() or not text.isdigit() or int(text) > MAX_HOURS:
            reason = f"hours_to_live must be between 0 and {MAX_HOURS}"
            raise _Refused(200, f"hours_to_live was not valid for the following reason: {reason}", "hours_to_live")
        return int(text)

    def _count(self, call: Call, caller: JanrainClient) -> dict[str, Any]:
        if not caller.may_count:
            raise _Refused(403, "no permission to count")
        if "type_name" not in _form(call):
            raise _Refused(100, "type_name is missing", "type_name")
        return {"total_count": 3}

    def _read(self, call: Call) -> Reply:
        """A client of the configuration API, which answers with HTTP statuses."""
        try:
            caller = self._authenticate(call)
        except _Refused:
            return self.error(401)
        login = _login(call)
        if login and login.date is not None and not self.switches.signatures_at_configuration:
            return self.error(401)
        if not caller.owner:
            return self.error(403)
        client = self.clients.get(call.params["client_id"])
        if client is None or call.params["app_id"] != self.app_id:
            return self.error(404)
        shown: dict[str, Any] = {"_self": call.target, "name": client.description, "features": client.features}
        match self.switches.read_back:
            case "nested":
                return Reply(200, {"client": {**shown, "_secret": client.current.value}})
            case "absent":
                return Reply(200, shown)
            case member:
                return Reply(200, {**shown, member: client.current.value})


@dataclass(frozen=True, slots=True)
class _Login:
    """What an Authorization header claims. date: of a signed call. proves: whether it was made with this secret."""

    client_id: str
    proves: Callable[[str], bool]
    date: str | None = None


def _login(call: Call) -> _Login | None:
    """The Authorization header, where it can be read."""
    scheme, _, given = (call.header("Authorization") or "").partition(" ")
    if scheme == "Basic":
        try:
            client_id, _, password = base64.b64decode(given, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return _Login(client_id, lambda secret: _same(secret, password))
    if scheme == "Signature":
        client_id, _, sent = given.rpartition(":")
        date = call.header("Date") or ""
        return _Login(client_id, lambda secret: _same(signature(secret, call, date), sent), date)
    return None


def signature(secret: str, call: Call, date: str) -> str:
    """What janrain-signed wants for a call: HMAC-SHA1 over path, date and the sorted parameters, decoded."""
    pairs = sorted(f"{name}={value}" for name, value in _form(call).items())
    text = "\n".join([call.target.partition("?")[0], date, *pairs]) + "\n"
    return base64.b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha1).digest()).decode()


def new_secret() -> str:
    """A secret of 30 characters, as in the vendor's example."""
    return secrets.token_hex(15)


def _form(call: Call) -> dict[str, str]:
    """The parameters of the body; the page calls them query parameters, its example sends a form."""
    return dict(parse_qsl(call.body.decode(errors="replace"), keep_blank_values=True))


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(errors="surrogateescape"), other.encode(errors="surrogateescape"))
