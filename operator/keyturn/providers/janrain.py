"""Janrain (Akamai Identity Cloud) clients: a reset issues a new secret; the old one dies some hours later by itself.

The wire facts are those of PROVIDERS.md A1: the vendor's page on /clients/reset_secret, its documentation of signatures
and of the configuration API, and its own Python client. Errors come with HTTP status 200 and are told apart by their
integer `code`. A reset cannot be taken back, and nothing shows whether one has happened but the configuration API.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote as percent_encode

import httpx
from pydantic import SecretStr

from keyturn.api.provider import CredentialRef, JanrainAuth, JanrainSpec, ProviderSpec
from keyturn.api.semantics import (
    Capabilities,
    Effect,
    Failure,
    Inspection,
    Issued,
    Outcome,
    Overlap,
    Recovery,
    Standing,
    Verdict,
    Verification,
)
from keyturn.providers.base import ProviderConfigError, Requests
from keyturn.providers.http import (
    Answer,
    HttpClient,
    basic_authorization,
    checked_base_url,
    classify,
    refusal,
    text_at,
)
from keyturn.providers.outcomes import credential, no_answer, not_applied, place, within
from keyturn.providers.quoting import quote

MAX_HOURS: Final = 168

CAPABILITIES = Capabilities(
    semantics="Timed",
    overlap=Overlap.UNTIL_TIME,
    cancel=False,
    finalize=False,
    recovery=Recovery.READ_BACK,
    lost_remedy="read the client's secret in the Janrain console, or set readBack in the provider object",
)

REQUESTS = Requests()

# The codes that prove a secret, and that disprove it, in answers to a call made with it.
_NO_PERMISSION: Final = 403
_BAD_CREDENTIALS: Final = 402
_UNEXPECTED: Final = 500
"""The only code that leaves open whether the call took effect."""

# Every other code means: understood and refused.
_BY_CODE: Final[Mapping[int, Failure]] = {
    310: Failure.CLIENT_NOT_FOUND,
    _BAD_CREDENTIALS: Failure.UNAUTHORIZED,
    _NO_PERMISSION: Failure.UNAUTHORIZED,
    480: Failure.UNREACHABLE,  # disabled for maintenance
    _UNEXPECTED: Failure.UNREACHABLE,
    510: Failure.RATE_LIMITED,  # too many calls at the same time
}


def credential_refs(spec: ProviderSpec) -> Mapping[str, CredentialRef]:
    """The Secret keys that `build` needs the values of."""
    return {"secret": _block(spec).secret_ref}


def build(spec: ProviderSpec, credentials: Mapping[str, SecretStr], http: HttpClient) -> JanrainProvider:
    """A provider for one application's owner client; raises ProviderConfigError naming the field at fault."""
    janrain = _block(spec)
    secret = credential(credentials["secret"], janrain.secret_ref, "spec.janrain.secretRef")
    base = checked_base_url(janrain.base_url, "spec.janrain.baseUrl")
    config = None
    if janrain.read_back is not None:
        root = checked_base_url(janrain.read_back.base_url, "spec.janrain.readBack.baseUrl")
        config = f"{root}/config/{janrain.read_back.app_id}/clients/"
    return JanrainProvider(janrain, base, config, secret, http)


def base_url(spec: ProviderSpec) -> str:
    """Where the API is, reading back apart."""
    return _block(spec).base_url


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    """Who makes a call."""

    client_id: str
    secret: str

    def basic(self) -> str:
        """The Authorization header of basic-auth."""
        return basic_authorization(self.client_id, self.secret)

    def signed(self, path: str, form: Mapping[str, str], date: str) -> str:
        """The Authorization header of janrain-signed: HMAC-SHA1 over path, date and the sorted, unencoded parameters.

        date: the text of the Date header, `YYYY-MM-DD HH:MM:SS` in UTC. (PROVIDERS.md A1, janrain-python-api.)
        """
        lines = [path, date, *sorted(f"{name}={value}" for name, value in form.items())]
        text = "".join(f"{line}\n" for line in lines)
        digest = hmac.new(self.secret.encode(), text.encode(), hashlib.sha1).digest()
        return f"Signature {self.client_id}:{base64.b64encode(digest).decode()}"


