"""What Prometheus is told: series are bounded whatever comes, and the page for users says the same (I8, I12)."""

from __future__ import annotations

import math
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from keyturn.api.rotation import Phase, Result
from keyturn.api.semantics import Failure
from keyturn.cluster.client import Verb
from keyturn.cluster.errors import Conflict
from keyturn.controller.census import census, facts_of
from keyturn.controller.endpoints import Endpoints, EndpointsError
from keyturn.controller.metrics import (
    DEPTH,
    LEADER,
    OBJECTS,
    OBSERVED,
    OTHER,
    RECORDED,
    Family,
    Metrics,
    PassEnd,
    Priority,
    ProviderOperation,
    QueueName,
    bounded,
)

NOW = datetime(2026, 7, 1, tzinfo=UTC)
Sample = tuple[str, tuple[tuple[str, str], ...]]


def told(metrics: Metrics) -> dict[Sample, float]:
    """Every sample of ours, by name and labels, as Prometheus would read them."""
    found = {}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        for sample in family.samples:
            if sample.name.startswith("keyturn_"):
                found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def series(family: Family) -> int:
    """How many there can be at most."""
    labelled = math.prod(len(allowed) + 1 for allowed in family.labels.values())
    # A histogram has its buckets, +Inf, the count and the sum.
    return labelled * (len(family.buckets) + 3 if family.buckets else 1)


@given(st.lists(st.text(max_size=5), min_size=3, max_size=3))
@pytest.mark.parametrize("family", [*RECORDED, *OBSERVED], ids=lambda family: family.name)
def test_whatever_comes_is_one_of_a_few_values(family: Family, values: list[str]) -> None:
    for value, allowed in zip(bounded(family, values[: len(family.labels)]), family.labels.values(), strict=True):
        assert value in allowed | {OTHER}


def test_what_others_write_makes_no_series() -> None:
    """A tenant may write any text where Keyturn takes its words from."""
    metrics = Metrics()
    for number in range(1000):
        text: Any = f"canary-{number}"
        metrics.rotation_ended(text, text, text)
        metrics.phase_ended(text, text, timedelta(seconds=1))
        metrics.provider_call(text, text, text, 1)
        metrics.api_request(text, text, Conflict("canary"))
        metrics.waited(text, text, 1)
        metrics.reconciled(text, text, 1)
    metrics.observe(
        lambda: census([facts_of({"status": {"phase": f"canary-{number}"}}) for number in range(1000)], NOW)
    )
    samples = told(metrics)
    assert "canary" not in repr(samples)
    assert len(samples) < 150
    other = ("provider", OTHER), ("reason", OTHER), ("result", OTHER)
    assert samples["keyturn_rotations_total", other] == 1000


def test_all_series_that_there_can_be_are_few() -> None:
    """docs/metrics.md names the figure."""
    assert sum(map(series, [*RECORDED, *OBSERVED])) < 4000


def test_names_follow_the_conventions() -> None:
    """https://prometheus.io/docs/practices/naming/"""
    for family in (*RECORDED, *OBSERVED):
        assert family.name.startswith("keyturn_")
        assert family.name.endswith("_total") == (family.type == "counter"), family.name
        assert not family.buckets or family.name.endswith("_seconds"), family.name
        assert not set(family.labels) & {"namespace", "name", "object", "job", "instance"}, family.name


WORDS: dict[str, tuple[Callable[[Metrics], None], Sample]] = {
    "a rotation": (
        lambda metrics: metrics.rotation_ended("stytch", Result.FAILED, "RotationRequest"),
        ("keyturn_rotations_total", (("provider", "stytch"), ("reason", "RotationRequest"), ("result", "Failed"))),
    ),
    "a phase": (
        lambda metrics: metrics.phase_ended("janrain", Phase.SOAKING, timedelta(minutes=4)),
        (
            "keyturn_phase_duration_seconds_bucket",
            (("le", "300.0"), ("phase", "Soaking"), ("provider", "janrain")),
        ),
    ),
    "a call": (
        lambda metrics: metrics.provider_call("stytch", ProviderOperation.START, Failure.RATE_LIMITED, 0.2),
        (
            "keyturn_provider_calls_total",
            (("operation", "start"), ("outcome", "RateLimited"), ("provider", "stytch")),
        ),
    ),
    "a request": (
        lambda metrics: metrics.api_request(Verb.APPLY, "secrets", Conflict("")),
        ("keyturn_api_requests_total", (("outcome", "Conflict"), ("resource", "secrets"), ("verb", "apply"))),
    ),
    "a request for a status": (
        lambda metrics: metrics.api_request(Verb.PATCH, "clientsecretrotations/status", None),
        (
            "keyturn_api_requests_total",
            (("outcome", "OK"), ("resource", "clientsecretrotations/status"), ("verb", "patch")),
        ),
    ),
    "a wait": (
        lambda metrics: metrics.waited(QueueName.ROTATIONS, Priority.URGENT, 0.3),
        ("keyturn_queue_wait_seconds_count", (("priority", "urgent"), ("queue", "rotations"))),
    ),
    "a pass": (
        lambda metrics: metrics.reconciled(QueueName.PROVIDERS, PassEnd.ERROR, 0.3),
        ("keyturn_reconcile_duration_seconds_count", (("outcome", "error"), ("queue", "providers"))),
    ),
}


