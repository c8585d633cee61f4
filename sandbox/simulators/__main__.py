"""`python -m sandbox.simulators`: the simulators on their own, until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from typing import Annotated

import typer

from sandbox.simulators.base import running
from sandbox.simulators.janrain import JanrainSimulator
from sandbox.simulators.snaptrade import SnapTradeSimulator
from sandbox.simulators.stytch import StytchSimulator

Port = Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")]

STYTCH = """\
Stytch at {url}
  project id      {account.project_id}
  project secret  {account.project_secret}
  client id       {client}
  client secret   {secret}

Try it:
  curl -u {account.project_id}:{account.project_secret} -X POST {url}/v1/m2m/clients/{client}/secrets/rotate/start

For Keyturn: spec.stytch.projectId: {account.project_id}, spec.stytch.baseUrl: {url}
"""

JANRAIN = """\
Janrain at {url}
  owner's id      {account.owner_id}
  owner's secret  {account.owner_secret}
  client id       {client}
  client secret   {secret}

Try it:
  curl -u {account.owner_id}:{account.owner_secret} -d for_client_id={client} -d hours_to_live=24 \\
    {url}/clients/reset_secret
  curl -u {client}:{secret} -d type_name=user {url}/entity.count

For Keyturn: spec.janrain.clientId: {account.owner_id}, spec.janrain.baseUrl: {url},
  spec.janrain.readBack: {{appId: {account.app_id}, baseUrl: {url}}}
"""

SNAPTRADE = """\
SnapTrade at {url}
  client id       {account.client_id}
  consumer key    {account.consumer_key}
  user id         {client}
  user secret     {secret}

For Keyturn: spec.snaptrade.clientId: {account.client_id}, spec.snaptrade.baseUrl: {url}
"""

COMMON = """\
Each of them can be driven:
  curl -d '{"operation": "start", "how": "drop", "apply": true}' URL/_sim/faults
  curl URL/_sim/state
"""


def main(stytch_port: Port = 0, janrain_port: Port = 0, snaptrade_port: Port = 0) -> None:
    """Run the provider simulators on this machine, without a cluster."""
    asyncio.run(_run(stytch_port, janrain_port, snaptrade_port))


async def _run(stytch_port: int, janrain_port: int, snaptrade_port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        for simulator, port, example, client_id in (
            (StytchSimulator(), stytch_port, STYTCH, "m2m-client-test-example"),
            (JanrainSimulator(), janrain_port, JANRAIN, "67890fghij67890fghij"),
            (SnapTradeSimulator(), snaptrade_port, SNAPTRADE, "snaptrade-user-123"),
        ):
            secret = simulator.create({"client_id": client_id})["client_secret"]
            url = await stack.enter_async_context(running(simulator, port=port))
            print(example.format(url=url, account=simulator, client=client_id, secret=secret))
        print(COMMON, flush=True)
        await stop.wait()


if __name__ == "__main__":
    typer.run(main)
