"""How a pod is to behave: defaults of the stand-in, overridden by annotations on the pod (template)."""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

PREFIX = "sandbox.keyturn.dev/"
STAMP = "keyturn.dev/rotation"

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


class Kind(StrEnum):
    """What the containers do once they have started."""

    RUN = "run"
    NEVER_READY = "never-ready"
    CRASH_LOOP = "crash-loop"
    COMPLETE = "complete"


@dataclass(frozen=True)
class Behaviour:
    """Times are in seconds. Each field can be set for a pod by the annotation of its name, with dashes, under PREFIX:
    `sandbox.keyturn.dev/ready-after: 500ms`; `kind` by `sandbox.keyturn.dev/behavior: crash-loop`.
    `sandbox.keyturn.dev/behavior-when-stamped` does the same for pods that a rotation restarted, and not for those
    that its cancellation restarted: an application that cannot start with the new value.
    """

    kind: Kind = Kind.RUN
    start_after: float = 0.05
    """From the binding to the start of the containers."""
    ready_after: float = 0.05
    """From the start of the containers to Ready."""
    terminate_after: float = 0.05
    """From the deletion to the end of the containers; never longer than the pod's grace period."""
    run_for: float = 1.0
    """How long the containers of a `complete` or `crash-loop` pod run."""
    crash_backoff: float = 1.0
    """The first wait of a `crash-loop` pod; it doubles up to 16 times that."""


class BehaviourError(ValueError):
    """An annotation can't be understood; the message names it and shows what would be."""


def behaviour_of(pod: dict[str, Any], defaults: Behaviour) -> Behaviour:
    """What `pod` is to do. Pods of Jobs complete unless an annotation says otherwise. Raises BehaviourError."""
    metadata = pod["metadata"]
    result = defaults
    if any(owner["kind"] == "Job" for owner in metadata.get("ownerReferences") or []):
        result = replace(result, kind=Kind.COMPLETE)
    annotations = metadata.get("annotations") or {}
    stamp = annotations.get(STAMP, "")
    for key, value in annotations.items():
        if not key.startswith(PREFIX):
            continue
        setting = _setting(key.removesuffix("-when-stamped"), value)
        if not key.endswith("-when-stamped") or (stamp and not stamp.endswith("-cancelled")):
            result = replace(result, **setting)
    return result


def seconds(text: str) -> float:
    """Seconds of a duration as Go and Kubernetes write it ("500ms", "2s", "1m30s"); ValueError for anything else."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is no duration: write 500ms, 2s or 1m30s")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _setting(key: str, value: str) -> dict[str, Any]:
    name = key.removeprefix(PREFIX)
    if name == "behavior":
        if value not in set(Kind):
            raise BehaviourError(f"annotation {key}: {value!r} is none of {', '.join(Kind)}")
        return {"kind": Kind(value)}
    field = name.replace("-", "_")
    if field not in Behaviour.__dataclass_fields__ or field == "kind":
        known = ", ".join(f.replace("_", "-") for f in Behaviour.__dataclass_fields__ if f != "kind")
        raise BehaviourError(f"annotation {key} is not known: there are behavior, {known}")
    try:
        return {field: seconds(value)}
    except ValueError as error:
        raise BehaviourError(f"annotation {key}: {error}") from error
