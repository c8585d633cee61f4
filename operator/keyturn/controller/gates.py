"""What may make a rotation wait for others."""

from __future__ import annotations

from dataclasses import dataclass

from keyturn.controller.permits import Permits
from keyturn.controller.rivals import ALONE, Others
from keyturn.controller.turns import Turns


@dataclass(frozen=True, slots=True)
class Gates:
    """turns: the rate limits of providers. permits: the concurrency of RotationPolicies. others: other processes."""

    turns: Turns
    permits: Permits
    others: Others = ALONE
