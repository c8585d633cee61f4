"""Logs on stderr: one line an entry, text for people or JSON for machines, with the object and the rotation id."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

_FIELDS: Final = ("object", "rotation")


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


def configure(style: LogFormat, *, debug: bool = False) -> None:
    """Send all logs to stderr in one style. Libraries that would log requests or bodies are kept at warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if style is LogFormat.JSON else _TextFormatter())
    handler.addFilter(_without_kopf_traces)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("keyturn").setLevel(logging.DEBUG if debug else logging.INFO)
    for name in ("httpx", "httpcore", "aiohttp", "kubernetes", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Kopf warns that it takes no signals in its thread, as is wanted.
    logging.getLogger("kopf").setLevel(logging.ERROR)


def _without_kopf_traces(record: logging.LogRecord) -> bool:
    """What ends Kopf comes out as an exception as well, and it is started again: where it was then helps nobody."""
    if record.name.split(".")[0] == "kopf":
        record.exc_info = None
    return True


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        context = " ".join(f"{name}={value}" for name in _FIELDS if (value := getattr(record, name, "")))
        line = f"{_time(record)} {record.levelname:<7} {record.getMessage()}" + (f"  [{context}]" if context else "")
        return line + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, str] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {name: value for name in _FIELDS if (value := getattr(record, name, ""))}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)
