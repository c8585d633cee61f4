"""What must be true in the end of a rotation that was struck, by the numbers of DESIGN.md 3."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.chaos.sites import API, Site
from tests.chaos.strike import When
from tests.e2e.crash import calls
from tests.e2e.scene import Scene

if TYPE_CHECKING:
    from tests.chaos.play import Plan

_GOOD: Final = (["True", "SecretRotated"], ["True", "CredentialVerified"])
_CALLS: Final = {"stytch": ("start", "rotate", "cancel"), "janrain": ("start",), "snaptrade": ("start",)}


@dataclass(frozen=True)
class Violation:
    """What does not hold: the invariant's number, and how."""

    invariant: str
    detail: str


@dataclass(frozen=True)
class Expected:
    """What a plan leads to, other than an undisturbed run.

    lost: the one answer that an Immediate provider gives is lost, the exception that I9 names. withdrawn: starts whose
    value is lost, and which Stytch takes back. repeated: start calls beside those that the provider carries out.
    """

    lost: bool = False
    withdrawn: int = 0
    repeated: int = 0


def expected(provider: str, site: Site | None, when: When | None) -> Expected:
    """What a blow leads to."""
    gone = site is not None and _answer_lost(site, when)
    if provider == "snaptrade":
        return Expected(lost=gone and when is not When.FROZEN)
    return Expected(withdrawn=int(gone and provider == "stytch"))


def _answer_lost(site: Site, when: When | None) -> bool:
    """Whether the provider has answered, and the journal never got it."""
    called = site.what == "start" and when is not When.BEFORE
    return called or (site == Site(API, "PATCH secrets/JOURNAL", 1) and when is When.BEFORE)


def ended(scene: Scene, plan: Plan, status: dict[str, Any]) -> bool:
    """Whether nothing more is to come."""
    if plan.expected.lost:
        return status.get("phase") == "Blocked"
    if status.get("phase") != plan.scenario.phase:
        return False
    return not scene.rotation()["metadata"].get("finalizers") and not scene.journals()


def judged(scene: Scene, plan: Plan, reference: dict[str, Any] | None) -> tuple[list[Violation], dict[str, Any]]:
    """What is wrong in the end, and the facts of it."""
    facts = facts_of(scene)
    found = [*_secrets_kept(scene, plan), *_traffic(scene, plan), *_log(scene)]
    if plan.expected.lost:
        return [*found, *_blocked(scene, facts)], facts
    found += _calls(scene, plan, facts)
    if reference is not None:
        found += _differences(facts, reference)
    return found, facts


def facts_of(scene: Scene) -> dict[str, Any]:
    """The final objects, what the provider has carried out, and how often the workload was restarted.

    Without what differs from run to run: names, times, values.
    """
    rotation, status = scene.rotation(), scene.status()
    listed = scene.get(f"/api/v1/namespaces/{scene.namespace}/secrets") or {"items": []}
    secret = next(item for item in listed["items"] if item["metadata"]["name"] == "m2m")
    deployment = scene.get(scene.deployment_path()) or {}
    template = deployment["spec"]["template"]["metadata"]
    conditions = {item["type"]: [item["status"], item["reason"]] for item in status.get("conditions", [])}
    # Whether it was the rotation or a later look that found the value good.
    conditions = {name: ["True", "good"] if said in _GOOD else said for name, said in conditions.items()}
    # Such a look also says so, which the way back does not.
    if conditions.get("CredentialVerified") == ["True", "Accepted"]:
        del conditions["CredentialVerified"]
    return {
        "finalizers": rotation["metadata"].get("finalizers", []),
        "status": sorted(status),
        "phase": status.get("phase"),
        "conditions": conditions,
        "results": [past["result"] for past in status.get("history", [])],
        "secrets": sorted(
            re.sub(r"-(token-)?\w{5}$|-[0-9a-f-]{36}$", "-*", it["metadata"]["name"]) for it in listed["items"]
        ),
        "keys": sorted(secret["data"]),
        "labels": sorted(secret["metadata"].get("labels", {})),
        # Which of the two it is depends on how many writes there were (keyturn.cluster.secrets).
        "annotations": sorted(name.replace("/tock", "/tick") for name in secret["metadata"].get("annotations", {})),
        "stamps": sorted(template["annotations"]),
        "restarts": scene.restarts(),
        "applied": {name: scene.applied(name) for name in _CALLS[scene.provider]},
    }


