"""What this process has written lately, so that a read which lags behind it is known for what it is."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

REMEMBERED_SECONDS: Final = 30.0
"""API servers catch up in less; and one whose etcd was restored from a backup must not be doubted for longer."""


class Recent:
    """The newest versions of objects that were written in the last seconds. Memory follows the rate of writes.

    Versions are compared as numbers, which they are in every API server there has been (KEP-5504).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds."""
        self._clock = clock
        self._written: OrderedDict[Hashable, tuple[int, float]] = OrderedDict()

    def note(self, key: Hashable, version: int) -> None:
        """This version of the object was written now. An older one, of an overtaken answer, changes nothing."""
        if version > self._written.get(key, (0, 0.0))[0]:
            self._written[key] = version, self._clock()
            self._written.move_to_end(key)
        while self._written and self._gone(next(iter(self._written))):
            self._written.popitem(last=False)

    def outdates(self, key: Hashable, version: int) -> bool:
        """Whether what was read is older than what was written."""
        return key in self._written and not self._gone(key) and version < self._written[key][0]

    def _gone(self, key: Hashable) -> bool:
        return self._clock() - self._written[key][1] > REMEMBERED_SECONDS
