"""Everything a rotation needs around it, on one control plane: pods that run and call, providers, and the operator.

The demo and the end-to-end tests use it alike. Kubelet, pod clients and simulators live on an event loop in a thread of
their own; the operator is a process of its own, with the shipped ServiceAccount, as it would be in a cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar
from uuid import uuid4

from sandbox.argo import ROLLOUTS, RolloutsStandIn
from sandbox.controlplane import ControlPlane, Resources, documents
from sandbox.controlplane.processes import free_port
from sandbox.kubelet import Behaviour, KubeletStandIn
from sandbox.kubelet.api import API
from sandbox.nursery import Child, Nursery
from sandbox.simulators.base import Simulator, running
from sandbox.simulators.janrain import JanrainSimulator
from sandbox.simulators.snaptrade import SnapTradeSimulator
from sandbox.simulators.stytch import StytchSimulator
from sandbox.traffic.clients import PodClients
from sandbox.traffic.probe import JanrainProbe, SnapTradeProbe, StytchProbe, TrafficProbe
from sandbox.traffic.report import TrafficReport

T = TypeVar("T")
SimulatorT = TypeVar("SimulatorT", bound=Simulator)

ROOT: Final = Path(__file__).resolve().parent.parent
NAMESPACE: Final = "keyturn-system"
SERVICE_ACCOUNT: Final = "keyturn"
# The simulators are at loopback addresses, which RotationProviders may not have unless the administrator allows it.
ALLOWED: Final = {"KEYTURN_ALLOW_PROVIDER_NETWORKS": "127.0.0.0/8"}
_MANIFESTS: Final = ("namespace.yaml", "rbac.yaml")


class OperatorError(Exception):
    """The operator did not do what was asked of it; the message quotes its log."""


class Operator:
    """One operator process. Its log is in `log`."""

    def __init__(
        self,
        kubeconfig: Path,
        log: Path,
        *options: str,
        code: Path | None = None,
        nursery: Nursery | None = None,
    ) -> None:
        """code: a folder with another `keyturn` package than the one of this checkout. nursery: forks it, else."""
        # The next operator replaces one that was killed at once: under the same name, as a container that is restarted.
        self._arguments = ["run", "--identity", "sandbox", "--kubeconfig", str(kubeconfig), *options]
        self._command = [sys.executable, "-m", "keyturn"]
        self._code, self._nursery = code, nursery
        self.log = log
        self._process: subprocess.Popen[bytes] | Child | None = None
        self.health = f"127.0.0.1:{free_port()}"

    def start(self) -> Self:
        """Start the process; it is at work within a second or two."""
        arguments = [*self._arguments, "--health", self.health]
        if self._nursery is not None and self._code is None:
            self._process = self._nursery.start(arguments, {**os.environ, **ALLOWED}, self.log)
        else:
            self._process = self._spawn(arguments)
        return self

    def _spawn(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        tether = [sys.executable, "-I", str(ROOT / "sandbox" / "tether.py"), str(os.getpid())]
        elsewhere = {"PYTHONPATH": str(self._code)} if self._code is not None else {}
        with self.log.open("ab") as file:
            return subprocess.Popen(
                [*tether, *self._command, *arguments],
                stderr=file,
                stdout=file,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **ALLOWED, **elsewhere},
            )

    @property
    def pid(self) -> int:
        """The process id; only while it runs."""
        if self._process is None:
            raise OperatorError("the operator was not started")
        return self._process.pid

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """kill -9, and wait until the process is gone."""
        self._end(signal.SIGKILL, 10)

    def stop(self, patience: float = 30, number: signal.Signals = signal.SIGTERM) -> int:
        """SIGTERM or another signal, then wait: the exit code. Raises OperatorError when it does not end in time."""
        return self._end(number, patience)

    def _end(self, number: signal.Signals, patience: float) -> int:
        if self._process is None:
            return 0
        if self.alive():
            self._process.send_signal(number)
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise OperatorError(f"the operator did not end within {patience} seconds:\n{self.tail()}") from None
        self._process = None
        return code

    def tail(self, lines: int = 30) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.read_text().splitlines()[-lines:]) if self.log.exists() else ""


@dataclass(frozen=True)
class Account(Generic[SimulatorT]):
    """A simulated provider account. `kind` is what pods name in the annotation `client.sandbox.keyturn.dev/kind`."""

    kind: str
    url: str
    simulator: SimulatorT


@dataclass
class Stage:
    """A context manager; everything on it ends with it, and with the process."""

    control_plane: ControlPlane
    behaviour: Behaviour = field(default_factory=Behaviour)
    call_rate: float = 5.0
    nursery: Nursery | None = None
    """Forks the operators, where there is one; else each is a new interpreter."""

    def __enter__(self) -> Self:
        self._selector = selectors.DefaultSelector()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._thread = threading.Thread(target=self._loop.run_forever, name="stage", daemon=True)
        self._thread.start()
        self._probes: dict[str, TrafficProbe] = {}
        self._stack = AsyncExitStack()
        self._operators: list[Operator] = []
        self.pods = self.do(self._open())
        self.api = Resources(self.control_plane.endpoint)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for operator in self._operators:
            operator.kill()
        self.api.http.close()
        self.do(self._close())
        with contextlib.suppress(TimeoutError):
            # aiohttp returns before its TLS connections are closed; the one file that stays is the loop's own.
            wait_until(lambda: len(self._selector.get_map()) <= 1, "all connections are closed", seconds=2)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the stage's event loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _close(self) -> None:
        await self._stack.aclose()
        # Answers that a fault holds back, for callers that are gone.
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._loop.shutdown_asyncgens()

    async def _open(self) -> PodClients:
        # Entered first, so that providers outlive the pods that call them.
        self._providers = await self._stack.enter_async_context(AsyncExitStack())
        api = await self._stack.enter_async_context(API(self.control_plane.endpoint))
        pods = PodClients(api, self._probes, rate=self.call_rate)
        self._stack.push_async_callback(pods.aclose)
        await self._stack.enter_async_context(KubeletStandIn(self.control_plane.endpoint, pods, self.behaviour))
        return pods

    def traffic(self) -> TrafficReport:
        """What the pods have called until now; taken on the loop on which they call."""

        async def taken() -> TrafficReport:
            return self.pods.meter.report()

        return self.do(taken())

    def install(self) -> None:
        """Install the CRDs, and the namespace, ServiceAccount and RBAC that ship."""
        self.control_plane.install_manifests(
            [*sorted((ROOT / "crds").glob("keyturn.dev_*.yaml")), *(ROOT / "manifests" / name for name in _MANIFESTS)]
        )

    def stytch(self, name: str) -> Account[StytchSimulator]:
        """Start a Stytch project of its own."""
        simulator = StytchSimulator(f"project-test-{uuid4()}")
        return self.do(self._account(name, simulator, lambda url: StytchProbe(url, simulator.project_id)))

    def janrain(self, name: str) -> Account[JanrainSimulator]:
        """Start a Janrain application of its own; its configuration API has the same URL."""
        return self.do(self._account(name, JanrainSimulator(), JanrainProbe))

    def snaptrade(self, name: str) -> Account[SnapTradeSimulator]:
        """Start a SnapTrade API key of its own."""
        simulator = SnapTradeSimulator()
        client_id, key = simulator.client_id, simulator.consumer_key
        return self.do(self._account(name, simulator, lambda url: SnapTradeProbe(url, client_id, key)))

    async def _account(
        self, name: str, simulator: SimulatorT, probe: Callable[[str], AbstractAsyncContextManager[TrafficProbe]]
    ) -> Account[SimulatorT]:
        url = await self._providers.enter_async_context(running(simulator))
        self._probes[name] = await self._providers.enter_async_context(probe(url))
        return Account(name, url, simulator)

    @contextlib.contextmanager
    def rollouts(self) -> Iterator[None]:
        """Argo Rollouts: its CRD, and a stand-in for its controller. Both are gone afterwards, with all Rollouts."""
        self.apply([ROLLOUTS])
        controller = RolloutsStandIn(self.control_plane.endpoint)
        self.do(controller.__aenter__())
        try:
            yield
        finally:
            self.do(controller.__aexit__(None, None, None))
            path = self.api.path(ROLLOUTS)
            self.api.http.delete(path).raise_for_status()
            wait_until(lambda: self.api.http.get(path).status_code == 404, "the CRD of Rollouts is gone")

    def operator(self, *options: str, log: Path | None = None, kubeconfig: Path | None = None) -> Operator:
        """Start the operator under its own ServiceAccount; it is killed with the stage."""
        as_shipped = kubeconfig or self.control_plane.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT)
        path = log or self.control_plane.directory / f"operator-{len(self._operators)}.log"
        operator = Operator(as_shipped, path, *options, nursery=self.nursery)
        self._operators.append(operator)
        return operator.start()

    def apply(self, objects: Iterable[dict[str, Any]]) -> None:
        """Server-side apply, as the administrator."""
        self.control_plane.apply(objects)

    def apply_files(self, *paths: Path) -> None:
        self.apply(documents(paths))


def wait_until(condition: Callable[[], T | None], what: str, *, seconds: float = 30.0, pause: float = 0.05) -> T:
    """Ask until the answer is true, and return it; TimeoutError names what was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} seconds: {what}")
        time.sleep(pause)
