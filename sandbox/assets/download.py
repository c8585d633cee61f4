"""The official release binaries of Kubernetes and etcd, each verified against its published SHA-256 checksum."""

import hashlib
import os
import shutil
import socket
import sys
import tarfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from sandbox.assets.locate import Assets, AssetsError, architecture, cache_folder, inspect
from sandbox.assets.progress import Reporter

DEFAULT_VERSION = "1.34.6"
ETCD_VERSION = "3.6.5"

_KUBERNETES = "https://dl.k8s.io/release"
_ETCD = "https://github.com/etcd-io/etcd/releases/download"
_TIMEOUT = httpx.Timeout(30, connect=3)
_CHUNK = 256 * 1024


@dataclass(frozen=True)
class _Item:
    """A file to fetch, and where the checksum for the file of this name is published."""

    name: str
    url: str
    checksum_url: str


def download(version: str, reporter: Reporter) -> Assets:
    """Fetch the control plane of this version, and kubectl, into the cache. On failure nothing is left behind.

    KEYTURN_KUBERNETES_MIRROR and KEYTURN_ETCD_MIRROR replace the two base addresses; below them, the paths are the
    official ones (kubernetes.io/releases/download, github.com/etcd-io/etcd/releases). Raises AssetsError.
    """
    if sys.platform != "linux":
        raise AssetsError(f"Kubernetes is not released for {sys.platform}, only for Linux")
    target = cache_folder(version)
    partial = target.with_name(f".{target.name}.download")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for base in (_base("KEYTURN_KUBERNETES_MIRROR", _KUBERNETES), _base("KEYTURN_ETCD_MIRROR", _ETCD)):
            _check_reachable(base)
        with httpx.Client(timeout=_TIMEOUT, follow_redirects=True) as http:
            for item in _items(version):
                _fetch(http, item, partial / item.name, reporter)
        _unpack_etcd(partial)
        for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl"):
            (partial / name).chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return inspect(target, f"official release binaries of Kubernetes {version} and etcd {ETCD_VERSION}")


def _base(variable: str, default: str) -> str:
    return (os.environ.get(variable) or default).rstrip("/")


def _items(version: str) -> list[_Item]:
    folder = f"{_base('KEYTURN_KUBERNETES_MIRROR', _KUBERNETES)}/v{version}/bin/linux/{architecture()}"
    etcd = f"{_base('KEYTURN_ETCD_MIRROR', _ETCD)}/v{ETCD_VERSION}"
    archive = f"etcd-v{ETCD_VERSION}-linux-{architecture()}.tar.gz"
    programs = ("kube-apiserver", "kube-controller-manager", "kubectl")
    return [
        *(_Item(name, f"{folder}/{name}", f"{folder}/{name}.sha256") for name in programs),
        _Item(archive, f"{etcd}/{archive}", f"{etcd}/SHA256SUMS"),
    ]


def _check_reachable(base: str) -> None:
    """AssetsError when no connection comes about within seconds; resolving a name could take much longer otherwise."""
    url = httpx.URL(base)
    if any(name.lower() in ("https_proxy", "http_proxy", "all_proxy") for name in os.environ):
        return
    outcome: list[str] = []

    def connect() -> None:
        try:
            port = url.port or (443 if url.scheme == "https" else 80)
            socket.create_connection((url.host, port), timeout=3).close()
            outcome.append("")
        except OSError as error:
            outcome.append(str(error))

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(timeout=5)
    problem = outcome[0] if outcome else "no answer"
    if problem:
        raise AssetsError(f"{url.host} can't be reached: {problem}")


def _fetch(http: httpx.Client, item: _Item, target: Path, reporter: Reporter) -> None:
    try:
        wanted = _checksum(http, item)
        with http.stream("GET", item.url) as answer:
            answer.raise_for_status()
            total = float(answer.headers["Content-Length"]) if "Content-Length" in answer.headers else None
            with reporter.track(f"Downloading {item.name}", total) as update:
                got = _save(answer, target, update)
    except httpx.HTTPStatusError as error:
        raise AssetsError(f"{error.request.url} answered {error.response.status_code}") from error
    except httpx.HTTPError as error:
        raise AssetsError(f"{item.url} could not be downloaded: {error!r}") from error
    if got != wanted:
        raise AssetsError(f"{item.url} has SHA-256 checksum {got}, but {item.checksum_url} says {wanted}: not used")


def _save(answer: httpx.Response, target: Path, update: Callable[[float], None]) -> str:
    """Write the body to `target` and return its SHA-256 checksum."""
    digest = hashlib.sha256()
    done = 0
    with target.open("wb") as file:
        for chunk in answer.iter_bytes(_CHUNK):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            update(done)
    return digest.hexdigest()


def _checksum(http: httpx.Client, item: _Item) -> str:
    """The published checksum: the file holds it alone, or lines of checksum and file name."""
    text = http.get(item.checksum_url).raise_for_status().text
    for words in (line.split() for line in text.splitlines()):
        if words and words[1:] in ([], [item.name], [f"*{item.name}"]):
            return words[0].lower()
    raise AssetsError(f"{item.checksum_url} holds no checksum for {item.name}")


def _unpack_etcd(folder: Path) -> None:
    """Take etcd out of its archive, and remove that."""
    (archive,) = folder.glob("etcd-*.tar.gz")
    with tarfile.open(archive) as tar:
        member = next((m for m in tar if m.isfile() and m.name.endswith("/etcd")), None)
        content = tar.extractfile(member) if member else None
        if content is None:
            raise AssetsError(f"{archive.name} holds no program etcd")
        with (folder / "etcd").open("wb") as file:
            shutil.copyfileobj(content, file)
    archive.unlink()
