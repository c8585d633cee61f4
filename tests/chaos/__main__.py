"""`make chaos`: strikes the operator at every request of a rotation, in every way; writes build/chaos-report.json."""

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
from sandbox.stage import ROOT, Stage
from tests.chaos.bugs import BUGS
from tests.chaos.campaign import all_caught, campaign, references
from tests.chaos.play import Plan, Played

REPORT: Final = ROOT / "build" / "chaos-report.json"
_PARALLEL: Final = 4


def main(arguments: list[str]) -> int:
    """Run the campaign; 0 when all plans converged and all bugs were caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the order of the plans, and which come with --plans")
    parser.add_argument("--plans", type=int, help="play only so many, chosen by the seed")
    parser.add_argument("--only", default="", help="play only plans whose name has this text")
    parser.add_argument("--parallel", type=int, default=_PARALLEL, help="how many at the same time")
    parser.add_argument("--no-bugs", action="store_true", help="leave out the seeded bugs")
    options = parser.parse_args(arguments)
    begun = time.monotonic()
    assets = provide()
    with ControlPlane.start(assets) as plane, Stage(plane) as stage:
        stage.install()
        _say("the reference runs")
        known = references(stage, options.parallel)
        plans = [plan for reference in known.values() for plan in reference.plans() if options.only in str(plan)]
        random.Random(options.seed).shuffle(plans)
        plans = plans[: options.plans]
        _say(f"{len(plans)} plans, seed {options.seed}")
        result = campaign(stage, known, plans, parallel=options.parallel, told=_Progress(len(plans)))
        bugs = () if options.no_bugs else BUGS
        _say(f"{len(bugs)} seeded bugs")
        found = all_caught(stage, known, bugs, options.parallel)
    for name, evidence in found.items():
        _say(f"caught: {name}: {evidence.violations[0].invariant}" if evidence else f"NOT CAUGHT: {name}")
    report: dict[str, Any] = {
        "kubernetes": assets.version,
        "seed": options.seed,
        "plans": len(result.played),
        "converged": len(result.played) - len(result.failed),
        "violations": [
            {"plan": str(one.plan), "invariant": it.invariant, "detail": it.detail}
            for one in result.failed
            for it in one.violations
        ],
        "unreached": [str(plan) for plan in result.unreached],
        "seededBugs": {"total": len(found), "caught": sum(one is not None for one in found.values())},
        "seconds": round(time.monotonic() - begun, 1),
    }
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    _say(json.dumps({name: value for name, value in report.items() if name != "violations"}))
    return int(bool(report["violations"] or any(one is None for one in found.values())))


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
        if self._done % 20 == 0 or self._done == self._total:
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
