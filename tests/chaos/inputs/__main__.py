"""Play hostile input by itself: `python -m tests.chaos.inputs [--seed N] [--total N] [--parallel N] [--plan N]`.

Prints what was found, and ends with 1 when that is anything. --plan plays one plan of a run again.
"""

from __future__ import annotations

import argparse
import sys

from sandbox.assets import provide
from sandbox.controlplane import ControlPlane
from sandbox.stage import Stage
from tests.chaos.inputs.run import run_inputs


def main() -> int:
    """Run on a control plane of its own."""
    parser = argparse.ArgumentParser(description="Play hostile input on a control plane of its own.")
    for name, default in (("seed", 1), ("total", 2000), ("parallel", 28)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--plan", type=int)
    asked = parser.parse_args()
    with ControlPlane.start(provide()) as plane, Stage(plane) as stage:
        stage.install()
        report = run_inputs(stage, asked.seed, asked.total, asked.parallel, only=asked.plan)
    for crash in report.crashes:
        print(f"CRASH {crash}\n")  # noqa: T201
    for violation in report.violations:
        print(*violation, sep="\n  ", end="\n\n")  # noqa: T201
    print(  # noqa: T201
        f"{report.total} inputs ({report.refused} refused by the API server), {report.offline} more specs judged,"
        f" {len(report.crashes)} crashes, {len(report.violations)} violations, {report.seconds:.0f} s"
    )
    return 1 if report.crashes or report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
