"""The page about schedules: its samples are good, and its tables say what the code says."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml

from keyturn.api.rotation import CANCEL_ANNOTATION, URGENT_ANNOTATION, URGENT_LENGTH, RotationSpec, RotationStatus
from keyturn.api.rules import validate_rotation
from keyturn.api.schedule import ROTATED_AT_ANNOTATION, ScheduleSpec, Window
from keyturn.rotation import due
from keyturn.rotation.schedule import LONGEST_DEFAULT_STAGGER, calendar_of
from tests.docs.pages import ROOT, section, table

PAGE = (ROOT / "docs" / "schedules.md").read_text()


def samples() -> list[dict[str, Any]]:
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return [yaml.safe_load(block)["spec"] for block in blocks]


def test_samples_are_good_and_can_be_met() -> None:
    assert len(samples()) == 2
    for sample in samples():
        spec = validate_rotation(sample)
        assert isinstance(spec, RotationSpec), spec
        assert spec.schedule is not None
        known = {field.alias for model in (ScheduleSpec, Window) for field in model.model_fields.values()}
        assert set(sample["schedule"]) <= known
        calendar_of(spec.schedule, spec.rollout.timeout, datetime(2026, 11, 22, tzinfo=UTC))


def test_every_field_is_described_with_its_default() -> None:
    known = {}
    for prefix, model in (("", ScheduleSpec), ("windows.", Window)):
        for field in model.model_fields.values():
            default = field.get_default(call_default_factory=True)
            text = "required" if field.is_required() else "-" if default is None else f"`{default}`"
            known[f"`{prefix}{field.alias}`"] = "none" if default == [] else text
    assert {row[0]: row[1] for row in table(section(PAGE, "Fields"), "field")} == known


def test_figures_are_those_of_the_code() -> None:
    late = section(PAGE, "When it does not happen")
    assert due.OVERDUE_GRACE == due._FIRST_PAUSE == timedelta(minutes=10)
    assert timedelta(hours=12) == due._LONGEST_PAUSE
    assert "ten minutes after" in late
    assert "10 minutes, 20, 40, up to 12 hours" in late
    assert timedelta(hours=1) == LONGEST_DEFAULT_STAGGER
    assert f"its first {URGENT_LENGTH} characters" in section(PAGE, "Urgent")


def test_names_exist() -> None:
    known = {URGENT_ANNOTATION, ROTATED_AT_ANNOTATION, CANCEL_ANNOTATION}
    assert set(re.findall(r"keyturn\.dev/[a-z-]+\b", PAGE.replace("keyturn.dev/v1alpha1", ""))) <= known
    fields = {field.alias for field in RotationStatus.model_fields.values()}
    assert set(re.findall(r"`status\.(\w+)", PAGE)) <= fields
