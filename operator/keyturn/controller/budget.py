"""How many rotations a RotationPolicy lets run, and who is next: arithmetic, without knowing where it is written."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable

from keyturn.api.policy import Concurrency
from keyturn.controller.index import Key


class Usage:
    """What of the budget is in use."""

    def __init__(self, limits: Concurrency) -> None:
        self._limits = limits
        self._accounts: dict[Key, str] = {}
        self._namespaces: Counter[str] = Counter()
        self._at: Counter[str] = Counter()

    def __contains__(self, key: Key) -> bool:
        return key in self._accounts

    def __len__(self) -> int:
        return len(self._accounts)

    def add(self, key: Key, account: str) -> None:
        """This one runs, or may begin. Counted once, whoever says so."""
        if key not in self._accounts:
            self._accounts[key] = account
            self._namespaces[key[0]] += 1
            self._at[account] += 1

    def closed(self, namespace: str) -> str | None:
        """The limit by which nobody else may begin in this namespace, or None."""
        limits = self._limits
        if limits.cluster is not None and len(self) >= limits.cluster:
            return f"cluster {limits.cluster}"
        if limits.per_namespace is not None and self._namespaces[namespace] >= limits.per_namespace:
            return f"perNamespace {limits.per_namespace}"
        return None

    def full(self, namespace: str, account: str) -> str | None:
        """The limit by which nobody else may begin there, or None."""
        limits, closed = self._limits, self.closed(namespace)
        if closed is not None:
            return closed
        if limits.per_provider is not None and self._at[account] >= limits.per_provider:
            return f"perProvider {limits.per_provider}"
        return None


class Line:
    """Rotations that wait, with the accounts that they are at: first come first served, and namespaces take turns."""

    def __init__(self) -> None:
        self._turns: OrderedDict[str, OrderedDict[Key, str]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._turns.values()))

    def __contains__(self, key: Key) -> bool:
        return key in self._turns.get(key[0], ())

    def put(self, key: Key, account: str) -> None:
        """Wait; who does so already keeps the place."""
        self._turns.setdefault(key[0], OrderedDict())[key] = account

    def remove(self, key: Key) -> None:
        waiting = self._turns.get(key[0])
        if waiting is not None:
            waiting.pop(key, None)
            if not waiting:
                del self._turns[key[0]]

    def everybody(self) -> list[Key]:
        return [key for waiting in self._turns.values() for key in waiting]

    def take(self, closed: Callable[[str], object], full: Callable[[str, str], object]) -> tuple[Key, str] | None:
        """The next one for whom there is room, and its account. Who finds none keeps the place and stops nobody.

        closed: whether a namespace has no room; full: whether one there has none at an account.
        """
        for namespace, waiting in self._turns.items():
            if closed(namespace):
                continue
            for key, account in waiting.items():
                if not full(namespace, account):
                    self.remove(key)
                    if namespace in self._turns:
                        self._turns.move_to_end(namespace)
                    return key, account
        return None
