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
        "half a list is taken for the whole",
        "cluster/client.py",
        '            page = await self._request("GET", resource, namespace, None, query=query, accept=accept)\n',
        (
            "            try:\n"
            '                page = await self._request("GET", resource, namespace, None, query=query, accept=accept)\n'
            "            except Expired:\n"
            "                return items\n"
        ),
        "stytch success, 410 in the middle of a paged list",
    ),
    _bug(
        "an error in a stream ends the operator",
        "controller/kopf_source.py",
        "            await self._run_once()\n",
        "            await self._run_once()\n            return\n",
        "stytch success, watches 500 in stream",
    ),
    _bug(
        "a token that is replaced is not read again",
        "cluster/client.py",
        "        if self._renew is None:\n            return\n",
        "        return\n",
        "stytch success, token expires",
    ),
    _bug(
        "an error of the provider's server is taken for a refusal",
        "providers/http.py",
        "        case _:\n            return Effect.UNKNOWN, Failure.UNREACHABLE",
        "        case _:\n            return Effect.NOT_APPLIED, Failure.UNREACHABLE",
        "snaptrade success, start 500, applied",
        "janrain success, start 500, applied",
    ),
    _bug(
        "redirects are followed",
        "providers/http.py",
        "follow_redirects=False",
        "follow_redirects=True",
        "snaptrade success, start redirected, applied",
        "janrain success, start redirected, applied",
    ),
    _bug(
        "an answer of any length is read",
        "providers/http.py",
        "if len(body) > MAX_BODY:",
        "if not MAX_BODY:",
        "stytch success, get and token huge",
    ),
)
