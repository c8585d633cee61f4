"""`make soak`: rotations without end under random faults and kills: nothing refused, nothing left over, memory flat.

One operator works for all; two thirds of the time it is also killed now and then, and the last third it lives through,
so that its memory can be told.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from sandbox.assets import provide
from sandbox.controlplane import ControlPlane
from sandbox.controlplane.endpoint import Endpoint
from sandbox.simulators.faults import How
from sandbox.stage import NAMESPACE, ROOT, SERVICE_ACCOUNT, Operator, Stage
from tests.chaos.scenarios import PROVIDERS, SUCCESS, Scenario, provider_block, staged
from tests.e2e.proxy import Exchange, pass_on, proxy
from tests.e2e.scene import Scene

REPORT: Final = ROOT / "build" / "soak-report.json"
_ROTATIONS: Final = "clientsecretrotations"
_CALM: Final = 12.0
"""Seconds between two troubles, at most: a start of the operator and a few passes fit in between."""
_EACH: Final = 2
_PATIENCE: Final = 300.0
_ASKED: Final = {"stytch": ("get", "token"), "janrain": ("read", "count"), "snaptrade": ("authorizations", "list")}


class Weather:
    """The guard before the API server: fair, until it is told otherwise for some seconds."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._until, self._kind = 0.0, "fair"

    def turn(self, kind: str, seconds: float) -> None:
        """kind: `down` (503 to all), `flaky` (each fifth request is dropped, before or after it), or `slow`."""
        self._until, self._kind = time.monotonic() + seconds, kind

    async def __call__(self, exchange: Exchange) -> web.StreamResponse:
        kind = self._kind if time.monotonic() < self._until else "fair"
        if kind == "down":
            return web.Response(status=503)
        if kind == "flaky" and self._random.random() < 0.2:
            if self._random.random() < 0.5 and not exchange.is_watch:
                await exchange.forward()
            return exchange.drop()
        if kind == "slow":
            await asyncio.sleep(self._random.uniform(0.2, 1.5))
        return await pass_on(exchange)


@dataclass
class Tally:
    """What has happened. rotations: ended, by provider. troubles: by kind. violations: in words. rss: MiB, by time."""

    rotations: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)


