"""Shared by all tests: one control plane for the session, with pods that run and call; a namespace for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox.assets import provide
from sandbox.controlplane import ControlPlane
from sandbox.nursery import Nursery
from sandbox.stage import Stage
from tests.e2e.scene import Scene

# Failures in the shared checks show values, as those in tests do.
pytest.register_assert_rewrite("tests.e2e.crash", "tests.e2e.ends")


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A real API server, etcd and controller manager; built first where they cannot be found or downloaded."""
    with ControlPlane.start(provide()) as running:
        yield running


@pytest.fixture(scope="session")
def stage(control_plane: ControlPlane) -> Iterator[Stage]:
    """The control plane with Keyturn's CRDs and RBAC installed, and a kubelet stand-in whose pods call providers."""
    with Nursery() as nursery, Stage(control_plane, nursery=nursery) as running:
        running.install()
        yield running


@pytest.fixture
def scene(stage: Stage, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A namespace with a provider account, a client and its Secret; and an operator process of its own."""
    with Scene.in_new_namespace(stage, request.node.name) as running:
        yield running


@pytest.fixture
def janrain_scene(stage: Stage, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """As `scene`, with a Janrain application."""
    with Scene.in_new_namespace(stage, request.node.name, "janrain") as running:
        yield running


@pytest.fixture
def snaptrade_scene(stage: Stage, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """As `scene`, with a SnapTrade API key; the client is a user."""
    with Scene.in_new_namespace(stage, request.node.name, "snaptrade") as running:
        yield running
