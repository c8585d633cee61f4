"""That two processes do not begin to rotate one client, or to write one key of a Secret, at the same time (I6)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from keyturn.api.rotation import RotationRecord
from keyturn.cluster.errors import Conflict
from keyturn.controller.index import Index, Key, provider_key
from keyturn.rotation.world import Problem


class Rivals:
    """Looks for rotations in the way of one that begins, with an index that knows what other processes have seen.

    Two that begin at the same time cannot miss each other. Each has said in its spec what it is about, and was read
    with it, before its process looks: so of two processes that look, the one that looks later finds both. And it is too
    late for a spec to change after that look, as the write that begins the rotation is refused then.
    """

    def __init__(self, index: Index, fresh: Callable[[], Awaitable[None]]) -> None:
        """fresh: has the index know everything that was written before it was called, or raises ClusterError."""
        self._index = index
        self._fresh = fresh

    async def found(self, key: Key, record: RotationRecord) -> Problem | None:
        """Who is in the way of the rotation that is to begin with this record.

        key: its object, which must have been read before. Raises Conflict when the account is not the record's any
        more, and other ClusterErrors.
        """
        await self._fresh()
        ref = record.subject.provider_ref
        provider = provider_key(ref.kind, key[0], ref.name)
        if self._index.account(provider) != (record.account or provider):
            raise Conflict(f"the account of {ref.kind} {ref.name} has changed")
        return self._index.conflict(key)


@dataclass(frozen=True, slots=True)
class Others:
    """What a pass has to know of other processes.

    goes_on: False when it is to stop at the next step, because this process ends, or another one takes it up.
    rivals: asked before a rotation begins; None where no other process may begin one.
    """

    goes_on: Callable[[Key], bool] = lambda _: True
    rivals: Rivals | None = None


ALONE: Final = Others()
