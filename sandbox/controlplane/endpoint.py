"""How to reach an API server: the one small value that every client in the sandbox is built from."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Endpoint:
    """Address, certificate authority and bearer token of an API server."""

    server: str
    ca_file: Path
    token: str = field(repr=False)

    def ssl_context(self) -> ssl.SSLContext:
        """A client-side TLS context that trusts this server's certificate authority and no other."""
        return ssl.create_default_context(cafile=str(self.ca_file))

    def headers(self) -> dict[str, str]:
        """The HTTP headers that authenticate a request."""
        return {"Authorization": f"Bearer {self.token}"}

    def kubeconfig(self, user: str) -> dict[str, Any]:
        """A kubeconfig for this endpoint; it refers to `ca_file` by path."""
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "sandbox", "cluster": {"server": self.server, "certificate-authority": str(self.ca_file)}}
            ],
            "users": [{"name": user, "user": {"token": self.token}}],
            "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": user, "namespace": "default"}}],
            "current-context": "sandbox",
        }

    def write_kubeconfig(self, path: Path, user: str) -> Path:
        """Write `kubeconfig(user)` to `path`, readable by its owner only, and return `path`."""
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(self.kubeconfig(user)))
        return path
