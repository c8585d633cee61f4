"""The one seam between the rotation engine and a provider's API.

A provider is a thin, stateless translation: each method makes the call it is named for, at most once, and says what
became of it. Retrying, ordering and remembering are the engine's business (I1, I2, I5). No method raises for anything
that the network or the provider does: outcomes are values. Messages are for users: they name what went wrong and what
to do, and never hold a secret value, a signature, an Authorization header or a query string (I8).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from pydantic import SecretStr

from keyturn.api.semantics import Capabilities, Inspection, Issued, Outcome, Verification


class ProviderConfigError(Exception):
    """A provider cannot be built from its spec; `field` names the part of the object that a person must correct.

    reason: CamelCase, for conditions.
    """

    reason = "ProviderInvalid"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class CredentialError(ProviderConfigError):
    """The Secret to which `field` refers holds something that no credential can be."""

    reason = "CredentialsInvalid"


@dataclass(frozen=True, slots=True)
class Requests:
    """The most requests that one call of each method of a provider makes."""

    check: int = 1
    inspect: int = 1
    start: int = 1
    verify: int = 1
    finalize: int = 1
    cancel: int = 1


class Provider(Protocol):
    """One provider account, with its credentials, ready to be called. Safe for concurrent use."""

    @property
    def capabilities(self) -> Capabilities: ...

    async def check(self) -> Outcome:
        """Say whether the account's credentials work, by a call that changes nothing and concerns no client."""
        ...

    async def inspect(self, client_id: str, *, previous: SecretStr | None, pending: SecretStr | None) -> Inspection:
        """Say where the provider stands relative to the values we know. Changes nothing."""
        ...

    async def start(self, client_id: str, *, current: SecretStr | None, overlap: timedelta) -> Issued:
        """Ask for a new value. `current` and `overlap` are used only where the capabilities say so."""
        ...

    async def verify(self, client_id: str, secret: SecretStr) -> Verification:
        """Say whether the provider accepts this value now, by a call made with it. Changes nothing."""
        ...

    async def finalize(self, client_id: str) -> Outcome:
        """Make the pending value the current one and drop the old one."""
        ...

    async def cancel(self, client_id: str) -> Outcome:
        """Drop the pending value. The engine calls it only where the capabilities say `cancel`."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...
