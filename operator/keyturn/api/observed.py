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
    """

    name: str
    uid: str
    resource_version: str
    value: SecretStr | None
    has_previous: bool = False
    problem: str | None = None
    written_time: datetime | None = None
    ticked: bool = False


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
    """

    name: str
    owner: tuple[str, str]
    stamp: str | None
    created: datetime
    started: datetime | None
    ready: bool
    terminating: bool
    revision: int | None = None


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

    restartable: Keyturn may restart it through its pod template.
    stamp: the keyturn.dev/rotation annotation of its pod template.
    observed: its controller has seen the newest template.
    template_time: when pods of the newest template could be created first, by the API server's clock.
    templates: those that it has had, as far as its controller remembers.
    settled: its controller has seen the newest template and runs exactly the desired pods of it, all available.
    failure: why its controller gave up on the rollout, in the controller's words.
    paused: its controller was told not to roll it out.
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
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Consumers:
    """Everything in the namespace that reads the Secret."""

    workloads: tuple[Workload, ...] = ()
    pods: tuple[Pod, ...] = ()
