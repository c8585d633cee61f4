"""Every reason that the code can give is documented once, and none that it cannot give."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Final

from keyturn.api.conditions import ConditionType
from keyturn.api.rotation import Result
from keyturn.api.semantics import Verdict
from keyturn.rotation import report
from tests.docs.pages import LIFECYCLE, OPERATIONS, PROVIDERS_PAGE, ROOT, section, table

CODE: Final = ROOT / "operator" / "keyturn"
SOURCES: Final = (
    *sorted((CODE / "rotation").glob("*.py")),
    # The metrics have words of their own, which their page is held to.
    *sorted(path for path in (CODE / "controller").glob("*.py") if path.name not in {"census.py", "metrics.py"}),
    CODE / "cluster" / "accounts.py",
    CODE / "cluster" / "errors.py",
)
# Words in capitals that are no reason of a condition.
OTHERS: Final = {
    "RotationRequest",  # why a rotation began
    "Recovered",
    "Schedule",
    "Urgent",
    "Rotation",  # the beginning of three reasons
    "Pod",  # a kind
    "ApiServerError",  # of a class that is never raised itself
    "Conflict",  # answered by looking again
    "NotFound",
    "Unobserved",
}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def events() -> dict[str, bool]:
    """The reasons of Events which are not reasons of conditions as well, and whether each is a warning."""
    alone = {
        str(node.args[0].value): any(keyword.arg == "warning" for keyword in node.keywords)
        for node in ast.walk(tree_of(CODE / "rotation" / "report.py"))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Announcement"
        if isinstance(node.args[0], ast.Constant)
    }
    return {**dict(report._EVENTS.values()), **alone}


def words(path: Path) -> set[str]:
    """Constants in CamelCase, documentation excepted: whatever way a reason is given, its word is written somewhere."""
    tree = tree_of(path)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in prose
        and re.fullmatch(r"([A-Z][a-z]+)+", node.value)
    }


def possible() -> set[str]:
    """What the reason of a condition can be, apart from phases, which are in a table of the README."""
    written = set().union(*map(words, SOURCES))
    ended = {f"Rotation{result}" for result in Result}
    return (written - OTHERS - events().keys()) | ended | set(Verdict) | {"Soaking", "SecretRotated"}


def documented() -> Counter[str]:
    providers = table(section(PROVIDERS_PAGE, "Reasons"), "reason")
    operations = table(section(OPERATIONS, "Reasons"), "reason")
    return Counter(reason for row in (*providers, *operations) for reason in re.findall(r"`(\w+)`", row[0]))


def test_every_reason_is_documented_and_none_is_extinct() -> None:
    assert sorted(documented()) == sorted(possible())


def test_none_is_documented_twice_but_for_what_two_conditions_say() -> None:
    assert [reason for reason, count in documented().items() if count > 1] == []


def test_what_the_scan_relies_on() -> None:
    """The scan would see a new way of giving a reason: the known ones all are in what it finds."""
    found = possible()
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                place = {"Wait": 0, "Problem": 0, "CredentialMissing": 0, "_Verdict": 1, "_fail": 2}.get(node.func.id)
                word = node.args[place] if place is not None and len(node.args) > place else None
                if isinstance(word, ast.Constant):
                    assert word.value in found, f"{path.name}:{node.lineno}"


def test_every_event_is_documented() -> None:
    rows = table(section(OPERATIONS, "Events"), "event")
    shown = {event: row[1].startswith("Warning") for row in rows for event in re.findall(r"`(\w+)`", row[0])}
    assert shown == events()


def test_reasons_named_in_the_text_exist() -> None:
    """A word in code style that begins as reasons do is one, or the name of a condition or Event."""
    known = set(documented()) | events().keys() | set(ConditionType)
    for page in (PROVIDERS_PAGE, OPERATIONS, LIFECYCLE):
        for word in re.findall(
            r"`((?:Provider|Credential|Secret|Rollout|Journal|Overlap|Verification|Answer|Target|Previous)\w+)`", page
        ):
            assert word in known, word
