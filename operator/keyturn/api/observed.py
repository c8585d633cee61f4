"""What the cluster was seen to hold: plain facts, passed from `cluster` to `rotation`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr


@dataclass(frozen=True, slots=True)
class SecretView:
    """The Secret that the workloads read.

    value: of the rotated key; None where the key is missing.
    problem: why Keyturn cannot write it (immutable, not text), in a sentence; None where it can.
    written_time: when Keyturn wrote to it last, by the API server's clock.
    ticked: which of the two marks it carries that writes change in turn.
    created: when it was created.
    rotated_at: its annotation keyturn.dev/rotated-at, as its author wrote it.
    """

    name: str
    uid: str
    resource_version: str
    value: SecretStr | None
    has_previous: bool = False
    problem: str | None = None
    written_time: datetime | None = None
    ticked: bool = False
    created: datetime | None = None
    rotated_at: str | None = None


@dataclass(frozen=True, slots=True)
class Journal:
    """The Secret that holds the values of a running rotation.

    previous: None where the workload Secret did not exist or lacked the key when the rotation began.
    pending: None until the provider has answered.
    """

    name: str
    resource_version: str
    rotation_id: str
    previous: SecretStr | None
    pending: SecretStr | None
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that reads the Secret and may still run.

    owner: (kind, name) of the workload at the top of its chain of owners; the pod itself where it has none.
    stamp: its keyturn.dev/rotation annotation, that is its template's when it was created.
    started: when the newest of its containers started, by the kubelet's clock.
    revision: of its template; None where its workload keeps no account of templates.
    live: it reads the Secret only in ways that show a new value without a restart: volumes that follow it, and image
    pulls.
    volume: it reads the Secret in a volume that shows a new value without a restart, perhaps besides other ways; or it
    is said to use the value in a way that is not known.
    failing: what keeps its containers from running, when they have failed again and again; in a sentence.
    """

    name: str
    owner: tuple[str, str]
    stamp: str | None
    created: datetime
    started: datetime | None
    ready: bool
    terminating: bool
    revision: int | None = None
    live: bool = False
    failing: str | None = None
    uid: str = ""
    volume: bool = False


@dataclass(frozen=True, slots=True)
class Template:
    """A pod template that a workload has had.

    revision: its place in the order in which the workload got its templates, by its first use.
    stamp: its keyturn.dev/rotation annotation.
    created: when its first pod could be created, by the API server's clock.
    """

    revision: int
    stamp: str | None
    created: datetime


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload that reads the Secret.

    restartable: Keyturn can restart it.
    stamp: the keyturn.dev/rotation annotation of its pod template; of the Rollout itself.
    observed: its controller has seen the newest template.
    template_time: when pods of the newest template could be created first, by the API server's clock.
    templates: those that it has had, as far as its controller remembers.
    settled: its controller has seen the newest template and runs exactly the desired pods of it, all available.
    failure: why its controller gave up on the rollout, in the controller's words.
    paused: its controller was told not to roll it out, and what to do about that; in a sentence.
    manual: what a person must do for its pods to be replaced; in a sentence. None where its controller does it.
    ordered: its controller replaces one pod after the other, and waits for a pod that is not ready, though it will be
    replaced.
    wave: its place in the order of restarts; None where its annotation is not a whole number.
    """

    kind: str
    name: str
    restartable: bool
    stamp: str | None = None
    desired: int = 0
    observed: bool = True
    template_time: datetime | None = None
    templates: tuple[Template, ...] = ()
    settled: bool = True
    failure: str | None = None
    paused: str | None = None
    manual: str | None = None
    ordered: bool = False
    wave: int | None = 0


@dataclass(frozen=True, slots=True)
class Consumers:
    """Everything in the namespace that reads the Secret, or is said to do so.

    missing: workloads (kind, name) that spec.rollout.targets names and that do not exist.
    """

    workloads: tuple[Workload, ...] = ()
    pods: tuple[Pod, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()
