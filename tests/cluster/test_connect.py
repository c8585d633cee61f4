"""Connecting: what is wrong with a kubeconfig is said in a sentence, and credentials are read again when refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web
from kubernetes.aio import client as official
from kubernetes.aio.config import ConfigException

from keyturn.cluster.client import Kube, Resource
from keyturn.cluster.errors import Conflict, NoConnection, NotFound, Unavailable
from keyturn.cluster.resources import PODS, ROTATIONS, SECRETS

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


@asynccontextmanager
async def serving(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """A server that answers everything so; its URL."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


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

    token, path = tmp_path / "token", tmp_path / "kubeconfig"
    token.write_text("old")
    async with serving(answer) as server:
        path.write_text(WHOLE.replace("SERVER", server).replace("TOKEN", str(token)))
        async with aclosing(await Kube.connect(path)) as kube:
            with pytest.raises(Unavailable, match="401"):
                await kube.get(PODS, "ns", "pod")
            token.write_text("new")
            with pytest.raises(Unavailable, match="401"):
                await kube.get(PODS, "ns", "pod")
            assert await kube.get(PODS, "ns", "pod") == {"metadata": {}}
            token.unlink()
            assert await kube.get(PODS, "ns", "pod") == {"metadata": {}}
            assert (await kube.credentials())["token"] == "new"


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

    async with serving(answer) as server, aclosing(Kube(official.Configuration(host=server))) as kube:
        with pytest.raises(Unavailable, match="not JSON"):
            await kube.get(PODS, "ns", "pod")


@pytest.mark.parametrize(
    ("said", "seconds"), [("7", 7), ("0", 0), ("86400", 60), ("9" * 30, 60), ("soon", None), ("-1", None)]
)
async def test_a_server_that_asks_for_a_pause_is_heard_but_not_for_hours(said: str, seconds: int | None) -> None:
    """Of requests, lists and watches alike."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"message": "busy"}, status=429, headers={"Retry-After": said})

    asked = timedelta(seconds=seconds) if seconds is not None else None
    async with serving(answer) as server, aclosing(Kube(official.Configuration(host=server))) as kube:
        with pytest.raises(Unavailable, match="busy") as raised:
            await kube.list(PODS, "ns")
        assert raised.value.retry_after == asked
        with pytest.raises(Unavailable, match="busy") as raised:
            async for _ in kube.watch(PODS, "ns"):
                pass
        assert raised.value.retry_after == asked


@pytest.mark.parametrize("resource", [SECRETS, ROTATIONS], ids=lambda resource: resource.plural)
async def test_an_answer_that_lags_behind_what_was_written_is_not_believed(tmp_path: Path, resource: Resource) -> None:
    """I9: neither an older version, nor that the object is not there; and what is gone, is gone."""
    served = {"version": 7, "status": 200, "patched": 200}

    async def answer(request: web.Request) -> web.Response:
        writing = request.method == "PATCH"
        body = {"metadata": {"name": "m2m", "resourceVersion": str(9 if writing else served["version"])}}
        return web.json_response(body, status=served["patched" if writing else "status"])

    async with serving(answer) as server:
        path = tmp_path / "kubeconfig"
        path.write_text(WHOLE.replace("SERVER", server).replace("tokenFile: TOKEN", "token: a"))
        kube = await Kube.connect(path)
        assert await kube.get(resource, "ns", "m2m")
        await kube.merge(resource, "ns", "m2m", {"data": {}})
        with pytest.raises(Conflict, match="older than what was written"):
            await kube.get(resource, "ns", "m2m")
        served["version"] = 10
        assert await kube.get(resource, "ns", "m2m")
        served["status"] = 404
        with pytest.raises(Conflict, match="is there"):
            await kube.get(resource, "ns", "m2m")
        served["patched"] = 404
        with pytest.raises(NotFound):
            await kube.get(resource, "ns", "m2m")
        await kube.aclose()


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

    async with serving(answer) as server, aclosing(Kube(official.Configuration(host=server))) as kube:

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
