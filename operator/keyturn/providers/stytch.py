"""Stytch M2M clients: start a rotation, both values work, then rotate (the old one dies) or cancel (the new one does).

The wire facts are those of PROVIDERS.md A3: the official SDK's requests, and the reference pages. What Stytch leaves
open (a second start, rotate or cancel without start, the error types) is not guessed at: answers are classified by
their HTTP status, and `inspect` tells the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import quote as percent_encode

from pydantic import SecretStr

from keyturn.api.provider import CredentialRef, ProviderSpec, StytchSpec
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
from keyturn.providers.outcomes import credential, no_answer, place, within
from keyturn.providers.quoting import quote

CAPABILITIES = Capabilities(
    semantics="Staged",
    overlap=Overlap.UNTIL_FINALIZED,
    cancel=True,
    finalize=True,
    recovery=Recovery.CANCEL_AND_RESTART,
)

REQUESTS = Requests(inspect=2)  # a look, and a token call that confirms what it suggests

LIVE_URL = "https://api.stytch.com"
TEST_URL = "https://test.stytch.com"

_REMEDIES = {
    Failure.UNAUTHORIZED: "Correct the project id and the project secret ({secret}).",
    Failure.CLIENT_NOT_FOUND: "Correct the client id, or the project that it is looked for in.",
    Failure.RATE_LIMITED: "Lower spec.rateLimit of the provider if this lasts.",
}


def credential_refs(spec: ProviderSpec) -> Mapping[str, CredentialRef]:
    """The Secret keys that `build` needs the values of."""
    return {"secret": _block(spec).secret_ref}


def build(spec: ProviderSpec, credentials: Mapping[str, SecretStr], http: HttpClient) -> StytchProvider:
    """A provider for one Stytch project; raises ProviderConfigError naming the field at fault."""
    stytch = _block(spec)
    secret = credential(credentials["secret"], stytch.secret_ref, "spec.stytch.secretRef")
    return StytchProvider(stytch, checked_base_url(base_url(spec), "spec.stytch.baseUrl"), secret, http)


def base_url(spec: ProviderSpec) -> str:
    """Where the API is."""
    stytch = _block(spec)
    live = stytch.project_id.startswith("project-live-")  # as the official SDK decides
    return stytch.base_url or (LIVE_URL if live else TEST_URL)


class StytchProvider:
    """The `Provider` of one Stytch project."""

    capabilities = CAPABILITIES

    def __init__(self, spec: StytchSpec, base_url: str, secret: str, http: HttpClient) -> None:
        self._project = spec.project_id
        self._base = base_url
        self._authorization = basic_authorization(spec.project_id, secret)
        self._secrets = (secret, self._authorization.removeprefix("Basic "))
        self._place = place(spec.secret_ref)
        self._http = http

    async def check(self) -> Outcome:
        """Ask for a client that cannot exist: only with good credentials does Stytch say that it does not."""
        environment = "live" if self._project.startswith("project-live-") else "test"
        nobody = f"m2m-client-{environment}-00000000-0000-0000-0000-000000000000"
        result = await self._admin("GET", nobody, "", "checking the project's credentials", changing=False)
        if isinstance(result, Outcome) and result.failure is not Failure.CLIENT_NOT_FOUND:
            return result
        return Outcome(Effect.NOT_APPLIED)

    async def inspect(
        self,
        client_id: str,
        *,
        previous: SecretStr | None,
        pending: SecretStr | None,
    ) -> Inspection:
        """Compare the last four characters that Stytch shows; what they suggest of `pending` a token call must confirm.

        `previous` says nothing more here: while `pending` is not current, `previous` is.
        """
        doing = f'inspecting client "{client_id}"'
        result = await self._admin("GET", client_id, "", doing, previous, pending, changing=False)
        if isinstance(result, Outcome):
            return Inspection(result)
        client = result.get("m2m_client")
        current, following = (
            text_at(client, name) for name in ("client_secret_last_four", "next_client_secret_last_four")
        )
        if current is None:
            return Inspection(no_answer(doing, "the last four characters of its secret", changing=False))
        hint = following or current
        if pending is None or hint != pending.get_secret_value()[-4:]:
            standing = Standing.PENDING_UNKNOWN if following else Standing.UNROTATED
            return Inspection(_done(Effect.NOT_APPLIED, result), standing)
        inactive = text_at(client, "status") == "inactive"
        return await self._confirm(client_id, pending, staged=following is not None, inactive=inactive)

    async def start(
        self,
        client_id: str,
        *,
        current: SecretStr | None,
        overlap: timedelta,
    ) -> Issued:
        """Ask for a next secret; Stytch shows it this once. `current` and `overlap` have no meaning to it."""
        doing = f'starting the rotation of client "{client_id}"'
        result = await self._admin("POST", client_id, "/secrets/rotate/start", doing, current, changing=True)
        if isinstance(result, Outcome):
            return Issued(result)
        secret = text_at(result, "m2m_client", "next_client_secret")
        if secret is None:
            return Issued(no_answer(doing, "the new secret", changing=True))
        return Issued(_done(Effect.APPLIED, result), SecretStr(secret))

    async def verify(self, client_id: str, secret: SecretStr) -> Verification:
        """Ask for an access token as the client would. Needs no project secret (PROVIDERS.md A3)."""
        value = secret.get_secret_value()
        doing = f'verifying a secret of client "{client_id}"'
        answer = await self._http.send(
            self._http.build_request(
                "POST",
                f"{self._base}/v1/public/{self._project}/oauth2/token",
                json={"grant_type": "client_credentials", "client_id": client_id, "client_secret": value},
            ),
            changing=False,
        )
        if isinstance(answer, Outcome):
            return Verification(Verdict.INCONCLUSIVE, within(doing, answer))
        if answer.status == 200:
            if text_at(answer.body, "access_token"):
                return Verification(Verdict.ACCEPTED, _done(Effect.NOT_APPLIED, answer.body))
            return Verification(Verdict.INCONCLUSIVE, no_answer(doing, "an access token", changing=False))
        # OAuth errors are 400 here (stytch-node#314); RFC 6749, 5.2 would also allow 401.
        if answer.status == 401 or (answer.status == 400 and text_at(answer.body, "error")):
            remedy = "It is not, or not yet, a secret of this client, or the client is inactive."
            message = f"{doing}: {self._words(answer, secret)}. {remedy}"
            outcome = Outcome(Effect.NOT_APPLIED, Failure.REJECTED, message, request_id=_request_id(answer.body))
            return Verification(Verdict.REJECTED, outcome)
        return Verification(Verdict.INCONCLUSIVE, self._refused(answer, doing, secret, changing=False))

    async def finalize(self, client_id: str) -> Outcome:
        """Make the next secret the current one; the old one is refused from then on."""
        return await self._change(client_id, "/secrets/rotate", "finalizing the rotation")

    async def cancel(self, client_id: str) -> Outcome:
        """Discard the next secret."""
        return await self._change(client_id, "/secrets/rotate/cancel", "cancelling the rotation")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _confirm(self, client_id: str, pending: SecretStr, *, staged: bool, inactive: bool) -> Inspection:
        """Settle by a token call whether a value whose last four characters match is the one that we know."""
        verification = await self.verify(client_id, pending)
        match verification.verdict:
            case Verdict.ACCEPTED:
                ok = Outcome(Effect.NOT_APPLIED, request_id=verification.outcome.request_id)
                return Inspection(ok, Standing.PENDING_OURS if staged else Standing.FINISHED)
            case Verdict.INCONCLUSIVE:
                return Inspection(verification.outcome)
        if inactive and not staged:
            message = f'client "{client_id}" is inactive at Stytch, so its secrets cannot be verified. Activate it.'
            return Inspection(Outcome(Effect.NOT_APPLIED, Failure.REJECTED, message))
        if not staged:
            return Inspection(Outcome(Effect.NOT_APPLIED), Standing.UNROTATED)
        # A new value that takes its time to be known everywhere is far likelier than another with the same end.
        return Inspection(Outcome(Effect.NOT_APPLIED), Standing.PENDING_UNPROVEN)

    async def _change(self, client_id: str, suffix: str, verb: str) -> Outcome:
        doing = f'{verb} of client "{client_id}"'
        result = await self._admin("POST", client_id, suffix, doing, changing=True)
        if isinstance(result, Outcome):
            return result
        if not isinstance(result.get("m2m_client"), dict):
            return no_answer(doing, "the client", changing=True)
        return _done(Effect.APPLIED, result)

    async def _admin(
        self, method: str, client_id: str, suffix: str, doing: str, *secrets: SecretStr | None, changing: bool
    ) -> dict[str, Any] | Outcome:
        """Call the management API for one client: the body of a success, or the outcome of anything else.

        secrets: the client's values that are known here; they are not sent, and redacted all the same.
        """
        request = self._http.build_request(
            method,
            f"{self._base}/v1/m2m/clients/{_path_segment(client_id)}{suffix}",
            headers={"Authorization": self._authorization, "Content-Type": "application/json"},
            json={"client_id": client_id} if method == "POST" else None,
        )
        answer = await self._http.send(request, changing=changing)
        if isinstance(answer, Outcome):
            return within(doing, answer)
        if answer.status != 200:
            return self._refused(answer, doing, *secrets, changing=changing)
        if answer.body is None:
            return no_answer(doing, "JSON", changing=changing)
        return answer.body

    def _refused(self, answer: Answer, doing: str, *secrets: SecretStr | None, changing: bool) -> Outcome:
        """The outcome of an answer that is no success, with the words of Stytch and the remedy."""
        _, failure = classify(answer.status)
        remedy = _REMEDIES.get(failure, "").format(secret=self._place)
        # A 404 in other words than Stytch's does not speak of a client.
        foreign = failure is Failure.CLIENT_NOT_FOUND and not text_at(answer.body, "error_type")
        if foreign or 300 <= answer.status < 400:
            failure = Failure.REJECTED
            remedy = "This is no answer of Stytch's API. Correct spec.stytch.baseUrl of the provider."
        message = f"{doing}: {self._words(answer, *secrets)}. {remedy}".rstrip()
        return refusal(answer, failure, message, changing=changing, request_id=_request_id(answer.body))

    def _words(self, answer: Answer, *secrets: SecretStr | None) -> str:
        """What Stytch said, redacted: the management API's members, or OAuth's at the token endpoint."""
        kind = text_at(answer.body, "error_type") or text_at(answer.body, "error")
        text = text_at(answer.body, "error_message") or text_at(answer.body, "error_description")
        values = [*self._secrets, *(secret.get_secret_value() for secret in secrets if secret)]
        quoted = [quote(part, *values, answer=answer.body) for part in (kind, text) if part]
        return f"Stytch answered {answer.status}" + (f" ({': '.join(quoted)})" if quoted else "")


def _block(spec: ProviderSpec) -> StytchSpec:
    if spec.stytch is None:
        raise ProviderConfigError("spec.stytch", "is missing")
    return spec.stytch


def _path_segment(client_id: str) -> str:
    # Dots are safe in a URL, but a segment of nothing else would be resolved away.
    return percent_encode(client_id, safe="") if client_id.strip(".") else client_id.replace(".", "%2E")


def _request_id(body: dict[str, Any] | None) -> str | None:
    found = text_at(body, "request_id")
    return quote(found) if found else None


def _done(effect: Effect, body: dict[str, Any] | None) -> Outcome:
    return Outcome(effect, request_id=_request_id(body))
