"""Starts over a whole fleet: how long until everything was looked at, in how much memory, and what was written."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from benchmarks.counting import CountingProxy
from benchmarks.fleet import Fleet
from sandbox.controlplane.endpoint import Endpoint
from sandbox.stage import NAMESPACE, ROOT, SERVICE_ACCOUNT, Operator, Stage, wait_until

_PATIENCE: Final = 900.0
_CALM: Final = 3.0
"""Seconds after a start: memory is asked for then."""


@dataclass
class Starts:
    """Seconds from the start of the process until all objects were looked at, and MiB of resident memory then."""

    seconds: list[float] = field(default_factory=list)
    mebibytes: list[float] = field(default_factory=list)


@dataclass
class Fleets:
    """settling: seconds for the first look at all. written: what was, while nothing was due, without leases."""

    keyturn: Starts = field(default_factory=Starts)
    floor: Starts = field(default_factory=Starts)
    customary: Starts = field(default_factory=Starts)
    settling: float = 0.0
    written_on_restart: Counter[str] = field(default_factory=Counter)
    written_at_rest: Counter[str] = field(default_factory=Counter)


def measure_starts(stage: Stage, fleet: Fleet, times: int, rest: float, say: Callable[[str], None]) -> Fleets:
    """Start Keyturn and the bare loop so often, in turn; then watch Keyturn at rest for `rest` seconds."""
    found = Fleets()
    shipped = stage.control_plane.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT)
    with _keyturn(stage, fleet, Starts(), shipped) as seconds:
        found.settling = seconds
        _all_ready(fleet)
    say(f"the first look at {fleet.size} objects: {found.settling:.0f} s")
    for _ in range(times):
        with _keyturn(stage, fleet, found.keyturn, shipped):
            pass
        _floor(fleet, found.floor, shipped)
        say(f"ready: Keyturn {found.keyturn.seconds[-1]:.2f} s, bare loop {found.floor.seconds[-1]:.2f} s")
    _watch_rest(stage, fleet, found, rest)
    say(f"written on restart: {dict(found.written_on_restart)}; at rest: {dict(found.written_at_rest)}")
    return found


def measure_customary(stage: Stage, fleet: Fleet, found: Fleets, times: int, say: Callable[[str], None]) -> None:
    """The customary operator: first once, so that it finds its own marks on the objects, as at any restart."""
    admin = stage.control_plane.kubeconfig
    _customary(fleet, Starts(), admin)
    for _ in range(times):
        _customary(fleet, found.customary, admin)
        say(f"ready: customary operator {found.customary.seconds[-1]:.2f} s")


@contextmanager
def _keyturn(stage: Stage, fleet: Fleet, starts: Starts, kubeconfig: Path) -> Iterator[float]:
    """Keyturn, from its start on; the seconds until it had looked at everything."""
    begun = time.perf_counter()
    operator = stage.operator(kubeconfig=kubeconfig)
    wait_until(lambda: _settled(operator, fleet.size), "all was looked at", seconds=_PATIENCE, pause=0.1)
    starts.seconds.append(time.perf_counter() - begun)
    time.sleep(_CALM)
    starts.mebibytes.append(_resident(operator.pid))
    try:
        yield starts.seconds[-1]
    finally:
        operator.stop()


def _all_ready(fleet: Fleet) -> None:
    """Nobody may still wait for something, or a restart has work to do that belongs to the first look."""
    for raw in fleet.objects():
        states = {one["type"]: one["status"] for one in (raw.get("status") or {}).get("conditions", [])}
        if states.get("Ready") != "True":
            raise RuntimeError(f"{raw['metadata']['name']} is not ready: {states}")


def _settled(operator: Operator, size: int) -> bool:
    try:
        facts = httpx.get(f"http://{operator.health}/healthz", timeout=10, trust_env=False).json()["keyturn"]
    except httpx.TransportError:
        return False
    return bool(facts["leading"] and facts["rotations"] == size and not facts["waiting"] and not facts["working"])


def _watch_rest(stage: Stage, fleet: Fleet, found: Fleets, rest: float) -> None:
    endpoint = stage.control_plane.service_account_endpoint(NAMESPACE, SERVICE_ACCOUNT)
    proxy = CountingProxy(endpoint)
    serving = proxy.running()
    url = stage.do(serving.__aenter__())
    try:
        path = stage.control_plane.directory / "kubeconfig-rest"
        through = Endpoint(url, endpoint.ca_file, endpoint.token).write_kubeconfig(path, "rest")
        with _keyturn(stage, fleet, Starts(), through):
            found.written_on_restart = without_leases(proxy.writes)
            proxy.writes.clear()
            time.sleep(rest)
            found.written_at_rest = without_leases(proxy.writes)
    finally:
        stage.do(serving.__aexit__(None, None, None))


def without_leases(writes: Counter[str]) -> Counter[str]:
    """Leaving out what a leader writes at any time, whatever there is to do: its lease."""
    return Counter({name: count for name, count in writes.items() if name.split()[1] != "leases"})


def _floor(fleet: Fleet, starts: Starts, kubeconfig: Path) -> None:
    _process([sys.executable, "-m", "benchmarks.floors.listwatch", str(kubeconfig)], fleet, starts, {})


def _customary(fleet: Fleet, starts: Starts, kubeconfig: Path) -> None:
    code = ROOT / "benchmarks" / "floors" / "customary.py"
    command = [sys.executable, "-m", "kopf", "run", str(code), "--all-namespaces", "--quiet"]
    _process(command, fleet, starts, {"KUBECONFIG": str(kubeconfig), "OBJECTS": str(fleet.size)})


def _process(command: list[str], fleet: Fleet, starts: Starts, environment: dict[str, str]) -> None:
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline().decode().split()
        if said != ["ready", str(fleet.size)]:
            raise RuntimeError(f"{' '.join(command[:4])} said {said}")
        starts.seconds.append(time.perf_counter() - begun)
        time.sleep(_CALM)
        starts.mebibytes.append(_resident(process.pid))
    finally:
        process.terminate()
        process.wait(60)


def _resident(pid: int) -> float:
    """MiB of resident memory (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))
