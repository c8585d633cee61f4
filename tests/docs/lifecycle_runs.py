"""Rotations in the model which together make every transition that the code can make."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from keyturn.api.rotation import FailurePolicy, Phase, VerifySpec
from keyturn.rotation.world import Operation
from tests.model.fakecluster import SECOND
from tests.model.fakeprovider import CANARY, ORIGINAL, Fault
from tests.model.fakesemantics import IMMEDIATE, TIMED, make_resetting
from tests.model.lab import Lab
from tests.model.scenarios import SCENARIOS, make_lab, make_spec

Make = Callable[..., Lab]
SOAK: Final = 10 * SECOND
MINUTE: Final = 60 * SECOND
MADE_UP: Final = f"{CANARY}-made-up"


def runs() -> Iterator[Lab]:
    """Labs, each at the end of its run."""
    for scenario in SCENARIOS:
        lab = scenario.build()
        lab.run()
        yield lab
    for end in (_idle, _completed, _cancelled, _failed):
        yield _due_again(end())
        yield _refused_again_and_again(end())
    for way_back in (_changed_by_others, _unready_while_soaking, _unready_before_the_end, _cancelled_by_others):
        yield way_back()
    yield _without_journal(_until(_finished_by_others, Phase.DISTRIBUTING))
    for phase in (Phase.ROLLING_OUT, Phase.SOAKING):
        yield _abandoned(_until(_finished_by_others, phase))
    yield _abandoned(_finalized())
    yield _abandoned(_withdrawing())
    yield _deleted_and_finished_by_others()
    for held in (_unaccepted, _changed_by_others, _taken_back):
        yield _held(held)
    yield _settled_by_hand()
    for promise in (TIMED, IMMEDIATE):
        yield from _final(partial(make_resetting, promise, reads_back=promise is TIMED))
        yield _answer_lost(make_resetting(promise))


# Between rotations


def _idle() -> Lab:
    lab = make_lab(make_spec(rotation_request=None))
    lab.run(MINUTE)
    return lab


def _completed() -> Lab:
    lab = make_lab()
    lab.run(MINUTE)
    return lab


def _cancelled() -> Lab:
    lab = _until(make_lab, Phase.STARTING)
    _cancel(lab)
    lab.run(MINUTE)
    return lab


def _failed() -> Lab:
    lab = make_lab()
    lab.provider.faults.append(Fault.REJECTED)
    lab.run(MINUTE)
    return lab


def _due_again(lab: Lab) -> Lab:
    """At once, and then once more when a check has failed first."""
    _request(lab, "again")
    lab.account_gone = True
    _request(lab, "once more")
    lab.account_gone = False
    lab.run(MINUTE)
    return lab


def _refused_again_and_again(lab: Lab) -> Lab:
    """A check fails and the request is withdrawn; twice, for two kinds of checks; then it is made once more."""
    lab.account_gone = True
    _request(lab, "again")
    _request(lab, None)
    lab.account_gone = False
    lab.act_at_provider(Operation.START)
    _request(lab, "again")
    _request(lab, None)
    _request(lab, "again")
    for gone in (True, False):
        lab.account_gone = gone
        lab.run(5 * SECOND)
    lab.act_at_provider(Operation.CANCEL)
    lab.run(MINUTE)
    return lab


def _request(lab: Lab, value: str | None) -> None:
    lab.edit_spec(rotation_request=value)
    lab.run(5 * SECOND)


# Staged


def _changed_by_others(on_failure: FailurePolicy = FailurePolicy.CANCEL) -> Lab:
    """Somebody puts another value into the Secret before the new one is handed out."""
    lab = make_lab(make_spec(on_failure=on_failure))
    lab.foreign.add(MADE_UP)
    lab.actions[4] = lambda: lab.edit_secret(MADE_UP)
    lab.run(30 * SECOND)
    return lab


def _soaking(on_failure: FailurePolicy = FailurePolicy.CANCEL) -> Lab:
    return _until(lambda: make_lab(make_spec(soak=SOAK, on_failure=on_failure)), Phase.SOAKING)


def _finalizing() -> Lab:
    """The operator dies before the last call."""
    return _until(_soaking, Phase.FINALIZING)


def _finalized() -> Lab:
    """The operator dies right after the last call."""
    lab = _finalizing()
    lab.run_to_effect(1)
    return lab


def _unready_while_soaking() -> Lab:
    return _unready(_soaking())


def _unready_before_the_end() -> Lab:
    return _unready(_finalizing())


def _unready(lab: Lab) -> Lab:
    pod = lab.namespace.running()[0]
    pod.sick = True
    lab.elapse(SECOND)
    lab.run(3 * SECOND)
    pod.sick = False
    lab.run(MINUTE)
    return lab


def _cancelled_by_others() -> Lab:
    lab = _finalizing()
    lab.act_at_provider(Operation.CANCEL)
    lab.run(MINUTE)
    return lab


def _withdrawing() -> Lab:
    """On the way back, with the workloads restarted."""
    lab = _soaking()
    _cancel(lab)
    lab.run_to_effect(len(["status Cancelling", "secret", "restart web", "restart worker"]))
    return lab


def _finished_by_others() -> Lab:
    """Somebody drops the old value at the provider while the new one is being withdrawn."""
    lab = _withdrawing()
    lab.act_at_provider(Operation.FINALIZE)
    return lab


def _deleted_and_finished_by_others() -> Lab:
    lab = _finished_by_others()
    lab.delete()
    lab.run(MINUTE)
    return lab


# Blocked


def _unaccepted(on_failure: FailurePolicy) -> Lab:
    lab = make_lab(make_spec(on_failure=on_failure, verify=VerifySpec(timeout=SOAK)))
    lab.provider.rejects_new = True
    lab.run(30 * SECOND)
    return lab


def _taken_back(on_failure: FailurePolicy) -> Lab:
    lab = _soaking(on_failure)
    lab.edit_secret(ORIGINAL)
    lab.run(5 * SECOND)
    return lab


def _held(failing: Callable[[FailurePolicy], Lab]) -> Lab:
    lab = failing(FailurePolicy.HOLD)
    _cancel(lab)
    lab.run(MINUTE)
    return lab


def _settled_by_hand() -> Lab:
    """Nobody knows the previous value any more: a person cancels at the provider."""
    lab = _soaking()
    _cancel(lab)
    lab.run_to_effect(1)
    lab.tampered, lab.journal = True, None
    lab.run(5 * SECOND)
    lab.act_at_provider(Operation.CANCEL)
    lab.run(MINUTE)
    return lab


def _answer_lost(lab: Lab) -> Lab:
    lab.provider.faults.append(Fault.LOST)
    lab.run(30 * SECOND)
    lab.edit_secret(lab.provider.current)
    lab.run(MINUTE)
    return lab


# Timed and Immediate


def _final(make: Make) -> Iterator[Lab]:
    """Where nothing can be taken back: every end that such a rotation can come to."""
    for build in (make, partial(make, soak=SOAK), partial(_refused, make), partial(_deleted_before_the_call, make)):
        lab = build()
        lab.run(MINUTE)
        yield lab
    for build, ends in ((make, Phase.CANCELLING), (partial(_recovered, make), Phase.FINALIZING)):
        without_finalizer = partial(_deleted_before_its_finalizer, build)
        lab = without_finalizer()
        lab.run(MINUTE)
        yield lab
        yield _abandoned(_until(without_finalizer, ends))
    yield _without_journal(_until(partial(_silent, make), Phase.VERIFYING))
    yield _without_journal(_until(partial(_overwritten, make), Phase.DISTRIBUTING))
    yield _abandoned(_until(make, Phase.ROLLING_OUT))
    if make().provider.capabilities.verify_before_distributing:
        soaking = partial(_until, partial(make, soak=SOAK), Phase.SOAKING)
        yield _unready(soaking())
        yield _abandoned(soaking())


def _refused(make: Make) -> Lab:
    lab = make()
    lab.provider.faults.append(Fault.REJECTED)
    return lab


def _deleted_before_the_call(make: Make) -> Lab:
    lab = _until(make, Phase.STARTING)
    lab.run_to_effect(1)
    lab.delete()
    return lab


def _deleted_before_its_finalizer(make: Make) -> Lab:
    """Another finalizer keeps the object, on which ours may not be put any more."""
    lab = make()
    lab.resource.held_back = True
    lab.actions[len(lab.log)] = lab.delete
    return lab


def _recovered(make: Make) -> Lab:
    """Status and finalizer were cut off by hand, and only the journal tells that a rotation ran."""
    lab = make()
    lab.run_to_effect(_effects(make).index("journal pending") + 1)
    lab.resource.status, lab.resource.finalizer = {}, False
    return lab


def _silent(make: Make) -> Lab:
    """The provider does not answer when the new value is tried."""
    return _meanwhile(make, lambda lab: setattr(lab.provider, "outage", True))


def _overwritten(make: Make) -> Lab:
    """Somebody puts another value into the Secret before the new one is handed out."""
    return _meanwhile(make, lambda lab: lab.edit_secret(MADE_UP))


def _meanwhile(make: Make, change: Callable[[Lab], object]) -> Lab:
    """A lab in which something happens in the moment in which the new value comes."""
    lab = make()
    lab.foreign.add(MADE_UP)
    lab.actions[_effects(make).index("journal pending")] = partial(change, lab)
    return lab


# Steps of them all


def _effects(make: Make) -> list[str]:
    lab = make()
    begun = len(lab.log)
    lab.run(2 * MINUTE)
    return lab.log[begun:]


def _until(make: Make, phase: Phase) -> Lab:
    """Play the operator until it has written down that it is in this phase, and let it crash there."""
    lab = make()
    lab.run_to_effect(_effects(make).index(f"status {phase}") + 1)
    return lab


def _cancel(lab: Lab) -> None:
    record = lab.resource.parsed().rotation
    assert record is not None
    lab.say(cancel_request=record.id)


def _abandoned(lab: Lab) -> Lab:
    """The user deletes the object together with the account: nobody can be asked any more."""
    lab.account_gone = True
    lab.delete()
    lab.run(MINUTE)
    return lab


def _without_journal(lab: Lab) -> Lab:
    """Somebody deletes the journal."""
    lab.tampered, lab.journal = True, None
    lab.run(MINUTE)
    return lab
