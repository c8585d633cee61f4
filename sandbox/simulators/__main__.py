"""`python -m sandbox.simulators`: the simulators on their own, until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from typing import Annotated

import typer

from sandbox.simulators.base import running
from sandbox.simulators.stytch import StytchSimulator

Port = Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")]

EXAMPLE = """\
Stytch at {url}
  project id      {project}
  project secret  {project_secret}
  client id       {client}
  client secret   {secret}

Try it:
  curl -u {project}:{project_secret} -X POST {url}/v1/m2m/clients/{client}/secrets/rotate/start
  curl -d '{{"operation": "start", "how": "drop", "apply": true}}' {url}/_sim/faults
  curl {url}/_sim/state

For Keyturn: spec.stytch.projectId: {project}, spec.stytch.baseUrl: {url}
"""


def main(stytch_port: Port = 0) -> None:
    """Run the provider simulators on this machine, without a cluster."""
    asyncio.run(_run(stytch_port))


async def _run(stytch_port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    simulator = StytchSimulator()
    created = simulator.create({"client_id": "m2m-client-test-example", "client_name": "example"})
    async with running(simulator, port=stytch_port) as url:
        print(
            EXAMPLE.format(
                url=url,
                project=simulator.project_id,
                project_secret=simulator.project_secret,
                client=created["client_id"],
                secret=created["client_secret"],
            ),
            flush=True,
        )
        await stop.wait()


if __name__ == "__main__":
    typer.run(main)
