"""Rotations of a fleet that fall due together: how fast they are done, against the script at the same concurrency."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from benchmarks.fleet import GROUP, KEY, ROTATIONS, Fleet, Member
from sandbox.stage import ROOT, Stage

CONCURRENCY: Final = 20
"""So many rotations the policy lets Keyturn run at once; the script has as many threads."""
PER_NAMESPACE: Final = 4
_AHEAD: Final = timedelta(seconds=45)
_PATIENCE: Final = 900.0


@dataclass(frozen=True)
class Together:
    """rotations: how many. keyturn, script: seconds. lost, twice: how many were rotated never, or again.

    most, most_in_namespace: how many the provider has seen under way at once; the policy limits them.
    """

    rotations: int
    keyturn: float
    script: float
    lost: int
    twice: int
    most: int
    most_in_namespace: int

    @property
    def throughput(self) -> float:
        """Keyturn's rate over the script's."""
        return self.script / self.keyturn


def measure_due(stage: Stage, fleet: Fleet, say: Callable[[str], None]) -> Together:
    """Have those that work fall due at one minute, with Keyturn; then rotate the same ones by the script."""
    stage.apply([_policy()])
    operator = stage.operator()
    due = _next_minute(datetime.now(UTC) + _AHEAD)
    cron = f"{due.minute} {due.hour} {due.day} {due.month} *"
    listed = stage.api.http.get(ROTATIONS, params={"limit": "1"}).json()["metadata"]["resourceVersion"]
    fleet.patch(fleet.working, {"spec": {"schedule": {"interval": None, "cron": cron, "stagger": "0s"}}})
    if datetime.now(UTC) > due:
        raise RuntimeError("the schedules were not written in time")
    ended = stage.do(_ended(fleet, listed))
    operator.stop()
    keyturn = ended - due.timestamp()
    say(f"{len(fleet.working)} at once: Keyturn {keyturn:.1f} s")
    applied = [fleet.account.simulator.counted(member.client, "rotate", "applied") for member in fleet.working]
    spans = {member: _span(fleet, member) for member, count in zip(fleet.working, applied, strict=True) if count}
    namespaces = {member.namespace for member in spans}
    script = _by_script(stage, fleet)
    say(f"{len(fleet.working)} at once: script {script:.1f} s")
    return Together(
        rotations=len(applied),
        keyturn=keyturn,
        script=script,
        lost=sum(count < 1 for count in applied),
        twice=sum(count > 1 for count in applied),
        most=overlapping(spans.values()),
        most_in_namespace=max(
            overlapping(span for member, span in spans.items() if member.namespace == namespace)
            for namespace in namespaces
        ),
    )


def overlapping(spans: Iterable[tuple[float, float]]) -> int:
    """The most spans, each from its start to its end, that share a moment."""
    most = count = 0
    for _, change in sorted(event for start, end in spans for event in ((start, 1), (end, -1))):
        count += change
        most = max(most, count)
    return most


def _policy() -> dict[str, Any]:
    limits = {"cluster": CONCURRENCY, "perNamespace": PER_NAMESPACE}
    spec = {"namespaceSelector": {}, "concurrency": limits}
    return {"apiVersion": GROUP, "kind": "RotationPolicy", "metadata": {"name": "fleet"}, "spec": spec}


def _span(fleet: Fleet, member: Member) -> tuple[float, float]:
    """From the provider's first start to its last rotate for a client, in epoch seconds."""
    counted = fleet.account.simulator.counters[member.client]
    return counted["start"]["applied"].times[0], counted["rotate"]["applied"].times[-1]


async def _ended(fleet: Fleet, version: str) -> float:
    """When the last one was completed, in epoch seconds."""
    wanted = {(member.namespace, member.name) for member in fleet.working}
    query = {"watch": "true", "resourceVersion": version}
    async with asyncio.timeout(_PATIENCE), fleet.session() as session, session.get(ROTATIONS, params=query) as stream:
        async for line in stream.content:
            raw = json.loads(line)["object"]
            last = (raw.get("status") or {}).get("lastRotation")
            if last is None:
                continue
            if last["result"] != "Completed":
                raise RuntimeError(f"{raw['metadata']['name']} ended {last['result']}: {last['message']}")
            wanted.discard((raw["metadata"]["namespace"], raw["metadata"]["name"]))
            if not wanted:
                return time.time()
    raise RuntimeError(f"{len(wanted)} rotations were not seen to end")


def _by_script(stage: Stage, fleet: Fleet) -> float:
    simulator = fleet.account.simulator
    order = {
        "kubeconfig": str(stage.control_plane.kubeconfig),
        "url": fleet.account.url,
        "project": simulator.project_id,
        "projectSecret": simulator.project_secret,
        "threads": CONCURRENCY,
        "jobs": [
            {
                "client": member.client,
                "namespace": member.namespace,
                "secret": member.name,
                "key": KEY,
                "deployment": member.name,
            }
            for member in fleet.working
        ],
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.floors.many"],
        cwd=ROOT,
        input=json.dumps(order),
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def _next_minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0) + timedelta(minutes=1)
