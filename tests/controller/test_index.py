"""The index of all rotations and providers: only the newest counts, and conflicts are seen from both sides (I6)."""

from __future__ import annotations

from typing import Any

import pytest

from keyturn.controller.index import Index, key_of, provider_key_of
from keyturn.rotation.world import Problem

PROVIDER = ("RotationProvider", "ns", "acme")


def rotation(
    name: str = "one",
    *,
    namespace: str = "ns",
    version: int = 1,
    client: str = "client",
    provider: str = "acme",
    kind: str | None = None,
    secret: str | None = None,
    **keys: str,
) -> dict[str, Any]:
    """Writes to a Secret of its own name unless told otherwise."""
    meta = {"name": name, "namespace": namespace, "uid": name, "resourceVersion": str(version), "generation": 1}
    spec = {
        "providerRef": {"name": provider, **({"kind": kind} if kind else {})},
        "clientId": client,
        "secretRef": {"name": secret or name, "key": "KEY", **keys},
    }
    meta["creationTimestamp"] = "2026-01-01T00:00:00Z"
    whole = {**meta, "managedFields": ["much"], "annotations": {"kubectl": "more"}}
    return {"apiVersion": "keyturn.dev/v1alpha1", "kind": "ClientSecretRotation", "metadata": whole, "spec": spec}


def provider(
    name: str = "acme", *, namespace: str | None = "ns", version: int = 1, project: str = "project-1"
) -> dict[str, Any]:
    kind = "RotationProvider" if namespace else "ClusterRotationProvider"
    meta = {"name": name, "uid": name, "resourceVersion": str(version), "generation": 1}
    if namespace:
        meta["namespace"] = namespace
    block = {"projectId": project, "secretRef": {"name": "credentials", "key": "secret"}}
    return {"apiVersion": "keyturn.dev/v1alpha1", "kind": kind, "metadata": meta, "spec": {"stytch": block}}


def index_of(*objects: dict[str, Any]) -> Index:
    index = Index()
    for raw in objects:
        (index.put_rotation if raw["kind"] == "ClientSecretRotation" else index.put_provider)(raw)
    return index


def reason(problem: Problem | None) -> str | None:
    return problem.reason if problem else None


def test_only_the_newest_version_is_kept() -> None:
    """I9: an event that is late, or a stale read, does not undo what was written since."""
    index = index_of(rotation(version=10, client="new"))
    assert index.put_rotation(rotation(version=9, client="old")) == set()
    assert index.put_rotation(rotation(version=10, client="old")) == set()
    kept = index.rotation(("ns", "one"))
    assert kept is not None
    assert kept["spec"]["clientId"] == "new"
    assert index.put_rotation(rotation(version=100, client="new")) == {("ns", "one")}


def test_versions_are_compared_as_numbers() -> None:
    index = index_of(provider(version=9, project="old"))
    index.put_provider(provider(version=10, project="new"))
    kept = index.provider(PROVIDER)
    assert kept is not None
    assert kept["spec"]["stytch"]["projectId"] == "new"
    assert index.put_provider(provider(version=9)) == set()


