"""What must hold across the fields of a spec, and the validation that the operator itself relies on.

Each rule is one object, with its CEL expression for API servers from 1.25 and its predicate for the operator, which
trusts no server to have enforced it. Rules are evaluated on specs that the schema has accepted and completed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from keyturn.api.base import (
    LABEL_KEY_PATTERN,
    LABEL_VALUE_PATTERN,
    NAME_PATTERN,
    SECRET_KEY_PATTERN,
    KubeModel,
)
from keyturn.api.policy import POLICY_KIND, RotationPolicySpec
from keyturn.api.policy_rules import POLICY
from keyturn.api.provider import (
    BASE_URL_PATTERN,
    NAMESPACE_PATTERN,
    PROJECT_ID_PATTERN,
    CredentialRef,
    ProviderKind,
    ProviderSpec,
)
from keyturn.api.rotation import CLIENT_ID_PATTERN, RestartPolicy, RotationSpec
from keyturn.api.rule import Rule, Violation, between
from keyturn.api.schedule import CRON_PATTERN, TIME_ZONE_PATTERN
from keyturn.api.schedule_rules import SCHEDULE
from keyturn.api.selector_rules import selector_rules

ROTATION_KIND: Final = "ClientSecretRotation"
PROVIDER_BLOCKS: Final = ("stytch", "janrain", "snaptrade")
LOOPBACK_URL_PATTERN: Final = r"^http://(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?(/|$)"

Spec = TypeVar("Spec", bound=KubeModel)


@dataclass(frozen=True, slots=True)
class Invalid:
    """A spec that cannot be used."""

    violations: tuple[Violation, ...]

    def __str__(self) -> str:
        return "; ".join(map(str, self.violations))


def exactly_one(blocks: tuple[str, ...]) -> str:
    """CEL that holds when exactly one of these fields is set."""
    tests = [f"has(self.{block})" for block in blocks]
    return tests[0] if len(tests) == 1 else f"[{', '.join(tests)}].exists_one(set, set)"


_ROTATION: Final[tuple[Rule[RotationSpec], ...]] = (
    Rule(
        "secretRef.clientIdKey",
        "must differ from spec.secretRef.key: the client id would overwrite the client secret",
        "!has(self.secretRef.clientIdKey) || self.secretRef.clientIdKey != self.secretRef.key",
        lambda spec: spec.secret_ref.client_id_key != spec.secret_ref.key,
    ),
    Rule(
        "secretRef.previousKey",
        "must differ from spec.secretRef.key: the previous value would overwrite the new one",
        "!has(self.secretRef.previousKey) || self.secretRef.previousKey != self.secretRef.key",
        lambda spec: spec.secret_ref.previous_key != spec.secret_ref.key,
    ),
    Rule(
        "secretRef.previousKey",
        "must differ from spec.secretRef.clientIdKey: the previous value would overwrite the client id",
        "!has(self.secretRef.previousKey) || !has(self.secretRef.clientIdKey)"
        " || self.secretRef.previousKey != self.secretRef.clientIdKey",
        lambda spec: (
            spec.secret_ref.previous_key is None or spec.secret_ref.previous_key != spec.secret_ref.client_id_key
        ),
    ),
    between("rollout.timeout", "10s", "24h", lambda spec: spec.rollout.timeout),
    between("rollout.volumeRefresh", "0s", "1h", lambda spec: spec.rollout.volume_refresh),
    Rule(
        "rollout.timeout",
        "must be longer than spec.rollout.waveSoak, which counts towards it",
        "duration(self.rollout.timeout) > duration(self.rollout.waveSoak)",
        lambda spec: spec.rollout.timeout > spec.rollout.wave_soak,
    ),
    Rule(
        "rollout.timeout",
        "must be longer than spec.rollout.volumeRefresh with restart: EnvOnly, which waits for volumes",
        "self.rollout.restart != 'EnvOnly' || duration(self.rollout.timeout) > duration(self.rollout.volumeRefresh)",
        lambda spec: (
            spec.rollout.restart is not RestartPolicy.ENV_ONLY or spec.rollout.timeout > spec.rollout.volume_refresh
        ),
    ),
    Rule(
        "rollout.discover",
        "may be false only with spec.rollout.targets or spec.rollout.selector: nothing would be waited for",
        "self.rollout.discover || size(self.rollout.targets) > 0 || has(self.rollout.selector)",
        lambda spec: spec.rollout.discover or bool(spec.rollout.targets) or spec.rollout.selector is not None,
    ),
    *selector_rules("rollout.selector", lambda spec: spec.rollout.selector),
    between("verify.timeout", "1s", "1h", lambda spec: spec.verify.timeout),
    # Janrain's range, the only one known where the caller chooses.
    between("overlap", "0s", "168h", lambda spec: spec.overlap),
    # As long as the longest overlap of any known provider.
    between("soak", "0s", "168h", lambda spec: spec.soak),
    *SCHEDULE,
)


def _credentials(spec: ProviderSpec, block: str) -> CredentialRef | None:
    found = getattr(spec, block)
    return None if found is None else found.secret_ref


def _encrypted(url: str | None) -> bool:
    return url is None or url.startswith("https://") or re.search(LOOPBACK_URL_PATTERN, url) is not None


def _safe(url: str) -> str:
    return f"{url}.startsWith('https://') || {url}.matches(r'{LOOPBACK_URL_PATTERN}')"


def _safe_url(block: str) -> Rule[ProviderSpec]:
    url = f"self.{block}.baseUrl"
    safe = _safe(url)
    return Rule(
        f"{block}.baseUrl",
        "must begin with https://: plain http is only for loopback addresses",
        f"!has(self.{block}) || !has({url}) || {safe}",
        lambda spec: getattr(spec, block) is None or _encrypted(getattr(spec, block).base_url),
    )


# CEL reserves the word "namespace"; Kubernetes lets rules say __namespace__ for a field of that name.
def _no_namespace(block: str) -> Rule[ProviderSpec]:
    return Rule(
        f"{block}.secretRef.namespace",
        "must be left out: a RotationProvider reads the Secrets of its own namespace;"
        " for another one use a ClusterRotationProvider",
        f"!has(self.{block}) || !has(self.{block}.secretRef.__namespace__)",
        lambda spec: (ref := _credentials(spec, block)) is None or ref.namespace is None,
    )


def _namespace(block: str) -> Rule[ProviderSpec]:
    return Rule(
        f"{block}.secretRef.namespace",
        "is required in a ClusterRotationProvider: name the namespace of the Secret",
        f"!has(self.{block}) || has(self.{block}.secretRef.__namespace__)",
        lambda spec: (ref := _credentials(spec, block)) is None or ref.namespace is not None,
    )


_PROVIDER: Final[tuple[Rule[ProviderSpec], ...]] = (
    Rule(
        "",
        f"must hold exactly one provider: {', '.join(PROVIDER_BLOCKS)}",
        exactly_one(PROVIDER_BLOCKS),
        lambda spec: sum(getattr(spec, block) is not None for block in PROVIDER_BLOCKS) == 1,
    ),
    *map(_safe_url, PROVIDER_BLOCKS),
    Rule(
        "janrain.readBack.baseUrl",
        "must begin with https://: plain http is only for loopback addresses",
        f"!has(self.janrain) || !has(self.janrain.readBack) || {_safe('self.janrain.readBack.baseUrl')}",
        lambda spec: (
            spec.janrain is None or spec.janrain.read_back is None or _encrypted(spec.janrain.read_back.base_url)
        ),
    ),
    between("timeouts.connect", "100ms", "60s", lambda spec: spec.timeouts.connect),
    between("timeouts.read", "1s", "10m", lambda spec: spec.timeouts.read),
)

_NO_NAMESPACES: Final[Rule[ProviderSpec]] = Rule(
    "namespaces",
    "must be left out: only rotations of its own namespace can use a RotationProvider",
    "!has(self.namespaces)",
    lambda spec: spec.namespaces is None,
)
_NAMESPACES: Final[Rule[ProviderSpec]] = Rule(
    "namespaces",
    'is required in a ClusterRotationProvider: list the namespaces that may use it, or "*" for all',
    "has(self.namespaces)",
    lambda spec: spec.namespaces is not None,
)

RULES: Final[Mapping[str, tuple[Rule[Any], ...]]] = {
    ROTATION_KIND: _ROTATION,
    ProviderKind.ROTATION_PROVIDER: (*_PROVIDER, _NO_NAMESPACES, *map(_no_namespace, PROVIDER_BLOCKS)),
    ProviderKind.CLUSTER_ROTATION_PROVIDER: (*_PROVIDER, _NAMESPACES, *map(_namespace, PROVIDER_BLOCKS)),
    POLICY_KIND: POLICY,
}


def validate_rotation(spec: object) -> RotationSpec | Invalid:
    """The spec of a ClientSecretRotation, whatever an API server may have let through, or what is wrong with it."""
    return _validate(RotationSpec, spec, RULES[ROTATION_KIND])


def validate_provider(spec: object, kind: ProviderKind) -> ProviderSpec | Invalid:
    """The spec of a RotationProvider or ClusterRotationProvider, or what is wrong with it."""
    return _validate(ProviderSpec, spec, RULES[kind])


def validate_policy(spec: object) -> RotationPolicySpec | Invalid:
    """The spec of a RotationPolicy, or what is wrong with it."""
    return _validate(RotationPolicySpec, spec, RULES[POLICY_KIND])


def _validate(model: type[Spec], spec: object, rules: tuple[Rule[Spec], ...]) -> Spec | Invalid:
    try:
        # As JSON, because strictness then means what an API server means by it: no "true" for true, no 10 for "10".
        text = json.dumps(_without_nulls(spec))
        known = model.model_validate_json(text, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        return Invalid(tuple(map(_translate, error.errors(include_url=False, include_input=False))))
    broken = tuple(rule.violation() for rule in rules if not rule.holds(known))
    return Invalid(broken) if broken else known


def _without_nulls(value: object) -> object:
    """A null means what a field left out means, as for API servers; in a list it stays what it is."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


