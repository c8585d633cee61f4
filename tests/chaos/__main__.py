"""`make chaos`: strikes the operator at every request of a rotation, disturbs it in every way that is known here, and

sends it what nobody should send. Writes build/chaos-report.json.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path
from typing import Any, Final

from sandbox.assets import provide
from sandbox.controlplane import ControlPlane
from sandbox.nursery import Nursery
from sandbox.stage import ROOT, Stage
from tests.chaos.bugs import BUGS
from tests.chaos.campaign import Campaign, all_caught, campaign, references
from tests.chaos.faultbugs import FAULT_BUGS
from tests.chaos.faults import fault_plans
from tests.chaos.inputs.run import InputsReport, run_inputs
from tests.chaos.play import Plan, Played

REPORT: Final = ROOT / "build" / "chaos-report.json"
_PARALLEL: Final = 5
_INPUTS: Final = 2000
_INPUTS_PARALLEL: Final = 28
_TOLD_EVERY: Final = 50


def main(arguments: list[str]) -> int:
    """Run all of it; 0 when all plans converged, all bugs were caught, and no input was answered badly."""
    options = _parser().parse_args(arguments)
    begun = time.monotonic()
    assets = provide()
    with Nursery() as nursery, ControlPlane.start(assets) as plane, Stage(plane, nursery=nursery) as stage:
        stage.install()
        inputs = _inputs(stage, options)
        _say("the reference runs")
        known = references(stage, options.parallel)
        plans = [*(plan for reference in known.values() for plan in reference.plans()), *fault_plans(full=options.full)]
        plans = [plan for plan in plans if options.only in str(plan)]
        random.Random(options.seed).shuffle(plans)
        plans = plans[: options.plans]
        _say(f"{len(plans)} plans, seed {options.seed}")
        result = campaign(stage, known, plans, parallel=options.parallel, told=_Progress(len(plans)))
        bugs = [] if options.no_bugs else [*BUGS, *FAULT_BUGS]
        _say(f"{len(bugs)} seeded bugs")
        found = all_caught(stage, known, bugs, options.parallel)
    for name, evidence in found.items():
        _say(f"caught: {name}: {evidence.violations[0].invariant}" if evidence else f"NOT CAUGHT: {name}")
    report = {
        "kubernetes": assets.version,
        "seed": options.seed,
        **_of_plans(result, inputs),
        "seededBugs": {"total": len(found), "caught": sum(one is not None for one in found.values())},
        "generatedInputs": _of_inputs(inputs),
        "seconds": round(time.monotonic() - begun, 1),
    }
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    _say(json.dumps({name: value for name, value in report.items() if name != "violations"}, indent=2))
    for violation in report["violations"]:
        _say(f"VIOLATION: {json.dumps(violation)[:500]}")
    missed = any(one is None for one in found.values())
    return int(bool(report["violations"] or inputs.crashes or result.missed or missed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--seed", type=int, default=1, help="the order of the plans, which come with --plans, the inputs"
    )
    parser.add_argument("--plans", type=int, help="play only so many, chosen by the seed")
    parser.add_argument("--only", default="", help="play only plans whose name has this text")
    parser.add_argument("--full", action="store_true", help="also faults as long as they are in life: minutes")
    parser.add_argument("--inputs", type=int, default=_INPUTS, help="how many generated inputs; 0 for none")
    parser.add_argument("--parallel", type=int, default=_PARALLEL, help="how many plans at the same time")
    parser.add_argument("--no-bugs", action="store_true", help="leave out the seeded bugs")
    return parser


def _inputs(stage: Stage, options: argparse.Namespace) -> InputsReport:
    if not options.inputs:
        return InputsReport(total=0, refused=0, offline=0)
    _say(f"{options.inputs} generated inputs, seed {options.seed}")
    return run_inputs(stage, options.seed, options.inputs, _INPUTS_PARALLEL)


def _of_plans(result: Campaign, inputs: InputsReport) -> dict[str, Any]:
    struck = [
        {"plan": str(one.plan), "invariant": it.invariant, "detail": it.detail}
        for one in result.failed
        for it in one.violations
    ]
    sent = [{"plan": plan, "invariant": name, "detail": detail} for plan, name, detail in inputs.violations]
    return {
        "plans": len(result.played) + len(result.missed),
        "converged": len(result.played) - len(result.failed),
        "unreached": [str(plan) for plan in result.unreached],
        "violations": [*struck, *sent],
    }


def _of_inputs(inputs: InputsReport) -> dict[str, Any]:
    """total: those that came to the API server. refused: by itself. offline: specs that only the judges have seen."""
    return {
        "total": inputs.total,
        "crashes": len(inputs.crashes),
        "refused": inputs.refused,
        "offline": inputs.offline,
        "details": inputs.crashes[:20],
    }


class _Progress:
    """Says what fails at once, and how far it is now and then; keeps the logs of what failed in build/chaos."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._begun = total, 0, time.monotonic()

    def __call__(self, played: Played) -> None:
        self._done += 1
        if played.violations:
            path = _keep_log(played.plan, played.log)
            details = "; ".join(f"{it.invariant}: {it.detail.splitlines()[0]}" for it in played.violations)
            _say(f"VIOLATION in {played.plan}: {details} (log: {path})")
        if self._done % _TOLD_EVERY == 0 or self._done == self._total:
            _say(f"{self._done} of {self._total} plans after {time.monotonic() - self._begun:.0f} s")


def _keep_log(plan: Plan, log: str) -> Path:
    folder = REPORT.parent / "chaos"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{''.join(char if char.isalnum() else '-' for char in str(plan))}.log"
    path.write_text(log)
    return path.relative_to(ROOT)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
