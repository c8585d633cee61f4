"""All plans: a reference of each scenario, then a blow at each of its sites, several at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sandbox.stage import Stage
from tests.chaos.bugs import Bug
from tests.chaos.checks import Violation
from tests.chaos.play import Plan, Played, play
from tests.chaos.scenarios import SCENARIOS, Scenario
from tests.chaos.sites import API, Site
from tests.chaos.strike import When

REFERENCES: Final = 3
_TRIES: Final = 3
_BUG_PATIENCE: Final = 30.0
_REFUSALS: Final = (When.CONFLICT, When.THROTTLED, When.FAILED)
_KILLS_AND_LOSS: Final = (When.BEFORE, When.AFTER, When.LOST)


@dataclass
class Reference:
    """An undisturbed run of a scenario: what it asks for, in its order, and what it comes to."""

    scenario: Scenario
    sites: list[Site]
    facts: dict[str, Any]

    def plans(self) -> list[Plan]:
        """A plan for each site and each blow that makes sense there."""
        return [Plan(self.scenario, site, when) for at, site in enumerate(self.sites) for when in _blows(site, at)]


def _blows(site: Site, at: int) -> list[When]:
    """at: the place of the site in its rotation: the API server's refusals take turns."""
    if site.side == API:
        stale = [When.STALE] if "clientsecretrotations" in site.what else []
        return [*_KILLS_AND_LOSS, _REFUSALS[at % len(_REFUSALS)], When.FROZEN, *stale]
    # What only asks is lost in the same way before it arrives and after.
    return [*_KILLS_AND_LOSS, When.FROZEN] if site.changes else [When.AFTER, When.LOST]


@dataclass
class Campaign:
    """What was played. unreached: plans whose request did not come, in several tries.

    Some come only in some runs, by their timing: progress that is written down, a question that is asked again.
    """

    played: list[Played] = field(default_factory=list)
    unreached: list[Plan] = field(default_factory=list)

    @property
    def failed(self) -> list[Played]:
        return [one for one in self.played if one.violations]

    @property
    def missed(self) -> list[Plan]:
        """Those of the unreached whose request belongs to every run."""
        return [plan for plan in self.unreached if not _timely(plan)]


def _timely(plan: Plan) -> bool:
    return plan.site is not None and (plan.site.what.endswith("/status") or not plan.site.changes)


Told = Callable[[Played], None]


def references(
    stage: Stage, parallel: int, *, runs: int = REFERENCES, scenarios: Iterable[Scenario] = SCENARIOS
) -> dict[Scenario, Reference]:
    """Run each scenario undisturbed, `runs` times. Raises AssertionError when one is not clean, or they differ."""
    wanted = [Plan(scenario) for scenario in scenarios for _ in range(runs)]
    with ThreadPoolExecutor(parallel) as pool:
        played = list(pool.map(lambda plan: play(stage, plan, None), wanted))
    found: dict[Scenario, Reference] = {}
    for run in played:
        assert not run.violations, f"{run.plan}: {run.violations}\n{run.log[-3000:]}"
        known = found.setdefault(run.plan.scenario, Reference(run.plan.scenario, run.sites, run.facts))
        assert run.facts == known.facts, f"{run.plan} differs from itself: {run.facts} {known.facts}"
        # Progress that one of them has not written down comes at other times in each run.
        known.sites = [site for site in known.sites if site in run.sites]
    return found


def campaign(
    stage: Stage,
    known: dict[Scenario, Reference],
    plans: Iterable[Plan],
    *,
    parallel: int,
    told: Told = lambda _: None,
) -> Campaign:
    """Play the plans, so many at a time; `told` is called after each. A blow that is not struck is tried again."""
    result = Campaign()

    def one(plan: Plan) -> Played:
        done = _play(stage, plan, known)
        for _ in range(_TRIES - 1):
            if done.reached or done.violations:
                break
            done = _play(stage, plan, known)
        told(done)
        return done

    with ThreadPoolExecutor(parallel) as pool:
        for done in pool.map(one, plans):
            if done.reached or done.violations:
                result.played.append(done)
            else:
                result.unreached.append(done.plan)
    return result


def _play(stage: Stage, plan: Plan, known: dict[Scenario, Reference]) -> Played:
    """`play`; where it is the harness that fails, the others must not go with it."""
    try:
        return play(stage, plan, known[plan.scenario].facts)
    except Exception as error:  # noqa: BLE001
        return Played(plan, False, [], violations=[Violation("harness", f"{type(error).__name__}: {error}")])


def caught(stage: Stage, known: dict[Scenario, Reference], bug: Bug) -> Played | None:
    """What shows that the operator with this bug is at fault: the first of the bug's plans that fails, or None."""
    with tempfile.TemporaryDirectory() as folder:
        code = bug.install(Path(folder))
        for plan in bug.plans:
            for _ in range(_TRIES):
                done = play(stage, plan, known[plan.scenario].facts, code=code, patience=_BUG_PATIENCE)
                if done.violations:
                    return done
                if done.reached:
                    break
    return None


def all_caught(
    stage: Stage, known: dict[Scenario, Reference], bugs: Iterable[Bug], parallel: int
) -> dict[str, Played | None]:
    """`caught`, for each bug by its name."""
    wanted = list(bugs)
    with ThreadPoolExecutor(parallel) as pool:
        return dict(
            zip((bug.name for bug in wanted), pool.map(lambda bug: caught(stage, known, bug), wanted), strict=True)
        )
