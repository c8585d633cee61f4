"""The private apt: its sources are derived from the system's own. The build itself is walked by CI's first start."""

import platform
from pathlib import Path

import pytest

from sandbox.assets import AssetsError, debian
from sandbox.assets.progress import SilentReporter


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def test_a_deb822_source_is_kept_with_its_key_and_gains_the_sources(etc: Path) -> None:
    (etc / "sources.list.d/debian.sources").write_text(
        "Types: deb\n# a comment\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n"
        "Components: main contrib\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQIN\n\n"
        "Types: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\nComponents: main\n"
    )
    (stanza,) = debian.sources(etc)
    assert stanza == (
        "Types: deb deb-src\nSuites: bookworm\nComponents: main\nURIs: http://mirror.example/debian\n"
        "Signed-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQIN\n"
    )


def test_one_line_sources_are_understood_but_never_trusted_blindly(etc: Path) -> None:
    (etc / "sources.list").write_text(
        "# deb http://old.example/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/key.gpg trusted=yes] http://mirror.example/debian stable main non-free\n"
        "deb-src http://mirror.example/debian stable main\n"
        "deb http://other.example/apt tool-bookworm main\n"
    )
    (stanza,) = debian.sources(etc)
    assert stanza == (
        "Types: deb deb-src\nSuites: bookworm\nComponents: main\nURIs: http://mirror.example/debian\n"
        "Signed-By: /key.gpg\n"
    )


def test_disabled_sources_are_left_out(etc: Path) -> None:
    (etc / "sources.list.d/debian.sources").write_text(
        "Enabled: no\nTypes: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n"
    )
    assert list(debian.sources(etc)) == []


def test_without_an_archive_of_debian_the_error_says_where_it_was_looked_for(etc: Path, tmp_path: Path) -> None:
    with pytest.raises(AssetsError, match=f"no archive of Debian in {etc}/sources.list"):
        debian.Apt(tmp_path / "apt", SilentReporter(), etc)


@pytest.mark.parametrize(
    "release",
    [
        {"ID": "fedora", "PRETTY_NAME": "Fedora Linux 43"},
        {"ID": "debian", "VERSION_ID": "11", "PRETTY_NAME": "Debian GNU/Linux 11"},
    ],
)
def test_other_systems_are_named(release: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)
    with pytest.raises(AssetsError, match=f"this is {release['PRETTY_NAME']}, and the packages are for Debian 12"):
        debian.usable()


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "debian", "VERSION_ID": "12"})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AssetsError, match="apt-get, dpkg-deb, setpriv, tar not found in PATH"):
        debian.usable()