class Soak:
    """The scenes, the operator and the troubles of one run."""

    def __init__(self, stage: Stage, scenes: list[Scene], kubeconfig: Path, weather: Weather, seed: int) -> None:
        self._stage, self._scenes, self._weather = stage, scenes, weather
        self._random = random.Random(seed)
        self._log = stage.control_plane.directory / "soak.log"
        self._operator = Operator(kubeconfig, self._log, "--log-format", "text", "--sweep-interval", "15")
        self._over = threading.Event()
        self.tally = Tally()

    def run(self, seconds: float) -> Tally:
        """Rotate for so long, and judge what is there in the end."""
        begun = time.monotonic()
        self._operator.start()
        with ThreadPoolExecutor(len(self._scenes)) as pool:
            working = [pool.submit(self._keep_rotating, scene) for scene in self._scenes]
            while time.monotonic() < begun + seconds and not all(work.done() for work in working):
                share = (time.monotonic() - begun) / seconds
                if share > 2 / 3:
                    self.tally.rss.append(_rss(self._operator.pid))
                self._make_trouble(kill=share < 0.6)
                time.sleep(self._random.uniform(0.3, 1.0) * _CALM)
            self._over.set()
            for work in working:
                work.result()
        self._operator.kill()
        self._judge_log()
        return self.tally

    def _make_trouble(self, *, kill: bool) -> None:
        kinds = ["down", "flaky", "slow", "provider"] + (["kill", "terminate"] if kill else [])
        kind = self._random.choice(kinds)
        self.tally.troubles[kind] += 1
        for scene in self._scenes:
            # What the last trouble has left unused is over: where it piles up, a provider never answers again.
            scene.account.simulator.clear_faults()
        if kind in ("down", "flaky", "slow"):
            self._weather.turn(kind, self._random.uniform(1, 8))
        elif kind == "provider":
            for scene in self._scenes:
                self._trouble_provider(scene)
        else:
            if kind == "kill":
                self._operator.kill()
            else:
                self._operator.stop(60, signal.SIGTERM)
            self._operator.start()

    def _trouble_provider(self, scene: Scene) -> None:
        """What only asks may fail in any way; what changes something only where the provider can be asked about it."""
        operation = self._random.choice(_ASKED[scene.provider])
        how = self._random.choice([How.STATUS, How.DROP, How.MALFORMED, How.TRUNCATE])
        scene.account.simulator.add_fault(operation, how, caller="keyturn", times=self._random.randint(1, 3))
        if scene.provider != "snaptrade" and self._random.random() < 0.5:
            applied = self._random.random() < 0.5
            scene.account.simulator.add_fault("start", How.DROP, apply=applied, caller="keyturn")

    def _keep_rotating(self, scene: Scene) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            before = scene.secret()["CLIENT_SECRET"]
            try:
                scene.put_rotation(f"r-{number}", acceptDowntime=scene.provider == "snaptrade", soak="500ms")
                self._wait_for_the_end(scene, f"r-{number}")
                self._judge(scene, number, before)
            except Exception as error:  # noqa: BLE001 - a defect of the soak itself must not cost the report
                self.tally.violations.append(f"{scene.namespace}: {error!r}"[:2000])
                return
            self.tally.rotations[scene.provider] += 1

    def _wait_for_the_end(self, scene: Scene, request: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            status = scene.status()
            ended = status.get("lastHandledRotationRequest") == request and status.get("rotation") is None
            if ended and not scene.rotation()["metadata"].get("finalizers") and not scene.journals():
                return
            if status.get("phase") == "Blocked" and scene.provider == "snaptrade":
                self._do_as_told(scene)
            time.sleep(0.3)
        raise AssertionError(f"{request} has not ended: {json.dumps(scene.status())}")

    def _do_as_told(self, scene: Scene) -> None:
        """The one answer of SnapTrade was lost with the process: a person puts the value in force into the Secret."""
        value = scene.account.simulator.users[scene.client_id].secret
        if scene.secret()["CLIENT_SECRET"] != value:
            self.tally.troubles["answer lost for good"] += 1
            scene.put_secret("m2m", {"CLIENT_SECRET": value, "OTHER": "untouched"})

    def _judge(self, scene: Scene, number: int, before: str) -> None:
        secret, status = scene.secret(), scene.status()
        assert status["lastRotation"]["result"] == "Completed", status["lastRotation"]
        assert secret["CLIENT_SECRET"] != before, "I9: nothing was rotated"
        assert scene.account.simulator.accepts(scene.client_id, secret["CLIENT_SECRET"]), "I3"
        deployment = scene.get(scene.deployment_path()) or {}
        assert deployment["metadata"]["generation"] - 1 == number, f"I7: {deployment['metadata']['generation'] - 1}"
        refused = scene.calls()["refused"]
        assert scene.provider == "snaptrade" or not refused, f"I3: {refused} calls refused"

    def _judge_log(self) -> None:
        text = self._log.read_text()
        for scene in self._scenes:
            if scene.secret()["CLIENT_SECRET"] in text or scene.credential in text:
                self.tally.violations.append("I8: a secret value is in the log")
        if "Traceback" in text:
            self.tally.violations.append(f"a traceback: {text.partition('Traceback')[2][:1500]}")


@contextmanager
def prepared(stage: Stage, seed: int) -> Iterator[Soak]:
    """The scenes of a run, two at each provider, and the proxy before the API server."""
    with ExitStack() as stack:
        scenarios = [Scenario(provider, SUCCESS) for provider in PROVIDERS for _ in range(_EACH)]
        scenes = [stack.enter_context(staged(stage, scenario)) for scenario in scenarios]
        for scene in scenes:
            scene.put_provider(**provider_block(scene, scene.account.url))
        weather, plane, held = Weather(seed), stage.control_plane, AsyncExitStack()
        upstream = plane.service_account_endpoint(NAMESPACE, SERVICE_ACCOUNT)
        address = stage.do(held.enter_async_context(proxy(upstream.server, weather, upstream.ssl_context())))
        stack.callback(lambda: stage.do(held.aclose()))
        kubeconfig = plane.directory / "kubeconfig-soak"
        Endpoint(address, upstream.ca_file, upstream.token).write_kubeconfig(kubeconfig, "soak")
        yield Soak(stage, scenes, kubeconfig, weather, seed)


def _rss(pid: int) -> float:
    """Resident memory in MiB (proc(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def main(arguments: list[str]) -> int:
    """Run it and write build/soak-report.json; 0 when nothing was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    with ControlPlane.start(provide()) as plane, Stage(plane) as stage:
        stage.install()
        with prepared(stage, options.seed) as soak:
            tally = soak.run(options.minutes * 60)
    half = len(tally.rss) // 2
    memory = [round(statistics.median(part), 1) for part in (tally.rss[:half], tally.rss[half:]) if part]
    if len(memory) == 2 and memory[1] > memory[0] * 1.1:
        tally.violations.append(f"memory grows: {memory} MiB")
    report: dict[str, Any] = {
        "minutes": options.minutes,
        "seed": options.seed,
        "rotations": dict(tally.rotations),
        "troubles": dict(tally.troubles),
        "rssMiB": memory,
        "violations": tally.violations,
    }
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return int(bool(tally.violations))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
