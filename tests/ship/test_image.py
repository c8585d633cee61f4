"""The container image: builds from a local base, and runs as nobody in particular on a read-only root."""

import json
import os
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ship import buildah as builder
from tests.ship.buildah import Buildah, run

ROOT = Path(__file__).parents[2]
IMAGE = "localhost/keyturn:test"

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="buildah without a container engine needs root on Linux"
)


@pytest.fixture(scope="module")
def buildah() -> Iterator[Buildah]:
    builder.installed()
    tool = builder.default()
    with tool.exclusive():
        tool.build(ROOT, tool.local_base(), IMAGE)
        yield tool
        # Its layers stay cached; its copy of the whole environment need not.
        tool("rmi", IMAGE)


@pytest.fixture(scope="module")
def container(buildah: Buildah) -> Iterator[str]:
    with buildah.container(IMAGE) as name:
        yield name


@pytest.fixture(scope="module")
def config(buildah: Buildah) -> dict[str, Any]:
    inspected: dict[str, Any] = json.loads(buildah("inspect", "--type=image", IMAGE))["OCIv1"]["config"]
    return inspected


def inside(buildah: Buildah, container: str, *command: str) -> str:
    return buildah("run", "--isolation=chroot", container, "--", *command)


def test_help_is_shown_by_an_ordinary_user(buildah: Buildah, container: str) -> None:
    assert "Usage: keyturn" in inside(buildah, container, "keyturn", "--help")
    assert inside(buildah, container, "python3", "-c", "import os; print(os.getuid(), os.getgid())") == "65532 65532"


def test_help_is_shown_on_a_read_only_root(buildah: Buildah, container: str) -> None:
    root = buildah("mount", container)
    read_only = f"mount --bind {root} {root} && mount -o remount,bind,ro {root}"
    enter = f"exec chroot --userspec=65532:65532 --groups= {root}"
    alone = ("unshare", "--mount", "--propagation=private", "sh", "-ec")
    assert "Usage: keyturn" in run(*alone, f"{read_only} && {enter} /opt/keyturn/bin/keyturn --help")
    with pytest.raises(AssertionError, match="Read-only file system"):
        run(*alone, f"{read_only} && touch {root}/written")


def test_every_module_runs_on_the_shipped_requirements(buildah: Buildah, container: str) -> None:
    script = (
        "import importlib, pkgutil, keyturn\n"
        "names = [module.name for module in pkgutil.walk_packages(keyturn.__path__, 'keyturn.')]\n"
        "print(len([importlib.import_module(name) for name in names if not name.endswith('__main__')]))"
    )
    package = ROOT / "operator/keyturn"
    modules = set(package.rglob("*.py")) - {package / "__init__.py", package / "__main__.py"}
    assert int(inside(buildah, container, "python3", "-c", script)) == len(modules)


def test_image_says_what_it_is(config: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (config["User"], config["Entrypoint"], config["Cmd"]) == ("65532:65532", ["keyturn"], ["run"])
    assert config["Labels"]["org.opencontainers.image.version"] == project["version"]
    assert config["Labels"]["org.opencontainers.image.description"] == project["description"]
    assert config["Labels"]["org.opencontainers.image.licenses"] == project["license"]


def test_nothing_of_the_build_is_left(buildah: Buildah, container: str, config: dict[str, Any]) -> None:
    variables = {variable.partition("=")[0] for variable in config["Env"]}
    assert variables == {"HOME", "PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
    root = Path(buildah("mount", container))
    environment = root / "opt/keyturn"
    assert {"keyturn", "kubectl-keyturn", "python3"} <= {path.name for path in (environment / "bin").iterdir()}
    for pattern in ("lib/python3*/site-packages/pip", "lib/python3*/site-packages/setuptools", "bin/pip*"):
        assert not list(environment.glob(pattern))
    for left in ("build", "src", "wheels", "etc/pip.conf", "etc/pip-certificates.pem", "root/.cache"):
        assert not (root / left).exists()


def test_the_user_can_change_nothing(buildah: Buildah, container: str) -> None:
    environment = Path(buildah("mount", container)) / "opt/keyturn"
    found = [path.lstat() for path in environment.rglob("*") if not path.is_symlink()]
    assert found
    assert all(status.st_uid == 0 and not status.st_mode & 0o022 for status in found)
