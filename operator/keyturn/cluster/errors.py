"""What can go wrong when talking to Kubernetes, as far as it decides what happens next."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import orjson

_MESSAGE_LIMIT: Final = 300
_LONGEST_RETRY_AFTER: Final = 60
"""Seconds, whatever the server asks for: rotations wait for it."""


class NoConnection(Exception):
    """There is nothing to connect to an API server with; the message names the file and what is wrong with it."""


class ClusterError(Exception):
    """A request to the API server that did not succeed.

    reason: CamelCase, for conditions. lasting: only a person can mend it. Its text names the request (verb, resource,
    name) and the server's word, and never holds a value of a Secret.
    """

    reason = "ApiServerError"
    lasting = False

    def __init__(self, message: str, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(ClusterError):
    """No answer, or one that says to come back later: 429, 5xx, a broken connection. A write may have happened."""

    reason = "ApiServerUnavailable"


class NotFound(ClusterError):
    reason = "NotFound"


class Conflict(ClusterError):
    """The object is not the one that was read, or exists already: look again."""

    reason = "Conflict"


class Expired(ClusterError):
    """The resourceVersion is too old to watch or page from: list again."""

    reason = "Expired"


class Forbidden(ClusterError):
    """Keyturn lacks a permission, or an admission plugin refuses."""

    reason = "Forbidden"
    lasting = True


class Invalid(ClusterError):
    """The API server refuses the object."""

    reason = "Invalid"
    lasting = True


_KINDS: Final[Mapping[int, type[ClusterError]]] = {
    400: Invalid,
    401: Unavailable,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Expired,
    413: Invalid,
    415: Invalid,
    422: Invalid,
}


def error_of(
    verb: str, status: int, payload: bytes, headers: Mapping[str, str], *, secret: bool = False
) -> ClusterError:
    """An answer that is not 2xx, with the request's name (verb) and the server's word.

    What it says of a Secret (secret) may quote the content, so that is cut.
    """
    try:
        said = orjson.loads(payload)
        said = said.get("object", said)
        message, word = str(said.get("message", "")), str(said.get("reason", ""))
    except (ValueError, AttributeError):
        message, word = "", ""
    kind = _KINDS.get(status, Unavailable)
    quoted = word if secret and kind is not Forbidden else message[:_MESSAGE_LIMIT]
    after = headers.get("Retry-After", "")
    retry_after = timedelta(seconds=min(int(after), _LONGEST_RETRY_AFTER)) if after.isdecimal() else None
    return kind(f"{verb}: {status} {quoted}".rstrip(), retry_after)
