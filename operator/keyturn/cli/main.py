"""The `keyturn` command."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from keyturn import __version__
from keyturn.cluster.errors import NoConnection
from keyturn.controller.endpoints import EndpointsError
from keyturn.controller.leadership import Timing
from keyturn.controller.logs import LogFormat, configure
from keyturn.controller.operator import run as run_operator
from keyturn.controller.settings import Settings
from keyturn.controller.spool import SpoolError
from keyturn.providers.addresses import ALLOW_OPTION, FORBID_OPTION, AddressRule, Network, parse_networks

app = typer.Typer(
    name="keyturn",
    help="Rotate client secrets without downtime: a Kubernetes operator.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def run(
    kubeconfig: Annotated[
        Path | None, typer.Option(envvar="KEYTURN_KUBECONFIG", help="Kubeconfig file; in a pod its ServiceAccount.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context in the kubeconfig file.")] = None,
    log_format: Annotated[
        LogFormat, typer.Option(envvar="KEYTURN_LOG_FORMAT", help="Log lines for people or for machines.")
    ] = LogFormat.JSON,
    debug: Annotated[bool, typer.Option(envvar="KEYTURN_DEBUG", help="Log every decision.")] = False,
    health: Annotated[
        str, typer.Option(envvar="KEYTURN_HEALTH", help='Address of the probes and metrics, "" for none.')
    ] = "0.0.0.0:8080",
    workers: Annotated[
        int, typer.Option(min=1, max=500, help="Rotations in work at the same time; provider objects too.")
    ] = 20,
    sweep_interval: Annotated[
        float, typer.Option(min=1, help="Seconds between two searches for missed events.")
    ] = 600.0,
    provider_interval: Annotated[
        float, typer.Option(min=1, help="Seconds between two checks of a provider's credentials.")
    ] = 300.0,
    allow_provider_network: Annotated[
        list[str] | None,
        typer.Option(
            ALLOW_OPTION,
            envvar="KEYTURN_ALLOW_PROVIDER_NETWORKS",
            metavar="CIDR",
            help="Network that is not public, and where RotationProviders may connect to; may be repeated.",
        ),
    ] = None,
    forbid_provider_network: Annotated[
        list[str] | None,
        typer.Option(
            FORBID_OPTION,
            envvar="KEYTURN_FORBID_PROVIDER_NETWORKS",
            metavar="CIDR",
            help="Network where no provider object may connect to, whatever is allowed; may be repeated.",
        ),
    ] = None,
    spool_dir: Annotated[
        Path | None, typer.Option(envvar="KEYTURN_SPOOL_DIR", help="Keep new values here, encrypted, until stored.")
    ] = None,
    spool_key_file: Annotated[
        Path | None, typer.Option(envvar="KEYTURN_SPOOL_KEY_FILE", help="File with the Fernet keys of the spool.")
    ] = None,
    identity: Annotated[
        str | None,
        typer.Option(envvar="KEYTURN_IDENTITY", help="Name in the Lease; never that of another living process."),
    ] = None,
    lease_namespace: Annotated[
        str, typer.Option(envvar="KEYTURN_NAMESPACE", help="Namespace of the Leases by which replicas elect a leader.")
    ] = "keyturn-system",
    shards: Annotated[
        int,
        typer.Option(
            min=1, max=128, envvar="KEYTURN_SHARDS", help="Parts into which replicas divide the work; the same for all."
        ),
    ] = 1,
    lease_duration: Annotated[
        int, typer.Option(min=1, max=3600, help="Seconds of silence after which a replica replaces the leader.")
    ] = 15,
    renew_deadline: Annotated[
        float, typer.Option(max=3600, help="Seconds without a renewal after which the leader stops its work.")
    ] = 10.0,
    retry_period: Annotated[float, typer.Option(max=3600, help="Seconds between two renewals of the Lease.")] = 2.0,
) -> None:
    """Run the operator until SIGTERM; rotations under way go on with the next start."""
    settings = Settings(
        kubeconfig=kubeconfig,
        context=context,
        health=health,
        workers=workers,
        sweep_interval=sweep_interval,
        provider_interval=provider_interval,
        spool_directory=spool_dir,
        spool_key_file=spool_key_file,
        identity=identity,
        lease_namespace=lease_namespace,
        shards=shards,
        lease=_timing(lease_duration, renew_deadline, retry_period),
        addresses=AddressRule(
            _networks(ALLOW_OPTION, allow_provider_network or ()),
            _networks(FORBID_OPTION, forbid_provider_network or ()),
        ),
    )
    configure(log_format, debug=debug)
    try:
        asyncio.run(run_operator(settings))
    except (NoConnection, SpoolError, EndpointsError) as error:
        typer.echo(f"keyturn: {error}", err=True)
        # 2, as for other mistakes in how the command is called: starting it again mends nothing.
        raise typer.Exit(2 if isinstance(error, SpoolError) else 1) from None


def _timing(duration: int, renew_deadline: float, retry_period: float) -> Timing:
    try:
        return Timing(duration, renew_deadline, retry_period)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _networks(option: str, networks: Iterable[str]) -> tuple[Network, ...]:
    try:
        return parse_networks(networks)
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {error}") from None


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)
