"""SnapTrade users: one call replaces the user's secret by a new one, authorised by the old one, which dies at once.

The wire facts are those of PROVIDERS.md A2: the vendor's page on resetUserSecret, the OpenAPI text of its SDK, and what
the SDK was seen to send. Nothing can be taken back or read back: whoever loses the answer loses the user.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Final
from urllib.parse import quote as percent_encode

import httpx
from pydantic import SecretStr

from keyturn.api.provider import CredentialRef, ProviderSpec, SnapTradeSpec
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
from keyturn.providers.http import Answer, HttpClient, checked_base_url, classify, refusal, text_at
from keyturn.providers.outcomes import credential, no_answer, not_applied, place, within
from keyturn.providers.quoting import quote

CAPABILITIES = Capabilities(
    semantics="Immediate",
    overlap=Overlap.NONE,
    cancel=False,
    finalize=False,
    recovery=Recovery.PROBE_PREVIOUS,
    needs_current=True,
    # The vendor's only way back, from the reference page of resetUserSecret.
    lost_remedy=(
        "SnapTrade never shows it again: delete the user (DELETE /snapTrade/deleteUser), register it anew"
        " (POST /snapTrade/registerUser), and have the user reconnect each broker"
    ),
)

# Each of two values is tried, and what refuses it without a known code makes the API key be tried as well.
REQUESTS = Requests(inspect=4, verify=2)

BASE_URL = "https://api.snaptrade.com"
PATIENCE: Final = timedelta(seconds=60)
"""The shortest read timeout of a reset: an answer that is given up on may have held the only copy of the secret."""

_BAD_SIGNATURE: Final = "1076"
_BAD_USER: Final = "1083"  # "Invalid userID or userSecret provided", as seen in the reports of many users


def credential_refs(spec: ProviderSpec) -> Mapping[str, CredentialRef]:
    """The Secret keys that `build` needs the values of."""
    return {"consumer_key": _block(spec).secret_ref}


def build(spec: ProviderSpec, credentials: Mapping[str, SecretStr], http: HttpClient) -> SnapTradeProvider:
    """A provider for one SnapTrade API key; raises ProviderConfigError naming the field at fault."""
    snaptrade = _block(spec)
    key = credential(credentials["consumer_key"], snaptrade.secret_ref, "spec.snaptrade.secretRef")
    base = checked_base_url(base_url(spec), "spec.snaptrade.baseUrl")
    return SnapTradeProvider(snaptrade, base, key, http)


def base_url(spec: ProviderSpec) -> str:
    """Where the API is."""
    return _block(spec).base_url or BASE_URL


def signature(consumer_key: str, path: str, query: str, content: object) -> str:
    """The Signature header: HMAC-SHA256 over sorted, compact JSON with everything but ASCII escaped.

    path, query: as the request goes out. content: its body before it is written as JSON; nothing at all counts as null.
    """
    signed = {"content": content or None, "path": path, "query": query}
    text = json.dumps(signed, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return base64.b64encode(hmac.new(consumer_key.encode(), text.encode(), hashlib.sha256).digest()).decode()


class _Call:
    """One call: what it is for, and what must not be seen in a message about it."""

    def __init__(self, doing: str, *secrets: SecretStr | None, changing: bool = False) -> None:
        self.doing = doing
        self.changing = changing
        self.hidden = [secret.get_secret_value() for secret in secrets if secret]


class SnapTradeProvider:
    """The `Provider` of one SnapTrade API key. A client is a user of it."""

    capabilities = CAPABILITIES

    def __init__(self, spec: SnapTradeSpec, base_url: str, consumer_key: str, http: HttpClient) -> None:
        self._client_id = spec.client_id
        self._base = base_url
        self._key = consumer_key
        self._place = place(spec.secret_ref)
        self._http = http

    async def check(self) -> Outcome:
        """Ask for the list of users, which takes the API key's signature and no user's secret. It is not read."""
        call = _Call(f'checking the API key "{self._client_id}"')
        answer = await self._send("GET", "/snapTrade/listUsers", {}, None, call, status_only=True)
        if isinstance(answer, Outcome):
            return answer
        return (
            _done(Effect.NOT_APPLIED, answer) if answer.status == 200 else self._refused(answer, call, for_user=False)
        )

    async def inspect(self, client_id: str, *, previous: SecretStr | None, pending: SecretStr | None) -> Inspection:
        """Try the values out: SnapTrade shows no state. A dead `previous` without a `pending` means that it is LOST."""
        refused = None
        if pending is not None:
            tried = await self._try(client_id, pending, previous)
            if tried.verdict is not Verdict.REJECTED:
                return Inspection(tried.outcome, Standing.FINISHED if tried.verdict is Verdict.ACCEPTED else None)
            refused = tried.outcome
        if previous is not None:
            tried = await self._try(client_id, previous, pending)
            if tried.verdict is not Verdict.REJECTED:
                return Inspection(tried.outcome, Standing.UNROTATED if tried.verdict is Verdict.ACCEPTED else None)
        if refused is not None:
            # It came from SnapTrade itself: far likelier than a loss is that it is not known everywhere yet.
            remedy = "Wait; if this lasts, somebody else has reset the secret, or deleted the user."
            message = f"{refused.message} {remedy}"
            return Inspection(not_applied(message, Failure.UNREACHABLE, request_id=refused.request_id))
        if previous is not None:
            return Inspection(Outcome(Effect.NOT_APPLIED), Standing.LOST)
        outcome = await self.check()
        return Inspection(outcome, Standing.UNTOLD if outcome.ok else None)

    async def start(
        self,
        client_id: str,
        *,
        current: SecretStr | None,
        overlap: timedelta,
    ) -> Issued:
        """Replace `current`, which authorises the call and dies with it. There is no overlap."""
        doing = f'resetting the secret of user "{client_id}"'
        if current is None:
            return Issued(not_applied(f"{doing}: SnapTrade asks for the current secret, and none is known"))
        call = _Call(doing, current, changing=True)
        body = {"userId": client_id, "userSecret": current.get_secret_value()}
        answer = await self._send("POST", "/snapTrade/resetUserSecret", {}, body, call)
        if isinstance(answer, Outcome):
            return Issued(answer)
        if answer.status != 200:
            return Issued(self._refused(answer, call))
        secret = text_at(answer.body, "userSecret")
        # Both members are optional in the schema. A secret that names no user is kept: it may be the only copy.
        owner = (answer.body or {}).get("userId")
        if secret in (None, current.get_secret_value()) or owner not in (None, client_id):
            missing = no_answer(doing, "a new secret of this user", changing=True, request_id=_request_id(answer))
            return Issued(missing)
        return Issued(_done(Effect.APPLIED, answer), SecretStr(secret))

    async def verify(self, client_id: str, secret: SecretStr) -> Verification:
        """List the user's connections, for which SnapTrade asks for the user's secret.

        A 401 whose code is not known to mean this secret counts only when the API key itself is accepted: a verdict of
        REJECTED may lead to the end of the user's connections.
        """
        return await self._try(client_id, secret)

    async def finalize(self, client_id: str) -> Outcome:
        """Not offered by SnapTrade: the old secret is dead already."""
        return not_applied(f'SnapTrade keeps no old secret of user "{client_id}" that could be dropped')

    async def cancel(self, client_id: str) -> Outcome:
        """Not offered by SnapTrade: a reset cannot be taken back."""
        return not_applied(f'SnapTrade cannot withdraw the new secret of user "{client_id}": a reset is final')

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _try(self, client_id: str, secret: SecretStr, *others: SecretStr | None) -> Verification:
        """Verify a value; `others` are not sent, and redacted all the same."""
        call = _Call(f'verifying a secret of user "{client_id}"', secret, *others)
        query = {"userId": client_id, "userSecret": secret.get_secret_value()}
        answer = await self._send("GET", "/authorizations", query, None, call)
        if isinstance(answer, Outcome):
            return Verification(Verdict.INCONCLUSIVE, answer)
        if answer.status == 200:
            if answer.items is None:
                missing = no_answer(call.doing, "a list of connections", changing=False, request_id=_request_id(answer))
                return Verification(Verdict.INCONCLUSIVE, missing)
            return Verification(Verdict.ACCEPTED, _done(Effect.NOT_APPLIED, answer))
        outcome = self._refused(answer, call)
        if answer.status != 401 or outcome.failure is not Failure.REJECTED:
            return Verification(Verdict.INCONCLUSIVE, outcome)
        if _code(answer) != _BAD_USER and not (key := await self.check()).ok:
            return Verification(Verdict.INCONCLUSIVE, key)
        return Verification(Verdict.REJECTED, outcome)

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: dict[str, str] | None,
        call: _Call,
        *,
        status_only: bool = False,
    ) -> Answer | Outcome:
        """Make a signed call. Its query is the operation's own, then `clientId` and `timestamp`, as the SDK has it."""

        def request() -> httpx.Request:
            members = {**query, "clientId": self._client_id, "timestamp": str(int(time.time()))}
            text = "&".join(f"{name}={percent_encode(value)}" for name, value in members.items())
            made = self._http.build_request(method, f"{self._base}{path}?{text}", json=body)
            # What is signed is what goes out, whatever was done to the URL on the way.
            sent_path, _, sent_query = made.url.raw_path.decode("ascii").partition("?")
            made.headers["Signature"] = signature(self._key, sent_path, sent_query, body)
            call.hidden += [self._key, made.headers["Signature"]]
            return made

        patience = PATIENCE if call.changing else timedelta()
        answer = await self._http.send(request, changing=call.changing, patience=patience, status_only=status_only)
        return within(call.doing, answer) if isinstance(answer, Outcome) else answer

    def _refused(self, answer: Answer, call: _Call, *, for_user: bool = True) -> Outcome:
        """The outcome of an answer that is no success. for_user: the call was made with a user's secret."""
        _, failure = classify(answer.status)
        if answer.status == 401 and for_user and _code(answer) != _BAD_SIGNATURE:
            failure = Failure.REJECTED
        # A 404 in other words than SnapTrade's does not speak of a user, and no 404 does where none was asked for.
        nowhere = failure is Failure.CLIENT_NOT_FOUND and (not for_user or _detail(answer) is None)
        if nowhere or 300 <= answer.status < 400:
            failure = Failure.REJECTED
            remedy = "This is no answer of SnapTrade's API. Correct spec.snaptrade.baseUrl of the provider."
        else:
            remedy = self._remedy(failure, answer.status)
        said = ": ".join(quote(part, *call.hidden, answer=answer.body) for part in _said(answer))
        words = f"SnapTrade answered {answer.status}" + (f" ({said})" if said else "")
        message = f"{call.doing}: {words}. {remedy}".rstrip()
        return refusal(answer, failure, message, changing=call.changing, request_id=_request_id(answer))

    def _remedy(self, failure: Failure, status: int) -> str:
        match failure:
            case Failure.UNAUTHORIZED if status == 403:
                return f'The API key "{self._client_id}" lacks the permission: a commercial key is needed.'
            case Failure.UNAUTHORIZED:
                return (
                    f"Correct the client id and the consumer key ({self._place})."
                    " If they are right, set the clock of this machine: signatures hold the time."
                )
            case Failure.REJECTED if status == 401:
                return "The secret is not, or no longer, that of this user, or there is no such user."
            case Failure.CLIENT_NOT_FOUND:
                return "Correct the user id, or the API key that it is looked for with."
            case Failure.RATE_LIMITED:
                return "Lower spec.rateLimit of the provider if this lasts."
        return ""


def _block(spec: ProviderSpec) -> SnapTradeSpec:
    if spec.snaptrade is None:
        raise ProviderConfigError("spec.snaptrade", "is missing")
    return spec.snaptrade


def _either(answer: Answer, *names: str) -> str | None:
    """The first of these members that is text or a number, as text."""
    values = ((answer.body or {}).get(name) for name in names)
    found = next((value for value in values if isinstance(value, str | int) and value), None)
    return text_at({"found": str(found)}, "found") if found is not None else None


# The vendor's page names the members default_…, its servers were seen to leave that out (PROVIDERS.md A2).
def _code(answer: Answer) -> str | None:
    return _either(answer, "code", "default_code")


def _detail(answer: Answer) -> str | None:
    return _either(answer, "detail", "default_detail")


def _said(answer: Answer) -> list[str]:
    code, detail = _code(answer), _detail(answer)
    return [part for part in (f"code {code}" if code else None, detail) if part]


def _request_id(answer: Answer) -> str | None:
    found = answer.headers.get("x-request-id")
    return quote(found) if found else None


def _done(effect: Effect, answer: Answer) -> Outcome:
    return Outcome(effect, request_id=_request_id(answer))
