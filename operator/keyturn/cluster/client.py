"""JSON requests to the API server over the official asynchronous client.

The typed models of that client are not used: decoding pods into them costs more than everything else in a rotation.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from copy import copy
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import orjson
import yaml
from kubernetes.aio import client as official
from kubernetes.aio.config import ConfigException, incluster_config, kube_config

from keyturn.cluster.errors import ClusterError, Conflict, NoConnection, NotFound, Unavailable, error_of
from keyturn.cluster.recent import Recent

FIELD_MANAGER = "keyturn"
JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

_CONNECTIONS = 64
_LIST_PAGE = 500
# Kinds of which a missing object decides something; all of them may be patched.
_DECISIVE = frozenset({"secrets", "clientsecretrotations"})
_REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=30, connect=10)
_log = logging.getLogger(__name__)
logging.getLogger("kubernetes").setLevel(logging.INFO)  # at DEBUG it logs the bodies of answers: they hold Secrets


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object, as the API server addresses it."""

    api_version: str
    plural: str
    kind: str
    namespaced: bool = True

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        root = "/api/" if "/" not in self.api_version else "/apis/"
        parts = [root + self.api_version]
        if namespace is not None and self.namespaced:
            parts += ["namespaces", quote(namespace, safe="")]
        parts += [self.plural]
        parts += [quote(part, safe="") for part in (name, subresource) if part is not None]
        return "/".join(parts)


@dataclass(frozen=True, slots=True)
class Listed:
    """Objects of one kind, as of one version of all objects. They do not name their kind."""

    items: list[dict[str, Any]]
    version: str


class Verb(StrEnum):
    """What is asked of the API server, by the names that RBAC has for it, but for `apply`, which is `patch` there."""

    GET = "get"
    LIST = "list"
    WATCH = "watch"
    CREATE = "create"
    PATCH = "patch"
    APPLY = "apply"
    DELETE = "delete"


Tell = Callable[[Verb, str, ClusterError | None], None]
"""Told of each request: the resource, with its subresource behind a slash, and the error or None."""


