"""What the provider modules have in common in wording their outcomes and reading their credentials."""

from __future__ import annotations

from pydantic import SecretStr

from keyturn.api.provider import CredentialRef
from keyturn.api.semantics import Effect, Failure, Outcome
from keyturn.providers.base import ProviderConfigError


def place(ref: CredentialRef) -> str:
    """Where a credential is kept, in words."""
    return f'key "{ref.key}" of Secret "{ref.name}"'


def credential(value: SecretStr, ref: CredentialRef, field: str) -> str:
    """A credential without the line ends of files and `echo`; ProviderConfigError naming `field` when it is empty."""
    text = value.get_secret_value().strip("\r\n")
    if not text:
        raise ProviderConfigError(field, f"{place(ref)} is empty")
    return text


def within(doing: str, outcome: Outcome) -> Outcome:
    """The outcome of a call that got no answer, told together with what the call was for."""
    return Outcome(outcome.effect, outcome.failure, f"{doing}: {outcome.message}")


def no_answer(doing: str, missing: str, *, changing: bool, request_id: str | None = None) -> Outcome:
    """The outcome of an answer with the status of success and without what makes it one."""
    effect = Effect.UNKNOWN if changing else Effect.NOT_APPLIED
    message = f"{doing}: the answer does not hold {missing}, though its status is 200"
    return Outcome(effect, Failure.UNREACHABLE, message, request_id=request_id)


def not_applied(message: str, failure: Failure = Failure.REJECTED, *, request_id: str | None = None) -> Outcome:
    """An outcome without effect."""
    return Outcome(Effect.NOT_APPLIED, failure, message, request_id=request_id)
