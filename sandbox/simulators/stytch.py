"""Stytch's M2M clients and token endpoint, as PROVIDERS.md A3 describes them.

What is not settled there is a switch. Secrets are kept in the clear, as the object is for tests; over HTTP they are
shown once, as Stytch does.
"""

from __future__ import annotations

import base64
import hmac
import secrets
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from sandbox.simulators.base import Call, Route, Simulator
from sandbox.simulators.faults import Reply

MINIMUM_SECRET = 8


class StytchSwitches(BaseModel):
    """What nobody outside Stytch knows for sure, or what a project may have set up."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    start_while_started: Literal["reject", "replace"] = "reject"
    """A second start: refused with 400, or the pending secret is replaced by a newer one."""
    rotate_without_start: Literal[200, 400, 404] = 400
    """The status of a rotate when nothing is pending; nothing changes in any case."""
    cancel_without_start: Literal[200, 400, 404] = 400
    """The same for cancel."""
    token_error_status: Literal[400, 401] = 400
    """The status of OAuth errors at the token endpoint."""
    propagation_delay: float = Field(default=0, ge=0)
    """For how many seconds a new secret is refused at the token endpoint."""
    require_https: bool = False
    """Answer 403 to plain http, as the real service does."""


@dataclass(slots=True)
class IssuedSecret:
    """A secret, and since when the token endpoint knows it."""

    value: str
    valid_from: float


@dataclass(slots=True)
class StytchClient:
    """An M2M client."""

    client_id: str
    current: IssuedSecret
    pending: IssuedSecret | None = None
    name: str = ""
    description: str = ""
    active: bool = True
    scopes: list[str] = field(default_factory=list)
    trusted_metadata: dict[str, Any] = field(default_factory=dict)

    def to_json(self, **once: str) -> dict[str, Any]:
        """The `m2m_client` of answers; `once` adds the secrets that are shown once."""
        return {
            "client_id": self.client_id,
            "client_name": self.name,
            "client_description": self.description,
            "status": "active" if self.active else "inactive",
            "scopes": self.scopes,
            "client_secret_last_four": self.current.value[-4:],
            "next_client_secret_last_four": self.pending.value[-4:] if self.pending else None,
            "trusted_metadata": self.trusted_metadata,
            **once,
        }


class StytchSimulator(Simulator):
    """One Stytch project."""

    kind: ClassVar[str] = "stytch"
    switches: StytchSwitches

    def __init__(
        self,
        project_id: str = "project-test-00000000-0000-4000-8000-000000000000",
        project_secret: str = "secret-test-simulated-project-secret",
        switches: StytchSwitches | None = None,
    ) -> None:
        super().__init__(switches or StytchSwitches())
        self.project_id = project_id
        self.project_secret = project_secret
        self.clients: dict[str, StytchClient] = {}

    def routes(self) -> Iterable[Route]:
        """The operations; `start`, `rotate`, `cancel`, `get`, `update`, `create` and `token` are their names."""
        one = "/v1/m2m/clients/{client_id}"
        return [
            Route("start", "POST", f"{one}/secrets/rotate/start", self._managed(self._start)),
            Route("rotate", "POST", f"{one}/secrets/rotate", self._managed(self._rotate)),
            Route("cancel", "POST", f"{one}/secrets/rotate/cancel", self._managed(self._cancel)),
            Route("get", "GET", one, self._managed(lambda client, _: self._show(client))),
            Route("update", "PUT", one, self._managed(self._update)),
            Route("create", "POST", "/v1/m2m/clients", self._create),
            Route("token", "POST", "/v1/public/{project_id}/oauth2/token", self._token),
        ]

    def create(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Make a client from the fields of Stytch's create call, all optional."""
        client_id = str(wanted.get("client_id") or f"m2m-client-test-{uuid.uuid4()}")
        secret = str(wanted.get("client_secret") or new_secret())
        if client_id in self.clients:
            raise ValueError(f"client {client_id} exists already")
        if len(secret) < MINIMUM_SECRET:
            raise ValueError(f"client_secret must have at least {MINIMUM_SECRET} characters")
        client = StytchClient(
            client_id,
            IssuedSecret(secret, self.now()),
            name=str(wanted.get("client_name", "")),
            description=str(wanted.get("client_description", "")),
            active=wanted.get("status", "active") == "active",
            scopes=[str(scope) for scope in wanted.get("scopes", [])],
            trusted_metadata=wanted.get("trusted_metadata") or {},
        )
        self.clients[client_id] = client
        return client.to_json(client_secret=secret)

    def clients_state(self) -> dict[str, Any]:
        """The clients as the management API shows them."""
        return {client_id: client.to_json() for client_id, client in self.clients.items()}

    def accepts(self, client_id: str, secret: str) -> bool:
        """Whether a token call with this secret would succeed now."""
        client = self.clients.get(client_id)
        if client is None or not client.active:
            return False
        held = [client.current, client.pending] if client.pending else [client.current]
        return any(
            hmac.compare_digest(one.value.encode(), secret.encode()) and one.valid_from <= self.now() for one in held
        )

    def error(self, status: int) -> Reply:
        """An error as the management API words it. The error types marked [?] in PROVIDERS.md are made up."""
        known = {
            400: ("bad_request", "The request was not understood."),
            401: ("unauthorized_credentials", "Unauthorized credentials."),
            403: ("use_https", "Use HTTPS to call this API."),
            404: ("m2m_client_not_found", "The M2M client was not found."),
            429: ("too_many_requests", "Too many requests have been made."),
        }
        kind, text = known.get(status, ("internal_server_error", "Oops, something went wrong."))
        return self._error(status, kind, text)

    def _error(self, status: int, error_type: str, error_message: str) -> Reply:
        url = f"https://stytch.com/docs/api/errors/{status}#{error_type}"
        body = {"status_code": status, "request_id": _request_id()}
        return Reply(status, {**body, "error_type": error_type, "error_message": error_message, "error_url": url})

    def _managed(self, handler: Callable[[StytchClient, Call], Reply]) -> Callable[[Call], Reply]:
        """Let only calls with the project's credentials, for a client that exists, get to a handler."""

        def handle(call: Call) -> Reply:
            if refused := self._refused(call):
                return refused
            client = self.clients.get(call.params["client_id"])
            return handler(client, call) if client else self.error(404)

        return handle

    def _refused(self, call: Call) -> Reply | None:
        if self.switches.require_https and call.scheme != "https":
            return self.error(403)
        expected = base64.b64encode(f"{self.project_id}:{self.project_secret}".encode()).decode()
        given = call.header("Authorization") or ""
        if not hmac.compare_digest(given.encode(), f"Basic {expected}".encode()):
            return self.error(401)
        return None

    def _show(self, client: StytchClient, **once: str) -> Reply:
        return Reply(200, {"status_code": 200, "request_id": _request_id(), "m2m_client": client.to_json(**once)})

    def _start(self, client: StytchClient, _: Call) -> Reply:
        if client.pending and self.switches.start_while_started == "reject":
            return self._error(400, "secret_rotation_already_started", "A secret rotation was already started.")
        client.pending = IssuedSecret(new_secret(), self.now() + self.switches.propagation_delay)
        self.count(client.client_id, "start", "applied")
        return self._show(client, next_client_secret=client.pending.value)

    def _rotate(self, client: StytchClient, _: Call) -> Reply:
        if client.pending is None:
            return self._without_start(client, self.switches.rotate_without_start)
        client.current, client.pending = client.pending, None
        self.count(client.client_id, "rotate", "applied")
        return self._show(client)

    def _cancel(self, client: StytchClient, _: Call) -> Reply:
        if client.pending is None:
            return self._without_start(client, self.switches.cancel_without_start)
        client.pending = None
        self.count(client.client_id, "cancel", "applied")
        return self._show(client)

    def _without_start(self, client: StytchClient, status: int) -> Reply:
        if status == 200:
            return self._show(client)
        return self._error(status, "secret_rotation_not_found", "No secret rotation was started.")

    def _update(self, client: StytchClient, call: Call) -> Reply:
        wanted = call.json()
        if isinstance(wanted, dict) and "status" in wanted:
            client.active = wanted["status"] == "active"
        return self._show(client)

    def _create(self, call: Call) -> Reply:
        if refused := self._refused(call):
            return refused
        try:
            created = self.create(call.json() or {})
        except ValueError as error:
            return self._error(400, "invalid_m2m_client", str(error))
        return Reply(200, {"status_code": 200, "request_id": _request_id(), "m2m_client": created})

    def _token(self, call: Call) -> Reply:
        if self.switches.require_https and call.scheme != "https":
            return self.error(403)
        if call.params["project_id"] != self.project_id:
            return self._error(404, "project_not_found", "The project was not found.")
        wanted = call.json()
        if not isinstance(wanted, dict) or wanted.get("grant_type") != "client_credentials":
            return self._oauth_error("unsupported_grant_type", "The grant type must be client_credentials.")
        client_id, secret = str(wanted.get("client_id")), str(wanted.get("client_secret"))
        if not self.accepts(client_id, secret):
            self.count(client_id, "token", "refused")
            return self._oauth_error("invalid_client", "The client id or client secret is not valid.")
        self.count(client_id, "token", "accepted")
        token = f"simulated-access-token-{secrets.token_urlsafe(32)}"
        body = {"access_token": token, "token_type": "bearer", "expires_in": 3600}
        return Reply(200, {**body, "status_code": 200, "request_id": _request_id()})

    def _oauth_error(self, error: str, description: str) -> Reply:
        body = {"error": error, "error_description": description, "error_uri": "https://stytch.com/docs/api/errors/400"}
        return Reply(self.switches.token_error_status, {**body, "request_id": _request_id()})


def new_secret() -> str:
    """A secret as long as Stytch's."""
    return secrets.token_urlsafe(39)


def _request_id() -> str:
    return f"request-id-test-{uuid.uuid4()}"
