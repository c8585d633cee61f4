"""Connecting: what is wrong with a kubeconfig is said in a sentence, and credentials are read again when refused."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web
from kubernetes.aio import client as official
from kubernetes.aio.config import ConfigException

from keyturn.cluster.client import Kube
from keyturn.cluster.errors import NoConnection, Unavailable
from keyturn.cluster.resources import PODS

WHOLE = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "SERVER"}}]
users: [{name: u, user: {tokenFile: TOKEN}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
"""

BAD = {
    "missing": (None, "No such file"),
    "empty": ("", "not a kubeconfig"),
    "no YAML": ("users: [token: canary", "not a kubeconfig"),
    "another kind of YAML": ("- canary", "not a kubeconfig"),
    "no context": ("apiVersion: v1\nkind: Config\n", "current-context"),
    "no token file": (WHOLE.replace("TOKEN", "/nowhere/token"), "/nowhere/token"),
    "no authority": (
        WHOLE.replace('"SERVER"', '"https://127.0.0.1:1", certificate-authority: /nowhere/ca').replace(
            "tokenFile: TOKEN", "token: canary"
        ),
        "/nowhere/ca",
    ),
}


@pytest.mark.parametrize(("content", "says"), BAD.values(), ids=BAD.keys())
async def test_a_kubeconfig_that_cannot_be_used_is_named(tmp_path: Path, content: str | None, says: str) -> None:
    """I10, I8"""
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    with pytest.raises(NoConnection) as raised:
        await Kube.connect(path)
    assert str(path) in str(raised.value)
    assert says in str(raised.value)
    assert "canary" not in str(raised.value)


async def test_an_unknown_context_is_named(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(WHOLE)
    with pytest.raises(NoConnection, match="nobody"):
        await Kube.connect(path, "nobody")


async def test_refused_credentials_are_read_again(tmp_path: Path) -> None:
    """A token file that was renewed, or a plugin that gives a new token: the next request has it."""

    async def answer(request: web.Request) -> web.Response:
        good = request.headers.get("Authorization") == "Bearer new"
        return web.json_response({"metadata": {}} if good else {"message": "Unauthorized"}, status=200 if good else 401)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    token, path = tmp_path / "token", tmp_path / "kubeconfig"
    token.write_text("old")
    path.write_text(WHOLE.replace("SERVER", f"http://127.0.0.1:{runner.addresses[0][1]}").replace("TOKEN", str(token)))
    kube = await Kube.connect(path)
    try:
        with pytest.raises(Unavailable, match="401"):
            await kube.get(PODS, "ns", "pod")
        token.write_text("new")
        with pytest.raises(Unavailable, match="401"):
            await kube.get(PODS, "ns", "pod")
        assert await kube.get(PODS, "ns", "pod") == {"metadata": {}}
        token.unlink()
        assert await kube.get(PODS, "ns", "pod") == {"metadata": {}}
        assert (await kube.credentials())["token"] == "new"
    finally:
        await kube.aclose()
        await runner.cleanup()


async def test_a_token_file_that_is_being_replaced_is_an_outage_and_no_defect() -> None:
    """I9: the kubelet renews it; an error of another kind would end watches and sweeps for good."""
    configuration = official.Configuration(host="http://127.0.0.1:1")

    def renew(_: object) -> None:
        raise ConfigException("Token file exists but empty.")

    configuration.api_key["BearerToken"] = "bearer token"
    configuration.refresh_api_key_hook = renew  # type: ignore[assignment]  # declared by its default
    kube = Kube(configuration)
    try:
        with pytest.raises(Unavailable, match="token"):
            await kube.get(PODS, "ns", "pod")
        with pytest.raises(Unavailable, match="token"):
            async for _ in kube.watch(PODS, "ns"):
                pass
    finally:
        await kube.aclose()


async def test_an_answer_that_is_cut_off_is_an_outage_and_no_defect() -> None:
    """I9: a proxy in between may end it early, and still say that it is whole."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text='{"metadata": {"na', content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kube = Kube(official.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}"))
    try:
        with pytest.raises(Unavailable, match="not JSON"):
            await kube.get(PODS, "ns", "pod")
    finally:
        await kube.aclose()
        await runner.cleanup()


@pytest.mark.parametrize(
    ("said", "seconds"), [("7", 7), ("0", 0), ("86400", 60), ("9" * 30, 60), ("soon", None), ("-1", None)]
)
async def test_a_server_that_asks_for_a_pause_is_heard_but_not_for_hours(said: str, seconds: int | None) -> None:
    """Of requests, lists and watches alike."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"message": "busy"}, status=429, headers={"Retry-After": said})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kube = Kube(official.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}"))
    asked = timedelta(seconds=seconds) if seconds is not None else None
    try:
        with pytest.raises(Unavailable, match="busy") as raised:
            await kube.list(PODS, "ns")
        assert raised.value.retry_after == asked
        with pytest.raises(Unavailable, match="busy") as raised:
            async for _ in kube.watch(PODS, "ns"):
                pass
        assert raised.value.retry_after == asked
    finally:
        await kube.aclose()
        await runner.cleanup()


async def test_watches_of_many_namespaces_leave_connections_for_requests() -> None:
    """Each holds one as long as it lasts; a fleet has several watches in each namespace where something rotates."""
    begun, all_begun, end = 0, asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal begun
        if "watch" not in request.query:
            return web.json_response({"metadata": {}})
        begun += 1
        if begun == len(watches):
            all_begun.set()
        stream = web.StreamResponse()
        await stream.prepare(request)
        await end.wait()
        return stream

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kube = Kube(official.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}"))

    async def watch(namespace: str) -> None:
        async for _ in kube.watch(PODS, namespace):
            pass

    watches = [asyncio.create_task(watch(str(number))) for number in range(200)]
    try:
        async with asyncio.timeout(8):
            await all_begun.wait()
            assert await kube.get(PODS, "ns", "pod") == {"metadata": {}}
    finally:
        end.set()
        await asyncio.gather(*watches, return_exceptions=True)
        await kube.aclose()
        await runner.cleanup()
