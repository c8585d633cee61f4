"""Which phase may follow which: the state machine, written down once more and independently of the code.

The same is drawn for users in docs/lifecycle.md; tests/docs/test_lifecycle.py sees every one of these transitions.
"""

from typing import Final

from keyturn.api.rotation import Phase

Edge = tuple[Phase, Phase]


def _edges(followed_by: dict[Phase, set[Phase]]) -> frozenset[Edge]:
    return frozenset((before, after) for before, afters in followed_by.items() for after in afters)


_AT_REST = {Phase.IDLE, Phase.COMPLETED, Phase.CANCELLED, Phase.FAILED}
_WHEN_DUE = {Phase.PREPARING, Phase.BLOCKED, Phase.STARTING}

BETWEEN: Final = _edges(
    {
        **dict.fromkeys(_AT_REST, _WHEN_DUE),
        Phase.PREPARING: _AT_REST | {Phase.BLOCKED, Phase.STARTING},
        Phase.BLOCKED: _AT_REST | {Phase.PREPARING, Phase.STARTING},
    }
)
"""While no rotation runs, at any provider."""

_STAGED = {
    Phase.STARTING: {Phase.VERIFYING, Phase.CANCELLING, Phase.FAILED},
    Phase.VERIFYING: {Phase.DISTRIBUTING, Phase.CANCELLING},
    Phase.DISTRIBUTING: {Phase.ROLLING_OUT, Phase.CANCELLING, Phase.FAILED},
    Phase.ROLLING_OUT: {Phase.SOAKING, Phase.FINALIZING, Phase.CANCELLING, Phase.FAILED},
    Phase.SOAKING: {Phase.FINALIZING, Phase.ROLLING_OUT, Phase.CANCELLING, Phase.FAILED},
    Phase.FINALIZING: {Phase.COMPLETED, Phase.ROLLING_OUT, Phase.CANCELLING, Phase.FAILED},
    Phase.CANCELLING: {Phase.CANCELLED, Phase.FAILED, Phase.DISTRIBUTING, Phase.FINALIZING},
}
# Nothing can be withdrawn; but an object that was deleted before it had its finalizer goes away through Cancelling.
_NO_WAY_BACK = {
    Phase.CANCELLING: {Phase.CANCELLED, Phase.FAILED, Phase.FINALIZING},
    Phase.FINALIZING: {Phase.COMPLETED, Phase.FAILED},
}
_TIMED = {
    **_NO_WAY_BACK,
    Phase.STARTING: {Phase.VERIFYING, Phase.CANCELLED, Phase.CANCELLING, Phase.FAILED},
    Phase.VERIFYING: {Phase.DISTRIBUTING, Phase.FAILED},
    Phase.DISTRIBUTING: {Phase.ROLLING_OUT, Phase.FAILED},
    Phase.ROLLING_OUT: {Phase.SOAKING, Phase.COMPLETED, Phase.FAILED},
    Phase.SOAKING: {Phase.ROLLING_OUT, Phase.COMPLETED, Phase.FAILED},
}
_IMMEDIATE = {
    **_NO_WAY_BACK,
    Phase.STARTING: {Phase.DISTRIBUTING, Phase.CANCELLED, Phase.CANCELLING, Phase.FAILED},
    Phase.DISTRIBUTING: {Phase.ROLLING_OUT, Phase.FAILED},
    Phase.ROLLING_OUT: {Phase.VERIFYING, Phase.FAILED},
    Phase.VERIFYING: {Phase.COMPLETED, Phase.FAILED},
}

RUNNING: Final = {"Staged": _edges(_STAGED), "Timed": _edges(_TIMED), "Immediate": _edges(_IMMEDIATE)}
"""While a rotation runs, by the semantics of its provider."""

BLOCKED_IN: Final = {
    "Staged": {Phase.VERIFYING, Phase.DISTRIBUTING, Phase.ROLLING_OUT, Phase.SOAKING, Phase.CANCELLING},
    "Timed": {Phase.STARTING},
    "Immediate": {Phase.STARTING},
}
"""In which phases a running rotation may wait for a person to decide; it goes on in the same one."""

ALLOWED: Final = BETWEEN | RUNNING["Staged"]
