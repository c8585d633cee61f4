"""Seeded bugs that only a fault shows: each must be caught by one of its plans."""

from __future__ import annotations

from typing import Final

from tests.chaos.bugs import Bug, Edit
from tests.chaos.faultplans import FaultPlan
from tests.chaos.faults import fault_plans


def _plan(said: str) -> FaultPlan:
    return next(plan for plan in fault_plans() if str(plan) == said)


def _bug(name: str, file: str, old: str, new: str, *plans: str) -> Bug:
    return Bug(name, (Edit(file, old, new),), tuple(_plan(said) for said in plans))


FAULT_BUGS: Final = (
    _bug(
        "nothing is swept",
        "controller/sweep.py",
        "await asyncio.sleep(delay * random.uniform(0.8, 1.2))",
        "await asyncio.sleep(1000 * delay)",
        "stytch success, events dropped: ADDED",
    ),
    _bug(
        "Retry-After is ignored",
        "controller/reconciler.py",
        "delay = error.retry_after.total_seconds() if error.retry_after else None",
        "delay = None",
        "stytch success, API 429 with Retry-After",
    ),
    _bug(
        "Retry-After is ignored while an answer is in memory",
        "controller/acts.py",
        "max(pause, min(asked, _LONGEST_KEEP_RETRY_SECONDS))",
        "pause",
        "stytch success, API 429 from the provider's answer on",
    ),
    _bug(
        "an error in a stream ends the operator",
        "controller/kopf_source.py",
        "            await self._run_once()\n",
        "            await self._run_once()\n            return\n",
        "stytch success, watches 500 in stream, and no writes before rotations are listed again",
    ),
    _bug(
        "a token that is replaced is not read again",
        "cluster/client.py",
        "        if self._renew is None:\n            return\n",
        "        return\n",
        "stytch success, token expires",
    ),
    _bug(
        "redirects are followed",
        "providers/http.py",
        "follow_redirects=False",
        "follow_redirects=True",
        "snaptrade success, start redirected, applied",
        "janrain success, start redirected, applied",
    ),
)