def _differences(facts: dict[str, Any], reference: dict[str, Any]) -> list[Violation]:
    """I7 for the restarts, I9 for all else but the provider's calls, which `_calls` judges."""
    return [
        Violation("I7" if name == "restarts" else "I9", f"{name}: {facts[name]} instead of {reference[name]}")
        for name in facts
        if name != "applied" and facts[name] != reference[name]
    ]


def _calls(scene: Scene, plan: Plan, facts: dict[str, Any]) -> list[Violation]:
    """I5: nothing is carried out twice but what Stytch's semantics allow: a start whose value is lost is withdrawn."""
    applied, back = facts["applied"], plan.scenario.phase == "Cancelled"
    withdrawn = plan.expected.withdrawn
    wanted = {"start": 1 + withdrawn}
    if scene.provider == "stytch":
        wanted |= {"rotate": 0 if back else 1, "cancel": withdrawn + (1 if back else 0)}
    found = [] if applied == wanted else [Violation("I5", f"carried out: {applied} instead of {wanted}")]
    again = calls(scene, "start") - applied["start"] - plan.expected.repeated
    if again:
        found.append(Violation("I5", f"{again} start calls too many"))
    return found


def _secrets_kept(scene: Scene, plan: Plan) -> list[Violation]:
    """I2, I3: the Secret holds the value in force, and nothing else of it was touched."""
    secret, simulator = scene.secret(), scene.account.simulator
    found = []
    if not plan.expected.lost and not simulator.accepts(scene.client_id, secret.get("CLIENT_SECRET", "")):
        found.append(Violation("I3", "the provider refuses the value in the Secret"))
    if secret.get("OTHER") != "untouched":
        found.append(Violation("I9", "another key of the Secret was touched"))
    back = plan.scenario.phase == "Cancelled"
    if back != (secret.get("CLIENT_SECRET") == scene.first_secret) and not plan.expected.lost:
        found.append(Violation("I9", f"the Secret holds the {'new' if back else 'previous'} value"))
    if scene.provider == "stytch" and simulator.clients[scene.client_id].pending is not None:
        found.append(Violation("I5", "a value is left pending at the provider"))
    return found


def _traffic(scene: Scene, plan: Plan) -> list[Violation]:
    """I3, by what the pods have seen."""
    counted = scene.calls()
    found = []
    if counted["refused"] and not plan.scenario.refused:
        found.append(Violation("I3", f"{counted['refused']} calls refused"))
    if not counted["accepted"]:
        found.append(Violation("I3", "no pod has called"))
    return found


def _log(scene: Scene) -> list[Violation]:
    """I8, and no crash."""
    text = scene.log.read_text()
    values = {scene.first_secret, scene.secret()["CLIENT_SECRET"], scene.credential}
    found = [Violation("I8", "the log holds a secret value") for value in values if value in text]
    _, traceback, rest = text.partition("Traceback")
    if traceback:
        found.append(Violation("crash", rest[:3000]))
    return found


def _blocked(scene: Scene, facts: dict[str, Any]) -> list[Violation]:
    """I5, I9: said, and never called a second time; what is known is kept for the person who must decide."""
    found = []
    stalled = facts["conditions"].get("Stalled", [])
    if stalled != ["True", "SecretLost"]:
        found.append(Violation("I9", f"Stalled says {stalled}"))
    if facts["applied"] != {"start": 1} or calls(scene, "start") != 1:
        found.append(Violation("I5", f"{calls(scene, 'start')} start calls"))
    if not scene.journals() or not facts["finalizers"]:
        found.append(Violation("I2", "the journal or the finalizer is gone"))
    if facts["restarts"]:
        found.append(Violation("I7", "restarted for nothing"))
    return found
