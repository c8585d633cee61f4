"""Writes that the API server refuses for a while: they hold an operator at a known point, without a clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sandbox.stage import wait_until
from tests.e2e.scene import Scene

_CONFIGURATIONS: Final = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
_LABEL: Final = "sandbox.keyturn.dev/gate"


@dataclass(frozen=True)
class Write:
    """One kind of write; `journal` says whether Secrets that are journals are meant, or the others."""

    group: str
    resource: str
    operation: str
    journal: bool | None = None

    def webhook(self, name: str, namespace: str) -> dict[str, Any]:
        """An admission webhook that nobody answers, so that this write is refused in the namespace."""
        place = {"key": "app.kubernetes.io/component", "operator": "Exists" if self.journal else "DoesNotExist"}
        what = {"apiGroups": [self.group], "resources": [self.resource], "operations": [self.operation]}
        return {
            "name": f"{name}.gate.example.com",
            "clientConfig": {"url": "https://127.0.0.1:1/"},
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "namespaceSelector": {"matchLabels": {_LABEL: namespace}},
            "objectSelector": {} if self.journal is None else {"matchExpressions": [place]},
            "rules": [{**what, "apiVersions": ["*"]}],
        }


KEEP_ANSWER: Final = Write("", "secrets", "UPDATE", journal=True)
DROP_JOURNAL: Final = Write("", "secrets", "DELETE", journal=True)
WRITE_SECRET: Final = Write("", "secrets", "UPDATE", journal=False)
STAMP: Final = Write("apps", "deployments", "UPDATE")
SET_FINALIZER: Final = Write("keyturn.dev", "clientsecretrotations", "UPDATE")
# All webhooks of one configuration take hold at once: this one shows when.
_PROBE: Final = Write("", "configmaps", "CREATE")


@contextmanager
def refused(scene: Scene, write: Write) -> Iterator[None]:
    """Let the API server refuse this write in the scene's namespace. Status writes are never meant."""
    name = f"gate-{scene.namespace}"
    scene.patch(f"/api/v1/namespaces/{scene.namespace}", {"metadata": {"labels": {_LABEL: scene.namespace}}})
    hooks = [write.webhook("held", scene.namespace), _PROBE.webhook("probe", scene.namespace)]
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
    scene.stage.apply([{**kind, "metadata": {"name": name}, "webhooks": hooks}])
    try:
        wait_until(lambda: not _allowed(scene), f"{write} is refused")
        yield
    finally:
        scene.delete(f"{_CONFIGURATIONS}/{name}")
        wait_until(lambda: _allowed(scene), f"{write} is allowed again")


def _allowed(scene: Scene) -> bool:
    path = f"/api/v1/namespaces/{scene.namespace}/configmaps"
    answer = scene.stage.api.http.post(path, params={"dryRun": "All"}, json={"metadata": {"name": "probe"}})
    return answer.is_success
