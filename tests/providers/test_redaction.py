"""No value that went into or came out of a call is seen in messages, objects or logs (I8)."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from pydantic import SecretStr

from keyturn.providers.quoting import MAX_QUOTE
from sandbox.simulators.faults import How
from tests.providers.subjects import World, cases


def known(world: World, operation: str) -> list[str]:
    """The values that take part in a call: the provider's credentials, and what the caller handed over."""
    handed: dict[str, list[SecretStr | None]] = {
        "start": [world.secret],
        "inspect": [world.secret, world.pending],
        "verify": [world.secret],
    }
    values = [secret.get_secret_value() for secret in handed.get(operation, []) if secret]
    return [*world.subject.credentials(world.simulator).values(), *values]


def echo(*values: str) -> dict[str, Any]:
    """An error whose every text repeats values, as a careless provider might."""
    return {**says("you sent " + ", ".join(values)), "request_id": "r-1"}


def says(text: str) -> dict[str, Any]:
    """An error of any provider's shape, with this text wherever a text can be."""
    members = ("error_type", "error_message", "error", "error_description", "detail")
    return dict.fromkeys(members, text)


@pytest.mark.parametrize("status", [200, 400, 401, 404, 429, 500])
@pytest.mark.parametrize(("subject", "operation"), cases(), indirect=["subject"])
async def test_an_echoing_provider(world: World, operation: str, status: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await world.prepare(operation)
    if operation == "inspect":
        await world.start()
    world.fault(operation, status=status, body=echo(*known(world, operation)))
    outcome = await world.perform(operation)
    seen = repr(outcome) + outcome.message + caplog.text
    assert not [value for value in world.canaries() if value in seen]
    if not outcome.ok and status != 200:
        assert "[redacted]" in outcome.message


@pytest.mark.parametrize("how", How)
@pytest.mark.parametrize(("subject", "operation"), cases(), indirect=["subject"])
async def test_every_other_way_of_going_wrong(
    world: World, operation: str, how: How, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await world.prepare(operation)
    world.fault(operation, how=how, apply=True)
    outcome = await world.perform(operation)
    seen = repr(outcome) + repr(world.provider) + caplog.text
    assert not [value for value in world.canaries() if value in seen]


async def test_a_new_value_in_an_error_is_redacted_as_well(world: World) -> None:
    new = "a-new-value-in-an-error"
    world.fault("start", status=500, body={**echo(new), "m2m_client": {"next_client_secret": new}})
    outcome = await world.perform("start")
    assert new not in outcome.message
    assert "[redacted]" in outcome.message


async def test_the_providers_words_are_quoted_on_one_short_line(world: World) -> None:
    text = "first\r\nsecond\x1b[31m\u202e\u2028third " + "long " * 1000
    world.fault("start", status=400, body=says(text))
    message = (await world.perform("start")).message
    assert "first second [31m third long" in message
    assert message.isprintable()
    assert len(message) < 2 * MAX_QUOTE + 200  # the kind of error, and its text


async def test_the_http_libraries_log_no_urls(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await world.perform("verify")
    await world.perform("check")
    assert not [record for record in caplog.records if record.name.partition(".")[0] in ("httpx", "httpcore")]
