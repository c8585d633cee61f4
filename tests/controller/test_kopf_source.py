"""Kopf behind its interface: whatever ends it, it is started again, until the operator is told to stop."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from typing import Any, cast

import kopf
import pytest

from keyturn.cluster.client import Kube
from keyturn.controller import kopf_source
from keyturn.controller.kopf_source import EndlessBackoff, KopfSource

Life = Callable[..., Awaitable[None]]


def source(stop: asyncio.Event) -> KopfSource:
    return KopfSource(cast(Kube, None), lambda raw, deleted: None, stop)


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> list[Life]:
    """What Kopf does in its first life, in its second, and so on."""
    planned: list[Life] = []

    async def live(**how: Any) -> None:
        await planned.pop(0)(**how)

    monkeypatch.setattr(kopf_source, "operate", live)
    monkeypatch.setattr(kopf_source, "_RESTART_SECONDS", 0.02)
    return planned


async def raise_in_stream(**_: Any) -> None:
    raise RuntimeError("an ERROR event in the stream")


async def end_early(**_: Any) -> None:
    return None


async def cancel_itself(**_: Any) -> None:
    raise asyncio.CancelledError


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("first", [raise_in_stream, end_early, cancel_itself])
async def test_it_is_started_again(lives: list[Life], first: Life) -> None:
    """I9: KOPF.md (c), an error in a stream ends Kopf; it must not end the operator."""
    stop, again = asyncio.Event(), threading.Event()

    async def second(stop_flag: asyncio.Event, **_: Any) -> None:
        again.set()
        await stop_flag.wait()

    lives += [first, second]
    running = asyncio.create_task(source(stop).run())
    assert await asyncio.to_thread(again.wait, 5)
    assert not running.done()
    stop.set()
    await asyncio.wait_for(running, 5)
    assert lives == []


async def test_what_fails_beside_it_is_no_traceback_in_the_log(
    lives: list[Life], caplog: pytest.LogCaptureFixture
) -> None:
    """Seen when an API server answered 410 to all watches at once: each is a task of Kopf, and one of them ends it."""
    stop, home = asyncio.Event(), asyncio.get_running_loop()

    async def fail_together(**_: Any) -> None:
        failures = [asyncio.create_task(raise_in_stream()) for _ in range(2)]
        await asyncio.wait(failures)
        home.call_soon_threadsafe(stop.set)

    lives.append(fail_together)
    await asyncio.wait_for(source(stop).run(), 5)
    gc.collect()
    assert "never retrieved" not in "".join(record.message for record in caplog.records if record.exc_info)


async def test_it_is_not_started_again_after_the_end(lives: list[Life]) -> None:
    async def forever(stop_flag: asyncio.Event, **_: Any) -> None:
        await stop_flag.wait()

    lives.append(forever)
    stop = asyncio.Event()
    running = asyncio.create_task(source(stop).run())
    await asyncio.sleep(0)
    stop.set()
    await asyncio.wait_for(running, 5)


async def test_a_kopf_that_does_not_end_does_not_keep_the_operator(
    lives: list[Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kopf_source, "_STOP_SECONDS", 0.05)
    release = threading.Event()

    async def deaf(**_: Any) -> None:
        await asyncio.to_thread(release.wait, 5)

    lives.append(deaf)
    stop = asyncio.Event()
    running = asyncio.create_task(source(stop).run())
    await asyncio.sleep(0)
    stop.set()
    try:
        await asyncio.wait_for(running, 5)
    finally:
        release.set()


def test_the_back_off_has_no_end_and_stays_short() -> None:
    """I9: KOPF.md (c), Kopf's own list of delays ends after 54 seconds, and the process with it."""
    delays = [delay for delay, _ in zip(EndlessBackoff(), range(10_000), strict=False)]
    assert len(delays) == 10_000
    assert max(delays) <= 10
    assert sum(delays[:5]) < 20


async def test_a_kopf_that_hangs_after_a_failure_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """I9: seen after a refused request at start-up: one task had failed, the others waited to be let in again."""
    never = asyncio.Event()

    async def fail() -> None:
        raise RuntimeError("406 Not Acceptable")

    async def spawn_tasks(**_: Any) -> list[asyncio.Task[Any]]:
        return [asyncio.create_task(fail()), asyncio.create_task(never.wait())]

    async def run_tasks(tasks: list[asyncio.Task[Any]], **_: Any) -> None:
        await never.wait()

    monkeypatch.setattr(kopf, "spawn_tasks", spawn_tasks)
    monkeypatch.setattr(kopf, "run_tasks", run_tasks)
    monkeypatch.setattr(kopf_source, "_END_SECONDS", 0.02)
    with pytest.raises(RuntimeError, match="406"):
        await asyncio.wait_for(kopf_source.operate(), 2)
    never.set()


async def test_kopf_remembers_nothing_of_the_objects_that_it_has_seen() -> None:
    """I12: of ten thousand, that would be as much memory as everything that Keyturn keeps of them."""
    memories = kopf_source._NoMemories()
    memory = await memories.recall({"metadata": {"uid": "u"}}, noticed_by_listing=True)
    assert memory.noticed_by_listing
    assert list(memories.iter_all_memories()) == []
