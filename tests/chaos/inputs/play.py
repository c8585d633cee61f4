"""Play one plan: create, the inputs, revert, delete; and look after every step whether the invariants hold."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import httpx

from keyturn.api.rules import Invalid
from tests.api.samples import validate
from tests.chaos.inputs.agreement import as_stored, differences
from tests.chaos.inputs.cast import ROLES, Cast, cast, collection_of, path_of
from tests.chaos.inputs.mutators import Edit, edited
from tests.chaos.inputs.plans import Input, Plan
from tests.chaos.inputs.schema import by_rules, by_schema
from tests.chaos.inputs.semantic import CANARY, Semantic
from tests.chaos.inputs.setting import Setting
from tests.chaos.inputs.states import complaint, difference, is_final, timeless

ANSWER_SECONDS: Final = 30.0
WINDOW_SECONDS: Final = 1.5
LONG_WINDOW_SECONDS: Final = 5.0
CALM_SECONDS: Final = 10.0
MOST_WRITES: Final = 6
"""Of the operator, to one object after one input that led to no rotation."""


class Play:
    """One plan in one namespace. `run` notes in the setting what it finds."""

    def __init__(self, setting: Setting, plan: Plan, namespace: str) -> None:
        self._setting = setting
        self._plan = plan
        self._facts = setting.facts(plan.names, namespace)
        self._base: Cast = cast(plan.names, self._facts)
        self._now: dict[str, dict[str, Any] | None] = dict.fromkeys(ROLES)
        self._stored: dict[str, dict[str, Any]] = {}
        self._refusals: dict[str, tuple[int, str]] = {}
        self._before: dict[str, Any] = {}
        self._since = 0
        self._touches = 0

    def run(self) -> None:
        """Create, spoil, put right, delete."""
        try:
            self._create()
            for one in self._plan.inputs:
                last = one is self._plan.inputs[-1]
                self._take(one, last=last)
                if not (last and self._plan.deleted_bad):
                    self._revert(one, wait=last or not self._plan.hurried)
        finally:
            self._delete()

    def _fault(self, invariant: str, detail: str, one: object = "") -> None:
        self._setting.found.violation(f"{self._plan} {one}".strip(), invariant, detail)

    # --- steps ---------------------------------------------------------------------------------------------------

    def _create(self) -> None:
        if self._move(self._base):
            raise ValueError(f"the API server refuses the objects as they should be: {self._refusals}")
        self._setting.found.count(refused=False)
        for role in ("provider", "rotation"):
            if not self._well(role, ANSWER_SECONDS):
                self._fault("I10", f"the {role} did not become Ready after its creation: {self._seen(role)}")
        self._before = {role: timeless(self._read(role)) for role in ("provider", "rotation")}

    def _take(self, one: Input, *, last: bool) -> None:
        self._since = len(self._setting.requests.requests)
        changes = self._setting.changes(self._plan.names, self._facts)
        wanted = one.applied(self._base, self._plan.names, self._facts)
        recreate = one.semantic.recreate if one.semantic else ()
        refused = self._move(wanted, recreate)
        self._setting.found.count(refused=refused)
        self._setting.check_operator(f"{self._plan} {one}")
        for invariant, detail in [*self._agreement(wanted), *self._refusal(one, refused=refused)]:
            self._fault(invariant, detail, one)
        if refused:
            return
        self._answered(one)
        due = self._is_due(one)
        if not due and self._setting.changes(self._plan.names, self._facts) != changes:
            self._fault("I10", "something was changed at the provider", one)
        if due:
            self._take_over()
        else:
            self._quiet(one, LONG_WINDOW_SECONDS if last else WINDOW_SECONDS)
        self._leaks(one)

    def _take_over(self) -> None:
        """The value of a rotation that was rightly made is the one to go on with."""
        known = self._base["secret"]
        assert known is not None
        data = self._setting.http.get(path_of(known)).raise_for_status().json()["data"]
        value = Edit(("data", self._plan.names.key), data[self._plan.names.key])
        self._base = {**self._base, "secret": edited(known, (value,))}
        self._now["secret"] = self._base["secret"]

    def _revert(self, one: Input, *, wait: bool) -> None:
        """I10: the correction is all it takes, and everything is as it was before."""
        self._move(self._base)
        for role in ("provider", "rotation") if wait else ():
            if not self._well(role, ANSWER_SECONDS):
                self._fault("I10", f"no recovery: {self._seen(role)}", one)
            elif not self._rotated() and (after := timeless(self._read(role))) != self._before[role]:
                self._fault("I10", f"not as before: {difference(self._before[role], after)}", one)

    def _rotated(self) -> bool:
        return self._setting.changes(self._plan.names, self._facts) > 0

    def _delete(self) -> None:
        """I11: whatever state they are in, all objects go."""
        roles = [role for role in ROLES if self._now[role] is not None]
        roles = roles if self._plan.number % 2 else roles[::-1]
        paths = {role: path_of(obj) for role in roles if (obj := self._now[role]) is not None}
        for path in paths.values():
            self._setting.http.delete(path)
        for role, path in paths.items():
            if role in ("rotation", "rival", "provider") and not self._setting.watched.wait(
                path, lambda obj: obj is None, ANSWER_SECONDS
            ):
                self._fault("I11", f"{role} was not deleted: {self._setting.watched.get(path)}", self._plan.inputs[-1])
                self._setting.http.patch(
                    path,
                    content='{"metadata":{"finalizers":null}}',
                    headers={"Content-Type": "application/merge-patch+json"},
                )

    # --- sending -------------------------------------------------------------------------------------------------

    def _move(self, wanted: Cast, recreate: tuple[str, ...] = ()) -> bool:
        """Make the objects as they are wanted; whether any of them was refused."""
        self._refusals.clear()
        rotation = self._now["rotation"]
        due = rotation is not None and "rotationRequest" in rotation["spec"]
        # What is due must not begin in the moment in which only the reason against it is gone.
        order = ("rotation", "rival", *ROLES) if due else ROLES
        for role in dict.fromkeys(order):
            if wanted[role] != self._now[role]:
                self._send(role, wanted[role], recreate=role in recreate)
        return bool(self._refusals)

    def _send(self, role: str, wanted: dict[str, Any] | None, *, recreate: bool) -> None:
        known = self._now[role]
        if known is not None and (wanted is None or recreate or self._fixed(known, wanted)):
            self._setting.http.delete(path_of(known)).raise_for_status()
            self._gone(path_of(known))
            self._now[role] = known = None
        if wanted is None:
            return
        answer = self._put(wanted) if known is not None else self._post(wanted)
        if answer.is_success:
            self._now[role] = wanted
            self._stored[role] = answer.json()
        else:
            self._refusals[role] = (answer.status_code, answer.text)
            if known is None and role in ("secret", "credential"):
                self._post(self._base[role] or {})
                self._now[role] = self._base[role]

    @staticmethod
    def _fixed(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
        """Whether the API server lets nobody change one into the other."""
        return bool(known.get("immutable")) or known.get("type") != wanted.get("type")

    def _gone(self, path: str) -> None:
        deadline = time.monotonic() + ANSWER_SECONDS
        while self._setting.http.get(path).status_code != 404 and time.monotonic() < deadline:
            time.sleep(0.05)

    def _post(self, obj: Mapping[str, Any]) -> httpx.Response:
        return self._setting.http.post(collection_of(obj), content=json.dumps(obj), headers=_JSON)

    def _put(self, obj: Mapping[str, Any]) -> httpx.Response:
        while True:
            known = self._setting.http.get(path_of(obj)).json()["metadata"]
            # What others have put there is kept, as `kubectl apply` does.
            kept = [
                Edit(("metadata", name), known[name]) for name in ("resourceVersion", "finalizers") if name in known
            ]
            content = json.dumps(edited(obj, tuple(kept)))
            answer = self._setting.http.put(path_of(obj), content=content, headers=_JSON)
            if answer.status_code != 409:
                return answer

    # --- what came of it -----------------------------------------------------------------------------------------

    def _agreement(self, wanted: Cast) -> Iterator[tuple[str, str]]:
        """The API server's word, the CEL rules and the operator's own validation, of everything that was sent."""
        for role in ("rotation", "provider"):
            obj = wanted[role]
            if obj is None:
                continue
            kind, sent = obj["kind"], obj["spec"]
            status, message = self._refusals.get(role, (200, ""))
            # An empty string is a null to Kubernetes 1.20 built with a newer Go; only the metadata is judged without.
            if status == 200:
                stored = self._stored[role]["spec"]
                for detail in differences(kind, stored, by_schema(kind, stored), by_rules(kind, stored)):
                    yield "agreement", detail
            elif not by_schema(kind, as_stored(sent)) and '""' not in json.dumps(sent) and "metadata" not in message:
                yield "agreement", f"the API server refuses what the schema accepts: {message[:500]}"

    def _refusal(self, one: Input, *, refused: bool) -> Iterator[tuple[str, str]]:
        if one.semantic is not None and one.semantic.refused and not refused:
            yield "I10", "the API server accepts what it should refuse"
        for role, (status, message) in self._refusals.items():
            if not 400 <= status < 500:
                yield "I10", f"the API server answers {status}: {message[:500]}"
            fields = {step for edit in one.edits for step in _steps(edit)}
            if fields and not any(name in message for name in fields):
                yield "I10", f"the refusal of the {role} names no field of {sorted(fields)}: {message[:500]}"

    def _answered(self, one: Input) -> None:
        """I10: what is wrong is said where it belongs, by name."""
        present = [role for role in ("provider", "rotation", "rival") if self._now[role] is not None]
        for role in present:
            if self._final(role) is None:
                self._fault("I10", f"no answer about the {role}: {self._seen(role)}", one)
                return
        for role in present:
            spec = validate(self._stored[role]["kind"], self._stored[role]["spec"])
            if isinstance(spec, Invalid):
                self._complains(role, tuple(violation.field for violation in spec.violations), all, one)
            elif one.semantic is None and self._complaint(role) and not self._plan.hurried:
                self._complains(role, _tokens(one), any, one)
        if one.semantic is not None:
            self._answered_to(one, one.semantic)

    def _answered_to(self, one: Input, row: Semantic) -> None:
        if not row.asks and not self._well("rotation", ANSWER_SECONDS):
            self._fault("I10", f"is wrong without a reason: {self._complaint('rotation')}", one)
        if self._now["credential"] != self._base["credential"]:
            self._ill("provider")
        if row.asks in ("provider", "account"):
            self._complains("provider", row.says, any, one)
        if row.asks in ("provider", "rotation"):
            self._asked_again(one)
            self._complains("rotation", row.says, any, one)

    def _asked_again(self, one: Input) -> None:
        """A rotation at rest looks at nothing before it is changed; nor has it when the account changed after it."""
        for _ in range(3):
            if self._complaint("rotation") or self._now["rotation"] is None:
                return
            self._touches += 1
            touched = edited(self._now["rotation"], (Edit(("spec", "verify"), {"timeout": f"{self._touches}m"}),))
            self._send("rotation", touched, recreate=False)
            if self._final("rotation") is None:
                self._fault("I10", f"no answer about the rotation: {self._seen('rotation')}", one)

    def _complains(self, role: str, words: tuple[str, ...], enough: Any, one: Input) -> None:
        said = self._complaint(role)
        if not said:
            self._fault("I10", f"the {role} is Ready", one)
        elif words and not enough(word in said for word in words) and len(said) < 1000:
            self._fault("I10", f"the {role} does not name {words}: {said}", one)

    def _quiet(self, one: Input, seconds: float) -> None:
        """I12: a bad object at rest is not written to, and nobody is told twice."""
        if not self._calm():
            self._fault("I12", f"the writes do not end: {self._writes()}", one)
        for path, count in self._writes().items():
            if count > MOST_WRITES:
                self._fault("I12", f"{count} writes to {path} after one input", one)
        self._since = len(self._setting.requests.requests)
        time.sleep(seconds)
        for path, count in self._writes().items():
            # An Event comes after its status.
            late = int(self._plan.hurried)
            if path.endswith("/events"):
                late = 1 if self._now["rival"] is None else 2
            if count > late:
                self._fault("I12", f"{count} writes to {path} in a quiet window", one)

    def _calm(self) -> bool:
        """Until nothing was written for a moment: an Event follows the status of which it tells."""
        deadline = time.monotonic() + CALM_SECONDS
        written, since = -1, time.monotonic()
        while time.monotonic() < deadline:
            now = sum(self._writes().values())
            if now != written:
                written, since = now, time.monotonic()
            elif time.monotonic() > since + 0.5:
                return True
            time.sleep(0.1)
        return False

    def _writes(self) -> dict[str, int]:
        """The operator's writes to the objects of this plan since the last input, by path."""
        found: dict[str, int] = {}
        ours = (f"/namespaces/{self._facts.namespace}/", f"/clusterrotationproviders/{self._plan.names.account}/")
        for request in self._setting.requests.requests[self._since :]:
            written = request.method != "GET" and not request.dry_run
            if written and any(place in f"{request.path}/" for place in ours):
                found[request.path] = found.get(request.path, 0) + 1
        return found

    def _leaks(self, one: Input) -> None:
        for role in ("rotation", "provider"):
            if CANARY in json.dumps((self._seen(role) or {}).get("status")):
                self._fault("I8", f"a secret value is in the status of the {role}", one)

    # --- looking -------------------------------------------------------------------------------------------------

    def _seen(self, role: str) -> dict[str, Any] | None:
        obj = self._now[role]
        return None if obj is None else self._setting.watched.get(path_of(obj))

    def _read(self, role: str) -> dict[str, Any]:
        """The object as the API server has it: what is no new generation comes late through a watch."""
        found: dict[str, Any] = self._setting.http.get(path_of(self._stored[role])).raise_for_status().json()
        return found

    def _final(self, role: str) -> dict[str, Any] | None:
        """The object when the operator has answered to its newest generation."""
        known, stored = self._now[role], self._stored[role]["metadata"]

        def answered(obj: dict[str, Any] | None) -> dict[str, Any] | None:
            if obj is None or obj["metadata"]["uid"] != stored["uid"]:
                return None
            newest = obj["metadata"]["generation"] >= stored["generation"]
            return obj if newest and is_final(obj) else None

        return None if known is None else self._setting.watched.wait(path_of(known), answered, ANSWER_SECONDS)

    def _well(self, role: str, seconds: float) -> bool:
        known, stored = self._now[role], self._stored[role]["metadata"]

        def well(obj: dict[str, Any] | None) -> bool | None:
            newest = obj is not None and obj["metadata"]["generation"] >= stored["generation"]
            return newest and obj is not None and is_final(obj) and not complaint(obj)

        return known is not None and bool(self._setting.watched.wait(path_of(known), well, seconds))

    def _ill(self, role: str) -> None:
        """Until something is said against it: credentials are looked at every other second."""
        known = self._now[role]
        if known is not None:
            path = path_of(known)
            self._setting.watched.wait(path, lambda obj: obj is not None and complaint(obj), ANSWER_SECONDS)

    def _complaint(self, role: str) -> str:
        obj = self._seen(role)
        return complaint(obj) if obj is not None else ""

    def _is_due(self, one: Input) -> bool:
        """Whether a rotation was rightly begun: a request was made, and nothing speaks against it; it may soak yet."""
        rotation, status = self._now["rotation"], (self._seen("rotation") or {}).get("status") or {}
        if rotation is None or not rotation["spec"].get("rotationRequest"):
            return False
        return not self._complaint("rotation") or (one.semantic is None and status.get("phase") == "Soaking")


_JSON: Final = {"Content-Type": "application/json"}


def _steps(edit: Edit) -> set[str]:
    """The names of the fields that an edit is about."""
    found = set(edit.path[1:])
    if isinstance(edit.value, dict):
        found |= set(edit.value)
    return found


def _tokens(one: Input) -> tuple[str, ...]:
    """What an answer to a change of a field may name: the field, its value, or the object that it refers to."""
    found: set[str] = {"Secret ", "RotationProvider ", "client", "spec.acceptDowntime", "keyturn.invalid"}
    for edit in one.edits:
        found |= _steps(edit)
        found |= {edit.value[:60]} if isinstance(edit.value, str) and edit.value else set()
    return tuple(sorted(found))
