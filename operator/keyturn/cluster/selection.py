"""The workloads that `spec.rollout.targets` and `spec.rollout.selector` choose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from keyturn.api.rotation import LabelRequirement, LabelSelector, RolloutSpec, SelectorOperator
from keyturn.cluster.listing import Namespace
from keyturn.cluster.objects import Key, Raw, name_of
from keyturn.cluster.resources import DAEMONSETS, DEPLOYMENTS, ROLLOUTS, STATEFULSETS


def restartable(namespace: Namespace) -> Iterator[tuple[Key, Raw]]:
    """All workloads of the kinds that Keyturn can restart."""
    for kind, items in (
        (DEPLOYMENTS.kind, namespace.deployments),
        (STATEFULSETS.kind, namespace.statefulsets),
        (DAEMONSETS.kind, namespace.daemonsets),
        (ROLLOUTS.kind, namespace.rollouts),
    ):
        for item in items:
            yield (kind, name_of(item)), item


def chosen(namespace: Namespace, rollout: RolloutSpec) -> tuple[frozenset[Key], tuple[Key, ...]]:
    """Those that count as reading the Secret because the spec says so; and those that it names and that don't exist."""
    known = dict(restartable(namespace))
    named = [(target.kind.value, target.name) for target in rollout.targets]
    selector = rollout.selector
    selected = {
        key for key, item in known.items() if selector and matches(selector, item["metadata"].get("labels") or {})
    }
    missing = tuple(dict.fromkeys(key for key in named if key not in known))
    return frozenset(selected.union(named) & known.keys()), missing


def matches(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether all conditions hold, as the API server judges them; a selector without conditions matches everything."""
    equal = all(labels.get(key) == value for key, value in selector.match_labels.items())
    return equal and all(_holds(requirement, labels) for requirement in selector.match_expressions)


def _holds(requirement: LabelRequirement, labels: Mapping[str, str]) -> bool:
    match requirement.operator:
        case SelectorOperator.IN:
            return labels.get(requirement.key) in requirement.values
        case SelectorOperator.NOT_IN:
            return labels.get(requirement.key) not in requirement.values
        case SelectorOperator.EXISTS:
            return requirement.key in labels
        case SelectorOperator.DOES_NOT_EXIST:
            return requirement.key not in labels
