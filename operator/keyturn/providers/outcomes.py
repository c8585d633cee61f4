"""What the provider modules have in common in wording their outcomes and reading their credentials."""

from __future__ import annotations

import re
from typing import Final

from pydantic import SecretStr

from keyturn.api.provider import CredentialRef
from keyturn.api.semantics import Effect, Failure, Outcome
from keyturn.providers.base import CredentialError

LONGEST_CREDENTIAL: Final = 4096
"""Bytes. With its user and in base64 (basic-auth) it fits into the 8 KiB that many servers take of a header line."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
"""Not allowed in basic-auth (RFC 7617, 2)."""


def place(ref: CredentialRef) -> str:
    """Where a credential is kept, in words."""
    return f'key "{ref.key}" of Secret "{ref.name}"'


def credential(value: SecretStr, ref: CredentialRef, field: str) -> str:
    """A credential without the line ends of files and `echo`; CredentialError when the value cannot be one."""
    text, only = value.get_secret_value().strip("\r\n"), "put the credential in, and nothing else"
    if not text:
        raise CredentialError(field, f"{place(ref)} is empty")
    if (size := len(text.encode())) > LONGEST_CREDENTIAL:
        raise CredentialError(field, f"{place(ref)} holds {size} bytes, more than {LONGEST_CREDENTIAL}: {only}")
    if _CONTROL.search(text):
        raise CredentialError(field, f"{place(ref)} holds a line break or another control character: {only}")
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
