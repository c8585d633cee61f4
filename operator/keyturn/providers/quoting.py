"""A provider's own words within our messages: never with a secret in them, whatever the provider repeats (I8)."""

from __future__ import annotations

import base64
import json
import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import quote as percent_encode
from urllib.parse import quote_plus as form_encode

MAX_QUOTE = 300


def quote(text: str, *secrets: str, answer: object = None) -> str:
    """A provider's own words, fit for a message: redacted, on one line, at most 300 characters.

    Redacted are the given values, and what the JSON body `answer` holds under names such as "client_secret" or
    "access_token", as they are and as they look within URLs, JSON and in base64.
    """
    values = [*secrets, *(_secrets_in(answer))]
    forms = {form for value in values if value for form in _forms(value)}
    text = _redact(text, forms)
    text = "".join(_printable(char) for char in text)
    text = _redact(" ".join(text.split()), forms)
    return text if len(text) <= MAX_QUOTE else text[: MAX_QUOTE - 1] + "…"


def _printable(char: str) -> str:
    category = unicodedata.category(char)
    if category == "Cf":  # invisible and bidirectional formatting
        return ""
    return " " if category[0] in "CZ" else char  # controls, surrogates, unassigned; blanks and line breaks


def _redact(text: str, forms: set[str]) -> str:
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "[redacted]")
    return text


def _forms(value: str) -> Iterator[str]:
    yield value
    yield json.dumps(value)[1:-1]
    for encoded in (percent_encode(value, safe=""), percent_encode(value, safe="/"), form_encode(value)):
        yield encoded
        yield re.sub("%[0-9A-F]{2}", lambda escape: escape[0].lower(), encoded)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(value.encode(errors="replace")).decode().rstrip("=")


def _secrets_in(body: object) -> Iterator[str]:
    members = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for name, value in members:
        if isinstance(value, dict | list):
            yield from _secrets_in(value)
        elif isinstance(value, str) and re.search("(secret|token|password)$", str(name), re.IGNORECASE):
            yield value
