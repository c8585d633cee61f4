"""The operator's own validation: every answer names the field and the remedy, and agrees with the CEL rules."""

import contextlib
import functools
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import celpy
import pytest
from celpy.adapter import json_to_cel
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.api.base import DURATION_PATTERN, TIME_PATTERN, KubeModel
from keyturn.api.crd import schema_for
from keyturn.api.policy import POLICY_KIND, RotationPolicySpec
from keyturn.api.provider import ProviderKind, ProviderSpec
from keyturn.api.rotation import RotationSpec, SelectorOperator
from keyturn.api.rule import Rule
from keyturn.api.rules import _PATTERNS, PROVIDER_BLOCKS, ROTATION_KIND, RULES, Invalid, exactly_one
from keyturn.api.schedule import WindowKind
from keyturn.providers.registry import PROVIDERS
from tests.api.bad_samples import BAD
from tests.api.samples import BASES, GOOD, Bad, Good, Sample, complete, label, spec_of, validate, without_nulls

ALL_RULES = [(kind, rule) for kind, rules in RULES.items() for rule in rules]


@pytest.mark.parametrize("sample", GOOD, ids=label)
def test_good_specs_are_accepted(sample: Good) -> None:
    assert not isinstance(validate(sample.kind, spec_of(sample)), Invalid)


@pytest.mark.parametrize("sample", BAD, ids=label)
def test_bad_specs_are_answered_with_the_field_and_the_remedy(sample: Bad) -> None:
    answer = validate(sample.kind, spec_of(sample))
    assert isinstance(answer, Invalid)
    (violation,) = answer.violations
    assert violation.field == sample.place
    assert sample.words in violation.message
    assert str(answer) == f"{violation.field}: {violation.message}"


def test_all_violations_are_told_at_once() -> None:
    spec = {"clientId": "", "secretRef": {"key": "a/b"}, "soak": "5"}
    answer = validate(ROTATION_KIND, spec)
    assert isinstance(answer, Invalid)
    assert {violation.field for violation in answer.violations} == {
        *("spec.providerRef", "spec.clientId", "spec.secretRef.name", "spec.secretRef.key", "spec.soak"),
    }


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("spec", [None, [], "text", 5])
def test_a_spec_that_is_no_object_is_an_answer_too(kind: str, spec: object) -> None:
    assert str(validate(kind, spec)) == "spec: must be an object with fields of its own"


def test_an_empty_request_is_allowed() -> None:
    """Not among the samples: Kubernetes 1.20 built with Go from 1.18 on takes every empty string for a null."""
    spec = spec_of(Good(ROTATION_KIND, {"rotationRequest": ""}))
    assert not isinstance(validate(ROTATION_KIND, spec), Invalid)


def test_a_label_may_have_an_empty_value() -> None:
    """Not among the samples for the same reason."""
    selector = {"matchLabels": {"a": ""}, "matchExpressions": [{"key": "a", "operator": "In", "values": [""]}]}
    known = validate(ROTATION_KIND, spec_of(Good(ROTATION_KIND, {"rollout.selector": selector})))
    assert isinstance(known, RotationSpec)
    assert known.rollout.to_wire()["selector"] == selector


def test_fields_are_known_by_their_wire_names_only() -> None:
    spec = {**BASES[ROTATION_KIND], "client_id": "x"}
    del spec["clientId"]
    assert str(validate(ROTATION_KIND, spec)) == "spec.clientId: is required"


@functools.cache
def spec_schema(kind: str) -> dict[str, Any]:
    schema: dict[str, Any] = schema_for(kind)["properties"]["spec"]
    return schema


