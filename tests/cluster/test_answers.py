"""An answer on its way into the journal, and a successor who wants it or not, on the real API server (I2)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from keyturn.api.observed import Journal
from keyturn.cluster.answers import disown_answer, keep_answer
from keyturn.cluster.client import Kube
from keyturn.cluster.errors import Conflict
from keyturn.cluster.leases import LEASES, Lease, LeaseObject, now
from keyturn.cluster.secrets import Owner, drop_journal, keep_pending, open_journal, read_journal
from keyturn.controller.leadership import NotLeading
from keyturn.controller.spool import Entry, Spool, replay
from sandbox.stage import NAMESPACE, SERVICE_ACCOUNT, Stage
from tests.e2e.scene import Scene

ID = "r-1"
OURS, THEIRS = SecretStr("answer"), SecretStr("another-answer")
MERGE = {"Content-Type": "application/merge-patch+json"}


@dataclass
class Place:
    """A rotation that runs, with its journal as it was when the start call was made."""

    kube: Kube
    scene: Scene
    owner: Owner
    journal: Journal

    async def keep(self, answer: SecretStr = OURS) -> Journal | None:
        return await keep_answer(self.kube, self.owner, self.journal, answer)

    async def pending(self) -> str | None:
        found = await read_journal(self.kube, self.owner)
        return found.pending.get_secret_value() if found is not None and found.pending is not None else None

    async def drop(self) -> None:
        found = await read_journal(self.kube, self.owner)
        assert found is not None
        await drop_journal(self.kube, self.owner, found)

    def say(self, rotation_id: str | None) -> None:
        """Write down which rotation runs."""
        time = "2026-11-01T00:00:00.000000Z"
        subject = {"providerRef": {"name": "stytch"}, "clientId": "c", "secretRef": {"name": "m2m", "key": "k"}}
        record = {"phase": "Starting", "reason": "RotationRequest", "startedTime": time, "phaseStartedTime": time}
        running = {"id": rotation_id, "subject": subject, **record} if rotation_id else None
        path = f"{self.scene.rotation_path}/status"
        body = json.dumps({"status": {"rotation": running}})
        self.scene.stage.api.http.patch(path, content=body, headers=MERGE).raise_for_status()


@pytest.fixture
async def place(scene: Scene, stage: Stage) -> AsyncIterator[Place]:
    scene.put_rotation(None)
    owner = Owner(scene.namespace, "billing", scene.rotation()["metadata"]["uid"])
    kube = await Kube.connect(stage.control_plane.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT))
    try:
        journal = await open_journal(kube, owner, ID, SecretStr("previous"))
        found = Place(kube, scene, owner, journal)
        found.say(ID)
        yield found
    finally:
        await kube.aclose()


async def test_an_answer_is_kept_in_the_journal_of_its_call(place: Place) -> None:
    kept = await place.keep()
    assert kept == await read_journal(place.kube, place.owner)
    assert await place.pending() == "answer"
    assert await place.keep() == kept, "once more, after a lost reply, is the same"


async def test_a_journal_that_somebody_has_touched_takes_it_all_the_same(place: Place) -> None:
    labelled = {"metadata": {"labels": {"backup": "no"}}}
    place.scene.patch(f"/api/v1/namespaces/{place.owner.namespace}/secrets/{place.journal.name}", labelled)
    assert await place.keep() is not None
    assert await place.pending() == "answer"


async def test_the_value_of_a_successor_stays(place: Place) -> None:
    await keep_pending(place.kube, place.owner, place.journal, THEIRS)
    assert await place.keep() is None
    assert await place.pending() == "another-answer"


async def test_what_a_successor_withdraws_does_not_come_any_more(place: Place) -> None:
    """Nor does it stand in the way of the successor's own call, which is made with the marked journal."""
    marked = await disown_answer(place.kube, place.owner, place.journal)
    assert await place.keep() is None
    assert await place.pending() is None
    kept = await keep_answer(place.kube, place.owner, marked, THEIRS)
    assert kept is not None
    assert await place.pending() == "another-answer"


