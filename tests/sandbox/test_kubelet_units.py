"""The stand-in's parts that need no cluster: annotations, references, and a watch that is disturbed."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sandbox.controlplane import Endpoint, certificates
from sandbox.kubelet.api import API, APIError
from sandbox.kubelet.behaviour import Behaviour, BehaviourError, Kind, Unless, behaviour_of, seconds, unless
from sandbox.kubelet.references import Reference, problem, required
from sandbox.traffic.report import fingerprint


@pytest.mark.parametrize(("text", "value"), [("500ms", 0.5), ("2s", 2), ("1m30s", 90), ("1.5h", 5400), ("0s", 0)])
def test_durations_are_read_as_go_writes_them(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "5", "s", "2 s", "-1s", "1sx"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration: write 500ms"):
        seconds(text)


def annotated(**annotations: str) -> dict[str, Any]:
    prefixed = {f"sandbox.keyturn.dev/{name.replace('_', '-')}": text for name, text in annotations.items()}
    return {"metadata": {"annotations": prefixed | {"other.dev/x": "y"}}}


def test_annotations_override_the_defaults() -> None:
    found = behaviour_of(annotated(ready_after="2s", behavior="never-ready"), Behaviour(start_after=7))
    assert (found.kind, found.ready_after, found.start_after) == (Kind.NEVER_READY, 2, 7)


def test_pods_of_jobs_complete_unless_told_otherwise() -> None:
    owner = {"ownerReferences": [{"kind": "Job", "name": "job"}]}
    assert behaviour_of({"metadata": owner}, Behaviour()).kind == Kind.COMPLETE
    told = {"metadata": annotated(behavior="crash-loop")["metadata"] | owner}
    assert behaviour_of(told, Behaviour()).kind == Kind.CRASH_LOOP


def test_the_value_with_which_a_pod_works_is_known_by_its_fingerprint() -> None:
    annotations = unless(Kind.CRASH_LOOP, "m2m", "CLIENT_SECRET", "good-value")
    assert "good-value" not in str(annotations)
    found = behaviour_of({"metadata": {"annotations": annotations}}, Behaviour())
    assert found.kind == Kind.RUN
    assert found.unless == Unless(Kind.CRASH_LOOP, "m2m", "CLIENT_SECRET", fingerprint("good-value"))


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ({"behavior": "explode"}, "'explode' is none of run, never-ready, crash-loop, complete"),
        (
            {"ready_befor": "1s"},
            "sandbox.keyturn.dev/ready-befor is not known: there are behavior, behavior-unless",
        ),
        ({"kind": "run"}, "sandbox.keyturn.dev/kind is not known"),
        ({"unless": "run"}, "sandbox.keyturn.dev/unless is not known"),
        ({"behavior_unless": "crash-loop m2m"}, "'crash-loop m2m' is not <behavior> <Secret>/<key> <fingerprint"),
        ({"behavior_unless": "explode m2m/K f"}, "'explode' is none of run"),
        ({"run_for": "long"}, "sandbox.keyturn.dev/run-for: 'long' is no duration"),
    ],
)
def test_annotations_that_are_not_understood_are_named(annotations: dict[str, str], message: str) -> None:
    with pytest.raises(BehaviourError, match=message):
        behaviour_of(annotated(**annotations), Behaviour())


def test_every_place_that_needs_an_object_is_found() -> None:
    spec = {
        "initContainers": [{"envFrom": [{"secretRef": {"name": "init"}}]}],
        "containers": [
            {
                "env": [
                    {"name": "A", "value": "plain"},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}},
                    {"name": "C", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k", "optional": True}}},
                    {"name": "D", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "d"}}},
                    {"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ],
                "envFrom": [{"secretRef": {"name": "gone", "optional": True}}],
            }
        ],
        "volumes": [
            {"name": "empty", "emptyDir": {}},
            {"name": "whole", "secret": {"secretName": "volume"}},
            {"name": "keys", "projected": {"sources": [{"secret": {"name": "projected", "items": [{"key": "p"}]}}]}},
        ],
        "imagePullSecrets": [{"name": "registry"}],
    }
    assert required({"spec": spec}) == [
        Reference("Secret", "init", None, None),
        Reference("Secret", "env", "k", None),
        Reference("ConfigMap", "settings", "d", None),
        Reference("Secret", "volume", None, "whole"),
        Reference("Secret", "projected", "p", "keys"),
    ]


def test_what_is_there_is_no_problem() -> None:
    assert problem(Reference("Secret", "s", "k", None), "ns", {"data": {"k": ""}}) is None
    assert problem(Reference("ConfigMap", "c", "k", "v"), "ns", {"binaryData": {"k": ""}}) is None
    assert problem(Reference("Secret", "s", None, "v"), "ns", {}) is None


class Scripted:
    """An API server that answers lists, and watches as `watches` says: a status, or lines before it hangs up."""

    def __init__(self, *watches: int | list[dict[str, Any]]) -> None:
        self.requests: list[str] = []
        self._watches = list(watches)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        version = request.query.get("resourceVersion", "")
        self.requests.append(f"watch {version}" if "watch" in request.query else "list")
        if "watch" not in request.query:
            return web.json_response({"metadata": {"resourceVersion": "100"}, "items": []})
        if not self._watches:
            await asyncio.sleep(60)
        script = self._watches.pop(0)
        if isinstance(script, int):
            return web.json_response({"message": "no"}, status=script)
        response = web.StreamResponse()
        await response.prepare(request)
        for event in script:
            line = json.dumps(event).encode() + b"\n"
            await response.write(line[:10])
            await asyncio.sleep(0.01)
            await response.write(line[10:])
        assert request.transport is not None
        request.transport.close()
        return response


def event(kind: str, version: int, **metadata: Any) -> dict[str, Any]:
    return {"type": kind, "object": {"metadata": {"resourceVersion": str(version), **metadata}}}


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Any]:
    """Serves a `Scripted` over TLS and gives its endpoint."""
    credentials = certificates.create(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(credentials.serving_certificate, credentials.serving_key)
    runners: list[web.AppRunner] = []

    async def start(scripted: Scripted) -> Endpoint:
        app = web.Application()
        app.router.add_get("/pods", scripted.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        return Endpoint(f"https://127.0.0.1:{runner.addresses[0][1]}", credentials.ca_file, "token")

    yield start
    for runner in runners:
        await runner.cleanup()


async def first(api: API, count: int) -> list[str]:
    """The first events of a watch, as type and resourceVersion."""
    seen: list[str] = []
    async for kind, obj in api.watch("/pods"):
        seen.append(f"{kind} {obj['metadata']['resourceVersion']}")
        if len(seen) == count:
            break
    return seen


async def test_a_cut_watch_goes_on_where_it_was(serve: Any) -> None:
    long = "x" * 300_000
    scripted = Scripted(
        [event("ADDED", 101, long=long), event("BOOKMARK", 150)], 503, [event("MODIFIED", 151), event("DELETED", 152)]
    )
    async with API(await serve(scripted)) as api:
        assert await first(api, 4) == ["LISTED 100", "ADDED 101", "MODIFIED 151", "DELETED 152"]
    assert scripted.requests == ["list", "watch 100", "watch 150", "watch 150"]


@pytest.mark.parametrize("gone", [410, [{"type": "ERROR", "object": {"code": 410, "message": "too old"}}]])
async def test_a_lost_thread_is_taken_up_with_a_new_list(serve: Any, gone: Any) -> None:
    scripted = Scripted(gone, [event("ADDED", 101)])
    async with API(await serve(scripted)) as api:
        assert await first(api, 3) == ["LISTED 100", "LISTED 100", "ADDED 101"]


async def test_a_call_waits_out_errors_of_the_server_and_reports_refusals(serve: Any) -> None:
    scripted = Scripted(503, 429, 500, 403)
    async with API(await serve(scripted)) as api:
        with pytest.raises(APIError, match="403") as raised:
            await api.call("GET", "/pods?watch=true")
    assert raised.value.status == 403
    assert len(scripted.requests) == 4