def test_our_own_status_wakes_nobody_when_it_comes_back_and_any_other_does() -> None:
    """I12: or every write would lead to one more pass, and to one more call of a provider that asked for patience."""
    index, key = index_of(rotation()), ("ns", "one")
    index.expect_status(key, {"phase": "Idle"})
    assert index.put_rotation({**rotation(version=2), "status": {"phase": "Idle"}}) == set()
    assert index.put_rotation({**rotation(version=3), "status": {"phase": "Failed"}}) == {key}
    deleting = {**rotation(version=4), "status": {"phase": "Idle"}}
    deleting["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    assert index.put_rotation(deleting) == {key}
    edited = {**rotation(version=5, client="another"), "status": {"phase": "Idle"}}
    assert index.put_rotation(edited) == {key}


def test_our_own_finalizer_wakes_nobody_and_one_that_others_take_away_does() -> None:
    index, key, bound = index_of(rotation()), ("ns", "one"), ["example.com/other", "keyturn.dev/rotation"]

    def seen(version: int, *finalizers: str) -> set[tuple[str, str]]:
        raw = {**rotation(version=version), "status": {"phase": "Idle"}}
        raw["metadata"]["finalizers"] = list(finalizers)
        return index.put_rotation(raw)

    index.expect_status(key, {"phase": "Idle"})
    index.expect_finalizer(key, present=True)
    assert seen(2, *bound) == set()
    assert seen(3) == {key}
    assert seen(4, *bound) == set()
    index.expect_finalizer(key, present=False)
    assert seen(5) == set()
    assert seen(6, *bound) == {key}


def test_what_is_kept_is_small() -> None:
    index = index_of(rotation())
    kept = index.rotation(("ns", "one"))
    assert kept is not None
    assert {"managedFields", "annotations"}.isdisjoint(kept["metadata"])
    assert kept["metadata"]["uid"] == "one"


def test_a_provider_that_changes_concerns_its_rotations_and_no_others() -> None:
    index = index_of(
        provider(), rotation("one"), rotation("two", client="2"), rotation("other", client="3", provider="x")
    )
    assert index.put_provider(provider(version=2, project="project-2")) == {("ns", "one"), ("ns", "two")}
    assert index.put_provider(provider(version=3, project="project-2")) == set()  # only its status changed
    assert index.drop_provider(PROVIDER) == {("ns", "one"), ("ns", "two")}
    assert index.provider(PROVIDER) is None


def test_providers_of_namespaces_and_of_the_cluster_are_told_apart() -> None:
    index = index_of(
        rotation("one"),
        rotation("two", namespace="elsewhere", client="2"),
        rotation("three", client="3", kind="ClusterRotationProvider"),
    )
    assert index.put_provider(provider()) == {("ns", "one")}
    assert index.put_provider(provider(namespace=None)) == {("ns", "three")}
    assert provider_key_of(provider(namespace=None)) == ("ClusterRotationProvider", "", "acme")


@pytest.mark.parametrize(
    ("keys", "others"),
    [({}, {}), ({"previousKey": "OLD"}, {"key": "OLD"}), ({"clientIdKey": "ID"}, {"key": "MINE", "clientIdKey": "ID"})],
    ids=["key", "previousKey", "clientIdKey"],
)
def test_two_that_write_the_same_key_both_say_so(keys: dict[str, Any], others: dict[str, Any]) -> None:
    """I6"""
    index = index_of(
        rotation("one", secret="shared", client="1", **keys), rotation("two", secret="shared", client="2", **others)
    )
    for mine, other in (("one", "two"), ("two", "one")):
        problem = index.conflict(("ns", mine))
        assert problem is not None
        assert problem.reason == "SecretConflict"
        assert problem.lasting
        assert f"ClientSecretRotation {other} " in problem.message
        assert "Secret shared, key" in problem.message


def test_two_may_share_a_secret_with_keys_of_their_own() -> None:
    index = index_of(
        rotation("one", secret="shared", client="1"), rotation("two", secret="shared", client="2", key="ANOTHER")
    )
    assert index.conflict(("ns", "one")) is None


def test_the_same_names_in_another_namespace_are_another_secret() -> None:
    index = index_of(rotation("one", client="1"), rotation("one", client="2", namespace="elsewhere"))
    assert index.conflict(("ns", "one")) is None


@pytest.mark.parametrize("project", ["project-1", "project-2"])
def test_two_that_rotate_one_client_both_say_so_across_namespaces(project: str) -> None:
    """I6: what counts is the account, not the name of the object that describes it."""
    here, there = rotation("one"), rotation("two", namespace="elsewhere", provider="another")
    accounts = provider(), provider("another", namespace="elsewhere", project=project)
    index = index_of(here, there, *accounts)
    found = index.conflict(("ns", "one")), index.conflict(("elsewhere", "two"))
    expected = "ClientConflict" if project == "project-1" else None
    assert (reason(found[0]), reason(found[1])) == (expected, expected)
    if found[0] and found[1]:
        assert "elsewhere/two" in found[0].message
        assert "ns/one" in found[1].message


@pytest.mark.parametrize(
    ("kind", "account"), [("janrain", "baseUrl"), ("snaptrade", "clientId")], ids=["janrain", "snaptrade"]
)
def test_clients_of_the_same_name_at_two_accounts_are_two(kind: str, account: str) -> None:
    """I6: a user of SnapTrade's test key is not the user of the same id of its paid key."""
    index = index_of(rotation("one"), rotation("two", secret="other", provider="another"))
    for name, told in (("acme", "one"), ("another", "two")):
        raw = provider(name)
        raw["spec"] = {kind: {account: told, "secretRef": {"name": "credentials", "key": "secret"}}}
        index.put_provider(raw)
    assert index.conflict(("ns", "one")) is None
    assert index.conflict(("ns", "two")) is None


def test_a_running_rotation_keeps_its_client_whatever_its_spec_says_by_now() -> None:
    """I6: an edit in the middle of a rotation frees nothing."""
    index = index_of(rotation("one", client="1"), rotation("two", client="1", secret="other"), provider())
    running = rotation("one", client="1")
    subject = dict(running["spec"])
    running["spec"] = {**running["spec"], "clientId": "2"}
    running["metadata"]["resourceVersion"] = "7"
    running["status"] = {"rotation": {"subject": subject}}
    index.put_rotation(running)
    assert reason(index.conflict(("ns", "two"))) == "ClientConflict"
    assert index.conflict(("ns", "one")) is None, "nothing stands in the way of what it is to rotate next"
    for mine, other in (("one", "two"), ("two", "one")):
        told = index.contested(("ns", mine))
        assert told is not None
        assert f"ClientSecretRotation ns/{other} " in told.message
    ended = {**running, "status": {}, "metadata": {**running["metadata"], "resourceVersion": "8"}}
    assert ("ns", "two") in index.put_rotation(ended)
    assert index.conflict(("ns", "two")) is None
    assert (index.contested(("ns", "one")), index.contested(("ns", "two"))) == (None, None)


def test_a_running_rotation_claims_what_its_spec_names_by_now_as_well() -> None:
    """I6: where its own client does not exist, it goes on with the one that the spec is corrected to."""
    index = index_of(rotation("one", client="1"), rotation("two", client="2", secret="other"), provider())
    corrected = rotation("one", client="2", version=2)
    corrected["status"] = {"rotation": {"subject": rotation("one", client="1")["spec"]}}
    assert ("ns", "two") in index.put_rotation(corrected)
    assert reason(index.conflict(("ns", "one"))) == "ClientConflict"
    assert reason(index.conflict(("ns", "two"))) == "ClientConflict"
    assert index.drop_rotation(("ns", "two")) == {("ns", "one")}
    assert index.conflict(("ns", "one")) is None


def test_what_a_rotation_is_corrected_from_is_in_its_way_no_more() -> None:
    """I6, I10: two with the same mistake, one of which is mended."""
    index = index_of(rotation("one", client="typo"), rotation("two", client="typo", secret="other"), provider())
    corrected = rotation("one", client="right", version=2)
    corrected["status"] = {"rotation": {"subject": rotation("one", client="typo")["spec"]}}
    index.put_rotation(corrected)
    assert index.conflict(("ns", "one")) is None
    assert reason(index.conflict(("ns", "two"))) == "ClientConflict"


def test_both_hear_of_it_when_they_turn_out_to_be_of_one_account() -> None:
    """I6: the one whose provider did not change as well."""
    index = index_of(rotation("one"), rotation("two", provider="another"), provider())
    assert index.put_provider(provider("another", project="project-1")) == {("ns", "one"), ("ns", "two")}
    assert index.drop_provider(("RotationProvider", "ns", "another")) == {("ns", "one"), ("ns", "two")}


def test_the_other_hears_of_a_conflict_and_of_its_end() -> None:
    index = index_of(provider(), rotation("one", client="1", secret="shared"))
    second = rotation("two", client="2", secret="shared")
    assert index.put_rotation(second) == {("ns", "one"), ("ns", "two")}
    assert index.drop_rotation(key_of(second)) == {("ns", "one")}
    assert index.conflict(("ns", "one")) is None


@pytest.mark.parametrize("change", [{"secret": "own", "client": "2"}, {"key": "OTHER", "client": "2"}], ids=str)
def test_an_edit_ends_a_conflict_for_both(change: dict[str, Any]) -> None:
    index = index_of(rotation("one", client="1", secret="shared"), rotation("two", client="2", secret="shared"))
    assert index.conflict(("ns", "one")) is not None
    edited = rotation("two", version=2)
    edited["spec"] = rotation("two", **{"secret": "shared", **change})["spec"]
    assert index.put_rotation(edited) == {("ns", "one"), ("ns", "two")}
    assert index.conflict(("ns", "one")) is None
    assert index.conflict(("ns", "two")) is None


def test_an_edit_unlinks_from_the_former_provider_and_client() -> None:
    index = index_of(rotation("one", client="1"), rotation("two", client="1", namespace="elsewhere"), provider())
    index.put_rotation(rotation("one", version=2, client="2", provider="another"))
    assert index.put_provider(provider(version=2, project="changed")) == set()
    assert index.rotations_of(("RotationProvider", "ns", "another")) == {("ns", "one")}
    assert index.drop_rotation(("ns", "one")) == set()


def test_dropping_what_is_unknown_is_nothing() -> None:
    assert Index().drop_rotation(("ns", "one")) == set()
    assert Index().drop_provider(PROVIDER) == set()
    assert Index().conflict(("ns", "one")) is None


@pytest.mark.parametrize("spec", [{}, {"clientId": "c"}, {"secretRef": {}, "providerRef": {}}], ids=str)
def test_incomplete_specs_are_taken_in_all_the_same(spec: dict[str, Any]) -> None:
    """I10: an API server may have let them through; saying what is wrong is the operator's business."""
    index = index_of({**rotation(), "spec": spec}, {**rotation("two"), "spec": spec})
    assert len(index) == 2
    index.drop_rotation(("ns", "one"))
    assert len(index) == 1


def test_what_has_begun_at_an_account_stays_a_claim_there_whatever_its_provider_object_says_by_now() -> None:
    """I6: else another one could begin beside it."""
    begun = rotation("one")
    subject = {field: begun["spec"][field] for field in ("providerRef", "clientId", "secretRef")}
    begun["status"] = {"rotation": {"id": "r", "subject": subject, "account": "stytch/project-1"}}
    index = index_of(begun, provider(project="project-2"), provider("other"), rotation("two", provider="other"))
    found = index.conflict(("ns", "two"))
    assert found is not None
    assert found.reason == "ClientConflict"


def test_of_thousands_only_those_in_use_stay_decoded_and_all_can_be_read() -> None:
    """Scale: at rest a rotation is text, which neither the garbage collector nor a pass comes across."""
    index = index_of(*(rotation(f"r{number}", client=f"{number}") for number in range(1000)))
    assert len(index) == len(index.rotations()) == len(index.versions()) == len(index.facts()) == 1000
    assert len(index._rotations._in_use) < 300
    first = index.rotation(("ns", "r0"))
    assert first is not None
    assert first["spec"]["clientId"] == "0"
    assert index.rotation(("ns", "r0")) is first
    assert {raw["spec"]["clientId"] for raw in index.rotations().values()} == {str(number) for number in range(1000)}
    assert index.rotation(("ns", "r0")) is first, "who goes through all of them displaces nobody"
    index.drop_rotation(("ns", "r0"))
    assert index.rotation(("ns", "r0")) is None
    assert len(index.versions()) == len(index.facts()) == 999


def test_a_permit_that_is_written_to_a_policy_makes_nobody_look_at_its_rotations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Scale: there are two such writes for each rotation, and thousands of rotations."""
    index = index_of(rotation())
    meta = {"name": "fleet", "uid": "fleet", "generation": 1, "creationTimestamp": "2026-03-01T12:00:00Z"}
    raw: dict[str, Any] = {
        "apiVersion": "keyturn.dev/v1alpha1",
        "kind": "RotationPolicy",
        "metadata": {**meta, "resourceVersion": "10"},
        "spec": {"concurrency": {"cluster": 1}},
    }
    assert index.put_policy(raw) == {("ns", "one")}
    with monkeypatch.context() as patch:
        patch.setattr(index, "covered", lambda _: pytest.fail("looked at all rotations"))
        status = {"running": [{"namespace": "ns", "name": "one", "account": "a", "since": "2026-03-01T12:00:00Z"}]}
        assert index.put_policy({**raw, "metadata": {**meta, "resourceVersion": "11"}, "status": status}) == set()
    edited = {**raw, "metadata": {**meta, "resourceVersion": "12", "generation": 2}, "spec": {"maxAge": "720h"}}
    assert index.put_policy(edited) == {("ns", "one")}
