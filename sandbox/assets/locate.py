"""Where the control plane's binaries are looked for, and what is in such a folder."""

import os
import platform
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager")
WAY_OUT = (
    "Put etcd, kube-apiserver and kube-controller-manager of any Kubernetes from 1.20 on into one folder"
    " and set KUBEBUILDER_ASSETS to it."
)


class AssetsError(Exception):
    """The binaries can't be had; the message says why and what to do."""


@dataclass(frozen=True)
class Assets:
    """A folder with all of COMPONENTS, its Kubernetes version ("1.20.2") and where it came from, for people."""

    directory: Path
    version: str
    source: str


def cache_directory() -> Path:
    """KEYTURN_CACHE, or else keyturn/ in XDG_CACHE_HOME, or else in ~/.cache. It need not exist."""
    if explicit := os.environ.get("KEYTURN_CACHE"):
        return Path(explicit).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "keyturn"


def architecture() -> str:
    """This machine's architecture in the words of Kubernetes' releases: amd64, arm64, ppc64le, s390x."""
    machine = platform.machine().lower()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def cache_folder(version: str) -> Path:
    """The folder in the cache for the binaries of this version and machine. It need not exist."""
    return cache_directory() / "kubernetes" / f"{version}-{architecture()}"


def missing(directory: Path, names: Iterable[str] = COMPONENTS) -> list[str]:
    """Which of the programs `names` are not in `directory`."""
    return [name for name in names if not os.access(directory / name, os.X_OK)]


def inspect(directory: Path, source: str) -> Assets:
    """The assets in a folder that has all COMPONENTS; AssetsError when its API server doesn't tell its version."""
    binary = directory / "kube-apiserver"
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise AssetsError(
            f"{binary} --version failed ({error}): it is not a program for this machine. {WAY_OUT}"
        ) from error
    match = re.search(r"v(\d+\.\d+\.\d+\S*)", said)
    if match is None:
        raise AssetsError(f"{binary} --version answered {said.strip()!r}, which is no version. {WAY_OUT}")
    return Assets(directory, match[1], source)


def cached_versions() -> list[str]:
    """Versions whose binaries are in the cache for this machine, newest first."""
    suffix = f"-{architecture()}"
    folders = (cache_directory() / "kubernetes").glob(f"*{suffix}")
    versions = (folder.name.removesuffix(suffix) for folder in folders if not missing(folder))
    return sorted((v for v in versions if re.fullmatch(r"\d+\.\d+\.\d+", v)), key=_order, reverse=True)


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