class Kube:
    """A connection to one API server. Safe for concurrent use; close it with `aclose`."""

    def __init__(
        self, configuration: official.Configuration, renew: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        """renew: reads the credentials anew into the configuration when the API server no longer takes them."""
        configuration.connection_pool_maxsize = _CONNECTIONS
        # As in Kopf. It would have each request look for proxies in the environment, and for a netrc file in a thread.
        configuration.client_session_kwargs = {"trust_env": False}
        self._api = official.ApiClient(configuration)
        # Each watch holds a connection as long as it lasts: in a pool with a bound, they would shut out the requests.
        configuration.connection_pool_maxsize = 0
        self._watching = official.ApiClient(configuration)
        self._renew = renew
        self._permit: Callable[[], None] | None = None
        self._recent = Recent()
        self.tell: Tell = lambda *_: None
        """Counts the requests. A watch counts when it begins, and once more when it breaks."""

    @classmethod
    async def connect(cls, kubeconfig: Path | None = None, context: str | None = None) -> Kube:
        """Connect with the pod's ServiceAccount where there is one and no kubeconfig is given, else with a kubeconfig.

        The ServiceAccount token is read again every minute, as the kubelet renews it; a kubeconfig, when its
        credentials are refused. Raises NoConnection.
        """
        configuration = official.Configuration()

        async def load() -> None:
            path = str(kubeconfig) if kubeconfig else None
            await kube_config.load_kube_config(path, context, configuration, persist_config=False)  # type: ignore[no-untyped-call]

        try:
            if kubeconfig is None and context is None and "KUBERNETES_SERVICE_HOST" in os.environ:
                incluster_config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
                return cls(configuration)
            if kubeconfig is not None:
                kubeconfig.open("rb").close()  # the loader takes a missing file for an empty one
            await load()
            return cls(configuration, load)
        except (ConfigException, OSError) as error:
            raise NoConnection(f"cannot use {_source(kubeconfig)}: {error}") from None
        except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError):
            # Their texts may quote the file, and tokens with it.
            raise NoConnection(f"cannot use {_source(kubeconfig)}: it is not a kubeconfig in YAML") from None

    def restricted(self, permit: Callable[[], None] | None) -> Kube:
        """The same connection for one who may not always write: `permit` is called before each write, and may raise.

        None takes the restriction away.
        """
        twin = copy(self)
        twin._permit = permit
        return twin

    @property
    def host(self) -> str:
        return str(self._api.configuration.host)

    async def credentials(self) -> dict[str, Any]:
        """How to reach and authenticate to the API server now, as keyword arguments of kopf.ConnectionInfo."""
        await self._read_credentials()
        configuration = self._api.configuration
        scheme, _, token = (await self._headers(JSON)).get("authorization", "").partition(" ")
        return {
            "server": configuration.host,
            "ca_path": configuration.ssl_ca_cert,
            "ca_data": configuration.ca_cert_data,
            "insecure": not configuration.verify_ssl,
            "scheme": scheme or None,
            "token": token or None,
            "certificate_path": configuration.cert_file,
            "private_key_path": configuration.key_file,
        }

    async def get(self, resource: Resource, namespace: str | None, name: str) -> dict[str, Any]:
        """An object as it is now. Raises Conflict when the answer is older than what was written here lately."""
        key = resource.plural, namespace, name
        try:
            answer = await self._request(Verb.GET, resource, namespace, name)
        except NotFound:
            if resource.plural in _DECISIVE and self._recent.outdates(key, 0):
                await self.confirm_gone(resource, namespace, name)
            raise
        if self._recent.outdates(key, _version(answer)):
            raise Conflict(f"get {resource.plural} {name} in namespace {namespace}: older than what was written")
        return answer

    async def confirm_gone(self, resource: Resource, namespace: str | None, name: str) -> None:
        """Make sure that an object is not there, as a read has shown: writes are told the truth, also dry ones.

        Raises Conflict when it is there.
        """
        try:
            await self.merge(resource, namespace, name, {}, dry_run=True)
        except NotFound:
            return
        raise Conflict(f"get {resource.plural} {name} in namespace {namespace}: it was not found, and is there")

    async def create(
        self, resource: Resource, namespace: str | None, body: Mapping[str, Any], *, dry_run: bool = False
    ) -> dict[str, Any]:
        return await self._request(Verb.CREATE, resource, namespace, None, body=body, query=_writing(dry_run))

    async def merge(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Mapping[str, Any],
        *,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Merge-patch an existing object; with metadata.resourceVersion in the body only if it is still that one."""
        how = {"content_type": MERGE_PATCH, "subresource": subresource}
        return await self._request(Verb.PATCH, resource, namespace, name, body=body, query=_writing(dry_run), **how)

    async def apply(
        self, resource: Resource, namespace: str | None, name: str, body: Mapping[str, Any], *, dry_run: bool = False
    ) -> dict[str, Any]:
        """Server-side apply the fields in the body, taking them over from other managers."""
        query = {**_writing(dry_run), "force": "true"}
        whole = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        return await self._request(
            Verb.APPLY, resource, namespace, name, body=whole, content_type=APPLY_PATCH, query=query
        )

    async def delete(
        self, resource: Resource, namespace: str | None, name: str, *, uid: str, version: str | None = None
    ) -> None:
        """Delete the object that was read, only if it is still in that version where one is given; else Conflict."""
        preconditions = {"uid": uid, **({"resourceVersion": version} if version is not None else {})}
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}
        await self._request(Verb.DELETE, resource, namespace, name, body=body)

    async def pages(
        self, resource: Resource, namespace: str | None = None, *, metadata_only: bool = False
    ) -> AsyncIterator[Listed]:
        """All objects of one kind, as of one moment: of ten thousand, only a page is in memory at a time."""
        accept = _METADATA if metadata_only else JSON
        query: dict[str, str] = {"limit": str(_LIST_PAGE)}
        while True:
            page = await self._request(Verb.LIST, resource, namespace, None, query=query, accept=accept)
            yield Listed(page.get("items") or [], page["metadata"]["resourceVersion"])
            token = page["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

    async def list(self, resource: Resource, namespace: str | None = None) -> Listed:
        """As `pages`, all together."""
        pages = [page async for page in self.pages(resource, namespace)]
        return Listed([item for page in pages for item in page.items], pages[0].version)

    async def watch(
        self, resource: Resource, namespace: str, since: str | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Events until the server ends the stream; raises ClusterError when it breaks.

        since: the version of a listing, to have what happened after it. None: what there is, as if it were new, and
        what happens from now on.
        """
        try:
            async with aclosing(self._stream(resource, namespace, since)) as events:
                async for event in events:
                    yield event
        except ClusterError as error:
            self.tell(Verb.WATCH, resource.plural, error)
            raise

    async def _stream(self, resource: Resource, namespace: str, since: str | None) -> AsyncGenerator[dict[str, Any]]:
        query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": "300"}
        if since is not None:
            query["resourceVersion"] = since
        timeout = aiohttp.ClientTimeout(total=330, connect=10, sock_read=120)
        verb = f"watch {resource.plural} in {namespace}"
        url = self._api.configuration.host + resource.path(namespace) + "?" + urlencode(query)
        try:
            answer = await self._watching.call_api("GET", url, await self._headers(JSON), None, None, timeout)
            async with answer.response as response:
                if response.status != 200:
                    await self._take_note(response.status)
                    raise error_of(verb, response.status, await response.read(), response.headers)
                self.tell(Verb.WATCH, resource.plural, None)
                async for line in response.content:
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise error_of(verb, event["object"].get("code", 500), line, {})
                    yield event
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unavailable(f"{verb}: {type(error).__name__}") from None

    async def aclose(self) -> None:
        for api in (self._api, self._watching):
            await api.close()  # type: ignore[no-untyped-call]

    async def _headers(self, content_type: str, accept: str = JSON) -> dict[str, str]:
        headers = {"Content-Type": content_type, "Accept": accept, "User-Agent": FIELD_MANAGER}
        try:
            await self._api.update_params_for_auth(headers, [], ["BearerToken"], "", "", None)
        except (ConfigException, OSError) as error:
            raise Unavailable(f"cannot read the ServiceAccount's token: {error}") from None
        return headers

    async def _take_note(self, status: int) -> None:
        """Refused credentials are read anew, for the next request."""
        if status == 401:
            await self._read_credentials()

    async def _read_credentials(self) -> None:
        if self._renew is None:
            return
        try:
            await self._renew()
        except Exception as error:  # noqa: BLE001 - a file that is being replaced; those that are known stay in use
            _log.warning("the kubeconfig cannot be read again (%s)", type(error).__name__)

    async def _request(
        self, verb: Verb, resource: Resource, namespace: str | None, name: str | None, **how: Any
    ) -> dict[str, Any]:
        target = "/".join(filter(None, (resource.plural, how.get("subresource"))))
        try:
            answer = await self._exchange(_METHODS[verb], resource, namespace, name, **how)
        except ClusterError as error:
            self.tell(verb, target, error)
            raise
        self.tell(verb, target, None)
        return answer

    async def _exchange(
        self,
        method: str,
        resource: Resource,
        namespace: str | None,
        name: str | None,
        *,
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
        query: Mapping[str, str] | None = None,
        subresource: str | None = None,
        accept: str = JSON,
    ) -> dict[str, Any]:
        url = self._api.configuration.host + resource.path(namespace, name, subresource)
        if query:
            url += "?" + urlencode(query)
        where = f" in namespace {namespace}" if namespace else ""
        verb = f"{method.lower()} {resource.plural} {name or ''}".rstrip() + where
        headers = await self._headers(content_type, accept)
        if method != "GET" and self._permit is not None:
            self._permit()
        try:
            answer = await self._api.call_api(method, url, headers, body, None, _REQUEST_TIMEOUT)
            payload: bytes = await answer.read()  # type: ignore[no-untyped-call]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # The type only: the text of some of these holds the request.
            raise Unavailable(f"{verb}: no answer from the API server ({type(error).__name__})") from None
        if not 200 <= answer.status <= 299:
            await self._take_note(answer.status)
            raise error_of(verb, answer.status, payload, answer.headers, secret=resource.plural == "secrets")
        try:
            decoded: dict[str, Any] = orjson.loads(payload)
        except ValueError:
            raise Unavailable(f"{verb}: the API server's answer is not JSON") from None
        if method in ("POST", "PATCH"):
            self._recent.note((resource.plural, namespace, name or decoded["metadata"]["name"]), _version(decoded))
        return decoded


def _source(kubeconfig: Path | None) -> str:
    return f"kubeconfig {kubeconfig}" if kubeconfig else "the default kubeconfig"


def _version(answer: dict[str, Any]) -> int:
    """0 for what a dry run would create."""
    return int(answer["metadata"].get("resourceVersion") or 0)


def _writing(dry_run: bool) -> dict[str, str]:
    return {"fieldManager": FIELD_MANAGER, **({"dryRun": "All"} if dry_run else {})}


_METHODS: Mapping[Verb, str] = {
    Verb.GET: "GET",
    Verb.LIST: "GET",
    Verb.CREATE: "POST",
    Verb.PATCH: "PATCH",
    Verb.APPLY: "PATCH",
    Verb.DELETE: "DELETE",
}
