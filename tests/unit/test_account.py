"""I6: accounts at providers are told apart by what they are, and a rotation stays at the one at which it began."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from keyturn.api.provider import account_of
from keyturn.api.rotation import Phase, ProviderRef, RotationRecord, RotationStatus, SecretRef, Subject
from keyturn.api.semantics import Capabilities, Overlap, Recovery
from keyturn.rotation.lifecycle import decide
from keyturn.rotation.steps import Wait
from keyturn.rotation.world import ProviderView
from tests.unit.worlds import NOW, world

STAGED = Capabilities("Staged", Overlap.UNTIL_FINALIZED, True, True, Recovery.CANCEL_AND_RESTART)


@pytest.mark.parametrize(
    "url", ["https://App.janraincapture.com", "https://app.janraincapture.com/", "https://app.janraincapture.com:443"]
)
def test_one_address_however_it_is_written_is_one_account(url: str) -> None:
    assert account_of({"janrain": {"baseUrl": url}}) == "janrain/app.janraincapture.com"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"stytch": {"projectId": "a"}}, {"stytch": {"projectId": "b"}}),
        ({"stytch": {"projectId": "a"}}, {"snaptrade": {"clientId": "a"}}),
        ({"janrain": {"baseUrl": "https://a.example.com"}}, {"janrain": {"baseUrl": "https://b.example.com"}}),
        ({"janrain": {"baseUrl": "http://127.0.0.1:1"}}, {"janrain": {"baseUrl": "http://127.0.0.1:2"}}),
    ],
)
def test_different_accounts_stay_different(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert account_of(one) != account_of(other)


@pytest.mark.parametrize("spec", [{}, {"stytch": None}, {"stytch": {}}, {"stytch": "a"}, {"other": {"projectId": "a"}}])
def test_what_cannot_be_told_is_no_account(spec: dict[str, Any]) -> None:
    assert account_of(spec) is None


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.SOAKING, Phase.FINALIZING, Phase.CANCELLING])
def test_another_account_behind_the_same_name_is_not_taken_for_the_first(phase: Phase) -> None:
    """An edit of the provider object in the middle once ended in a false Completed, with both values alive."""
    record = RotationRecord(
        id="r-1",
        phase=phase,
        reason="RotationRequest",
        subject=Subject(
            provider_ref=ProviderRef(name="acme"), client_id="c", secret_ref=SecretRef(name="m2m", key="KEY")
        ),
        account="stytch/a",
        started_time=NOW,
        phase_started_time=NOW,
    )
    seen = world(status=RotationStatus(rotation=record), provider=ProviderView(STAGED, account="snaptrade/b"))
    assert seen.see_provider().problem is not None
    assert replace(seen, provider=ProviderView(STAGED, account="stytch/a")).see_provider().problem is None
    if phase is Phase.FINALIZING:
        step = decide(seen)
        assert isinstance(step, Wait)
        assert (step.reason, step.stalled) == ("ProviderChanged", True)
