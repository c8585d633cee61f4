"""Random interference, one thing after the other: the invariants hold at every step, and in the end there is peace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from keyturn.api.rotation import DeletionPolicy, FailurePolicy, RestartPolicy, RolloutSpec, RotationSpec, VerifySpec
from keyturn.rotation.steps import Rest, Wait
from keyturn.rotation.world import Operation
from tests.model.fakecluster import SECOND
from tests.model.fakeprovider import CANARY, Fault
from tests.model.lab import Disturbance, Lab
from tests.model.profiles import FUZZ
from tests.model.scenarios import make_lab, make_spec


@dataclass(frozen=True)
class Action:
    """One thing that happens, with the words for it in a failure."""

    name: str
    do: Callable[[Lab], object]

    def __repr__(self) -> str:
        return self.name


def _switch(owner: str, flag: str, length: int) -> Action:
    def switch(lab: Lab) -> None:
        target = lab.provider if owner == "provider" else lab
        setattr(target, flag, True)
        lab.after(length * SECOND, lambda: setattr(target, flag, False))

    return Action(f"{flag} for {length} s", switch)


def _disturb(ahead: int, kind: Disturbance) -> Action:
    def disturb(lab: Lab) -> None:
        lab.plan = {**lab.plan, len(lab.log) + ahead: kind}

    return Action(f"{kind} {ahead} ahead", disturb)


def _edit(lab: Lab) -> None:
    made_up = f"{CANARY}-made-up-{len(lab.log)}"
    lab.foreign.add(made_up)
    lab.edit_secret(made_up)


def _revert(lab: Lab) -> None:
    running = lab.resource.parsed().rotation is not None
    if running and lab.journal is not None and lab.journal.previous is not None:
        lab.edit_secret(lab.journal.previous)


def _delete_secret(lab: Lab) -> None:
    lab.tampered, lab.namespace.secret = True, None


def _delete_journal(lab: Lab) -> None:
    lab.tampered, lab.journal = True, None


def _each(change: str, value: object) -> Action:
    def each(lab: Lab) -> None:
        for deployment in lab.namespace.deployments.values():
            setattr(deployment, change, value)

    return Action(f"every {change} = {getattr(value, '__name__', value)}", each)


def _spec(change: str, value: object) -> Action:
    return Action(f"spec.{change} = {value}", lambda lab: lab.edit_spec(**{change: value}))


def _restart_policy(policy: RestartPolicy) -> Action:
    def change(lab: Lab) -> None:
        lab.edit_spec(rollout=RolloutSpec(timeout=40 * SECOND, restart=policy))

    return Action(f"spec.rollout.restart = {policy}", change)


def _restart_containers(lab: Lab) -> None:
    for pod in lab.namespace.running():
        lab.namespace.restart_container(pod)


def _new_only(stamp: str | None) -> bool:
    return stamp is not None and not stamp.endswith("-cancelled")


def _fault(fault: Fault) -> Action:
    return Action(f"a call is {fault}", lambda lab: lab.provider.faults.append(fault))


def _foreign(operation: Operation) -> Action:
    return Action(f"foreign {operation}", lambda lab: lab.act_at_provider(operation))


def _healthy(stamp: str | None) -> bool:
    return False


def _go(seconds: int) -> Action:
    return Action(f"{seconds} s", lambda lab: lab.run(seconds * SECOND))


def _to_effect(number: int) -> Action:
    return Action(f"crash {number} effects later", lambda lab: lab.run_to_effect(number))


STEPS = [_to_effect(number) for number in (1, 2, 3, 4, 6, 8, 10, 12)]
TIME = [_go(0), _go(1), _go(4), _go(15), _go(60), Action("3 s without us", lambda lab: lab.elapse(3 * SECOND))]
TROUBLE = [
    *(_disturb(ahead, kind) for ahead in (0, 1, 2, 3, 5, 8) for kind in Disturbance),
    *(_fault(it) for it in Fault),
    *(_switch("provider", "outage", length) for length in (5, 200)),
    *(_switch("lab", "api_down", length) for length in (5, 200)),
    *(_switch("lab", "account_gone", length) for length in (5, 200)),
]
PEOPLE = [
    Action("edit Secret", _edit),
    Action("revert Secret", _revert),
    Action("remove key", lambda lab: lab.edit_secret(None)),
    Action("delete Secret", _delete_secret),
    Action("delete journal", _delete_journal),
    Action("restart containers", _restart_containers),
    Action("delete web", lambda lab: lab.namespace.deployments.pop("web", None)),
    Action("deploy another", lambda lab: lab.deploy("late", 1)),
    Action("run a pod", lambda lab: lab.namespace.add_pod(None)),
    Action("delete", lambda lab: lab.delete()),
    *(_each("replicas", count) for count in (0, 3)),
    *(_each("sick", who) for who in (_new_only, _healthy)),
    *(_each("gives_up", it) for it in (True, False)),
    _each("grace", 30 * SECOND),
    *(_spec("suspend", it) for it in (True, False)),
    *(_spec("rotation_request", it) for it in ("a", "b", "c")),
    *(_spec("on_failure", it) for it in FailurePolicy),
    *(_spec("deletion_policy", it) for it in DeletionPolicy),
    *(_restart_policy(it) for it in RestartPolicy),
    *(_foreign(it) for it in Operation),
]
actions = st.lists(
    st.tuples(st.one_of(st.sampled_from(TIME), st.sampled_from(STEPS)), st.sampled_from([*PEOPLE, *TROUBLE])),
    max_size=8,
)
specs = st.builds(
    lambda soak, secret_ref, policy, hold: make_spec(
        secret_ref,
        soak=soak * SECOND,
        deletion_policy=policy,
        on_failure=hold,
        rollout=RolloutSpec(timeout=40 * SECOND),
        verify=VerifySpec(timeout=10 * SECOND),
    ),
    st.sampled_from([0, 10]),
    st.sampled_from([{}, {"previous_key": "OLD"}]),
    st.sampled_from(DeletionPolicy),
    st.sampled_from(FailurePolicy),
)
offsets = st.sampled_from([timedelta(), timedelta(milliseconds=650), timedelta(milliseconds=690)])


def _calm_down(lab: Lab) -> None:
    """Others leave it alone, mend what only they can mend, and one more try finds everything in working order."""
    lab.plan, lab.later = {}, []
    lab.provider.outage = lab.api_down = lab.account_gone = False
    lab.provider.faults.clear()
    for deployment in lab.namespace.deployments.values():
        deployment.sick, deployment.gives_up = _healthy, False
    for pod in lab.namespace.pods:
        pod.sick = False
    lab.namespace.end_pods(pod for pod in lab.namespace.pods if pod.owner[0] == "Pod")
    if lab.namespace.secret is None or lab.namespace.secret.value is None:
        lab.edit_secret(lab.provider.current)
    _restart_policy(RestartPolicy.ALWAYS).do(lab)


@FUZZ
@given(specs, offsets, actions)
def test_whatever_happens(spec: RotationSpec, offset: timedelta, todo: list[tuple[Action, Action]]) -> None:
    lab = make_lab(spec, offset=offset)
    for action in chain.from_iterable(todo):
        action.do(lab)
    _calm_down(lab)
    lab.run(1000 * SECOND)
    log = lab.log[:]
    step = lab.run(60 * SECOND)
    assert lab.log == log, f"no peace: {lab.log[len(log) :]} {lab.resource.status}"
    if lab.resource.gone:
        assert lab.journal is None or lab.tampered
    elif isinstance(step, Rest):
        assert lab.resource.parsed().rotation is None
        assert lab.journal is None
        assert not lab.resource.finalizer
    else:
        assert isinstance(step, Wait)
        assert step.stalled, (step, lab.log)
