"""Log lines: one an entry, with the object and the rotation, and never with the values of a stack (I8)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from keyturn.controller.logs import LogFormat, configure

CANARY = "canary-value"


@pytest.fixture(autouse=True)
def other_logging() -> Iterator[None]:
    """Put back what was configured before."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def defective(value: str, wrapped: SecretStr) -> None:
    kept = {"value": value, "wrapped": wrapped}
    raise KeyError(f"no such key among {sorted(kept)}: {wrapped!r}")


@pytest.mark.parametrize("style", list(LogFormat))
def test_a_traceback_shows_no_values(style: LogFormat, capsys: pytest.CaptureFixture[str]) -> None:
    configure(style, debug=True)
    log = logging.getLogger("keyturn.test")
    try:
        defective(CANARY, SecretStr(CANARY))
    except KeyError:
        log.exception("unexpected error", extra={"object": "ns/name", "rotation": "r-1"})
    said = capsys.readouterr().err
    assert "defective" in said
    assert "ns/name" in said
    assert CANARY not in said


def test_json_lines_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogFormat.JSON)
    log = logging.getLogger("keyturn.test")
    log.info("first\nsecond \u00fc", extra={"object": "ns/name"})
    log.debug("not asked for")
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["message"], entry["object"]) == ("info", "first\nsecond \u00fc", "ns/name")
    assert "rotation" not in entry


@pytest.mark.parametrize("name", ["httpx", "httpcore", "aiohttp.client", "kubernetes.aio.client.rest", "asyncio"])
def test_libraries_that_log_requests_and_bodies_are_silent(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogFormat.TEXT, debug=True)
    for level in (logging.DEBUG, logging.INFO):
        logging.getLogger(name).log(level, CANARY)
    assert capsys.readouterr().err == ""


def test_what_ends_kopf_is_said_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """It is an exception besides, which starts Kopf again."""
    configure(LogFormat.TEXT)
    try:
        defective(CANARY, SecretStr(CANARY))
    except KeyError:
        logging.getLogger("kopf._cogs.aiokits").exception("a watcher has failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("a watcher has failed")