def leaves(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """All places in a schema that hold a value rather than fields: "[]" is an item of a list, "{}" one of a map."""
    for name, child in schema.get("properties", {}).items():
        yield from leaves(child, (*path, name))
    if "properties" not in schema:
        yield path, schema
    for step, keyword in (("[]", "items"), ("{}", "additionalProperties")):
        if keyword in schema:
            yield from leaves(schema[keyword], (*path, step))


def put(node: Any, path: Sequence[str], value: object) -> Any:
    """A spec, or a part of it, with a value in one of the places of `leaves`."""
    if not path:
        return value
    step, *rest = path
    if step == "[]":
        return [put({}, rest, value)]
    if step == "{}":
        return {"canary-7f3a": put({}, rest, value)}
    return {**node, step: put(node.get(step, {}), rest, value)}


def named(path: Sequence[str]) -> str:
    """How answers name a place; the keys of a map are the user's own."""
    steps = itertools.takewhile(lambda step: step != "{}", path)
    return "spec" + "".join("[0]" if step == "[]" else f".{step}" for step in steps)


@pytest.mark.parametrize(
    ("kind", "path"),
    [(kind, path) for kind in BASES for path, _ in leaves(spec_schema(kind))],
    ids=str,
)
@pytest.mark.parametrize(
    "canary", ["canary-7f3a\n/@ ", 7370551, ["canary 7f3a"], {"canary 7f3a": "canary 7f3a"}], ids=type
)
def test_an_offending_value_is_never_repeated(kind: str, path: tuple[str, ...], canary: object) -> None:
    """I8: a secret that somebody put into the wrong field stays out of status, Events and logs."""
    answer = validate(kind, put(BASES[kind], path, canary))
    if path != ("rotationRequest",) or not isinstance(canary, str):  # it holds any text
        assert isinstance(answer, Invalid)
        assert any(violation.field.startswith(named(path)) for violation in answer.violations)
        assert not re.search("canary|7f3a|7370551", str(answer))


def test_every_pattern_has_words_for_users() -> None:
    patterns = {schema["pattern"] for kind in BASES for _, schema in leaves(spec_schema(kind)) if "pattern" in schema}
    assert patterns == {*_PATTERNS, DURATION_PATTERN, TIME_PATTERN}


def test_the_table_of_blocks_names_all_providers() -> None:
    assert set(PROVIDER_BLOCKS) == set(PROVIDERS)


def escaped(value: Any) -> Any:
    """Kubernetes shows a field to CEL as __namespace__ where its name is a word that CEL reserves."""
    if isinstance(value, dict):
        return {"__namespace__" if key == "namespace" else key: escaped(item) for key, item in value.items()}
    return value


@functools.cache
def program(cel: str) -> celpy.Runner:
    environment = celpy.Environment()
    return environment.program(environment.compile(cel))


def cel_verdict(kind: str, rule: Rule[Any], spec: dict[str, Any]) -> bool:
    """What an API server from 1.25 says: nulls dropped, defaults applied, then the rule."""
    known = complete(spec_schema(kind), without_nulls(spec))
    return bool(program(rule.cel).evaluate({"self": json_to_cel(escaped(known))}))


MODELS: dict[str, type[KubeModel]] = {
    ROTATION_KIND: RotationSpec,
    POLICY_KIND: RotationPolicySpec,
    **dict.fromkeys(map(str, ProviderKind), ProviderSpec),
}


def model(kind: str, spec: dict[str, Any]) -> KubeModel:
    return MODELS[kind].model_validate(without_nulls(spec))


BY_RULES: list[Sample] = [*GOOD, *(sample for sample in BAD if sample.by_rule)]


@pytest.mark.parametrize("sample", BY_RULES, ids=label)
def test_cel_and_the_operator_agree_on_samples(sample: Sample) -> None:
    spec = spec_of(sample)
    for rule in RULES[sample.kind]:
        assert rule.holds(model(sample.kind, spec)) == cel_verdict(sample.kind, rule, spec), rule.cel


@pytest.mark.parametrize(("kind", "rule"), ALL_RULES, ids=lambda part: getattr(part, "field", part))
def test_every_rule_is_broken_by_a_sample_of_its_own(kind: str, rule: Rule[Any]) -> None:
    assert any(
        not rule.holds(model(kind, spec_of(sample))) and sample.words in rule.demand
        for sample in BAD
        if sample.by_rule and sample.kind in (kind, shared_with(kind))
    )


def shared_with(kind: str) -> str:
    """Rules about all providers have their samples with the namespaced kind."""
    return ProviderKind.ROTATION_PROVIDER if kind in set(ProviderKind) else kind


@pytest.mark.parametrize(("kind", "rule"), ALL_RULES, ids=lambda part: getattr(part, "field", part))
def test_rules_name_fields_of_the_schema(kind: str, rule: Rule[Any]) -> None:
    entry = rule.to_schema()
    assert entry["message"].startswith(f"spec.{rule.field} " if rule.field else "spec ")
    node = spec_schema(kind)
    for name in filter(None, entry.get("fieldPath", "").split(".")):
        node = node["properties"][name]


@pytest.mark.parametrize("present", ["", "a", "b", "ab", "abc"])
def test_exactly_one_block_of_several(present: str) -> None:
    self = json_to_cel({block: {} for block in present})
    assert bool(program(exactly_one(("a", "b", "c"))).evaluate({"self": self})) is (len(present) == 1)


durations = st.one_of(
    st.sampled_from(
        ["0s", "1s", "10s", "99ms", "100ms", "60s", "1h", "10m", "24h", "168h", "86400s", "1439m60s", "7h161h"]
    ),
    st.lists(st.tuples(st.integers(0, 99999), st.sampled_from(["h", "m", "s", "ms"])), min_size=1, max_size=4).map(
        lambda parts: "".join(f"{count}{unit}" for count, unit in parts)
    ),
)
keys = st.sampled_from(["A", "B", "C", "a"])
urls = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "https"]),
    st.sampled_from(
        ["localhost", "127.0.0.1", "127.0.0.01", "[::1]", "[::]", "localhost.", "LOCALHOST", "127.0.0.1x", "a.b"]
    ),
    st.sampled_from(["", ":80", ":", ":123456", ":x"]),
    st.sampled_from(["", "/", "/a/b", "/http://localhost"]),
)


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


