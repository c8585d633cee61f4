"""Which phase may follow which: the state machine, written down once more and independently of the code."""

from keyturn.api.rotation import Phase

_FOLLOWED_BY = {
    Phase.IDLE: {Phase.PREPARING, Phase.STARTING, Phase.BLOCKED},
    Phase.PREPARING: {Phase.STARTING, Phase.BLOCKED, Phase.IDLE, Phase.COMPLETED, Phase.CANCELLED, Phase.FAILED},
    Phase.BLOCKED: {Phase.PREPARING, Phase.STARTING, Phase.IDLE, Phase.COMPLETED, Phase.CANCELLED, Phase.FAILED},
    Phase.STARTING: {Phase.VERIFYING, Phase.CANCELLING, Phase.FAILED},
    Phase.VERIFYING: {Phase.DISTRIBUTING, Phase.CANCELLING, Phase.FAILED},
    Phase.DISTRIBUTING: {Phase.ROLLING_OUT, Phase.CANCELLING, Phase.FAILED},
    Phase.ROLLING_OUT: {Phase.SOAKING, Phase.FINALIZING, Phase.CANCELLING, Phase.FAILED},
    Phase.SOAKING: {Phase.FINALIZING, Phase.ROLLING_OUT, Phase.CANCELLING, Phase.FAILED},
    Phase.FINALIZING: {Phase.COMPLETED, Phase.ROLLING_OUT, Phase.CANCELLING, Phase.FAILED},
    Phase.CANCELLING: {Phase.CANCELLED, Phase.FAILED, Phase.DISTRIBUTING, Phase.FINALIZING},
    Phase.COMPLETED: {Phase.PREPARING, Phase.STARTING, Phase.BLOCKED},
    Phase.CANCELLED: {Phase.PREPARING, Phase.STARTING, Phase.BLOCKED},
    Phase.FAILED: {Phase.PREPARING, Phase.STARTING, Phase.BLOCKED},
}
ALLOWED = {(before, after) for before, afters in _FOLLOWED_BY.items() for after in afters}
