"""Ten years of a schedule: what is told comes true."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.api.rotation import RotationSpec, RotationStatus
from keyturn.rotation.due import Next, next_rotation
from keyturn.rotation.report import report
from keyturn.rotation.steps import Rest
from keyturn.rotation.world import World
from tests.model.lab import EPOCH
from tests.unit.timed import (
    AT_NIGHT,
    DAY,
    HOUR,
    MINUTE,
)

windows = st.sampled_from(
    [
        [],
        AT_NIGHT,
        [{"kind": "allow", "schedule": "30 1 * * 0", "duration": "6h"}, *AT_NIGHT],
        [{"kind": "deny", "schedule": "0 0 20 12 *", "duration": "400h"}],
        [*AT_NIGHT, {"kind": "deny", "schedule": "0 0 * * 6", "duration": "48h"}],
    ]
)
times = st.one_of(
    st.integers(20, 2000).map(lambda hours: {"interval": f"{hours}h"}),
    st.sampled_from(["30 2 * * 0", "0 3 1 * *", "30 2 28-31 3,10 *", "0 0 29 2 *", "15 1 L * *"]).map(
        lambda cron: {"cron": cron}
    ),
)


@settings(max_examples=4, deadline=None)
@given(times, windows, st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]), st.randoms())
def test_ten_years(schedule: dict[str, str], windows: list[dict[str, str]], zone: str, random: Any) -> None:
    """What the status says comes true to the second, or at once when the operator was away; nothing rotates twice."""
    spec = RotationSpec.model_validate(
        {
            "providerRef": {"name": "a"},
            "clientId": "c",
            "secretRef": {"name": "a", "key": "B"},
            "schedule": {**schedule, "windows": windows, "timeZone": zone},
        }
    )
    world = World(
        now=EPOCH,
        name=f"n{random.random()}",
        uid="u",
        generation=1,
        deleting=False,
        finalizer=False,
        spec=spec,
        status=RotationStatus(secret_since=EPOCH),
        fresh_id="r",
        created=EPOCH,
    )
    begun: list[datetime] = []
    while world.now < EPOCH + 3650 * DAY and len(begun) < 60:
        world = replace(world, status=report(world, Rest()))
        found = next_rotation(world, spec)
        assert isinstance(found, Next)
        assert found.due is not None
        assert found.begins is not None
        if found.begins > world.now:
            told = world.status.next_rotation_time
            assert told == found.begins
            away = random.random() < 0.2
            world = replace(world, now=told + (random.randrange(400) * HOUR if away else timedelta()))
            assert away or next_rotation(world, spec) == Next("Schedule", told, found.due)
            continue
        done = world.now + 5 * MINUTE
        assert found.due <= world.now
        assert not begun or found.due > begun[-1]
        begun.append(world.now)
        world = replace(world, now=done, status=world.status.model_copy(update={"last_rotation_time": done}))
    assert len(begun) >= (1 if schedule.get("cron") == "0 0 29 2 *" else 15)
