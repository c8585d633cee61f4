"""`kubectl keyturn`: look at rotations and ask for them, for people who do not want to write patches.

pykube-ng is imported for it, and nothing of the operator: a kubectl plugin must answer at once.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pykube  # type: ignore[import-untyped]
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

app = typer.Typer(
    name="kubectl keyturn",
    help="Look at client secret rotations, and ask for them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class ClientSecretRotation(pykube.objects.NamespacedAPIObject):  # type: ignore[misc]
    """pykube's view of the resource."""

    version = "keyturn.dev/v1alpha1"
    endpoint = "clientsecretrotations"
    kind = "ClientSecretRotation"


Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace; by default the context's.")]
Context = Annotated[str | None, typer.Option(help="Context in the kubeconfig file.")]
Name = Annotated[str, typer.Argument(help="Name of the ClientSecretRotation.")]


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="Name; without it, all in the namespace.")] = None,
    namespace: Namespace = None,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="All namespaces.")] = False,
    context: Context = None,
) -> None:
    """Show rotations: phase, what each waits for, and how far its workloads are."""
    api = _connect(context)
    if name is not None:
        _detail(_find(api, name, namespace))
        return
    query = ClientSecretRotation.objects(api)
    where = pykube.all if all_namespaces else (namespace or api.config.namespace)
    table = Table("NAMESPACE", "NAME", "PHASE", "READY", "LAST", "MESSAGE", box=None)
    for item in _asked(lambda: list(query.filter(namespace=where))):
        state = item.obj.get("status") or {}
        table.add_row(
            item.namespace,
            item.name,
            state.get("phase", ""),
            _condition(state, "Ready").get("status", ""),
            (state.get("lastRotationTime") or "")[:19],
            escape(_message(state)),
        )
    Console(soft_wrap=True).print(table)


@app.command()
def rotate(
    name: Name,
    namespace: Namespace = None,
    request: Annotated[
        str | None, typer.Option(help="Value of spec.rotationRequest; by default the time. Used values do nothing.")
    ] = None,
    context: Context = None,
) -> None:
    """Rotate now, by setting spec.rotationRequest. Where Git owns the object, change it there instead."""
    value = datetime.now(UTC).isoformat(timespec="milliseconds") if request is None else request
    if not value:
        raise _failure("--request must not be empty")
    _patch(_find(_connect(context), name, namespace), {"rotationRequest": value})
    typer.echo(f"requested rotation {value} of {name}")


@app.command()
def suspend(name: Name, namespace: Namespace = None, context: Context = None) -> None:
    """Start no more rotations; one that runs goes on to its end."""
    _patch(_find(_connect(context), name, namespace), {"suspend": True})
    typer.echo(f"suspended {name}")


@app.command()
def resume(name: Name, namespace: Namespace = None, context: Context = None) -> None:
    """Let rotations start again."""
    _patch(_find(_connect(context), name, namespace), {"suspend": False})
    typer.echo(f"resumed {name}")


def _connect(context: str | None) -> pykube.HTTPClient:
    """As kubectl does; of several files in KUBECONFIG the first that exists is read, as pykube cannot merge them."""
    try:
        named = [Path(name) for name in os.environ.get("KUBECONFIG", "").split(os.pathsep) if name]
        found = next((path for path in named if path.exists()), None)
        config = pykube.KubeConfig.from_file(str(found)) if found else pykube.KubeConfig.from_env()
        if context is not None:
            config.set_current_context(context)
        return pykube.HTTPClient(config)
    except (OSError, KeyError, pykube.exceptions.PyKubeError) as error:
        raise _failure(f"no usable kubeconfig: {error}") from None


def _find(api: pykube.HTTPClient, name: str, namespace: str | None) -> ClientSecretRotation:
    where = namespace or api.config.namespace
    found: ClientSecretRotation | None = _asked(
        lambda: ClientSecretRotation.objects(api, namespace=where).get_or_none(name=name)
    )
    if found is None:
        raise _failure(f"ClientSecretRotation {name} does not exist in namespace {where}")
    return found


def _patch(item: ClientSecretRotation, spec: dict[str, Any]) -> None:
    _asked(lambda: item.patch({"spec": spec}))


def _asked(request: Any) -> Any:
    try:
        return request()
    except (OSError, pykube.exceptions.PyKubeError) as error:
        raise _failure(f"the API server did not do it: {error}") from None


def _failure(message: str) -> typer.Exit:
    typer.echo(f"kubectl keyturn: {message}", err=True)
    return typer.Exit(1)


def _condition(state: dict[str, Any], kind: str) -> dict[str, str]:
    return next((item for item in state.get("conditions") or [] if item["type"] == kind), {})


def _message(state: dict[str, Any]) -> str:
    """What wants attention, else how the last rotation ended."""
    for kind in ("Stalled", "Reconciling"):
        if found := _condition(state, kind):
            return found["message"]
    return str((state.get("lastRotation") or {}).get("message", ""))


def _detail(item: ClientSecretRotation) -> None:
    state = item.obj.get("status") or {}
    console = Console(soft_wrap=True, markup=False, highlight=False)
    console.print(f"{item.namespace}/{item.name}  {state.get('phase', 'Idle')}")
    running = state.get("rotation") or {}
    for target in running.get("targets") or []:
        progress = f"{target.get('updated', 0)}/{target.get('desired', 0)}"
        console.print(f"  {target['kind']}/{target['name']}: {target['state']} {progress} {target.get('message', '')}")
    for condition in state.get("conditions") or []:
        console.print(f"  {condition['type']}={condition['status']} {condition['reason']}: {condition['message']}")
    for past in state.get("history") or []:
        console.print(f"  {past['finishedTime'][:19]} {past['id']} {past['result']}: {past['message']}")


if __name__ == "__main__":
    app()
