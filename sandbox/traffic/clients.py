"""The pod clients: started and stopped with the pods by the kubelet stand-in, calling until then."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sandbox.kubelet.api import APIError
from sandbox.traffic.consumption import Wanted, Way, wanted, ways, ways_of_ephemeral
from sandbox.traffic.probe import TrafficProbe
from sandbox.traffic.report import Calls, PodTraffic, Second, TrafficReport, fingerprint
from sandbox.traffic.secrets import Reader, Secrets

log = logging.getLogger(__name__)

KEPT_SECONDS = 3600
Credential = tuple[str, str]


class Meter:
    """Counts calls, by pod and by second."""

    def __init__(self) -> None:
        self.pods: list[PodTraffic] = []
        self.problems: list[str] = []
        self.totals = Second(time=0)
        self._seconds: deque[Second] = deque(maxlen=KEPT_SECONDS)

    def add(self, traffic: PodTraffic, value: str, verdict: bool | None) -> None:
        """Count a call that has just ended."""
        now = time.time()
        traffic.calls.add(verdict, now)
        traffic.values.setdefault(fingerprint(value), Calls()).add(verdict, now)
        if not self._seconds or self._seconds[-1].time != int(now):
            self._seconds.append(Second(time=int(now)))
        for counted in (self.totals, self._seconds[-1]):
            counted.accepted += verdict is True
            counted.refused += verdict is False
            counted.failed += verdict is None

    def last_second(self) -> Second:
        """The calls within the last second that is over; for a live display."""
        wished = int(time.time()) - 1
        return next((second for second in reversed(self._seconds) if second.time == wished), Second(time=wished))

    def report(self) -> TrafficReport:
        """Everything until now."""
        return TrafficReport(
            accepted=self.totals.accepted,
            refused=self.totals.refused,
            failed=self.totals.failed,
            pods=[traffic.model_copy(deep=True) for traffic in self.pods],
            seconds=[second.model_copy() for second in self._seconds],
            problems=list(self.problems),
        )


class PodClients:
    """A `PodHooks` that gives every annotated pod a client for each way in which it reads its credential."""

    def __init__(
        self, api: Reader, probes: Mapping[str, TrafficProbe], *, rate: float = 5.0, volume_delay: float = 1.0
    ) -> None:
        """probes: by kind of provider. rate: calls per second and client. volume_delay: see `Secrets`."""
        self.meter = Meter()
        self._probes = probes
        self._rate = rate
        self._secrets = Secrets(api, volume_delay=volume_delay)
        self._running: dict[str, tuple[asyncio.Event, list[asyncio.Task[None]]]] = {}

    async def started(self, pod: dict[str, Any]) -> None:
        """Read the credential as the containers would, and begin to call with it."""
        with self._reporting(pod):
            want = wanted(pod)
            if want is not None:
                found = ways(pod, want.secret, want.key)
                if not found:
                    raise ValueError(f"its spec does not read key {want.key} of Secret {want.secret}")
                await self._start(pod, want, found)

    async def attached(self, pod: dict[str, Any], container: str) -> None:
        """The same for an ephemeral container, if it reads the credential."""
        with self._reporting(pod):
            want = wanted(pod)
            if want is not None and (found := ways_of_ephemeral(pod, container, want.secret, want.key)):
                await self._start(pod, want, found)

    async def stopped(self, pod: dict[str, Any]) -> None:
        """End the pod's clients. A call under way is still finished and counted."""
        if running := self._running.pop(pod["metadata"]["uid"], None):
            stop, tasks = running
            stop.set()
            await asyncio.gather(*tasks)

    async def aclose(self) -> None:
        """End all clients."""
        for stop, _ in self._running.values():
            stop.set()
        await asyncio.gather(*(task for _, tasks in self._running.values() for task in tasks))
        self._running.clear()
        await self._secrets.aclose()

    @contextmanager
    def _reporting(self, pod: dict[str, Any]) -> Iterator[None]:
        """What keeps a pod from having a client is a problem in the report."""
        try:
            yield
        except (ValueError, APIError) as error:
            problem = f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']} has no client: {error}"
            self.meter.problems.append(problem)
            log.warning(problem)

    async def _start(self, pod: dict[str, Any], want: Wanted, found: Collection[Way]) -> None:
        probe = self._probes.get(want.kind)
        if probe is None:
            raise ValueError(f"no simulator for clients of kind {want.kind}: there are {', '.join(self._probes)}")
        namespace = pod["metadata"]["namespace"]
        at_start = _credential(want, await self._secrets.read(namespace, want.secret))

        def live() -> Credential:
            return _credential(want, self._secrets.delayed(namespace, want.secret))

        sources: dict[Way, Callable[[], Credential]] = {Way.SNAPSHOT: lambda: at_start, Way.LIVE: live}
        stop, tasks = self._running.setdefault(pod["metadata"]["uid"], (asyncio.Event(), []))
        tasks.extend(
            asyncio.create_task(self._call(probe, _traffic(pod, want.kind, way), sources[way], stop))
            for way in sorted(found)
        )

    async def _call(
        self, probe: TrafficProbe, traffic: PodTraffic, source: Callable[[], Credential], stop: asyncio.Event
    ) -> None:
        self.meter.pods.append(traffic)
        while not stop.is_set():
            try:
                client_id, secret = source()
            except ValueError as error:
                # A key that has gone from a volume is what the container would see as well.
                self.meter.problems.append(f"pod {traffic.namespace}/{traffic.pod}: {error}")
                break
            self.meter.add(traffic, secret, await probe.call(client_id, secret))
            await _wait(stop, random.uniform(0.5, 1.5) / self._rate)
        traffic.stopped = time.time()


def _credential(want: Wanted, values: Mapping[str, str]) -> Credential:
    missing = [key for key in (want.key, want.client_id_key) if key and not values.get(key)]
    if missing:
        raise ValueError(f"Secret {want.secret} has no key {missing[0]}, or it is empty")
    return want.client_id or values[want.client_id_key or ""], values[want.key]


def _traffic(pod: dict[str, Any], kind: str, way: Way) -> PodTraffic:
    meta = pod["metadata"]
    owner = next((one for one in meta.get("ownerReferences") or [] if one.get("controller")), None)
    return PodTraffic(
        namespace=meta["namespace"],
        pod=meta["name"],
        uid=meta["uid"],
        owner=f"{owner['kind']}/{owner['name']}" if owner else None,
        client=kind,
        way=way,
        started=time.time(),
    )


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
