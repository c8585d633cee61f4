"""What the kubelet stand-in tells the outside about the containers that it pretends to run."""

from typing import Any, Protocol


class PodHooks(Protocol):
    """Called by the stand-in when a pod's containers start and end.

    Calls for one pod never overlap and come in order: each `started` is followed by exactly one `stopped`, also when
    the stand-in itself is shut down. A crash-looping pod makes several such pairs. A hook may take its time: the pod's
    next step waits for it, other pods don't. An exception from a hook is logged and changes nothing for the pod.
    """

    async def started(self, pod: dict[str, Any]) -> None:
        """The containers have started; `pod` is the API object as it was then (treat it as read-only).

        Called after every Secret and key that the pod refers to was seen to exist, and before the pod is shown Ready.
        """

    async def attached(self, pod: dict[str, Any], container: str) -> None:
        """An ephemeral container of this name has started, between `started` and `stopped`; it ends with the others."""

    async def stopped(self, pod: dict[str, Any]) -> None:
        """The containers have ended, that is: the termination delay is over and the object is not yet removed.

        `pod` is the newest API object known.
        """


class NoHooks:
    """A `PodHooks` that does nothing."""

    async def started(self, pod: dict[str, Any]) -> None:
        """Nothing."""

    async def attached(self, pod: dict[str, Any], container: str) -> None:
        """Nothing."""

    async def stopped(self, pod: dict[str, Any]) -> None:
        """Nothing."""
