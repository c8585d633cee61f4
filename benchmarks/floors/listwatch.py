"""The floor for a start over many objects: list them in pages, keep what a decision needs, then watch.

`python -m benchmarks.floors.listwatch KUBECONFIG` prints `ready` when it has all, and watches until it is stopped.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from pathlib import Path
from typing import Any

import aiohttp
import yaml

_PATH = "/apis/keyturn.dev/v1alpha1/clientsecretrotations"


async def main(found: dict[str, Any]) -> None:
    """List and watch until cancelled. found: a kubeconfig."""
    cluster, user = found["clusters"][0]["cluster"], found["users"][0]["user"]
    tls = ssl.create_default_context(cafile=cluster["certificate-authority"])
    async with aiohttp.ClientSession(
        cluster["server"],
        headers={"Authorization": f"Bearer {user['token']}"},
        connector=aiohttp.TCPConnector(ssl=tls),
        timeout=aiohttp.ClientTimeout(total=None),
        read_bufsize=2**20,
    ) as session:
        objects, version = await _list(session)
        sys.stdout.write(f"ready {len(objects)}\n")
        sys.stdout.flush()
        await _watch(session, objects, version)


async def _list(session: aiohttp.ClientSession) -> tuple[dict[str, Any], str]:
    objects: dict[str, Any] = {}
    query = {"limit": "500"}
    while True:
        async with session.get(_PATH, params=query) as answer:
            page = json.loads(await answer.read())
        for item in page["items"]:
            _keep(objects, item)
        if not page["metadata"].get("continue"):
            return objects, page["metadata"]["resourceVersion"]
        query = {"limit": "500", "continue": page["metadata"]["continue"]}


async def _watch(session: aiohttp.ClientSession, objects: dict[str, Any], version: str) -> None:
    async with session.get(_PATH, params={"watch": "true", "resourceVersion": version}) as stream:
        async for line in stream.content:
            event = json.loads(line)
            if event["type"] == "DELETED":
                objects.pop(event["object"]["metadata"]["uid"], None)
            else:
                _keep(objects, event["object"])


def _keep(objects: dict[str, Any], item: dict[str, Any]) -> None:
    objects[item["metadata"]["uid"]] = item["spec"], item.get("status")


if __name__ == "__main__":
    asyncio.run(main(yaml.safe_load(Path(sys.argv[1]).read_text())))
