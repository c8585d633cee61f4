"""Objects of which there are thousands, most at rest: kept as compressed text, and decoded while they are in use."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Iterator, MutableMapping
from typing import Any, Final

import orjson

Key = tuple[str, str]

_IN_USE: Final = 256
_LEVEL: Final = 1
"""Of compression. Higher ones take longer, and save no more in objects of this size."""


class Shelf(MutableMapping[Key, dict[str, Any]]):
    """A mapping of JSON objects by namespace and name. What it gives must not be changed.

    A rotation takes half a KiB as compressed text, and 20 as Python objects, which the garbage collector visits again
    and again.
    """

    def __init__(self) -> None:
        self._texts: dict[Key, bytes] = {}
        self._in_use: OrderedDict[Key, dict[str, Any]] = OrderedDict()

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """Also for going through all of them: what is seen by the way does not count as being in use."""
        known = self._in_use.get(key)
        return known if known is not None else self._decoded(key)

    def use(self, key: Key) -> dict[str, Any] | None:
        """The object, which stays decoded for a while; None where there is none."""
        if key not in self._texts:
            return None
        found = self._in_use.get(key)
        self._use(key, found if found is not None else self._decoded(key))
        return self._in_use[key]

    def __setitem__(self, key: Key, value: dict[str, Any]) -> None:
        self._texts[key] = zlib.compress(orjson.dumps(value), _LEVEL)
        self._use(key, value)

    def __delitem__(self, key: Key) -> None:
        del self._texts[key]
        self._in_use.pop(key, None)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def _decoded(self, key: Key) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(zlib.decompress(self._texts[key]))
        return found

    def _use(self, key: Key, value: dict[str, Any]) -> None:
        self._in_use[key] = value
        self._in_use.move_to_end(key)
        if len(self._in_use) > _IN_USE:
            self._in_use.popitem(last=False)
