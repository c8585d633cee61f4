"""How the operator runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from keyturn.controller.leadership import Timing
from keyturn.providers.addresses import AddressRule


@dataclass(frozen=True, slots=True)
class Settings:
    """How the operator runs.

    health: address of the probes and the metrics, "" for none. workers: rotations in work at the same time, and
    beside them provider objects. sweep_interval: seconds between two searches for events that were missed.
    provider_interval: seconds between two checks of a provider account. spool_directory, spool_key_file: see `Spool`.
    identity: see `Leadership`; one that nobody else has by default. lease_namespace: where the Leases are by which
    replicas agree who works. shards: into how many parts the work is divided, 1 for not at all. addresses: where to
    provider objects may have the operator connect.
    """

    kubeconfig: Path | None = None
    context: str | None = None
    health: str = ""
    workers: int = 20
    sweep_interval: float = 600.0
    provider_interval: float = 300.0
    spool_directory: Path | None = None
    spool_key_file: Path | None = None
    identity: str | None = None
    lease_namespace: str = "keyturn-system"
    lease: Timing = field(default_factory=Timing)
    shards: int = 1
    addresses: AddressRule = field(default_factory=AddressRule)
