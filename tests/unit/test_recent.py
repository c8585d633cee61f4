"""What was written lately is not read older."""

from __future__ import annotations

from keyturn.cluster.recent import REMEMBERED_SECONDS, Recent


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_only_what_is_older_than_our_write_is_outdated() -> None:
    recent = Recent(Clock())
    recent.note("a", 7)
    assert [recent.outdates("a", version) for version in (6, 7, 8)] == [True, False, False]
    assert not recent.outdates("b", 1)


def test_an_answer_that_is_overtaken_changes_nothing() -> None:
    recent = Recent(Clock())
    recent.note("a", 7)
    recent.note("a", 5)
    assert recent.outdates("a", 6)


def test_a_write_is_forgotten_after_a_while_and_takes_no_memory() -> None:
    clock = Clock()
    recent = Recent(clock)
    for number in range(1000):
        recent.note(number, 7)
    clock.now = REMEMBERED_SECONDS + 1
    assert not recent.outdates(0, 6)
    recent.note("b", 8)
    assert list(recent._written) == ["b"]
    assert recent.outdates("b", 7)
