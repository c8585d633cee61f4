"""`python -m sandbox`: a Kubernetes that a person can use, and the binaries for it."""

from pathlib import Path
from typing import Annotated

import typer

from sandbox import session
from sandbox.assets import AssetsError, provide
from sandbox.controlplane import ApplyError, ControlPlaneError

app = typer.Typer(help="A real Kubernetes control plane on this machine.", no_args_is_help=True, add_completion=False)


@app.command()
def up(
    detach: Annotated[bool, typer.Option(help="Return when it is ready, and leave it running.")] = False,
    apply: Annotated[list[Path] | None, typer.Option(help="Manifests to apply: a file, or a folder of them.")] = None,
) -> None:
    """Start a control plane and a stand-in for the kubelet; Ctrl-C, or `down`, ends them."""
    paths = [path.absolute() for path in apply or []]
    if running := session.running():
        _announce(running)
        typer.echo("It was running already.")
        return
    try:
        _announce(session.detach(paths)) if detach else session.serve(paths, _announce)
    except (AssetsError, ControlPlaneError, ApplyError, session.SessionError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error


@app.command()
def down() -> None:
    """End the control plane that `up` has started."""
    try:
        stopped = session.stop()
    except session.SessionError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo("Stopped." if stopped else "No sandbox is running.")


@app.command()
def status() -> None:
    """Say whether a sandbox is running, and how to use it. Exit code 3 when none is."""
    if running := session.running():
        _announce(running)
        return
    typer.echo("No sandbox is running. Start one with: python -m sandbox up")
    raise typer.Exit(3)


@app.command()
def assets() -> None:
    """Find, download or build etcd, kube-apiserver and kube-controller-manager, and say where they are."""
    try:
        found = provide()
    except AssetsError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"Kubernetes {found.version} in {found.directory}, from {found.source}")


def _announce(state: session.State) -> None:
    typer.echo(f"Kubernetes {state.version} at {state.server}, process {state.pid}, files in {state.directory}")
    typer.echo(f"export KUBECONFIG={state.kubeconfig}")
    typer.echo("Stop it with: python -m sandbox down")


if __name__ == "__main__":
    app(prog_name="python -m sandbox")
