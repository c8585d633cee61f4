"""What can go wrong when talking to Kubernetes, as far as it decides what happens next."""

from __future__ import annotations

from datetime import timedelta


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
