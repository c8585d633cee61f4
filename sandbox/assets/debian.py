"""Debian's packages without installing them: a private apt, and the unpacking of what it fetches.

Nothing outside the given folder is touched and no privileges are needed. apt verifies the archive's signature and each
file's checksum as always.
"""

import platform
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from sandbox.assets.locate import AssetsError
from sandbox.assets.progress import Reporter
from sandbox.assets.run import once, run

SUITE = "bookworm"
"""The release that has Kubernetes' source; its packages also run on later releases, whose keyring knows it."""

_ETC = Path("/etc/apt")
_TOOLS = ("apt-get", "dpkg-deb", "setpriv", "tar")
_SUITES = {SUITE, "stable", "oldstable"}


class Apt:
    """An apt with lists, cache and sources of its own in `folder`."""

    def __init__(self, folder: Path, reporter: Reporter, etc: Path = _ETC) -> None:
        """Find an archive of Debian among the system's own sources and read its lists. Raises AssetsError."""
        self._folder = folder
        self._reporter = reporter
        self._configuration = folder / "apt.conf"
        self._configure()
        problems = [f"no archive of Debian in {etc}/sources.list and {etc}/sources.list.d"]
        for stanza in sources(etc):
            try:
                self._update(stanza)
            except AssetsError as error:
                problems.append(str(error))
            else:
                return
        raise AssetsError("apt can't read the lists of a Debian archive: " + problems[-1])

    def packages(self, names: Iterable[str], root: Path) -> None:
        """Download the binary packages `names` and unpack them under `root`, unless that exists. Raises AssetsError."""
        names = list(names)

        def unpack(partial: Path) -> None:
            downloads = self._fetch(f"Downloading Debian packages {', '.join(names)}", "download", names)
            for file in sorted(downloads.glob("*.deb")):
                run(["dpkg-deb", "-x", file, partial], cwd=downloads)
            shutil.rmtree(downloads)

        once(root, unpack)

    def source(self, name: str, target: Path) -> None:
        """Download source package `name` and unpack upstream's tarball as `target`. Raises AssetsError.

        Debian's patches are not applied: those for kubernetes only concern kubectl.
        """
        downloads = self._fetch(
            f"Downloading Debian's source package {name}", "source", ["--download-only", "--only-source", name]
        )
        tarballs = list(downloads.glob(f"{name}_*.orig.tar.*"))
        if len(tarballs) != 1:
            raise AssetsError(f"Debian's source package {name} has {len(tarballs)} upstream tarballs instead of one")
        run(["tar", "-xf", tarballs[0], "-C", target, "--strip-components=1", "--no-same-owner"], cwd=downloads)
        shutil.rmtree(downloads)

    def _configure(self) -> None:
        for name in ("lists/partial", "cache/archives/partial", "sources.d", "empty.d"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        settings = {
            "Dir::State::lists": self._folder / "lists",
            "Dir::Cache": self._folder / "cache",
            "Dir::Etc::sourcelist": "/dev/null",
            "Dir::Etc::sourceparts": self._folder / "sources.d",
            "Dir::Etc::preferencesparts": self._folder / "empty.d",
            "Dir::Etc::preferences": "/dev/null",
            # The private folders need not be open to the user "_apt", to whom root's apt would turn for downloads.
            "APT::Sandbox::User": "root",
            "APT::Get::AllowUnauthenticated": "false",
            "APT::Update::Error-Mode": "any",
            "APT::Status-Fd": "1",
            "Acquire::AllowInsecureRepositories": "false",
            "Acquire::Languages": "none",
            "Acquire::PDiffs": "false",
            "Acquire::Retries": "2",
            "Acquire::http::Timeout": "20",
            "Acquire::https::Timeout": "20",
        }
        # The system's hooks (such as those of Debian's container images, which delete caches) are not for this run.
        hooks = ("APT::Update::Pre-Invoke", "APT::Update::Post-Invoke", "APT::Update::Post-Invoke-Success")
        lines = [*(f"#clear {hook};" for hook in hooks), *(f'{key} "{value}";' for key, value in settings.items())]
        self._configuration.write_text("\n".join(lines) + "\n")

    def _update(self, stanza: str) -> None:
        (self._folder / "sources.d" / "debian.sources").write_text(stanza)
        self._run("Reading the lists of Debian's archive", ["update"], self._folder)

    def _fetch(self, text: str, command: str, arguments: list[str]) -> Path:
        downloads = self._folder / f"fetched-{command}"
        downloads.mkdir(exist_ok=True)
        self._run(text, [command, *arguments], downloads)
        return downloads

    def _run(self, text: str, arguments: list[str], cwd: Path) -> None:
        with self._reporter.track(text, 100) as update:

            def on_line(line: str) -> None:
                if match := re.match(r"dlstatus:\d+:([\d.]+):", line):
                    update(float(match[1]))

            run(["apt-get", "-q", "-c", self._configuration, *arguments], cwd=cwd, on_line=on_line)


def usable() -> None:
    """Return when this machine can use Debian's packages; otherwise AssetsError says why not."""
    if sys.platform != "linux":
        raise AssetsError(f"this is {sys.platform}, and the packages are for Debian 12 and later")
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    if release.get("ID") != "debian" or int(release.get("VERSION_ID", "99").split(".")[0]) < 12:
        name = release.get("PRETTY_NAME", "an unknown system")
        raise AssetsError(f"this is {name}, and the packages are for Debian 12 and later")
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        raise AssetsError(f"{', '.join(missing)} not found in PATH")


def sources(etc: Path) -> Iterator[str]:
    """For each archive that the system's apt (configured in `etc`) may have Debian from: a deb822 stanza for SUITE.

    Addresses and keys are the system's own. Formats: sources.list(5).
    """
    for file in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]:
        if not file.is_file():
            continue
        text = "\n".join(line for line in file.read_text().splitlines() if not line.lstrip().startswith("#"))
        entries = _deb822(text) if file.suffix == ".sources" else _one_line(text)
        for entry in entries:
            of_debian = (_SUITES | {_codename()}) & set(entry["Suites"].split())
            if of_debian and "main" in entry["Components"].split():
                yield _stanza(entry)


def _stanza(entry: dict[str, str]) -> str:
    fields = {"Types": "deb deb-src", "Suites": SUITE, "Components": "main"}
    fields.update((key, entry[key]) for key in ("URIs", "Signed-By", "Check-Valid-Until") if key in entry)
    return "".join(f"{key}: {value}\n" for key, value in fields.items())


def _deb822(text: str) -> Iterator[dict[str, str]]:
    for paragraph in re.split(r"\n\s*\n", text):
        found = re.finditer(r"^([A-Za-z-]+):[ \t]*(.*(?:\n[ \t].*)*)", paragraph, re.MULTILINE)
        fields = {field[1]: field[2] for field in found}
        binary = "deb" in fields.get("Types", "").split() and fields.get("Enabled", "yes").strip() != "no"
        if binary and {"URIs", "Suites", "Components"} <= set(fields):
            yield fields


def _one_line(text: str) -> Iterator[dict[str, str]]:
    options = {"signed-by": "Signed-By", "check-valid-until": "Check-Valid-Until"}
    for match in re.finditer(r"^\s*deb\s+(?:\[([^]]*)\]\s*)?(\S+)\s+(\S+)\s+(.+)$", text, re.MULTILINE):
        given = (option.partition("=") for option in (match[1] or "").split())
        kept = {options[key]: value for key, _, value in given if key in options}
        yield {"URIs": match[2], "Suites": match[3], "Components": match[4], **kept}


def _codename() -> str:
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME", SUITE)
    except OSError:
        return SUITE
