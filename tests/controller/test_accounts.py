"""Provider accounts: built once, built anew when anything about them changes, and closed when nobody can use them."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from keyturn.api.rotation import ProviderRef
from keyturn.cluster.client import Kube, Resource
from keyturn.cluster.errors import NotFound
from keyturn.controller.accounts import Accounts
from keyturn.controller.index import Index, provider_key_of
from keyturn.controller.metrics import Metrics
from keyturn.controller.turns import Turns
from keyturn.providers import registry
from keyturn.providers.addresses import AddressRule, parse_networks
from keyturn.providers.base import Provider
from keyturn.rotation.world import ProviderView
from tests.controller.test_index import index_of, provider
from tests.controller.virtual import virtually

REF = ProviderRef(name="acme")
RULE = AddressRule(parse_networks(["127.0.0.0/8"]))
FORBIDDING = AddressRule(forbidden=parse_networks(["20.0.0.0/8"]))


@dataclass
class FakeProvider:
    secret: str
    addresses: object = None
    closed: bool = False
    capabilities: None = None

    async def aclose(self) -> None:
        self.closed = True


class FakeKube:
    """Holds one Secret with credentials; provider objects are only in the index."""

    def __init__(self) -> None:
        self.secret: str | None = "first"
        self.read: list[str] = []

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        self.read.append(f"{namespace}/{name}")
        if resource.plural != "secrets" or self.secret is None:
            raise NotFound(name)
        return {"data": {"secret": base64.b64encode(self.secret.encode()).decode()}}


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[FakeProvider]:
    """Every provider that was built."""
    made: list[FakeProvider] = []

    def build(spec: object, credentials: dict[str, Any], addresses: object, limit: object) -> FakeProvider:
        made.append(FakeProvider(credentials["secret"].get_secret_value(), addresses))
        return made[-1]

    monkeypatch.setattr(registry, "build", build)
    return made


def turns() -> Turns:
    return Turns(lambda _: None, lambda: datetime.now(UTC))


def setting() -> tuple[FakeKube, Index, Accounts]:
    kube, index = FakeKube(), Index()
    index.put_provider(provider())
    return kube, index, Accounts(cast(Kube, kube), index, RULE, Metrics(), turns())


def closed(built: list[FakeProvider]) -> list[bool]:
    return [one.closed for one in built]


async def find(accounts: Accounts) -> Provider | None:
    _, found = await accounts.find("ns", REF)
    return found


def test_it_is_built_once(built: list[FakeProvider]) -> None:
    async def scenario() -> None:
        _, _, accounts = setting()
        assert await find(accounts) is await find(accounts)
        assert len(built) == 1
        await accounts.aclose()
        assert built[0].closed

    virtually(scenario())


def test_new_credentials_count_at_once_and_the_old_ones_are_let_go_of_later(built: list[FakeProvider]) -> None:
    """I10: calls that are under way with the old one come to their end."""

    async def scenario() -> None:
        kube, _, accounts = setting()
        await find(accounts)
        kube.secret = "second"
        await find(accounts)
        assert [one.secret for one in built] == ["first", "second"]
        await asyncio.sleep(600)
        assert closed(built) == [False, False]
        await asyncio.sleep(1500)
        assert closed(built) == [True, False]
        await accounts.aclose()
        assert closed(built) == [True, True]

    virtually(scenario())


def test_a_new_spec_is_a_new_account(built: list[FakeProvider]) -> None:
    async def scenario() -> None:
        _, index, accounts = setting()
        await find(accounts)
        edited = provider(version=2)
        edited["metadata"]["generation"] = 2
        index.put_provider(edited)
        await find(accounts)
        assert len(built) == 2
        await accounts.aclose()
        assert all(one.closed for one in built)

    virtually(scenario())


def test_what_was_deleted_is_closed(built: list[FakeProvider]) -> None:
    async def scenario() -> None:
        _, index, accounts = setting()
        await find(accounts)
        index.drop_provider(("RotationProvider", "ns", "acme"))
        view, found = await accounts.find("ns", REF)
        assert (view.gone, found) == (True, None)
        await asyncio.sleep(2100)
        assert built[0].closed
        await accounts.aclose()

    virtually(scenario())


def test_missing_credentials_are_named_and_nothing_is_built(built: list[FakeProvider]) -> None:
    """I10"""

    async def scenario() -> None:
        kube, _, accounts = setting()
        kube.secret = None
        view, found = await accounts.find("ns", REF)
        assert found is None
        assert view.problem is not None
        assert "Secret credentials" in view.problem.message
        assert built == []

    virtually(scenario())


def test_what_cannot_be_a_credential_is_said_of_its_secret() -> None:
    """I10: nothing is built from it, so nothing is sent."""

    async def scenario() -> None:
        kube, _, accounts = setting()
        kube.secret = "x" * 4097
        view, found = await accounts.find("ns", REF)
        assert (found, view.gone) == (None, False)
        assert view.problem is not None
        assert view.problem.reason == "CredentialsInvalid"
        for said in ("RotationProvider acme", 'key "secret" of Secret "credentials"', "4097 bytes", "4096"):
            assert said in view.problem.message

    virtually(scenario())


async def at(raw: dict[str, Any], kube: FakeKube, user: str | None = None, rule: AddressRule = RULE) -> ProviderView:
    """What is said of the account of this object."""
    accounts = Accounts(cast(Kube, kube), index_of(raw), rule, Metrics(), turns())
    view, _ = await accounts.at(provider_key_of(raw), user=user)
    await accounts.aclose()
    return view


def of_cluster(**spec: Any) -> dict[str, Any]:
    """A ClusterRotationProvider with its credentials in the namespace `platform`."""
    raw = provider(namespace=None)
    raw["spec"]["stytch"]["secretRef"]["namespace"] = "platform"
    raw["spec"] |= {"namespaces": ["billing", "team-*"], **spec}
    return raw


def test_an_object_of_a_namespace_reads_the_secrets_of_that_one_only(built: list[FakeProvider]) -> None:
    """Whatever an API server let through that does not know the rule: no Secret is read at all."""

    async def scenario() -> None:
        kube, raw = FakeKube(), provider(namespace="ns")
        assert (await at(raw, kube)).problem is None
        assert kube.read == ["ns/credentials"]
        for other in ("platform", "ns", ""):
            raw["spec"]["stytch"]["secretRef"]["namespace"] = other
            problem = (await at(raw, kube)).problem
            assert problem is not None
            assert problem.reason == "ProviderInvalid"
            assert "spec.stytch.secretRef.namespace" in problem.message
        assert kube.read == ["ns/credentials"]
        assert len(built) == 1

    virtually(scenario())


@pytest.mark.parametrize(
    ("user", "permitted"),
    [
        ("billing", True),
        ("team-a", True),
        ("team-", True),
        ("billing-2", False),
        ("platform", False),
        ("team", False),
        ("my-team-a", False),
    ],
)
def test_an_account_of_the_cluster_is_for_the_namespaces_that_it_lists(
    built: list[FakeProvider], user: str, permitted: bool
) -> None:
    """Nobody else gets it built, nor has its credentials read."""

    async def scenario() -> None:
        kube = FakeKube()
        problem = (await at(of_cluster(), kube, user)).problem
        assert kube.read == (["platform/credentials"] if permitted else [])
        assert len(built) == permitted
        if permitted:
            assert problem is None
            return
        assert problem is not None
        assert problem.reason == "ProviderNotPermitted"
        assert f"namespace {user}" in problem.message
        assert "spec.namespaces" in problem.message

    virtually(scenario())


def test_addresses_are_limited_for_objects_of_namespaces_and_not_for_those_of_the_cluster(
    built: list[FakeProvider],
) -> None:
    async def scenario() -> None:
        await at(provider(), FakeKube())
        await at(of_cluster(), FakeKube())
        await at(of_cluster(), FakeKube(), rule=FORBIDDING)
        assert [one.addresses for one in built] == [RULE, None, FORBIDDING.unconfined()]

    virtually(scenario())