_PATTERNS: Final[Mapping[str, str]] = {
    NAME_PATTERN: 'may hold lower-case letters, digits, "-" and ".", and must begin and end with a letter or digit',
    LABEL_KEY_PATTERN: "must be a label, such as app.kubernetes.io/name",
    LABEL_VALUE_PATTERN: 'must be the value of a label: letters, digits, "-", "_" and "."',
    SECRET_KEY_PATTERN: 'may hold only letters, digits, "-", "_" and "."',
    NAMESPACE_PATTERN: 'may hold lower-case letters, digits and "-", and may end with "*"; "*" alone means all',
    PROJECT_ID_PATTERN: 'may hold only letters, digits, "-" and "_"',
    CLIENT_ID_PATTERN: "must not be blank, begin or end with a space, or hold control characters",
    CRON_PATTERN: 'must have five fields (minute, hour, day of the month, month, day of the week), such as "0 3 * * 1"',
    TIME_ZONE_PATTERN: "must be the name of a time zone, such as Europe/Berlin",
    BASE_URL_PATTERN: 'must be a URL such as "https://proxy.example.com/stytch", without user, query and fragment',
}

_MESSAGES: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "missing": lambda _: "is required",
    "model_type": lambda _: "must be an object with fields of its own",
    "string_type": lambda _: "must be text: put it in quotes",
    "bool_type": lambda _: "must be true or false",
    "int_type": lambda _: "must be a whole number",
    "enum": lambda context: "must be " + context["expected"].replace("'", '"'),
    "string_too_short": lambda _: "must not be empty",
    "too_short": lambda _: "must not be empty",
    "too_long": lambda context: f"must not have more than {context['max_length']} entries",
    "dict_type": lambda _: "must be an object",
    "list_type": lambda _: "must be a list",
    "string_too_long": lambda context: f"must not be longer than {context['max_length']} characters",
    "greater_than_equal": lambda context: f"must be at least {context['ge']}",
    "less_than_equal": lambda context: f"must be at most {context['le']}",
    "string_pattern_mismatch": lambda context: _PATTERNS[context["pattern"]],
    "value_error": lambda context: str(context["error"]),
}


# Fields whose own fields are named by users. A secret may be among the names, so none is repeated.
_MAPS: Final = ("matchLabels",)


def _translate(error: ErrorDetails) -> Violation:
    field = "spec"
    for part in error["loc"]:
        field += f"[{part}]" if isinstance(part, int) else f".{part}"
        if part in _MAPS:
            break
    wording = _MESSAGES.get(error["type"])
    return Violation(field, wording(error.get("ctx", {})) if wording else error["msg"])
