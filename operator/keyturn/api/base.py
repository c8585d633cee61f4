"""The base of all resource models, and the field types that several resources share."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel

GROUP = "keyturn.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

# GEP-2257, the duration format of the Gateway API: what Go and Python both read, without signs and fractions.
DURATION_PATTERN = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"
DURATION_MAX_LENGTH = 28
# RFC 3339 as people write it, to the second. What days there are is left to a calendar.
TIME_PATTERN = (
    r"^[12][0-9]{3}-[01][0-9]-[0-3][0-9]T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
    r"(Z|[-+]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
TIME_MAX_LENGTH = 25
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
SECRET_KEY_PATTERN = r"^[-._a-zA-Z0-9]+$"
LABEL_KEY_PATTERN = r"^([a-z0-9]([-.a-z0-9]*[a-z0-9])?/)?[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?)?$"

_UNITS = {
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}


def parse_duration(text: object) -> timedelta:
    """Read a GEP-2257 duration ("1h30m", "500ms"); ValueError names the format on anything else."""
    if isinstance(text, timedelta):
        return text
    if not isinstance(text, str) or not re.fullmatch(DURATION_PATTERN[1:-1], text):
        raise ValueError('must be a duration such as "90s", "15m" or "1h30m"')
    parts = re.findall(r"([0-9]+)(ms|h|m|s)", text)
    return sum((int(number) * _UNITS[unit] for number, unit in parts), timedelta())


def format_duration(value: timedelta) -> str:
    """Write a duration as GEP-2257 text, to the millisecond ("1h30m", "0s")."""
    rest = round(value / timedelta(milliseconds=1))
    parts = []
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_time(text: object) -> datetime:
    """Read a time with its zone ("2026-12-31T18:00:00Z"); ValueError names the format on anything else."""
    if isinstance(text, datetime):
        return text
    wanted = 'must be a time such as "2026-12-31T18:00:00Z"'
    if not isinstance(text, str) or not re.fullmatch(TIME_PATTERN[1:-1], text):
        raise ValueError(wanted)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(wanted) from None


def format_time(value: datetime) -> str:
    """Write a time as metav1.Time does: RFC 3339 in UTC, to the second."""
    return _utc(value, "seconds")


def _utc(value: datetime, precision: str) -> str:
    return value.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "maxLength": DURATION_MAX_LENGTH}),
]

# Times that order events within one rotation keep their microseconds (metav1.MicroTime); both forms are read.
MicroTime = Annotated[
    datetime,
    PlainSerializer(lambda value: _utc(value, "microseconds"), return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Time = Annotated[
    datetime,
    PlainSerializer(format_time, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]

# A time in a spec, where an API server and the operator must understand the same texts.
WrittenTime = Annotated[
    datetime,
    BeforeValidator(parse_time),
    PlainSerializer(format_time, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": TIME_PATTERN, "maxLength": TIME_MAX_LENGTH}),
]

ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=NAME_PATTERN)]
LabelKey = Annotated[str, Field(min_length=1, max_length=317, pattern=LABEL_KEY_PATTERN)]
LabelValue = Annotated[str, Field(max_length=63, pattern=LABEL_VALUE_PATTERN)]
SecretKey = Annotated[str, Field(min_length=1, max_length=253, pattern=SECRET_KEY_PATTERN)]


class KubeModel(BaseModel):
    """A part of a resource: camelCase on the wire, immutable in the code.

    Unknown fields are ignored, as the API server prunes them: an older operator must be able to read a newer object.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", use_attribute_docstrings=True
    )

    def to_wire(self) -> dict[str, Any]:
        """The JSON object that Kubernetes stores, without fields that are not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
