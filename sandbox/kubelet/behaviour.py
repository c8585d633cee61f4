"""How a pod is to behave: defaults of the stand-in, overridden by annotations on the pod (template)."""

import re
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

from sandbox.traffic.report import fingerprint

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
class Unless:
    """What containers do that find another value than the good one under `key` of Secret `secret`."""

    kind: Kind
    secret: str
    key: str
    good: str
    """The good value's fingerprint."""


@dataclass(frozen=True)
class Behaviour:
    """Times are in seconds. Each field can be set for a pod by the annotation of its name, with dashes, under PREFIX:
    `sandbox.keyturn.dev/ready-after: 500ms`; `kind` by `sandbox.keyturn.dev/behavior: crash-loop`; `unless` by what the
    function of that name makes. With `-when-stamped` at its end, an annotation is for pods that a rotation restarted
    by their template, and not for those that its cancellation restarted.
    """

    kind: Kind = Kind.RUN
    start_after: float = 0.05
    """From the binding to the start of the containers."""
    ready_after: float = 0.05
    """From the start of the containers to Ready."""
    unready_after: float = 0.0
    """From Ready to unready for good; 0 is never."""
    terminate_after: float = 0.05
    """From the deletion to the end of the containers; never longer than the pod's grace period."""
    run_for: float = 1.0
    """How long the containers of a `complete` or `crash-loop` pod run."""
    crash_backoff: float = 1.0
    """The first wait of a `crash-loop` pod, before its second restart; it doubles up to 16 times that."""
    unless: Unless | None = None
    """Overrides `kind`, looked at whenever the containers start; where a volume shows them the value, all the time."""


_DURATIONS = {
    field.name.replace("_", "-"): field.name for field in fields(Behaviour) if field.name not in ("kind", "unless")
}


class BehaviourError(ValueError):
    """An annotation can't be understood; the message names it and shows what would be."""


def unless(kind: Kind, secret: str, key: str, good: str) -> dict[str, str]:
    """The annotation of pods that work with the value `good` and do `kind` with any other: an application that the new
    value breaks, and that the old one heals, however it comes to see them.
    """
    return {f"{PREFIX}behavior-unless": f"{kind} {secret}/{key} {fingerprint(good)}"}


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
        return {"kind": _kind(key, value)}
    if name == "behavior-unless":
        return {"unless": _unless(key, value)}
    if name not in _DURATIONS:
        raise BehaviourError(
            f"annotation {key} is not known: there are behavior, behavior-unless, {', '.join(_DURATIONS)}"
        )
    try:
        return {_DURATIONS[name]: seconds(value)}
    except ValueError as error:
        raise BehaviourError(f"annotation {key}: {error}") from error


def _kind(key: str, value: str) -> Kind:
    if value not in set(Kind):
        raise BehaviourError(f"annotation {key}: {value!r} is none of {', '.join(Kind)}")
    return Kind(value)


def _unless(key: str, value: str) -> Unless:
    match value.replace("/", " ").split():
        case [kind, secret, secret_key, good]:
            return Unless(_kind(key, kind), secret, secret_key, good)
    raise BehaviourError(
        f"annotation {key}: {value!r} is not <behavior> <Secret>/<key> <fingerprint of the good value>"
    )
