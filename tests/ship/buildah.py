"""Builds and runs images with neither container engine nor registry: buildah, on a base of this machine's packages."""

import ast
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.assets.locate import cache_directory

BASE_PACKAGES = ("base-files", "coreutils", "dash", "python3-venv")
NETWORK_SETTINGS = ("default-timeout", "extra-index-url", "index-url", "proxy", "timeout", "trusted-host")
MINUTES = 60


def run(*command: str | Path, minutes: float = 2) -> str:
    """Run a program; its output, or an AssertionError that shows what it said."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=minutes * MINUTES, check=False
    )
    said = done.stdout.strip()
    assert done.returncode == 0, f"{' '.join(map(str, command))} ended with {done.returncode}:\n{said[-5000:]}"
    return said


class Buildah:
    """Buildah with a store of its own in the cache, used by one at a time."""

    def __init__(self, store: Path) -> None:
        # The run root must be forgotten at a reboot, the store must not.
        runroot = Path("/run") / f"keyturn-{hashlib.sha256(bytes(store)).hexdigest()[:12]}"
        self._store = store
        self._command = ("buildah", "--root", store, "--runroot", runroot)

    def __call__(self, *arguments: str | Path, minutes: float = 2) -> str:
        return run(*self._command, *arguments, minutes=minutes)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        self._store.mkdir(parents=True, exist_ok=True)
        with (self._store.parent / "buildah.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self("rm", "--all")  # what a killed run has left
            yield

    @contextmanager
    def container(self, image: str) -> Iterator[str]:
        name = self("from", "--pull-never", image)
        try:
            yield name
        finally:
            self("rm", name)

    def build(self, context: Path, base: str, tag: str) -> None:
        """Build `context` with the machine's way to the package registry, none of which ends up in the image."""
        with tempfile.TemporaryDirectory() as folder:
            configuration = Path(folder) / "pip.conf"
            settings, volumes = pip_settings()
            configuration.write_text("\n".join(["[global]", *settings, ""]))
            self(
                "bud",
                "--isolation=chroot",
                "--layers",
                "--pull-never",
                f"--build-arg=BASE_IMAGE={base}",
                f"--volume={configuration}:/etc/pip.conf:ro",
                *volumes,
                f"--tag={tag}",
                context,
                minutes=15,
            )

    def local_base(self) -> str:
        """A small image with Python and a shell, of the packages that this machine's apt offers."""
        recipe = Path("/etc/os-release").read_text() + " ".join(BASE_PACKAGES)
        name = f"localhost/keyturn-test-base:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
        if self("images", "--quiet", "--filter", f"reference={name}"):
            return name
        with tempfile.TemporaryDirectory() as folder, self.container("scratch") as container:
            self("add", "--quiet", container, unpacked_packages(Path(folder)), "/")
            self("commit", "--quiet", container, name)
        return name


def unpacked_packages(folder: Path) -> Path:
    """A root file system of BASE_PACKAGES and all that they depend on, unpacked but not configured."""
    root, archives = folder / "root", folder / "archives"
    (archives / "partial").mkdir(parents=True)
    root.mkdir()
    run(
        "apt-get",
        "--quiet",
        "--yes",
        "--no-install-recommends",
        "--download-only",
        "--option=Dir::State::status=/dev/null",  # as if nothing were installed: all dependencies are wanted
        f"--option=Dir::Cache={folder}",
        f"--option=Dir::Cache::archives={archives}",
        "--option=Debug::NoLocking=1",
        "--option=APT::Sandbox::User=root",
        "install",
        *BASE_PACKAGES,
        minutes=10,
    )
    for package in sorted(archives.glob("*.deb")):
        run("dpkg-deb", "--extract", package, root)
    return root


def pip_settings() -> tuple[list[str], list[str]]:
    """How this machine's pip reaches its registry: lines of a pip.conf, and the mounts that they speak of."""
    listed = run(sys.executable, "-m", "pip", "config", "list")
    found: dict[str, str] = {}
    # The environment, which wins, is listed first.
    for line in reversed([line for line in listed.splitlines() if line.startswith((":env:.", "global."))]):
        option, value = line.split("=", 1)
        found[option.rpartition(".")[2]] = ast.literal_eval(value)
    reachable = {
        key: " ".join(word for word in found.get(key, "").split() if not word.startswith(("/", "file:")))
        for key in NETWORK_SETTINGS
    }
    settings = [f"{key} = {value}" for key, value in reachable.items() if value]
    certificates = found.get("cert") or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if not certificates:
        return settings, []
    mounted = "/etc/pip-certificates.pem"
    return [*settings, f"cert = {mounted}"], [f"--volume={Path(certificates).resolve()}:{mounted}:ro"]


def installed() -> None:
    """Make sure that buildah is there."""
    if shutil.which("buildah"):
        return
    assert shutil.which("apt-get"), "the image is built with buildah: install it"
    run("apt-get", "--quiet", "update", minutes=10)
    run("apt-get", "--quiet", "--yes", "--no-install-recommends", "install", "buildah", minutes=10)


def default() -> Buildah:
    return Buildah(cache_directory() / "buildah")
