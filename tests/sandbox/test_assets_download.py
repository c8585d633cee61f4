"""The official release's download path, against a local server that behaves well and badly."""

import asyncio
import hashlib
import io
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from sandbox.assets import AssetsError, locate
from sandbox.assets.download import ETCD_VERSION, download
from sandbox.assets.progress import SilentReporter

VERSION = "1.33.1"
PROGRAM = f"#!/bin/sh\necho Kubernetes v{VERSION}\n".encode()
ARCH = locate.architecture()
ARCHIVE = f"etcd-v{ETCD_VERSION}-linux-{ARCH}.tar.gz"


def archive(member: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo(f"etcd-v{ETCD_VERSION}-linux-{ARCH}/{member}")
        info.size = len(PROGRAM)
        tar.addfile(info, io.BytesIO(PROGRAM))
    return buffer.getvalue()


class Mirror:
    """Serves `files` by path; a path in `truncated` promises more than it sends."""

    def __init__(self) -> None:
        folder = f"/kubernetes/v{VERSION}/bin/linux/{ARCH}"
        etcd = f"/etcd/v{ETCD_VERSION}"
        self.files = {f"{etcd}/{ARCHIVE}": archive("etcd")}
        digest = hashlib.sha256(self.files[f"{etcd}/{ARCHIVE}"]).hexdigest()
        self.files[f"{etcd}/SHA256SUMS"] = f"{'0' * 64}  etcd-other.tar.gz\n{digest}  {ARCHIVE}\n".encode()
        for name in ("kube-apiserver", "kube-controller-manager", "kubectl"):
            self.files[f"{folder}/{name}"] = PROGRAM
            self.files[f"{folder}/{name}.sha256"] = hashlib.sha256(PROGRAM).hexdigest().encode()
        self.apiserver = f"{folder}/kube-apiserver"
        self.etcd_archive = f"{etcd}/{ARCHIVE}"
        self.truncated: set[str] = set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = self.files.get(request.path)
        if body is None:
            return web.Response(status=404)
        if request.path not in self.truncated:
            return web.Response(body=body)
        response = web.StreamResponse(headers={"Content-Length": str(len(body) + 100)})
        await response.prepare(request)
        await response.write(body)
        assert request.transport is not None
        request.transport.close()
        return response


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    served = Mirror()
    ready: list[int] = []
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", served.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ready.append(runner.addresses[0][1])
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(10)
    monkeypatch.setenv("KEYTURN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KEYTURN_KUBERNETES_MIRROR", f"http://127.0.0.1:{ready[0]}/kubernetes/")
    monkeypatch.setenv("KEYTURN_ETCD_MIRROR", f"http://127.0.0.1:{ready[0]}/etcd")
    yield served
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


def left_behind() -> list[Path]:
    return list((locate.cache_directory() / "kubernetes").iterdir())


def test_verified_files_become_the_assets(mirror: Mirror) -> None:
    found = download(VERSION, SilentReporter())
    assert found.version == VERSION
    assert found.directory == locate.cache_folder(VERSION)
    assert sorted(path.name for path in found.directory.iterdir()) == [
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kubectl",
    ]
    assert left_behind() == [found.directory]
    assert locate.cached_versions() == [VERSION]


def test_a_bad_checksum_is_named_and_nothing_is_left(mirror: Mirror) -> None:
    mirror.files[mirror.apiserver] = PROGRAM + b"tampered with"
    with pytest.raises(AssetsError, match=r"/kube-apiserver has SHA-256 checksum \w{64}, but .*kube-apiserver.sha256"):
        download(VERSION, SilentReporter())
    assert left_behind() == []


def test_a_bad_checksum_of_etcd_is_named_too(mirror: Mirror) -> None:
    mirror.files[mirror.etcd_archive] = archive("other")
    with pytest.raises(AssetsError, match=rf"{ARCHIVE} has SHA-256 checksum \w+, but .*SHA256SUMS says"):
        download(VERSION, SilentReporter())
    assert left_behind() == []


def test_a_file_without_published_checksum_is_refused(mirror: Mirror) -> None:
    mirror.files[f"{mirror.apiserver}.sha256"] = b"\n"
    with pytest.raises(AssetsError, match="holds no checksum for kube-apiserver"):
        download(VERSION, SilentReporter())
    assert left_behind() == []


def test_a_truncated_body_is_refused(mirror: Mirror) -> None:
    mirror.truncated.add(mirror.apiserver)
    with pytest.raises(AssetsError, match="/kube-apiserver could not be downloaded: RemoteProtocolError"):
        download(VERSION, SilentReporter())
    assert left_behind() == []


def test_a_version_that_was_not_released_is_named(mirror: Mirror) -> None:
    with pytest.raises(AssetsError, match=r"/v1\.33\.99/.*kube-apiserver\.sha256 answered 404"):
        download("1.33.99", SilentReporter())
    assert left_behind() == []


def test_no_route_is_noticed_at_once(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("KEYTURN_ETCD_MIRROR", f"http://127.0.0.1:{unused.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(AssetsError, match=r"127\.0\.0\.1 can't be reached: .*refused"):
            download(VERSION, SilentReporter())
    assert time.monotonic() - started < 2
    assert left_behind() == []


def test_a_network_that_does_not_answer_is_given_up_after_seconds(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A listener whose queue is full drops further connections, as a firewall does.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent, socket.socket() as first:
        first.connect(silent.getsockname())
        monkeypatch.setenv("KEYTURN_ETCD_MIRROR", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(AssetsError, match=r"127\.0\.0\.1 can't be reached: timed out"):
            download(VERSION, SilentReporter())
    assert time.monotonic() - started < 6
