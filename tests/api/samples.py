"""Specs, good and bad, that the operator, the CEL rules and the API server are all asked about."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from keyturn.api.provider import ProviderKind, ProviderSpec
from keyturn.api.rotation import RotationSpec
from keyturn.api.rules import ROTATION_KIND, Invalid, validate_provider, validate_rotation

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


def validate(kind: str, spec: object) -> RotationSpec | ProviderSpec | Invalid:
    """What the operator says of a spec."""
    return validate_rotation(spec) if kind == ROTATION_KIND else validate_provider(spec, ProviderKind(kind))


def without_nulls(value: Any) -> Any:
    """The value without the fields that are null, as API servers keep it."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return value


def complete(schema: Mapping[str, Any], value: Any) -> Any:
    """The value with defaults, by the algorithm of API servers: top down, a default's own children included."""
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
            "verify.mode": "Skip",
            "onFailure": "Hold",
            "deletionPolicy": "Finalize",
        },
    ),
    Good(ROTATION_KIND, {"rollout.timeout": "10s", "verify.timeout": "1s", "soak": "0s"}),
    Good(ROTATION_KIND, {"rollout.timeout": "24h", "verify.timeout": "60m", "soak": "168h"}),
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

_DURATION = 'must be a duration such as "90s", "15m" or "1h30m"'
_URL = "must be a URL"
_HTTPS = "must begin with https://"

