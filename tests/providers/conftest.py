"""The contract suite runs once for each provider."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.providers.subjects import SUBJECTS, Subject, World, world_of


@pytest.fixture(params=SUBJECTS, ids=lambda subject: subject.name)
def subject(request: pytest.FixtureRequest) -> Subject:
    """A provider under test."""
    chosen = request.param
    assert isinstance(chosen, Subject)
    return chosen


@pytest.fixture
async def world(subject: Subject) -> AsyncIterator[World]:
    """A provider under test, with its simulator running."""
    async with world_of(subject) as running_world:
        yield running_world
