"""A namespace as a model: one Secret, Deployments that roll, and pods that call the provider with what they read.

Nothing moves by itself: `tick` lets the controllers and the kubelet do what is due at the time given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pydantic import SecretStr

from keyturn.api.observed import Consumers, Pod, SecretView, Workload

SECOND = timedelta(seconds=1)


def to_second(moment: datetime) -> datetime:
    """As Kubernetes stamps times."""
    return moment.replace(microsecond=0)


@dataclass
class FakeSecret:
    """`written`: when Keyturn changed it last; what others write leaves that alone."""

    value: str | None
    previous: str | None = None
    written: datetime | None = None
    version: int = 1
    created: datetime | None = None
    rotated_at: str | None = None

    def view(self) -> SecretView:
        return SecretView(
            name="app",
            uid="secret-uid",
            resource_version=str(self.version),
            value=SecretStr(self.value) if self.value is not None else None,
            has_previous=self.previous is not None,
            written_time=to_second(self.written) if self.written else None,
            created=self.created,
            rotated_at=self.rotated_at,
        )


@dataclass
class FakePod:
    """`held`: the value that its container read when it started; None before. `ends`: when it is gone."""

    name: str
    owner: tuple[str, str]
    stamp: str | None
    created: datetime
    starts: datetime
    held: str | None = None
    started: datetime | None = None
    ready: bool = False
    ends: datetime | None = None
    sick: bool = False
    crashing: bool = False
    live: bool = False

    @property
    def terminating(self) -> bool:
        return self.ends is not None

    def view(self) -> Pod:
        return Pod(
            name=self.name,
            owner=self.owner,
            stamp=self.stamp,
            created=to_second(self.created),
            started=to_second(self.started) if self.started else None,
            ready=self.ready,
            terminating=self.terminating,
            live=self.live,
            volume=self.live,
            failing="container app crashes" if self.crashing else None,
        )


@dataclass
class FakeDeployment:
    """`sick`: pods whose template carries a stamp that this accepts never become ready.

    Its controller sees a new template at the next tick, never in the moment of the change.
    """

    name: str
    replicas: int
    start_delay: timedelta = SECOND / 2
    grace: timedelta = SECOND
    stamp: str | None = None
    seen_stamp: str | None = None
    seen_replicas: int = -1
    template_time: datetime | None = None
    sick: Callable[[str | None], bool] = lambda stamp: False
    gives_up: bool = False
    wave: int = 0
    paused: bool = False
    ordered: bool = False
    """As a StatefulSet: one pod at a time, from the top, and none while another is not ready."""
    stamps: Counter[str] = field(default_factory=Counter)

    @property
    def owner(self) -> tuple[str, str]:
        return "Deployment", self.name

    def restart(self, stamp: str) -> None:
        if self.stamp != stamp:
            self.stamp = stamp
            self.stamps[stamp] += 1


class FakeNamespace:
    """What reads the Secret, with the traffic that it makes."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.secret: FakeSecret | None = None
        self.deployments: dict[str, FakeDeployment] = {}
        self.pods: list[FakePod] = []
        self._names = 0

    def deploy(self, deployment: FakeDeployment) -> None:
        self.deployments[deployment.name] = deployment

    def add_pod(self, deployment: FakeDeployment | None, *, start_delay: timedelta = SECOND / 2) -> FakePod:
        self._names += 1
        name = f"pod-{self._names}"
        owner = deployment.owner if deployment else ("Pod", name)
        stamp = deployment.stamp if deployment else None
        pod = FakePod(name, owner, stamp, self.now(), self.now() + start_delay)
        pod.sick = deployment is not None and deployment.sick(stamp)
        self.pods.append(pod)
        return pod

    def end_pods(self, pods: Iterable[FakePod], grace: timedelta = SECOND) -> None:
        for pod in pods:
            pod.ends = pod.ends or self.now() + grace

    def restart_container(self, pod: FakePod) -> None:
        """The container starts anew in the same pod, and reads the Secret again."""
        if pod.held is not None:
            pod.held, pod.ready, pod.started, pod.starts = None, False, None, self.now()

    def running(self) -> list[FakePod]:
        return [pod for pod in self.pods if pod.held is not None]

    def tick(self) -> None:
        """Let the kubelet and the controllers do what is due."""
        self.pods = [pod for pod in self.pods if pod.ends is None or self.now() < pod.ends]
        for pod in self.pods:
            self._run(pod)
        for deployment in self.deployments.values():
            self._roll(deployment)
        self._orphans()

    def _run(self, pod: FakePod) -> None:
        readable = self.secret is not None and self.secret.value is not None
        if pod.held is None and not pod.terminating and self.now() >= pod.starts and readable:
            assert self.secret is not None
            pod.held, pod.started = self.secret.value, self.now()
        pod.ready = pod.held is not None and not pod.sick and not pod.terminating

    def _roll(self, deployment: FakeDeployment) -> None:
        """maxSurge 1, maxUnavailable 0."""
        if deployment.paused:
            return
        if deployment.template_time is None or deployment.seen_stamp != deployment.stamp:
            deployment.template_time = self.now()
        deployment.seen_stamp, deployment.seen_replicas = deployment.stamp, deployment.replicas
        live = self._live(deployment)
        if deployment.ordered:
            self._roll_in_order(deployment, live)
            return
        if len(live) == deployment.replicas and all(pod.stamp == deployment.stamp for pod in live):
            return
        new = [pod for pod in live if pod.stamp == deployment.stamp]
        old = [pod for pod in live if pod.stamp != deployment.stamp]
        for pod in new[deployment.replicas :]:
            self.end_pods([pod], deployment.grace)
        while len(live) < deployment.replicas + (1 if old else 0) and len(new) < deployment.replicas:
            pod = self.add_pod(deployment, start_delay=deployment.start_delay)
            new.append(pod)
            live.append(pod)
        available = sum(pod.ready for pod in live)
        for pod in sorted(old, key=lambda pod: pod.ready):
            if not pod.ready or available > deployment.replicas or deployment.replicas == 0:
                available -= pod.ready
                self.end_pods([pod], deployment.grace)

    def _roll_in_order(self, deployment: FakeDeployment, live: list[FakePod]) -> None:
        if not all(pod.ready for pod in live) or any(
            pod.terminating for pod in self.pods if pod.owner == deployment.owner
        ):
            return
        if len(live) < deployment.replicas:
            self.add_pod(deployment, start_delay=deployment.start_delay)
            return
        old = [pod for pod in live if pod.stamp != deployment.stamp]
        self.end_pods(old[-1:], deployment.grace)

    def _live(self, deployment: FakeDeployment) -> list[FakePod]:
        return [pod for pod in self.pods if pod.owner == deployment.owner and not pod.terminating]

    def _orphans(self) -> None:
        gone = [pod for pod in self.pods if pod.owner[0] == "Deployment" and pod.owner[1] not in self.deployments]
        self.end_pods(gone)

    def consumers(self) -> Consumers:
        workloads = tuple(self._workload(deployment) for deployment in self.deployments.values())
        return Consumers(workloads=workloads, pods=tuple(pod.view() for pod in self.pods))

    def _workload(self, deployment: FakeDeployment) -> Workload:
        live = self._live(deployment)
        ready = [pod for pod in live if pod.stamp == deployment.stamp and pod.ready]
        observed = deployment.seen_stamp == deployment.stamp and deployment.seen_replicas == deployment.replicas
        return Workload(
            kind="Deployment",
            name=deployment.name,
            restartable=True,
            stamp=deployment.stamp,
            desired=deployment.replicas,
            observed=observed,
            template_time=to_second(deployment.template_time) if observed and deployment.template_time else None,
            settled=observed and len(live) == len(ready) == deployment.replicas,
            failure="deadline exceeded" if deployment.gives_up else None,
            paused="spec.paused is set: resume the rollout" if deployment.paused else None,
            wave=deployment.wave,
            ordered=deployment.ordered,
        )