@pytest.mark.parametrize(("say", "sample"), WORDS.values(), ids=WORDS.keys())
def test_what_is_recorded_is_told(say: Callable[[Metrics], None], sample: Sample) -> None:
    metrics = Metrics()
    assert told(metrics) == {}
    say(metrics)
    assert told(metrics)[sample] == 1
    say(metrics)
    assert told(metrics)[sample] == 2


def status(phase: str, **more: Any) -> dict[str, Any]:
    return {"status": {"phase": phase, **more}}


def condition(kind: str, value: str) -> dict[str, str]:
    return {"type": kind, "status": value}


def test_a_census_counts_phases_and_conditions_and_names_the_extremes() -> None:
    metrics = Metrics()
    objects: list[dict[str, Any]] = [
        {},
        status("Idle", conditions=[condition("Stalled", "False"), condition("Overdue", "True")]),
        status("Completed", lastRotationTime="2026-06-30T23:59:00.500000Z", nextRotationTime="2026-07-02T00:00:00Z"),
        status("Blocked", lastRotationTime="2026-06-30T00:00:00Z", conditions=[condition("Stalled", "True")]),
        status("Completed", nextRotationTime="2026-07-01T01:00:00Z"),
    ]
    metrics.observe(lambda: census(map(facts_of, objects), NOW))
    samples = told(metrics)
    phases = {labels[0][1]: value for (name, labels), value in samples.items() if name == OBJECTS.name}
    assert {phase: count for phase, count in phases.items() if count} == {"Idle": 2, "Completed": 2, "Blocked": 1}
    assert set(phases) == set(Phase)
    assert {name: value for (name, labels), value in samples.items() if not labels} == {
        "keyturn_rotation_objects_stalled": 1,
        "keyturn_rotation_objects_overdue": 1,
        "keyturn_oldest_secret_age_seconds": 86400,
        "keyturn_next_rotation_in_seconds": 3600,
    }


def test_times_that_nobody_knows_are_not_told() -> None:
    metrics = Metrics()
    metrics.observe(lambda: census([facts_of(status("Idle"))], NOW))
    names = {name for name, _ in told(metrics)}
    assert names == {OBJECTS.name, "keyturn_rotation_objects_stalled", "keyturn_rotation_objects_overdue"}


async def test_the_endpoints_answer_probes_and_prometheus() -> None:
    metrics = Metrics()
    ready: list[str] = []
    metrics.observe(lambda: [(LEADER, (), 1), (DEPTH, ("rotations",), 3)])
    endpoints = Endpoints(lambda: {"leading": True}, lambda: bool(ready), metrics.registry)
    await endpoints.open("127.0.0.1:0")
    assert endpoints._runner is not None
    host, port = endpoints._runner.addresses[0]
    try:
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as http:
            assert (await http.get("/healthz")).json() == {"keyturn": {"leading": True}}
            assert (await http.get("/readyz")).status_code == 503
            ready.append("now")
            assert (await http.get("/readyz")).status_code == 200
            answer = await http.get("/metrics")
            assert answer.headers["Content-Type"].startswith("text/plain")
            assert "keyturn_leader 1.0" in answer.text
            assert 'keyturn_queue_depth{queue="rotations"} 3.0' in answer.text
            assert "process_resident_memory_bytes" in answer.text
            assert (await http.get("/")).status_code == 404
    finally:
        await endpoints.aclose()


@pytest.mark.parametrize("address", ["nothing", "127.0.0.1:", "127.0.0.1:70000", "192.0.2.1:80"])
async def test_an_address_that_cannot_be_listened_on_is_named(address: str) -> None:
    endpoints = Endpoints(dict, lambda: True, Metrics().registry)
    with pytest.raises(EndpointsError, match=address):
        await endpoints.open(address)


def test_the_start_ends_with_a_sentence_about_the_address(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], "
        'clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}], users: [{name: u, user: {token: t}}]}'
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "keyturn", "run", "--kubeconfig", str(kubeconfig), "--health", address]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert f"cannot listen on {address}, see --health: " in done.stderr
    assert "Traceback" not in done.stderr