class _Call:
    """One call: what it is for, who makes it, and what must not be seen in a message about it."""

    def __init__(self, doing: str, login: Login, *secrets: SecretStr | None, changing: bool = False) -> None:
        self.doing = doing
        self.login = login
        self.changing = changing
        self.hidden = [login.secret, *(secret.get_secret_value() for secret in secrets if secret)]

    def authorize(self, request: httpx.Request, authorization: str) -> None:
        """Put the Authorization header on; its second half is a signature, or the secret in base64."""
        request.headers.encoding = "utf-8"  # of a client id that is not ASCII
        request.headers["Authorization"] = authorization
        self.hidden.append(authorization.removeprefix("Basic ").removeprefix(f"Signature {self.login.client_id}:"))


class JanrainProvider:
    """The `Provider` of one Janrain application. `config_url`: where its clients can be read back, if anywhere."""

    capabilities = CAPABILITIES

    def __init__(self, spec: JanrainSpec, base_url: str, config_url: str | None, secret: str, http: HttpClient) -> None:
        self._base = base_url
        self._config = config_url
        self._owner = Login(spec.client_id, secret)
        self._signs = spec.auth is JanrainAuth.SIGNED
        self._place = place(spec.secret_ref)
        self._http = http

    async def check(self) -> Outcome:
        """Count users as the owner. Being refused for want of permission is fine: only a known client gets that far.

        That the owner may reset secrets is not shown by this: no call without effect would show it.
        """
        call = _Call(f'checking the credentials of owner client "{self._owner.client_id}"', self._owner)
        body = await self._count_users(call)
        if isinstance(body, Outcome):
            return body
        return _done(Effect.NOT_APPLIED, body) if _authenticated(body) else self._refused(body, call)

    async def inspect(self, client_id: str, *, previous: SecretStr | None, pending: SecretStr | None) -> Inspection:
        """Read back the secret that is current, or try `pending` out where the configuration API is not set up.

        While the overlap runs the old value works as before, so trying `previous` would prove nothing: without a value
        to compare with, the standing is UNTOLD.
        """
        if self._config is not None:
            return await self._read_back(self._config, client_id, previous, pending)
        if pending is None:
            outcome = await self.check()
            return Inspection(outcome, Standing.UNTOLD if outcome.ok else None)
        verification = await self._try(client_id, pending, previous)
        if verification.verdict is Verdict.ACCEPTED:
            return Inspection(verification.outcome, Standing.FINISHED)
        if verification.verdict is Verdict.INCONCLUSIVE:
            return Inspection(verification.outcome)
        # It came from Janrain itself: likelier than another reset is that it is not known everywhere yet.
        refused = verification.outcome
        message = f"{refused.message} Wait; if this lasts, somebody else has reset the secret."
        return Inspection(not_applied(message, Failure.UNREACHABLE, request_id=refused.request_id))

    async def start(self, client_id: str, *, current: SecretStr | None, overlap: timedelta) -> Issued:
        """Reset the secret. The old one lives on for `overlap`, in full hours and counted up; at most 168 hours."""
        call = _Call(f'resetting the secret of client "{client_id}"', self._owner, current, changing=True)
        if not timedelta() <= overlap <= timedelta(hours=MAX_HOURS):
            message = f"{call.doing}: the overlap must be between 0h and {MAX_HOURS}h. Correct spec.overlap."
            return Issued(not_applied(message))
        hours = -(-overlap // timedelta(hours=1))  # the quotient of the negative counts up
        form = {"for_client_id": client_id, "hours_to_live": str(hours)}
        body = await self._post("/clients/reset_secret", form, call)
        if isinstance(body, Outcome):
            return Issued(body)
        if _stat(body) != "ok":
            return Issued(self._refused(body, call))
        secret = text_at(body, "new_secret")
        if secret is None:
            return Issued(no_answer(call.doing, "the new secret", changing=True, request_id=_request_id(body)))
        return Issued(_done(Effect.APPLIED, body), SecretStr(secret))

    async def verify(self, client_id: str, secret: SecretStr) -> Verification:
        """Count users as that client: whether it may or not, only an authenticated client is told (PROVIDERS.md A1)."""
        return await self._try(client_id, secret)

    async def finalize(self, client_id: str) -> Outcome:
        """Not offered by Janrain: the old secret dies when its time is up."""
        return not_applied(f'Janrain cannot drop the old secret of client "{client_id}": it expires by itself')

    async def cancel(self, client_id: str) -> Outcome:
        """Not offered by Janrain: a reset cannot be taken back."""
        return not_applied(f'Janrain cannot withdraw the new secret of client "{client_id}": a reset is final')

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _try(self, client_id: str, secret: SecretStr, *others: SecretStr | None) -> Verification:
        """Verify a value; `others` are not sent, and redacted all the same."""
        login = Login(client_id, secret.get_secret_value())
        call = _Call(f'verifying a secret of client "{client_id}"', login, *others, SecretStr(self._owner.secret))
        body = await self._count_users(call)
        if isinstance(body, Outcome):
            return Verification(Verdict.INCONCLUSIVE, body)
        if _authenticated(body):
            return Verification(Verdict.ACCEPTED, _done(Effect.NOT_APPLIED, body))
        if _code(body) != _BAD_CREDENTIALS:
            return Verification(Verdict.INCONCLUSIVE, self._refused(body, call))
        remedy = "It is not, or not yet, or no longer a secret of this client."
        message = f"{call.doing}: {_words(body, call, f'code {_code(body)}')}. {remedy}"
        return Verification(Verdict.REJECTED, not_applied(message, request_id=_request_id(body)))

    async def _read_back(
        self, config: str, client_id: str, previous: SecretStr | None, pending: SecretStr | None
    ) -> Inspection:
        """Ask the configuration API for the secret. It is documented with basic-auth only (PROVIDERS.md A1)."""
        call = _Call(f'reading back the secret of client "{client_id}"', self._owner, previous, pending)
        request = self._http.build_request("GET", config + _path_segment(client_id))
        call.authorize(request, self._owner.basic())
        answer = await self._http.send(request, changing=False)
        if isinstance(answer, Outcome):
            return Inspection(within(call.doing, answer))
        if answer.status != 200:
            return Inspection(self._no_success(answer, call, configuration=True))
        if answer.body is not None and _stat(answer.body) == "error":
            return Inspection(self._refused(answer.body, call))
        found = text_at(answer.body, "_secret")
        if found is None:
            return Inspection(no_answer(call.doing, 'the secret in a field "_secret"', changing=False))
        outcome = _done(Effect.NOT_APPLIED, answer.body)
        if pending is not None and found == pending.get_secret_value():
            return Inspection(outcome, Standing.FINISHED)
        if previous is not None and found == previous.get_secret_value():
            return Inspection(outcome, Standing.UNROTATED)
        if previous is None and pending is None:
            return Inspection(outcome, Standing.UNTOLD)
        return Inspection(outcome, Standing.PENDING_UNKNOWN, SecretStr(found))

    async def _count_users(self, call: _Call) -> dict[str, Any] | Outcome:
        return await self._post("/entity.count", {"type_name": "user"}, call)

    async def _post(self, path: str, form: dict[str, str], call: _Call) -> dict[str, Any] | Outcome:
        """What Janrain says with status 200, be it success or an error with a code; the outcome of anything else."""

        def request() -> httpx.Request:
            made = self._http.build_request("POST", self._base + path, form=form)
            if self._signs:
                made.headers["Date"] = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
                call.authorize(made, call.login.signed(path, form, made.headers["Date"]))
            else:
                call.authorize(made, call.login.basic())
            return made

        answer = await self._http.send(request, changing=call.changing)
        if isinstance(answer, Outcome):
            return within(call.doing, answer)
        if answer.status != 200:
            return self._no_success(answer, call)
        stat, code = _stat(answer.body), _code(answer.body)
        if answer.body is None or not (stat == "ok" or (stat == "error" and code is not None)):
            return no_answer(call.doing, 'a "stat" of ok, or an error with its code', changing=call.changing)
        return answer.body

    def _refused(self, body: dict[str, Any], call: _Call) -> Outcome:
        """The outcome of an error that came with status 200, by its code alone."""
        code = _code(body)
        failure = _BY_CODE.get(code or 0, Failure.REJECTED)
        effect = Effect.UNKNOWN if call.changing and code == _UNEXPECTED else Effect.NOT_APPLIED
        message = f"{call.doing}: {_words(body, call, f'code {code}')}. {self._remedy(failure, code)}".rstrip()
        return Outcome(effect, failure, message, request_id=_request_id(body))

    def _no_success(self, answer: Answer, call: _Call, *, configuration: bool = False) -> Outcome:
        """The outcome of a status other than 200: from before Janrain's API, or from the configuration API."""
        _, failure = classify(answer.status)
        remedy = self._remedy(failure, None)
        # Only the configuration API says 404 of a client, and then in JSON.
        nowhere = failure is Failure.CLIENT_NOT_FOUND and not (configuration and answer.body)
        if nowhere or 300 <= answer.status < 400:
            failure = Failure.REJECTED
            field = "spec.janrain.readBack.baseUrl" if configuration else "spec.janrain.baseUrl"
            remedy = f"This is no answer of Janrain's API. Correct {field} of the provider."
        message = f"{call.doing}: {_words(answer.body, call, str(answer.status))}. {remedy}".rstrip()
        return refusal(answer, failure, message, changing=call.changing, request_id=_request_id(answer.body))

    def _remedy(self, failure: Failure, code: int | None) -> str:
        match failure:
            case Failure.UNAUTHORIZED if code == _NO_PERMISSION:
                return f'Client "{self._owner.client_id}" lacks the permission: only an owner may do this.'
            case Failure.UNAUTHORIZED:
                clock = " If they are right, set the clock of this machine: signatures hold the time."
                return f"Correct the client id and the secret ({self._place}).{clock if self._signs else ''}"
            case Failure.CLIENT_NOT_FOUND:
                return "Correct the client id, or the application that it is looked for in."
            case Failure.RATE_LIMITED:
                return "Lower spec.rateLimit of the provider if this lasts."
        return ""


def _block(spec: ProviderSpec) -> JanrainSpec:
    if spec.janrain is None:
        raise ProviderConfigError("spec.janrain", "is missing")
    return spec.janrain


def _path_segment(client_id: str) -> str:
    # Dots are safe in a URL, but a segment of nothing else would be resolved away.
    return percent_encode(client_id, safe="") if client_id.strip(".") else client_id.replace(".", "%2E")


def _stat(body: dict[str, Any] | None) -> str | None:
    return text_at(body, "stat")


def _code(body: dict[str, Any] | None) -> int | None:
    code = (body or {}).get("code")
    return code if type(code) is int else None


def _request_id(body: dict[str, Any] | None) -> str | None:
    # Older answers call it request_token (PROVIDERS.md A1).
    found = text_at(body, "request_id") or text_at(body, "request_token")
    return quote(found) if found else None


def _done(effect: Effect, body: dict[str, Any] | None) -> Outcome:
    return Outcome(effect, request_id=_request_id(body))


def _authenticated(body: dict[str, Any]) -> bool:
    return _stat(body) == "ok" or _code(body) == _NO_PERMISSION


def _words(body: dict[str, Any] | None, call: _Call, number: str) -> str:
    """What Janrain said, redacted. Some answers have `message` instead of `error_description`."""
    kind, text = text_at(body, "error"), text_at(body, "error_description") or text_at(body, "message")
    quoted = [quote(part, *call.hidden, answer=body) for part in (kind, text) if part]
    return f"Janrain answered {number}" + (f" ({': '.join(quoted)})" if quoted else "")
