"""The order in which the sources of binaries are tried."""

from sandbox.assets.locate import Assets, AssetsError, cache_folder, cached_versions, inspect
from sandbox.assets.progress import Reporter, default_reporter


def provide(reporter: Reporter | None = None) -> Assets:
    """The control plane's binaries, from the first source that has them. Raises AssetsError."""
    reporter = reporter or default_reporter()
    for version in cached_versions():
        return inspect(cache_folder(version), "the cache")
    raise AssetsError("not yet")