async def test_a_successor_cannot_withdraw_what_has_arrived(place: Place) -> None:
    """It looked before; so it has to look again."""
    await place.keep()
    with pytest.raises(Conflict):
        await disown_answer(place.kube, place.owner, place.journal)


async def test_of_an_answer_and_its_withdrawal_at_the_same_time_one_counts(place: Place) -> None:
    for _ in range(20):
        kept, marked = await asyncio.gather(
            place.keep(), disown_answer(place.kube, place.owner, place.journal), return_exceptions=True
        )
        assert (kept is None) == isinstance(marked, Journal), (kept, marked)
        assert (await place.pending() is None) == (kept is None)
        await place.drop()
        place.journal = await open_journal(place.kube, place.owner, ID, None)


async def test_a_journal_that_was_deleted_in_a_running_rotation_is_made_anew(place: Place) -> None:
    await place.drop()
    kept = await place.keep()
    assert kept is not None
    assert (kept.rotation_id, kept.previous, kept.pending) == (ID, SecretStr("previous"), OURS)


@pytest.mark.parametrize("running", [None, "r-2"])
async def test_nothing_is_left_behind_for_a_rotation_that_has_ended(place: Place, running: str | None) -> None:
    """Also not in the journal of the next one."""
    await place.drop()
    place.say(running)
    assert await place.keep() is None
    assert await read_journal(place.kube, place.owner) is None
    await open_journal(place.kube, place.owner, "r-2", None)
    assert await place.keep() is None
    assert await place.pending() is None


async def test_nor_for_an_object_that_is_gone(place: Place) -> None:
    await place.drop()
    place.scene.delete(place.scene.rotation_path)
    assert await place.keep() is None
    assert await read_journal(place.kube, place.owner) is None


@pytest.mark.parametrize("withdrawn", [False, True])
async def test_a_spooled_answer_goes_the_same_way(place: Place, tmp_path: Path, *, withdrawn: bool) -> None:
    keys = tmp_path / "keys"
    keys.write_bytes(Fernet.generate_key())
    spool = Spool.open(tmp_path / "spool", keys)
    spool.keep(Entry(place.owner, ID, OURS, place.journal.resource_version))
    if withdrawn:
        await disown_answer(place.kube, place.owner, place.journal)
    await replay(spool, place.kube)
    assert await place.pending() == (None if withdrawn else "answer")
    assert list(spool.entries()) == []


async def test_who_does_not_lead_cannot_write_but_can_read(place: Place) -> None:
    def refuse() -> None:
        raise NotLeading

    restricted = place.kube.restricted(refuse)
    assert await read_journal(restricted, place.owner) == place.journal
    for write in (
        keep_pending(restricted, place.owner, place.journal, OURS),
        drop_journal(restricted, place.owner, place.journal),
        open_journal(restricted, replace(place.owner, uid="other"), ID, None),
    ):
        with pytest.raises(NotLeading):
            await write
    assert await read_journal(place.kube, place.owner) == place.journal


async def test_a_lease_on_the_api_server(place: Place) -> None:
    """Written, read, and kept from whoever has not seen its newest version; under the rights that ship."""
    store, admin = LeaseObject(place.kube, NAMESPACE), await Kube.connect(place.scene.stage.control_plane.kubeconfig)
    try:
        old = await store.read()
        if old is not None:
            raw = (await admin.get(LEASES, NAMESPACE, "keyturn"))["metadata"]
            await admin.delete(LEASES, NAMESPACE, "keyturn", uid=raw["uid"], version=raw["resourceVersion"])
            assert await store.read() is None
        first = await store.write(Lease("one", 15, now(), now(), 0))
        assert first == await store.read()
        assert (first.holder, first.duration, first.transitions) == ("one", 15, 0)
        with pytest.raises(Conflict):
            await store.write(replace(first, version=""))
        second = await store.write(replace(first, holder="two"))
        with pytest.raises(Conflict):
            await store.write(replace(first, holder="three"))
        assert await store.read() == second
        released = await store.write(replace(second, holder=None, duration=1))
        assert released.holder is None
        assert await store.read() == released
    finally:
        await admin.aclose()
