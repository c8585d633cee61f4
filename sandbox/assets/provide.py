"""The order in which sources of binaries are tried."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from sandbox.assets import build, debian, download
from sandbox.assets.locate import (
    WAY_OUT,
    Assets,
    AssetsError,
    cache_directory,
    cache_folder,
    cached_versions,
    inspect,
    missing,
)
from sandbox.assets.progress import Reporter, default_reporter
from sandbox.assets.run import locked

_ENVTEST = Path("/usr/local/kubebuilder/bin")


def provide(reporter: Reporter | None = None) -> Assets:
    """The control plane's binaries from the first source that has them; what is fetched or built stays in the cache.

    In this order: the folder KUBEBUILDER_ASSETS; /usr/local/kubebuilder/bin; the cache; the official release; Debian's
    source package, built in some minutes. KEYTURN_KUBERNETES_VERSION asks the last three for one version. Of several
    processes one works and the others wait for it. Raises AssetsError, saying why each source failed.
    """
    reporter = reporter or default_reporter()
    wanted = os.environ.get("KEYTURN_KUBERNETES_VERSION", "").removeprefix("v") or None
    if found := _configured(reporter) or _cached(wanted):
        return found
    with locked(cache_directory() / "lock", reporter):
        return _cached(wanted) or _fetched(wanted, reporter)


def find_kubectl(reporter: Reporter | None = None) -> Path:
    """kubectl: from PATH, from beside the control plane's binaries, or from Debian's package. Raises AssetsError."""
    if found := shutil.which("kubectl"):
        return Path(found)
    reporter = reporter or default_reporter()
    explicit = os.environ.get("KUBEBUILDER_ASSETS")
    folders = [Path(explicit) if explicit else _ENVTEST, *map(cache_folder, cached_versions())]
    for folder in folders:
        if not missing(folder, ["kubectl"]):
            return folder / "kubectl"
    unpacked = cache_directory() / "kubectl"
    with locked(cache_directory() / "lock", reporter):
        if missing(unpacked / "usr/bin", ["kubectl"]):
            try:
                debian.usable()
                lists = cache_directory() / "build" / "apt-kubectl"
                debian.Apt(lists, reporter).packages(["kubernetes-client"], unpacked)
                shutil.rmtree(lists)
            except AssetsError as error:
                raise AssetsError(f"No kubectl in PATH, and none from Debian: {error}. Install kubectl.") from error
    return unpacked / "usr/bin/kubectl"


def _configured(reporter: Reporter) -> Assets | None:
    """What the user has put in place. A folder named by KUBEBUILDER_ASSETS must be complete."""
    if explicit := os.environ.get("KUBEBUILDER_ASSETS"):
        folder = Path(explicit).expanduser()
        if lacking := missing(folder):
            raise AssetsError(
                f"KUBEBUILDER_ASSETS is {folder}, which has no {' and no '.join(lacking)}. (envtest's own bundles come"
                f" without kube-controller-manager.) {WAY_OUT} Or unset it, to have them downloaded or built."
            )
        return inspect(folder, "KUBEBUILDER_ASSETS")
    if not _ENVTEST.is_dir():
        return None
    if lacking := missing(_ENVTEST):
        reporter.say(f"{_ENVTEST} has no {' and no '.join(lacking)}: looking elsewhere")
        return None
    return inspect(_ENVTEST, str(_ENVTEST))


def _cached(wanted: str | None) -> Assets | None:
    for version in cached_versions():
        if wanted in (None, version):
            return inspect(cache_folder(version), "the cache")
    return None


def _fetched(wanted: str | None, reporter: Reporter) -> Assets:
    sources: dict[str, Callable[[], Assets]] = {
        "official release": lambda: download.download(wanted or download.DEFAULT_VERSION, reporter),
    }
    if wanted in (None, build.VERSION):
        sources["Debian's source package"] = lambda: build.build(reporter)
    problems = []
    for name, source in sources.items():
        try:
            return source()
        except AssetsError as error:
            problems.append(f"{name}: {error}")
            reporter.say(f"Kubernetes from the {name}: {error}")
    raise AssetsError("No control plane for the sandbox.\n- " + "\n- ".join(problems) + f"\n{WAY_OUT}")
