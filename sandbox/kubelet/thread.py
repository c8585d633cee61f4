"""The stand-in beside synchronous code, or beside tests that have an event loop each."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sandbox.kubelet.standin import KubeletStandIn


@contextmanager
def in_thread(stand_in: KubeletStandIn) -> Iterator[None]:
    """Run `stand_in`, hooks included, on an event loop in a thread of its own, until the context ends.

    Raises what entering the stand-in raises.
    """
    ready: concurrent.futures.Future[None] = concurrent.futures.Future()
    stop = asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        try:
            async with stand_in:
                ready.set_result(None)
                await stop.wait()
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    def work() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=work, name="kubelet-stand-in", daemon=True)
    thread.start()
    try:
        ready.result()
        yield
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        thread.join()
