"""Specs, good and bad, that the operator, the CEL rules and the API server are all asked about."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from keyturn.api.policy import POLICY_KIND, RotationPolicySpec
from keyturn.api.provider import ProviderKind, ProviderSpec
from keyturn.api.rotation import RotationSpec
from keyturn.api.rules import ROTATION_KIND, Invalid, validate_policy, validate_provider, validate_rotation

NAMESPACED, CLUSTER = ProviderKind.ROTATION_PROVIDER, ProviderKind.CLUSTER_ROTATION_PROVIDER

BASES: Final[Mapping[str, dict[str, Any]]] = {
    ROTATION_KIND: {
        "providerRef": {"name": "stytch-live"},
        "clientId": "m2m-client-live-1",
        "secretRef": {"name": "billing-m2m", "key": "CLIENT_SECRET"},
    },
    NAMESPACED: {
        "stytch": {"projectId": "project-live-1", "secretRef": {"name": "stytch-project", "key": "SECRET"}},
    },
    CLUSTER: {
        "stytch": {
            "projectId": "project-live-1",
            "secretRef": {"name": "stytch-project", "key": "SECRET", "namespace": "platform"},
        },
        "namespaces": ["billing", "team-*"],
    },
    POLICY_KIND: {"maxAge": "720h"},
}


# The other provider blocks, each instead of stytch. In a ClusterRotationProvider the Secret's namespace is added.
BLOCKS: Final[Mapping[str, dict[str, Any]]] = {
    "janrain": {
        "baseUrl": "https://my-app.janraincapture.com",
        "clientId": "owner-1",
        "secretRef": {"name": "janrain-owner", "key": "SECRET"},
        "readBack": {"baseUrl": "https://v1.api.us.janrain.com", "appId": "app-1"},
    },
    "snaptrade": {"clientId": "PASSIVTEST", "secretRef": {"name": "snaptrade-key", "key": "CONSUMER_KEY"}},
}


class _Gone:
    """Stands for a field that is left out."""


GONE = _Gone()


@dataclass(frozen=True)
class Good:
    """A spec that everybody accepts: the base of its kind with changes. block: the provider, where it is not stytch."""

    kind: str
    changes: Mapping[str, object]
    block: str | None = None


@dataclass(frozen=True)
class Bad:
    """A spec that is refused: the base of its kind with one field changed.

    field: the field named in the answer, within the spec; empty for the spec itself.
    words: part of the operator's message.
    by_rule: the schema accepts it, only a rule does not.
    block: the provider, where it is not stytch.
    """

    kind: str
    change: str
    value: object
    words: str
    field: str | None = None
    by_rule: bool = False
    block: str | None = None

    @property
    def place(self) -> str:
        return ".".join(filter(None, ("spec", self.change if self.field is None else self.field)))


Sample = Good | Bad


def with_block(kind: str, block: str) -> dict[str, Any]:
    """The spec of a provider object with one of the other blocks."""
    account = copy.deepcopy(BLOCKS[block])
    if kind == CLUSTER:
        account["secretRef"]["namespace"] = "platform"
        return {block: account, "namespaces": ["*"]}
    return {block: account}


def spec_of(sample: Sample) -> dict[str, Any]:
    """The spec of a sample, as a user would write it."""
    spec = copy.deepcopy(BASES[sample.kind] if sample.block is None else with_block(sample.kind, sample.block))
    changes = sample.changes if isinstance(sample, Good) else {sample.change: sample.value}
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = spec
        for parent in parents:
            node = node.setdefault(parent, {})
        if value is GONE:
            del node[last]
        else:
            node[last] = value
    return spec


def label(sample: Sample) -> str:
    """A name for the sample in test reports."""
    if isinstance(sample, Good):
        return f"{sample.kind}-{','.join(sample.changes) or 'base'}"
    value = "gone" if sample.value is GONE else str(sample.value)
    return f"{sample.kind}-{sample.change}-{value if value.isprintable() and len(value) < 30 else 'odd'}"


def validate(kind: str, spec: object) -> RotationSpec | ProviderSpec | RotationPolicySpec | Invalid:
    """What the operator says of a spec."""
    if kind == POLICY_KIND:
        return validate_policy(spec)
    return validate_rotation(spec) if kind == ROTATION_KIND else validate_provider(spec, ProviderKind(kind))


def without_nulls(value: Any) -> Any:
    """The value without the fields that are null, as API servers keep it."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def complete(schema: Mapping[str, Any], value: Any) -> Any:
    """The value with defaults, by the algorithm of API servers: top down, a default's own children included."""
    if isinstance(value, list):
        return [complete(schema.get("items", {}), item) for item in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties", {})
    defaults = {name: copy.deepcopy(child["default"]) for name, child in properties.items() if "default" in child}
    return {name: complete(properties.get(name, {}), item) for name, item in {**defaults, **value}.items()}


GOOD: Final[tuple[Good, ...]] = (
    *(Good(kind, {}) for kind in BASES),
    Good(
        ROTATION_KIND,
        {
            "providerRef.kind": "ClusterRotationProvider",
            "secretRef.clientIdKey": "CLIENT_ID",
            "secretRef.previousKey": "CLIENT_SECRET_PREVIOUS",
            "secretRef.creationPolicy": "Owner",
            "rotationRequest": "2026-11-a",
            "suspend": True,
            "rollout.restart": "Never",
            "rollout.discover": False,
            "rollout.targets": [
                {"kind": kind, "name": "web.v2"} for kind in ("Deployment", "StatefulSet", "DaemonSet", "Rollout")
            ],
            "rollout.selector": {
                "matchLabels": {"app.kubernetes.io/name": "web", "tier": "a_b.c-9"},
                "matchExpressions": [
                    {"key": "example.com/Tier", "operator": "In", "values": ["front", "Back.9"]},
                    {"key": "canary", "operator": "NotIn", "values": ["yes"]},
                    {"key": "a", "operator": "Exists"},
                    {"key": "b", "operator": "DoesNotExist", "values": []},
                ],
            },
            "rollout.maxConcurrent": 1,
            "rollout.unrestartable": "Fail",
            "verify.mode": "Skip",
            "onFailure": "Hold",
            "deletionPolicy": "Finalize",
        },
    ),
    Good(
        ROTATION_KIND,
        {"schedule.interval": "720h", "schedule.stagger": "168h", "schedule.initial": "Immediately"},
    ),
    Good(ROTATION_KIND, {"schedule": {"interval": "1m", "stagger": "30s"}}),
    Good(ROTATION_KIND, {"schedule": {"interval": "87600h", "cron": None, "windows": None}}),
    Good(ROTATION_KIND, {"schedule": {}, "rotationRequest": "a"}),
    Good(ROTATION_KIND, {"schedule": {"cron": "0 3 * * 1", "timeZone": "America/Argentina/Buenos_Aires"}}),
    Good(ROTATION_KIND, {"schedule": {"cron": "*/5  0-6/2 L,lw JAN,mar 5#2,6L", "timeZone": "Etc/GMT+3"}}),
    # What a calendar says of these is said by the operator, later (InvalidSchedule).
    Good(ROTATION_KIND, {"schedule": {"cron": "99 99 99 99 99", "timeZone": "Mars/Base"}}),
    Good(
        ROTATION_KIND,
        {
            "schedule": {
                "windows": [
                    {"kind": "allow", "schedule": "0 2 * * *", "duration": "15m", "timeZone": "Europe/Berlin"},
                    {"kind": "deny", "schedule": "0 0 20 12 *", "duration": "1m"},
                    {"kind": "deny", "schedule": "0 0 1 1 *", "duration": "8760h", "timeZone": None},
                ]
            }
        },
    ),
    Good(ROTATION_KIND, {"rollout.timeout": "10s", "verify.timeout": "1s", "soak": "0s"}),
    Good(ROTATION_KIND, {"rollout.timeout": "24h", "verify.timeout": "60m", "soak": "168h"}),
    Good(ROTATION_KIND, {"rollout.restart": "EnvOnly", "rollout.volumeRefresh": "0s", "rollout.waveSoak": "14m59s"}),
    Good(ROTATION_KIND, {"rollout.volumeRefresh": "1h", "rollout.maxConcurrent": 1000}),
    Good(ROTATION_KIND, {"rollout.discover": False, "rollout.targets": [{"kind": "Rollout", "name": "a"}]}),
    Good(ROTATION_KIND, {"rollout.discover": False, "rollout.selector": {}}),
    Good(ROTATION_KIND, {"rollout.targets": [], "rollout.selector": {"matchLabels": {}, "matchExpressions": []}}),
    Good(
        ROTATION_KIND,
        {
            "rollout.maxConcurrent": None,
            "rollout.selector": {
                "matchLabels": {"a": None},
                "matchExpressions": [{"key": "a", "operator": "Exists", "values": None}],
            },
        },
    ),
    Good(ROTATION_KIND, {"rollout.selector.matchLabels": {f"{'a' * 253}/{'b' * 63}": "c" * 63}}),
    Good(ROTATION_KIND, {"rollout.selector.matchLabels": {f"label-{number}": "a" for number in range(100)}}),
    Good(ROTATION_KIND, {"overlap": "0s", "acceptDowntime": True, "takeOver": True}),
    Good(ROTATION_KIND, {"overlap": "168h"}),
    Good(ROTATION_KIND, {"rollout": {}, "verify": {}}),
    Good(ROTATION_KIND, {"rollout": None, "suspend": None, "secretRef.clientIdKey": None, "soak": None}),
    Good(ROTATION_KIND, {"clientId": "a client: größer, with spaces"}),
    Good(ROTATION_KIND, {"clientId": "x"}),
    Good(ROTATION_KIND, {"secretRef.key": "tls.crt_-9", "secretRef.name": "a.b-c.9"}),
    Good(ROTATION_KIND, {"notYetInvented": {"a": 1}}),
    Good(NAMESPACED, {"timeouts": {"connect": "100ms", "read": "10m"}, "rateLimit": {"burst": 1}}),
    Good(NAMESPACED, {"timeouts": {"connect": "60s", "read": "1s"}, "rateLimit": {"requestsPerSecond": 1000}}),
    Good(NAMESPACED, {"caBundle": "LS0tLS1CRUdJTg=="}),
    *(Good(kind, {}, block) for kind in (NAMESPACED, CLUSTER) for block in BLOCKS),
    Good(NAMESPACED, {"janrain.readBack": None, "janrain.auth": "Signed"}, "janrain"),
    Good(NAMESPACED, {"janrain.baseUrl": "http://127.0.0.1:8080"}, "janrain"),
    Good(NAMESPACED, {"janrain.readBack.baseUrl": "http://localhost:8080"}, "janrain"),
    Good(NAMESPACED, {"snaptrade.baseUrl": "https://api.snaptrade.com/api/v1"}, "snaptrade"),
    Good(CLUSTER, {"stytch.baseUrl": "https://proxy.example.com:8443/stytch/"}),
    Good(
        POLICY_KIND,
        {
            "maxAge": "2160h",
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "billing"}},
            "rotationSelector": {"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["test"]}]},
            "windows": [
                {"kind": "allow", "schedule": "0 2 * * *", "duration": "1m", "timeZone": "Asia/Tokyo"},
                {"kind": "deny", "schedule": "0 0 * * 5L", "duration": "8760h"},
            ],
            "timeZone": "Europe/Berlin",
            "freeze": {"reason": "year-end close: größer, see CHG-17", "until": "2027-01-07T08:00:00+01:00"},
            "minGap": "1h",
            "concurrency": {"cluster": 20, "perNamespace": 1, "perProvider": 10000},
        },
    ),
    Good(POLICY_KIND, {"maxAge": GONE}),
    Good(POLICY_KIND, {"maxAge": "1m", "minGap": "1s", "namespaceSelector": {}, "rotationSelector": None}),
    Good(POLICY_KIND, {"maxAge": "87600h", "minGap": "168h", "windows": None, "concurrency": None, "freeze": None}),
    Good(POLICY_KIND, {"freeze": {"reason": "x"}, "concurrency": {}, "notYetInvented": 1}),
    *(
        Good(POLICY_KIND, {"freeze": {"reason": "x", "until": time}})
        for time in ("2028-02-29T23:59:59Z", "2026-12-31T00:00:00-23:59", None)
    ),
    *(
        Good(NAMESPACED, {"stytch.baseUrl": url})
        for url in (
            *(
                "http://127.0.0.1:8080",
                "http://127.1.2.3/x",
                "http://localhost",
                "http://localhost/",
                "http://[::1]:80",
            ),
            *("https://127.0.0.1", "https://localhost"),
        )
    ),
)
