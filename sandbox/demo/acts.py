"""What is played: for each provider an account with one client, and the objects that a user would apply for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Final

import yaml

from keyturn.providers.stytch import CAPABILITIES as STYTCH
from sandbox.stage import Stage
from sandbox.traffic.probe import StytchProbe, TrafficProbe

_HERE: Final = Path(__file__).parent


@dataclass(frozen=True)
class Client:
    """A client at a simulated provider account, and how it is called.

    values: what the act's manifest leaves open. secrets: the Secrets that exist before the rotation, as plain text.
    newest_value: what the provider has issued last.
    """

    client_id: str
    first_value: str
    values: dict[str, str]
    secrets: dict[str, dict[str, str]]
    probe: Callable[[], AbstractAsyncContextManager[TrafficProbe]]
    newest_value: Callable[[], str]


@dataclass(frozen=True)
class Act:
    """One rotation. `namespace` also names the provider account in the sandbox; `open` makes that account."""

    namespace: str
    provider: str
    semantics: str
    manifest: Path
    open: Callable[[Stage, str], Client]

    def documents(self, client: Client) -> tuple[dict[str, Any], str, list[dict[str, Any]]]:
        """The rotation; its YAML as a user writes it; and everything else in the manifest."""
        texts = Template(self.manifest.read_text()).substitute(client.values).split("---\n")
        whole = [(yaml.safe_load(text), text.strip()) for text in texts]
        for document, _ in whole:
            document["metadata"]["namespace"] = self.namespace
        ((rotation, text),) = [one for one in whole if one[0]["kind"] == "ClientSecretRotation"]
        return rotation, text, [document for document, _ in whole if document is not rotation]


def _stytch(stage: Stage, account: str) -> Client:
    project = stage.stytch(account)
    created = project.simulator.create({})
    client_id, value = created["client_id"], created["client_secret"]
    return Client(
        client_id,
        value,
        {"project": project.simulator.project_id, "url": project.url, "client": client_id, "account": account},
        {
            "stytch-project": {"PROJECT_SECRET": project.simulator.project_secret},
            "billing-m2m": {"CLIENT_SECRET": value},
        },
        lambda: StytchProbe(project.url, project.simulator.project_id),
        lambda: project.simulator.clients[client_id].current.value,
    )


ACTS: Final = (
    Act(
        namespace="demo",
        provider="stytch",
        semantics=STYTCH.semantics,
        manifest=_HERE / "stytch.yaml",
        open=_stytch,
    ),
)