BAD: Final[tuple[Bad, ...]] = (
    Bad(NAMESPACED, "namespaces", ["*"], "must be left out", by_rule=True),
    Bad(CLUSTER, "namespaces", GONE, "is required in a ClusterRotationProvider", by_rule=True),
    Bad(CLUSTER, "namespaces", [], "must not be empty"),
    Bad(CLUSTER, "namespaces", "*", "must be a list"),
    Bad(CLUSTER, "namespaces", ["a*b"], "may hold", field="namespaces[0]"),
    # What the schema refuses.
    Bad(ROTATION_KIND, "providerRef", GONE, "is required"),
    Bad(ROTATION_KIND, "providerRef.name", GONE, "is required"),
    Bad(ROTATION_KIND, "providerRef.name", "Stytch_Live", "may hold lower-case letters"),
    Bad(ROTATION_KIND, "providerRef.name", "a" * 254, "must not be longer than 253 characters"),
    Bad(ROTATION_KIND, "providerRef.kind", "Issuer", 'must be "RotationProvider" or "ClusterRotationProvider"'),
    Bad(ROTATION_KIND, "clientId", GONE, "is required"),
    Bad(ROTATION_KIND, "clientId", None, "is required"),
    Bad(ROTATION_KIND, "clientId", "", "must not be empty"),
    Bad(ROTATION_KIND, "clientId", "  ", "must not be blank"),
    Bad(ROTATION_KIND, "clientId", "id ", "must not be blank"),
    Bad(ROTATION_KIND, "clientId", "id\n", "must not be blank"),
    Bad(ROTATION_KIND, "clientId", "a\x00b", "must not be blank"),
    Bad(ROTATION_KIND, "clientId", 17, "must be text: put it in quotes"),
    Bad(ROTATION_KIND, "secretRef", GONE, "is required"),
    Bad(ROTATION_KIND, "secretRef", "billing", "must be an object"),
    Bad(ROTATION_KIND, "secretRef", [], "must be an object"),
    Bad(ROTATION_KIND, "secretRef.key", GONE, "is required"),
    Bad(ROTATION_KIND, "secretRef.key", "a/b", "may hold only letters"),
    Bad(ROTATION_KIND, "secretRef.key", "key\n", "may hold only letters"),
    Bad(ROTATION_KIND, "secretRef.clientIdKey", "", "must not be empty"),
    Bad(ROTATION_KIND, "secretRef.creationPolicy", "merge", 'must be "Merge" or "Owner"'),
    Bad(ROTATION_KIND, "rotationRequest", 20261101, "must be text: put it in quotes"),
    Bad(ROTATION_KIND, "rotationRequest", "x" * 254, "must not be longer than 253 characters"),
    Bad(ROTATION_KIND, "suspend", "true", "must be true or false"),
    Bad(ROTATION_KIND, "rollout.restart", "Sometimes", 'must be "Always" or "Never"'),
    *(
        Bad(ROTATION_KIND, "rollout.timeout", value, _DURATION)
        for value in (
            "",
            "15",
            "15 m",
            "1d",
            "-15m",
            "1.5h",
            "15m\n",
            "1h1h1h1h1h",
            "123456s",
            "h",
            "\u0661m",
            900,
            True,
        )
    ),
    Bad(ROTATION_KIND, "verify.mode", "", 'must be "Required" or "Skip"'),
    Bad(ROTATION_KIND, "onFailure", "Retry", 'must be "Cancel" or "Hold"'),
    Bad(ROTATION_KIND, "deletionPolicy", "Orphan", 'must be "Cancel" or "Finalize"'),
    Bad(NAMESPACED, "stytch", "live", "must be an object"),
    Bad(NAMESPACED, "stytch.projectId", "", "must not be empty"),
    Bad(NAMESPACED, "stytch.projectId", "project/live", "may hold only letters"),
    Bad(NAMESPACED, "stytch.secretRef", GONE, "is required"),
    Bad(CLUSTER, "stytch.secretRef.namespace", "Platform", "may hold lower-case letters"),
    *(
        Bad(NAMESPACED, "stytch.baseUrl", value, _URL)
        for value in (
            *("", "api.stytch.com", "ftp://api.stytch.com", "https://", "https://user:pw@api.stytch.com"),
            *("https://api.stytch.com?x=1", "https://api.stytch.com/#x", "https://api.stytch.com/a b", "https://a\n"),
        )
    ),
    Bad(NAMESPACED, "janrain.baseUrl", GONE, "is required", block="janrain"),
    Bad(NAMESPACED, "janrain.clientId", "a b", "may hold only letters", block="janrain"),
    Bad(NAMESPACED, "janrain.auth", "signed", 'must be "Basic" or "Signed"', block="janrain"),
    Bad(NAMESPACED, "janrain.readBack.appId", GONE, "is required", block="janrain"),
    Bad(NAMESPACED, "janrain.readBack.appId", "app/1", "may hold only letters", block="janrain"),
    Bad(NAMESPACED, "janrain.readBack.baseUrl", "v1.api.us.janrain.com", _URL, block="janrain"),
    Bad(NAMESPACED, "snaptrade.clientId", "", "must not be empty", block="snaptrade"),
    Bad(NAMESPACED, "snaptrade.secretRef.key", GONE, "is required", block="snaptrade"),
    Bad(NAMESPACED, "caBundle", 5, "must be text: put it in quotes"),
    Bad(NAMESPACED, "timeouts.read", "forever", _DURATION),
    Bad(NAMESPACED, "rateLimit.burst", 0, "must be at least 1"),
    Bad(NAMESPACED, "rateLimit.burst", 1001, "must be at most 1000"),
    Bad(NAMESPACED, "rateLimit.requestsPerSecond", 0, "must be at least 1"),
    Bad(NAMESPACED, "rateLimit.requestsPerSecond", "10", "must be a whole number"),
    Bad(NAMESPACED, "rateLimit.requestsPerSecond", 2.5, "must be a whole number"),
    # What only a rule refuses.
    Bad(ROTATION_KIND, "secretRef.clientIdKey", "CLIENT_SECRET", "must differ from spec.secretRef.key", by_rule=True),
    Bad(ROTATION_KIND, "secretRef.previousKey", "CLIENT_SECRET", "must differ from spec.secretRef.key", by_rule=True),
    Bad(
        *(ROTATION_KIND, "secretRef", {"name": "s", "key": "A", "clientIdKey": "B", "previousKey": "B"}),
        words="must differ from spec.secretRef.clientIdKey",
        field="secretRef.previousKey",
        by_rule=True,
    ),
    Bad(ROTATION_KIND, "rollout.timeout", "9s999ms", "must be between 10s and 24h", by_rule=True),
    Bad(ROTATION_KIND, "rollout.timeout", "24h1ms", "must be between 10s and 24h", by_rule=True),
    Bad(ROTATION_KIND, "verify.timeout", "0s", "must be between 1s and 1h", by_rule=True),
    Bad(ROTATION_KIND, "verify.timeout", "61m", "must be between 1s and 1h", by_rule=True),
    Bad(ROTATION_KIND, "overlap", "168h1ms", "must be between 0s and 168h", by_rule=True),
    Bad(ROTATION_KIND, "soak", "169h", "must be between 0s and 168h", by_rule=True),
    Bad(NAMESPACED, "stytch", GONE, "must hold exactly one provider: stytch", field="", by_rule=True),
    Bad(CLUSTER, "stytch", GONE, "must hold exactly one provider: stytch", field="", by_rule=True),
    Bad(NAMESPACED, "stytch.secretRef.namespace", "other", "must be left out", by_rule=True),
    Bad(CLUSTER, "stytch.secretRef.namespace", GONE, "is required in a ClusterRotationProvider", by_rule=True),
    Bad(NAMESPACED, "janrain", BLOCKS["janrain"], "must hold exactly one provider", field="", by_rule=True),
    *(
        Bad(NAMESPACED, f"{block}.secretRef.namespace", "other", "must be left out", by_rule=True, block=block)
        for block in BLOCKS
    ),
    *(
        Bad(CLUSTER, f"{block}.secretRef.namespace", GONE, "is required in a Cluster", by_rule=True, block=block)
        for block in BLOCKS
    ),
    Bad(NAMESPACED, "janrain.baseUrl", "http://my-app.example.com", _HTTPS, by_rule=True, block="janrain"),
    Bad(NAMESPACED, "janrain.readBack.baseUrl", "http://v1.example.com", _HTTPS, by_rule=True, block="janrain"),
    Bad(NAMESPACED, "snaptrade.baseUrl", "http://127.0.0.1.example.com", _HTTPS, by_rule=True, block="snaptrade"),
    *(
        Bad(NAMESPACED, "stytch.baseUrl", value, _HTTPS, by_rule=True)
        for value in (
            *("http://api.stytch.com", "http://localhost.example.com", "http://127.0.0.1.example.com"),
            *("http://10.0.0.1", "http://[::2]", "http://localhost:80x/", "http://example.com/http://localhost"),
        )
    ),
    Bad(NAMESPACED, "timeouts.connect", "99ms", "must be between 100ms and 60s", by_rule=True),
    Bad(NAMESPACED, "timeouts.connect", "61s", "must be between 100ms and 60s", by_rule=True),
    Bad(NAMESPACED, "timeouts.read", "999ms", "must be between 1s and 10m", by_rule=True),
    Bad(NAMESPACED, "timeouts.read", "11m", "must be between 1s and 10m", by_rule=True),
)
