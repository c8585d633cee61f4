"""What the pod clients counted. Times are seconds since the epoch; values appear as fingerprints only."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel, Field

from sandbox.traffic.consumption import Way

FINGERPRINT_LENGTH = 12


def fingerprint(value: str) -> str:
    """Tells values apart: twelve hexadecimal digits of the SHA-256."""
    return hashlib.sha256(value.encode()).hexdigest()[:FINGERPRINT_LENGTH]


class Count(BaseModel):
    """How often, and between when and when."""

    count: int = 0
    first: float | None = None
    last: float | None = None

    def add(self, now: float) -> None:
        """Count one more."""
        self.count += 1
        self.first = now if self.first is None else self.first
        self.last = now


class Calls(BaseModel):
    """Calls by their end. Failed are those without a verdict on the credential: no connection, a timeout, a 5xx."""

    accepted: Count = Field(default_factory=Count)
    refused: Count = Field(default_factory=Count)
    failed: Count = Field(default_factory=Count)

    def add(self, verdict: bool | None, now: float) -> None:
        """Count a call by its verdict."""
        {True: self.accepted, False: self.refused, None: self.failed}[verdict].add(now)


class PodTraffic(BaseModel):
    """The calls of one run of a pod's containers, in one way of reading the credential."""

    namespace: str
    pod: str
    uid: str
    owner: str | None = None
    """`ReplicaSet/web-5d4f`, for the pod's controller."""
    client: str
    """The kind of provider."""
    way: Way
    started: float
    stopped: float | None = None
    calls: Calls = Field(default_factory=Calls)
    values: dict[str, Calls] = {}
    """The same calls by fingerprint of the value used."""


class Second(BaseModel):
    """All pods' calls that ended within one second."""

    time: int
    accepted: int = 0
    refused: int = 0
    failed: int = 0


class TrafficReport(BaseModel):
    """Everything that was counted. `problems` are pods that should have had a client and could not."""

    accepted: int
    refused: int
    failed: int
    pods: list[PodTraffic]
    seconds: list[Second]
    problems: list[str]
