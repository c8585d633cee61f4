"""The samples that Keyturn ships are valid."""

from pathlib import Path

import pytest
import yaml

from keyturn.api.base import API_VERSION
from keyturn.api.rules import Invalid
from tests.api.samples import validate

FILES = sorted((Path(__file__).parents[2] / "manifests" / "samples").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_samples_are_valid(path: Path) -> None:
    ours = [
        document
        for document in yaml.safe_load_all(path.read_text("utf-8"))
        if document and document["apiVersion"] == API_VERSION
    ]
    assert ours
    for document in ours:
        answer = validate(document["kind"], document["spec"])
        assert not isinstance(answer, Invalid), str(answer)


def test_there_are_samples() -> None:
    assert FILES
