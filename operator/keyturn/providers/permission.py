"""The last word before a request leaves, for whoever runs the providers, and whatever else changes something."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Final


def _always() -> None:
    return


MAY_SEND: Final[ContextVar[Callable[[], None]]] = ContextVar("may_send", default=_always)
"""Called by `HttpClient` for each request, when its turn has come, the connection stands and no byte is sent yet.

What it raises ends the call, which then was not made. Set it before the tasks are started that make calls.
"""