labels = st.sampled_from(["a", "example.com/a", "", "a b", "a\n", "-a", "a/b/c", "A/b", "a" * 64])
expressions = st.fixed_dictionaries(
    {"key": st.just("a"), "operator": st.sampled_from(list(SelectorOperator))},
    optional={"values": st.lists(st.just("a"), max_size=2)},
)
selectors = optional(
    matchLabels=st.dictionaries(labels, st.just("a"), max_size=2), matchExpressions=st.lists(expressions, max_size=2)
)
rollouts = optional(
    discover=st.booleans(),
    targets=st.lists(st.just({"kind": "Deployment", "name": "a"}), max_size=1),
    selector=selectors,
    timeout=durations,
    waveSoak=durations,
    volumeRefresh=durations,
)
windows = st.fixed_dictionaries(
    {"kind": st.sampled_from(list(WindowKind)), "schedule": st.just("0 2 * * *"), "duration": durations}
)
schedules = optional(
    interval=durations, cron=st.just("0 2 * * *"), stagger=durations, windows=st.lists(windows, max_size=2)
)
rotations = st.fixed_dictionaries(
    {
        **{name: st.just(value) for name, value in BASES[ROTATION_KIND].items() if name != "secretRef"},
        "secretRef": st.fixed_dictionaries(
            {"name": st.just("s"), "key": keys}, optional={"clientIdKey": keys, "previousKey": keys}
        ),
    },
    optional={
        "rollout": rollouts,
        "verify": optional(timeout=durations),
        "soak": durations,
        "overlap": durations,
        "schedule": schedules,
    },
)
references = st.fixed_dictionaries({"name": st.just("s"), "key": keys}, optional={"namespace": st.just("n")})
read_backs = st.fixed_dictionaries({"baseUrl": urls, "appId": st.just("a")})
providers = optional(
    stytch=st.fixed_dictionaries({"projectId": st.just("p"), "secretRef": references}, optional={"baseUrl": urls}),
    janrain=st.fixed_dictionaries(
        {"clientId": st.just("c"), "secretRef": references, "baseUrl": urls}, optional={"readBack": read_backs}
    ),
    snaptrade=st.fixed_dictionaries({"clientId": st.just("c"), "secretRef": references}, optional={"baseUrl": urls}),
    timeouts=optional(connect=durations, read=durations),
)


policies = optional(
    namespaceSelector=selectors,
    rotationSelector=selectors,
    maxAge=durations,
    minGap=durations,
    windows=st.lists(windows, max_size=2),
)


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(
        rotations.map(lambda spec: (ROTATION_KIND, spec)),
        st.tuples(st.sampled_from(ProviderKind), providers),
        policies.map(lambda spec: (POLICY_KIND, spec)),
    )
)
def test_cel_and_the_operator_agree_on_anything(case: tuple[str, dict[str, Any]]) -> None:
    kind, spec = case
    broken = []
    for rule in RULES[kind]:
        verdict = cel_verdict(kind, rule, spec)
        assert rule.holds(model(kind, spec)) == verdict, rule.cel
        broken += [] if verdict else [rule.violation()]
    answer = validate(kind, spec)
    assert (list(answer.violations) if isinstance(answer, Invalid) else []) == broken


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(BASES)), st.data())
def test_no_json_makes_validation_fail(kind: str, data: st.DataObject) -> None:
    """I10: whatever is stored under a known name, the operator answers and does not fall over."""
    places = [path for path, _ in leaves(spec_schema(kind))]
    spec: Any = BASES[kind]
    for path, value in data.draw(st.dictionaries(st.sampled_from(places), json_values, max_size=3)).items():
        with contextlib.suppress(AttributeError, TypeError):  # an earlier value has no such place
            spec = put(spec, path, value)
    answer = validate(kind, json.loads(json.dumps(spec)))
    assert isinstance(answer, Invalid | RotationSpec | ProviderSpec | RotationPolicySpec)
