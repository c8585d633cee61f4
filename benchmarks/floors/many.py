"""The straight script for many clients: so many threads, each with connections of its own.

`python -m benchmarks.floors.many` reads from standard input what to rotate, and prints how many seconds it took. Input:
`{"kubeconfig", "url", "project", "projectSecret", "threads", "jobs": [{"client", "namespace", "secret", "key",
"deployment"}]}`.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import yaml

from benchmarks.floors.straight import StraightScript
from sandbox.controlplane.endpoint import Endpoint


def main(order: dict[str, Any]) -> float:
    """Rotate all of it; the seconds that it took, with the connections open before."""
    endpoint = _endpoint(Path(order["kubeconfig"]))
    scripts = [
        StraightScript(endpoint, order["url"], order["project"], order["projectSecret"])
        for _ in range(order["threads"])
    ]
    jobs: SimpleQueue[dict[str, str] | None] = SimpleQueue()
    for job in [*order["jobs"], *[None] * len(scripts)]:
        jobs.put(job)

    def work(script: StraightScript) -> None:
        while (job := jobs.get()) is not None:
            script.rotate(job["client"], job["namespace"], (job["secret"], job["key"]), job["deployment"], "many")

    with ThreadPoolExecutor(len(scripts)) as pool:
        list(pool.map(StraightScript.connect, scripts))
        begun = time.perf_counter()
        list(pool.map(work, scripts))
        return time.perf_counter() - begun


def _endpoint(kubeconfig: Path) -> Endpoint:
    found = yaml.safe_load(kubeconfig.read_text())
    cluster, user = found["clusters"][0]["cluster"], found["users"][0]["user"]
    return Endpoint(cluster["server"], Path(cluster["certificate-authority"]), user["token"])


if __name__ == "__main__":
    sys.stdout.write(f"{main(json.load(sys.stdin))}\n")
