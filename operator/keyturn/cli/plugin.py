"""`kubectl keyturn`: look at rotations and ask for them, for people who do not want to write patches.

pykube-ng is imported for it, and nothing of the operator: a kubectl plugin must answer at once.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import pykube  # type: ignore[import-untyped]
import typer

CANCEL_ANNOTATION: Final = "keyturn.dev/cancel"
RESUME_ANNOTATION: Final = "keyturn.dev/resume"
URGENT_ANNOTATION: Final = "keyturn.dev/urgent"

# Where `onFailure: Hold` stops a rotation; one that is Blocked in another phase lacks something that no word gives it.
_HELD_IN: Final = ("Verifying", "Distributing", "RollingOut", "Soaking")

app = typer.Typer(
    name="kubectl keyturn",
    help="Look at client secret rotations, ask for them, and cancel them.",
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
    rows = [("NAMESPACE", "NAME", "PHASE", "READY", "LAST", "MESSAGE")]
    for item in _asked(lambda: list(query.filter(namespace=where))):
        state = _state(item)
        ready, last = _condition(state, "Ready").get("status", ""), (state.get("lastRotationTime") or "")[:19]
        rows.append((item.namespace, item.name, state.get("phase", ""), ready, last, _message(state)))
    # Names in full, whatever the width of the terminal, as kubectl shows them: they are for copying, and for scripts.
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@app.command()
def rotate(
    name: Name,
    namespace: Namespace = None,
    request: Annotated[
        str | None, typer.Option(help="Value of spec.rotationRequest; by default the time. Used values do nothing.")
    ] = None,
    urgent: Annotated[
        str | None, typer.Option(help="Why it cannot wait: heed no window, and do not soak. Kept in the history.")
    ] = None,
    context: Context = None,
) -> None:
    """Rotate now, by setting spec.rotationRequest. Where Git owns the object, change it there instead."""
    if urgent is not None:
        _rotate_urgently(_find(_connect(context), name, namespace), urgent, request)
        return
    value = datetime.now(UTC).isoformat(timespec="milliseconds") if request is None else request
    if not value:
        raise _failure("--request must not be empty")
    _patch(_find(_connect(context), name, namespace), {"spec": {"rotationRequest": value}})
    typer.echo(f"requested rotation {value} of {name}")


def _rotate_urgently(item: ClientSecretRotation, why: str, request: str | None) -> None:
    if request is not None:
        raise _failure("--urgent takes no --request: its reason is the request")
    if not why.strip():
        raise _failure("--urgent must say why")
    if _state(item).get("lastHandledUrgent") == why.strip()[:256]:
        raise _failure(f"{item.name} was rotated for this reason already: say what is new")
    _patch(item, _annotation(URGENT_ANNOTATION, why))
    typer.echo(f"requested urgent rotation of {item.name}")


@app.command()
def suspend(name: Name, namespace: Namespace = None, context: Context = None) -> None:
    """Start no more rotations; one that runs goes on to its end."""
    _patch(_find(_connect(context), name, namespace), {"spec": {"suspend": True}})
    typer.echo(f"suspended {name}")


@app.command()
def resume(name: Name, namespace: Namespace = None, context: Context = None) -> None:
    """Let rotations start again, and let one that is held (onFailure: Hold) go on where it stopped."""
    item = _find(_connect(context), name, namespace)
    state, running = _state(item), _running(item)
    patch, said = {}, []
    if (item.obj.get("spec") or {}).get("suspend"):
        patch["spec"] = {"suspend": False}
        said.append(f"resumed {name}")
    if _is_held(item):
        # Each word is followed once: the time makes it a new one.
        patch |= _annotation(RESUME_ANNOTATION, f"{running['id']}-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}")
        said.append(f"asked rotation {running['id']} of {name} to go on")
    if patch:
        _patch(item, patch)
        typer.echo("\n".join(said))
    elif state.get("phase") == "Blocked":
        raise _failure(f"{name} waits for something else than a word to go on: {_message(state)}")
    else:
        typer.echo(f"{name} is not suspended, and no rotation of it is held: nothing to resume")


@app.command()
def cancel(name: Name, namespace: Namespace = None, context: Context = None) -> None:
    """Withdraw the running rotation: the previous value goes back into the Secret, workloads return to it."""
    item = _find(_connect(context), name, namespace)
    running = _running(item)
    if not running:
        raise _failure(f"no rotation of {name} runs; to keep the next one from starting: {_command('suspend', item)}")
    obstacle = _no_way_back(running)
    if obstacle:
        raise _failure(f"rotation {running['id']} of {name} {obstacle}")
    _patch(item, _annotation(CANCEL_ANNOTATION, running["id"]))
    typer.echo(f"asked to cancel rotation {running['id']} of {name}")


def _no_way_back(running: dict[str, Any]) -> str | None:
    """Why a rotation cannot be cancelled, read after its name."""
    if running["phase"] == "Cancelling":
        return f"is being cancelled already: {running.get('cancelReason', 'see its status')}"
    if end := running.get("previousValidUntil"):
        return (
            "cannot be cancelled: the provider does not take a new value back, and refuses the previous one from "
            f"{_time(end)} on; mend what keeps the rotation from going on"
        )
    return None


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


def _patch(item: ClientSecretRotation, changes: dict[str, Any]) -> None:
    _asked(lambda: item.patch(changes))


def _annotation(name: str, value: str) -> dict[str, Any]:
    return {"metadata": {"annotations": {name: value}}}


def _asked(request: Any) -> Any:
    try:
        return request()
    except (OSError, pykube.exceptions.PyKubeError) as error:
        raise _failure(f"the API server did not do it: {error}") from None


def _failure(message: str) -> typer.Exit:
    typer.echo(f"kubectl keyturn: {message}", err=True)
    return typer.Exit(1)


def _state(item: ClientSecretRotation) -> dict[str, Any]:
    return item.obj.get("status") or {}


def _running(item: ClientSecretRotation) -> dict[str, Any]:
    """The record of the running rotation; empty when none runs."""
    return _state(item).get("rotation") or {}


def _is_held(item: ClientSecretRotation) -> bool:
    """Whether a word lets the rotation go on: none does once the new value was taken out of the Secret."""
    running = _running(item)
    blocked = _state(item).get("phase") == "Blocked" and running.get("phase") in _HELD_IN
    return blocked and not running.get("restoredTime")


def _command(verb: str, item: ClientSecretRotation) -> str:
    return f"kubectl keyturn {verb} {item.name} -n {item.namespace}"


def _condition(state: dict[str, Any], kind: str) -> dict[str, str]:
    return next((item for item in state.get("conditions") or [] if item["type"] == kind), {})


_WAITING = ("OutsideWindow", "Frozen", "InvalidPolicy", "MinGap")


def _message(state: dict[str, Any]) -> str:
    """What wants attention, else how the last rotation ended."""
    for kind in ("Stalled", "Contested", "Reconciling", "Overdue"):
        if found := _condition(state, kind):
            return found["message"]
    rotating = _condition(state, "Rotating")
    if rotating.get("reason") in _WAITING:
        return str(rotating["message"])
    return str((state.get("lastRotation") or {}).get("message", ""))


def _time(text: str) -> str:
    """A time of the status to the second."""
    return f"{text[:19]}Z"


def _detail(item: ClientSecretRotation) -> None:
    state, running = _state(item), _running(item)
    lines = [f"{item.namespace}/{item.name}  {state.get('phase', 'Idle')}"]
    if running:
        lines.append(_rotation_line(running))
    if _is_held(item):
        lines.append(f"  to go on: {_command('resume', item)}; to go back: {_command('cancel', item)}")
    for target in running.get("targets") or []:
        progress = f"{target.get('updated', 0)}/{target.get('desired', 0)}"
        lines.append(f"  {target['kind']}/{target['name']}: {target['state']} {progress} {target.get('message', '')}")
    lines += [
        f"  {condition['type']}={condition['status']} {condition['reason']}: {condition['message']}"
        for condition in state.get("conditions") or []
    ]
    lines += [
        f"  {_time(past['finishedTime'])} {past['id']} {past['result']}: {past['message']}{_proof(past)}"
        for past in state.get("history") or []
    ]
    for line in lines:
        typer.echo(line.rstrip())


def _rotation_line(running: dict[str, Any]) -> str:
    parts = [f"rotation {running['id']}: {running['phase']} since {_time(running['phaseStartedTime'])}"]
    if running.get("wave") is not None:
        parts.append(f"wave {running['wave']}")
    if running.get("previousValidUntil"):
        parts.append(f"previous value valid until {_time(running['previousValidUntil'])}")
    return "  " + ", ".join(parts)


def _proof(past: dict[str, Any]) -> str:
    """Whether the previous value was seen to be dead."""
    refused = past.get("previousRefused")
    return "" if refused is None else f" (previous value: {'refused' if refused else 'still accepted'})"


if __name__ == "__main__":
    app()
