"""Seeded bugs: realistic mistakes in the operator, each of which the harness must catch.

Each is an edit of the source. An edit that does not fit any more is an error; a bug that is not caught is a defect of
the harness.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox.stage import ROOT
from tests.chaos.play import Plan
from tests.chaos.scenarios import CANCEL, SUCCESS, Scenario
from tests.chaos.sites import API, PROVIDER, Site
from tests.chaos.strike import When

PACKAGE: Final = ROOT / "operator" / "keyturn"
_STYTCH: Final = Scenario("stytch", SUCCESS)
_BACK: Final = Scenario("stytch", CANCEL)
_JANRAIN: Final = Scenario("janrain", SUCCESS)
_SNAPTRADE: Final = Scenario("snaptrade", SUCCESS)
_STATUS: Final = "PATCH clientsecretrotations/billing/status"
_JOURNAL: Final = Site(API, "PATCH secrets/JOURNAL", 1)
_START: Final = Site(PROVIDER, "start", 1)


@dataclass(frozen=True)
class Edit:
    """file: a path in the package. old: a text that occurs in it once. new: what stands there instead."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Bug:
    """A mistake, and the plans among which one must catch it."""

    name: str
    edits: tuple[Edit, ...]
    plans: tuple[Plan, ...]

    def install(self, folder: Path) -> Path:
        """Put a copy of the package with this mistake into `folder`. Raises ValueError when an edit does not fit."""
        shutil.copytree(PACKAGE, folder / "keyturn", ignore=shutil.ignore_patterns("__pycache__"))
        for edit in self.edits:
            path = folder / "keyturn" / edit.file
            text = path.read_text()
            if text.count(edit.old) != 1:
                raise ValueError(f"{self.name}: {edit.file} holds {text.count(edit.old)} times: {edit.old}")
            path.write_text(text.replace(edit.old, edit.new))
            compile(path.read_text(), str(path), "exec")
        return folder


def _bug(name: str, edits: Iterable[tuple[str, str, str]], *plans: Plan) -> Bug:
    return Bug(name, tuple(Edit(*edit) for edit in edits), plans)


_NO_PRECONDITION: Final = (
    "cluster/rotations.py",
    'body = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": patch}',
    'body = {"status": patch}',
)

