"""docs/metrics.md says of every metric what the code says, and names no other; what ships leads to it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from keyturn.controller.metrics import OBSERVED, OTHER, RECORDED, Family
from tests.docs.pages import ROOT, section, table

PAGE = (ROOT / "docs" / "metrics.md").read_text()
MANIFESTS = ROOT / "manifests"
UNLISTED = {"phase", "resource"}


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_metric_that_is_recorded_is_described() -> None:
    rows = table(section(PAGE, "What is counted"), "metric")
    described = [(words(name)[0], kind, words(labels)) for name, kind, labels, *_ in rows]
    assert described == [(family.name, family.type, list(family.labels)) for family in RECORDED]


def test_every_metric_that_is_observed_is_described() -> None:
    rows = table(section(PAGE, "What there is now"), "metric")
    described = [(words(name)[0], words(labels)) for name, labels, *_ in rows]
    assert described == [(family.name, list(family.labels)) for family in OBSERVED]


@pytest.mark.parametrize("family", [*RECORDED, *OBSERVED], ids=lambda family: family.name)
def test_every_value_of_a_label_is_listed(family: Family) -> None:
    rows = {tuple(words(row[0])): row[1] for row in table(section(PAGE, "What is counted"), "label")}
    for label, allowed in family.labels.items():
        listed = rows.get((label, family.name)) or rows[label,]
        if label not in UNLISTED:
            assert set(words(listed)) == allowed
    assert OTHER in section(PAGE, "How many series")


def test_alerts_ask_for_metrics_and_values_that_there_are() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", section(PAGE, "Alerts"), re.DOTALL)
    families = {family.name: family for family in (*RECORDED, *OBSERVED)}
    for rule in yaml.safe_load(shown)["groups"][0]["rules"]:
        for name, _, selector in re.findall(r"\b(keyturn_\w+?)(_bucket|_count)?\b(?:\{(.*?)\})?", rule["expr"]):
            for label, value in re.findall(r'(\w+)!?="(\w+)"', selector):
                assert value in families[name].labels[label], rule["alert"]
            assert name in families, rule["alert"]


def test_what_ships_is_scraped_where_the_metrics_are() -> None:
    deployment: dict[str, Any] = yaml.safe_load((MANIFESTS / "deployment.yaml").read_text())
    template = deployment["spec"]["template"]
    (port,) = template["spec"]["containers"][0]["ports"]
    annotations = template["metadata"]["annotations"]
    assert annotations == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(port["containerPort"]),
        "prometheus.io/path": "/metrics",
    }
    component = MANIFESTS / "components" / "podmonitor"
    (name,) = yaml.safe_load((component / "kustomization.yaml").read_text())["resources"]
    monitor = yaml.safe_load((component / name).read_text())
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": port["name"], "path": "/metrics"}]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert monitor["metadata"]["namespace"] == deployment["metadata"]["namespace"]
