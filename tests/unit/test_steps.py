"""What is still believed after a phase was written down."""

from __future__ import annotations

import pytest

from keyturn.api.rotation import Phase, ProviderRef, RotationRecord, RotationStatus, SecretRef, Subject
from keyturn.api.semantics import Effect, Inspection, Outcome, Standing
from keyturn.rotation.steps import Enter, after_recording
from keyturn.rotation.world import UNOBSERVED
from tests.unit.worlds import NOW, world

SEEN = Inspection(Outcome(Effect.NOT_APPLIED), Standing.UNROTATED)


def record(client: str, phase: Phase = Phase.STARTING) -> RotationRecord:
    subject = Subject(
        provider_ref=ProviderRef(name="acme"), client_id=client, secret_ref=SecretRef(name="m2m", key="KEY")
    )
    return RotationRecord(
        id="r-1", phase=phase, reason="RotationRequest", subject=subject, started_time=NOW, phase_started_time=NOW
    )


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        (None, record("one"), True),
        (record("one"), record("one"), True),
        (record("one"), record("two"), False),
        (record("one"), record("one", Phase.FINALIZING), False),
    ],
    ids=["begun", "the intent again", "another client", "another phase"],
)
def test_what_was_seen_at_the_provider_counts_for_the_same_client_only(
    before: RotationRecord | None, after: RotationRecord, kept: bool
) -> None:
    """I5: what is pending at another client was not looked at yet."""
    seen = world(status=RotationStatus(rotation=before), inspection=SEEN)
    assert after_recording(seen, Enter(after)).inspection is (SEEN if kept else UNOBSERVED)