BUGS: Final = (
    _bug(
        "the answer is in the Secret before it is in the journal",
        [
            (
                "controller/acts.py",
                "kept = await self._keep(journal, issued.secret, self._context(world))",
                "kept = replace(journal, pending=issued.secret)",
            )
        ],
        Plan(_SNAPTRADE, Site(API, "PATCH secrets/m2m", 1), When.BEFORE),
        Plan(_STYTCH, Site(API, "PATCH secrets/m2m", 1), When.BEFORE),
    ),
    _bug(
        "an answer that cannot be written is given up",
        [
            (
                "controller/acts.py",
                '                _log.error("the new value waits in memory',
                '                return None\n                _log.error("the new value waits in memory',
            )
        ],
        Plan(_STYTCH, _JOURNAL, When.FAILED),
        Plan(_SNAPTRADE, _JOURNAL, When.THROTTLED),
    ),
    _bug(
        "the status is written without a precondition",
        [_NO_PRECONDITION],
        Plan(_STYTCH, Site(API, "PATCH clientsecretrotations/billing", 2), When.STALE),
        Plan(_STYTCH, Site(API, _STATUS, 5), When.STALE),
        Plan(_STYTCH, Site(API, _STATUS, 3), When.STALE),
    ),
    _bug(
        "a stale index is trusted",
        [
            _NO_PRECONDITION,
            (
                "controller/reconciler.py",
                "            raw = await self._kube.get(ROTATIONS, *key)\n",
                "            pass\n",
            ),
        ],
        Plan(_STYTCH, Site(API, "PATCH clientsecretrotations/billing", 2), When.STALE),
    ),
    _bug(
        "a conflict loses the status",
        [
            (
                "controller/reconciler.py",
                "        self._keep(await rotations.write_status(self._r._kube, self._raw, wire))\n",
                (
                    "        with contextlib.suppress(Conflict):\n"
                    "            self._keep(await rotations.write_status(self._r._kube, self._raw, wire))\n"
                ),
            )
        ],
        Plan(_STYTCH, Site(API, _STATUS, 1), When.CONFLICT),
    ),
    _bug(
        "an unknown outcome is called again",
        [
            (
                "rotation/starting.py",
                "    # Looked at again after a pause, by asking the provider",
                (
                    "    if operation is Operation.START:\n"
                    "        return CallProvider(Operation.START, overlap=granted_overlap(spec))\n"
                    "    # Looked at again"
                ),
            )
        ],
        Plan(_JANRAIN, _START, When.LOST),
        Plan(_SNAPTRADE, _START, When.LOST),
    ),
    _bug(
        "the provider is called before the intent is written",
        [
            (
                "rotation/idle.py",
                '    return Enter(record.model_copy(update={"urgent": urgent_word(world), "targets": ahead}))',
                (
                    "    from keyturn.rotation.steps import Advance\n\n"
                    '    return Advance(record.model_copy(update={"urgent": urgent_word(world), "targets": ahead}))'
                ),
            )
        ],
        Plan(_STYTCH),
    ),
    _bug(
        "the old value is dropped before its pods are gone",
        [
            (
                "rotation/targets.py",
                "    if not behind:\n        return None\n    # What waits",
                "    return None\n    # What waits",
            )
        ],
        Plan(_STYTCH),
    ),
    _bug(
        "the new value is withdrawn before its pods are gone",
        [
            (
                "rotation/cancelling.py",
                "    gate = rollout_gate(rollout)\n    if gate is None:\n        return None\n",
                "    return None\n",
            )
        ],
        Plan(_BACK),
    ),
    _bug(
        "the journal has another name each time",
        [
            (
                "cluster/secrets.py",
                '    return f"keyturn-journal-{owner.uid}"\n',
                '    import time\n\n    return f"keyturn-journal-{owner.uid}-{time.time_ns()}"\n',
            )
        ],
        Plan(_STYTCH),
    ),
    _bug(
        "the finalizer is forgotten",
        [("rotation/starting.py", "    if not world.finalizer:\n", "    if not world.finalizer and world.deleting:\n")],
        Plan(_STYTCH),
    ),
    _bug(
        "the finalizer is left",
        [
            (
                "cluster/rotations.py",
                "finalizers = [*others, FINALIZER] if present else others",
                "finalizers = [*others, FINALIZER]",
            )
        ],
        Plan(_STYTCH),
    ),
    _bug(
        "the journal is left",
        [
            (
                "controller/acts.py",
                "            await secrets.drop_journal(self._kube, self._owner, journal)\n",
                "            pass\n",
            )
        ],
        Plan(_STYTCH),
    ),
    _bug(
        "workloads are restarted as long as old pods are there",
        [
            (
                "controller/acts.py",
                "workload, step.stamp, step.written)",
                'workload, f"{step.stamp}-{id(step)}", step.written)',
            ),
            (
                "rotation/consumers.py",
                "        and not was_restarted(rollout, workload)\n        and not replaced_since(rollout, workload)\n",
                "",
            ),
        ],
        Plan(_STYTCH),
    ),
    _bug(
        "the lease is not checked",
        [
            (
                "controller/leadership.py",
                "asked + self._timing.renew_deadline\n                        self._complaint",
                "math.inf\n                        self._complaint",
            ),
            (
                "controller/leadership.py",
                "                    if not await self._update(self._renewed):\n",
                "                    if await self._update(self._renewed) is None:\n",
            ),
            (
                "controller/leadership.py",
                "                self._valid_until = asked + self._timing.renew_deadline\n            except (Clu",
                "            except (Clu",
            ),
        ],
        Plan(_STYTCH, Site(API, "POST secrets", 1), When.FROZEN),
        Plan(_SNAPTRADE, Site(API, "POST secrets", 1), When.FROZEN),
    ),
    _bug(
        "the new value is logged",
        [
            (
                "controller/acts.py",
                '_log.info("wrote Secret %s", view.name,',
                '_log.info("wrote Secret %s", step.value.get_secret_value(),',
            )
        ],
        Plan(_STYTCH),
    ),
)
