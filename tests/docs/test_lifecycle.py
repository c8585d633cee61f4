"""The page about the life of a rotation: its diagrams against the transitions that the code makes, and its tables."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import cache
from itertools import product
from typing import Any, Final

import pytest
import yaml

from keyturn.api.base import KubeModel, format_duration
from keyturn.api.rotation import (
    CANCEL_ANNOTATION,
    RESUME_ANNOTATION,
    URGENT_ANNOTATION,
    Phase,
    RolloutSpec,
    RotationSpec,
    TargetState,
)
from keyturn.api.rules import ROTATION_KIND, validate_rotation
from keyturn.cluster.references import follows_secret, reads_secret
from tests.docs.lifecycle_runs import runs
from tests.docs.pages import LIFECYCLE, section, table
from tests.model.phases import BETWEEN, BLOCKED_IN, RUNNING, Edge

MACHINE: Final = section(LIFECYCLE, "The state machine")
EVERYWHERE: Final = "everywhere"
SEMANTICS: Final = tuple(RUNNING)
ALL: Final = {(where, edge) for where, edges in RUNNING.items() for edge in edges}


def diagrams() -> list[set[Edge]]:
    """The arrows of each diagram; those from the beginning and to the end of all left out."""
    return [set(arrows(block)) for block in re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", MACHINE, re.DOTALL)]


def arrows(block: str) -> Iterator[Edge]:
    """A state whose description lists several phases stands for each of them."""
    groups = {alias: phases_in(text) for text, alias in re.findall(r'state "(.*)" as (\w+)', block)}
    for line in block.splitlines():
        arrow = re.fullmatch(r" *(\S+) --> (\w+)(: .*)?", line)
        if arrow is None:
            assert re.fullmatch(r' *(direction LR|state ".*" as \w+)', line), f"not understood: {line}"
        elif arrow[1] != "[*]":
            yield from product(*(groups.get(name) or [Phase(name)] for name in arrow.group(1, 2)))


def phases_in(text: str) -> list[Phase]:
    return [Phase(word) for word in re.findall(r"[A-Z]\w+", text)]


def accidents() -> set[tuple[str, Edge]]:
    """The table of arrows that are left out of the diagrams."""
    return {
        (where, edge)
        for kinds, before, after, _ in table(MACHINE, "at")
        for where in kinds.split(", ")
        for edge in product(phases_in(before), phases_in(after))
    }


def drawn() -> dict[str, set[Edge]]:
    """All transitions that the page knows, between rotations and by the kind of provider."""
    between, *running, _ = diagrams()
    known = dict(zip(SEMANTICS, running, strict=True))
    for where, edge in accidents():
        known[where].add(edge)
    return {EVERYWHERE: between, **known}


@cache
def seen() -> Mapping[str, set[Edge]]:
    """The transitions that were made in the model, and as the last the comings and goings of `Blocked`."""
    found: defaultdict[str, set[Edge]] = defaultdict(set)
    for lab in runs():
        between = lab.phases & BETWEEN
        found[EVERYWHERE] |= between
        found[lab.provider.capabilities.semantics] |= lab.phases - between
        found[Phase.BLOCKED] |= lab.blockings
    return found


@pytest.mark.parametrize("where", [EVERYWHERE, *SEMANTICS])
def test_every_transition_is_drawn_and_every_arrow_was_seen(where: str) -> None:
    """What all other tests of the model allow, what is drawn, and what was seen to happen are the same."""
    allowed = {EVERYWHERE: BETWEEN, **RUNNING}[where]
    assert sorted(drawn()[where] - seen()[where]) == [], "drawn, and never seen"
    assert sorted(seen()[where] - drawn()[where]) == [], "seen, and not drawn"
    assert sorted(allowed ^ drawn()[where]) == [], "the tests of the model allow something else"


def test_where_a_rotation_may_be_blocked() -> None:
    *_, blocked = diagrams()
    assert blocked == seen()[Phase.BLOCKED]
    assert {phase for phase, after in blocked if after is Phase.BLOCKED} == set().union(*BLOCKED_IN.values())


def test_an_accident_is_in_no_diagram() -> None:
    _, *running, _ = diagrams()
    for where, edge in accidents():
        assert edge not in dict(zip(SEMANTICS, running, strict=True))[where], (where, edge)


def test_every_phase_has_its_paragraph() -> None:
    headings = re.findall(r"^### `(\w+)`$", section(LIFECYCLE, "Phase by phase"), re.MULTILINE)
    assert sorted(headings) == sorted(Phase)


def test_every_state_of_a_target_is_described() -> None:
    assert {row[0].strip("`") for row in table(LIFECYCLE, "state of a target")} == set(TargetState)


def test_every_field_of_the_rollout_is_described() -> None:
    known = {}
    for field in RolloutSpec.model_fields.values():
        default = field.get_default(call_default_factory=True)
        text = format_duration(default) if isinstance(default, timedelta) else str(default)
        text = text.lower() if isinstance(default, bool) else text
        known[f"`{field.alias}`"] = "-" if default is None else "none" if default == [] else f"`{text}`"
    rows = table(section(LIFECYCLE, "Order and pace"), "field")
    assert {row[0]: row[1] for row in rows} == known


# Ways to read a Secret, each with words that its row must have in its first cell.
_MOUNTED: Final = {"volumes": [{"name": "v", "secret": {"secretName": "app"}}]}
_MOUNT: Final = {"name": "v", "mountPath": "/v"}
_ENV: Final = [{"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "app", "key": "SECRET"}}}]
WAYS: Final[dict[str, dict[str, Any]]] = {
    "`env`,": {"containers": [{"env": _ENV}]},
    "`envFrom`": {"containers": [{"envFrom": [{"secretRef": {"name": "app"}}]}]},
    "`volumes.secret`": {**_MOUNTED, "containers": [{"volumeMounts": [_MOUNT]}]},
    "`volumes.projected`": {
        "volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "app"}}]}}],
        "containers": [{"volumeMounts": [_MOUNT]}],
    },
    "`subPath`": {**_MOUNTED, "containers": [{"volumeMounts": [{**_MOUNT, "subPath": "SECRET"}]}]},
    "`subPathExpr`": {**_MOUNTED, "containers": [{"volumeMounts": [{**_MOUNT, "subPathExpr": "$(WHICH)"}]}]},
    "`initContainers`": {**_MOUNTED, "initContainers": [{"volumeMounts": [_MOUNT]}]},
    "`ephemeralContainers`": {"ephemeralContainers": [{"env": _ENV}]},
    "`csi.nodePublishSecretRef`": {"volumes": [{"name": "v", "csi": {"nodePublishSecretRef": {"name": "app"}}}]},
    "`flexVolume`": {"volumes": [{"name": "v", "flexVolume": {"secretRef": {"name": "app"}}}]},
    "`iscsi`": {"volumes": [{"name": "v", "iscsi": {"secretRef": {"name": "app"}}}]},
    "`rbd`": {"volumes": [{"name": "v", "rbd": {"secretRef": {"name": "app"}}}]},
    "`imagePullSecrets`": {"imagePullSecrets": [{"name": "app"}]},
}


@pytest.mark.parametrize("way", WAYS)
def test_who_is_restarted_is_told_for_every_way_of_reading(way: str) -> None:
    (row,) = [row for row in table(section(LIFECYCLE, "How a pod reads the Secret"), "way") if way in f"{row[0]},"]
    assert reads_secret(WAYS[way], "app")
    assert row[1] == "restarted"
    assert row[2].startswith("left alone" if follows_secret(WAYS[way], "app") else "restarted"), row


def test_every_way_that_is_named_was_tried() -> None:
    rows = table(section(LIFECYCLE, "How a pod reads the Secret"), "way")
    for word in re.findall(r"`[\w.]+`", " ".join(row[0] for row in rows)):
        assert any(word in f"{way}`" or word == way.rstrip(",") for way in WAYS), word


def samples() -> list[dict[str, Any]]:
    blocks = re.findall(r"^```yaml\n(.*?)^```", LIFECYCLE, re.MULTILINE | re.DOTALL)
    return [document for block in blocks for document in yaml.safe_load_all(block)]


def test_every_sample_is_a_good_one() -> None:
    rotations = [sample["spec"] for sample in samples() if sample["kind"] == ROTATION_KIND]
    assert len(rotations) > 3
    for spec in rotations:
        assert isinstance(validate_rotation(spec), RotationSpec), validate_rotation(spec)
        assert unknown(spec, RotationSpec) == []


def unknown(value: Any, model: type[KubeModel], path: str = "spec") -> list[str]:
    """Fields that do not exist, which the operator ignores, as it must."""
    found = []
    fields = {field.alias: field.annotation for field in model.model_fields.values()}
    for name, inner in value.items():
        if name not in fields:
            found.append(f"{path}.{name}")
            continue
        kinds = [fields[name], *getattr(fields[name], "__args__", ())]
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, KubeModel):
                for item in inner if isinstance(inner, list) else [inner]:
                    found += unknown(item, kind, f"{path}.{name}")
    return found


def test_the_search_for_unknown_fields_finds_them() -> None:
    spec = {"soak": "5m", "rollout": {"targets": [{"kind": "Deployment", "nam": "web"}], "waves": 1}}
    assert unknown(spec, RotationSpec) == ["spec.rollout.targets.nam", "spec.rollout.waves"]


def test_workloads_in_samples_carry_only_annotations_that_exist() -> None:
    known = {CANCEL_ANNOTATION, RESUME_ANNOTATION, URGENT_ANNOTATION, "keyturn.dev/wave", "keyturn.dev/rotation"}
    assert set(re.findall(r"keyturn\.dev/[a-z]\w*", LIFECYCLE.replace("keyturn.dev/v1alpha1", ""))) <= known
