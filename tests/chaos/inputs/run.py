"""Run everything: plans on the real control plane, side by side behind one operator, and specs before the judges."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from sandbox.stage import Stage
from tests.chaos.inputs.agreement import judge
from tests.chaos.inputs.cast import bystander
from tests.chaos.inputs.plans import Plan, plans
from tests.chaos.inputs.play import Play
from tests.chaos.inputs.setting import Setting, setting

_runs = itertools.count(1)


@dataclass(frozen=True)
class InputsReport:
    """What came of a run.

    total: inputs that reached the real API server; refused: those of them that it refused. offline: specs that only
    the judges have seen. crashes: of the operator, a traceback in its log included. violations: plan with its input,
    invariant, detail.
    """

    total: int
    refused: int
    offline: int
    crashes: list[str] = field(default_factory=list)
    violations: list[tuple[str, str, str]] = field(default_factory=list)
    seconds: float = 0.0


def run_inputs(
    stage: Stage, seed: int, total: int, parallel: int, *, offline: int | None = None, only: int | None = None
) -> InputsReport:
    """Send `total` inputs or a few more, from `parallel` plans at a time, each in a namespace of its own.

    offline: how many specs are judged besides without an API server; as many as `total` by default. only: play the
    plan of this number and no other. The same seed makes the same plans. No other operator may run on the stage.
    """
    started = time.monotonic()
    number = next(_runs)
    log = stage.control_plane.directory / f"inputs-{number}.log"
    judged = judge(seed, total if offline is None else offline)
    with setting(stage, log) as table:
        names = [f"inputs-{number}-{place}" for place in range(parallel)]
        for name in names:
            stage.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, bystander(name)])
        free = list(names)
        with ThreadPoolExecutor(parallel, thread_name_prefix="inputs") as pool:
            wanted = [plan for plan in plans(seed, total) if only in (None, plan.number)]
            list(pool.map(lambda plan: _play(table, plan, free), wanted))
        for name in names:
            stage.api.http.delete(f"/api/v1/namespaces/{name}")
    found = table.found
    offline_violations = [(name, "agreement", detail) for name, detail in judged.violations]
    return InputsReport(
        total=found.sent,
        refused=found.refused,
        offline=judged.samples,
        crashes=found.crashes,
        violations=[*found.violations, *offline_violations],
        seconds=time.monotonic() - started,
    )


def _play(table: Setting, plan: Plan, free: list[str]) -> None:
    namespace = free.pop()
    try:
        Play(table, plan, namespace).run()
    except Exception as error:  # noqa: BLE001 - one plan that cannot be played must not end the others
        table.found.violation(str(plan), "harness", f"{type(error).__name__}: {error}")
    finally:
        free.append(namespace)
