"""Ten thousand rotations on a real control plane: how they are made, and what there is to know of them."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from sandbox.simulators.stytch import StytchSimulator
from sandbox.stage import Account, Stage

ROTATIONS: Final = "/apis/keyturn.dev/v1alpha1/clientsecretrotations"
KEY: Final = "CLIENT_SECRET"
GROUP: Final = "keyturn.dev/v1alpha1"
_AT_ONCE: Final = 32
_MERGE: Final = {"Content-Type": "application/merge-patch+json"}
_NO_LIMIT: Final = {"requestsPerSecond": 1000, "burst": 1000}
"""The provider answers at once; with the default limit, 500 rotations would take six minutes whatever Keyturn does."""
_SCHEDULE: Final = {"interval": "720h"}


@dataclass(frozen=True, slots=True)
class Member:
    """One rotation: its number names it, its Secret, and, where it has one, its Deployment."""

    number: int
    namespace: str
    client: str

    @property
    def name(self) -> str:
        return f"r-{self.number:05}"

    @property
    def path(self) -> str:
        return f"/apis/keyturn.dev/v1alpha1/namespaces/{self.namespace}/clientsecretrotations/{self.name}"


class Fleet:
    """Rotations with schedules, spread over namespaces; the first `working` of them have a Deployment of one pod."""

    def __init__(self, stage: Stage, size: int, working: int, namespaces: int = 20) -> None:
        self.size = size
        self.account: Account[StytchSimulator] = stage.stytch("fleet")
        self._stage = stage
        names = [f"fleet-{number:02}" for number in range(namespaces)]
        self._namespaces = names
        self.members: list[Member] = []
        self._values: dict[int, str] = {}
        for number in range(size):
            made = self.account.simulator.create({})
            self.members.append(Member(number, names[number % namespaces], made["client_id"]))
            self._values[number] = made["client_secret"]
        self.working = self.members[:working]

    def make(self) -> None:
        """Create everything."""
        self._stage.do(self._make())
        self._values.clear()

    async def _make(self) -> None:
        async with self.session() as session:
            places = (("/api/v1/namespaces", {"metadata": {"name": name}}) for name in self._namespaces)
            await _each(session, "POST", places)
            await _each(session, "POST", self._accounts())
            await _each(session, "POST", (one for member in self.members for one in self._objects_of(member)))

    def session(self) -> aiohttp.ClientSession:
        """As the administrator. Lines of a watch may be as long as an object."""
        endpoint = self._stage.control_plane.endpoint
        connector = aiohttp.TCPConnector(ssl=endpoint.ssl_context(), limit=_AT_ONCE)
        return aiohttp.ClientSession(
            endpoint.server,
            headers=endpoint.headers(),
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=2**20,
        )

    def patch(self, members: Iterable[Member], body: dict[str, Any]) -> None:
        """The same merge patch to each of these."""

        async def patched() -> None:
            async with self.session() as session:
                await _each(session, "PATCH", ((member.path, body) for member in members))

        self._stage.do(patched())

    def objects(self) -> list[dict[str, Any]]:
        """All rotations as they are now."""
        found, query = [], {"limit": "500"}
        while True:
            page = self._stage.api.http.get(ROTATIONS, params=query).raise_for_status().json()
            found += page["items"]
            if not page["metadata"].get("continue"):
                return found
            query["continue"] = page["metadata"]["continue"]

    def _accounts(self) -> Iterator[tuple[str, dict[str, Any]]]:
        simulator = self.account.simulator
        for name in self._namespaces:
            yield f"/api/v1/namespaces/{name}/secrets", _secret("project", "secret", simulator.project_secret)
            ref = {"name": "project", "key": "secret"}
            block = {"projectId": simulator.project_id, "secretRef": ref, "baseUrl": self.account.url}
            yield (
                f"/apis/{GROUP}/namespaces/{name}/rotationproviders",
                {
                    "apiVersion": GROUP,
                    "kind": "RotationProvider",
                    "metadata": {"name": "stytch"},
                    "spec": {"stytch": block, "rateLimit": _NO_LIMIT},
                },
            )

    def _objects_of(self, member: Member) -> Iterator[tuple[str, dict[str, Any]]]:
        core = f"/api/v1/namespaces/{member.namespace}"
        yield f"{core}/secrets", _secret(member.name, KEY, self._values[member.number])
        if member.number < len(self.working):
            yield f"/apis/apps/v1/namespaces/{member.namespace}/deployments", _deployment(member.name)
        yield (
            member.path.rpartition("/")[0],
            {
                "apiVersion": GROUP,
                "kind": "ClientSecretRotation",
                "metadata": {"name": member.name},
                "spec": {
                    "providerRef": {"name": "stytch"},
                    "clientId": member.client,
                    "secretRef": {"name": member.name, "key": KEY},
                    "soak": "0s",
                    "schedule": _SCHEDULE,
                },
            },
        )


async def _each(session: aiohttp.ClientSession, method: str, requests: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Make these requests, in order, several at a time."""
    pending = iter(requests)

    async def work() -> None:
        for path, body in pending:
            headers = _MERGE if method == "PATCH" else {"Content-Type": "application/json"}
            async with session.request(method, path, data=json.dumps(body), headers=headers) as answer:
                if answer.status >= 300:
                    raise RuntimeError(f"{method} {path}: {answer.status} {await answer.text()}")

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))


def _secret(name: str, key: str, value: str) -> dict[str, Any]:
    data = {key: base64.b64encode(value.encode()).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def _deployment(name: str) -> dict[str, Any]:
    labels = {"app": name}
    container = {"name": "app", "image": "app", "envFrom": [{"secretRef": {"name": name}}]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
