"""Which source of binaries is used, and what is said when there is none."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sandbox.assets import AssetsError, build, download, find_kubectl, locate, provide
from sandbox.assets.progress import SilentReporter
from sandbox.assets.run import once, run

PROVIDE = sys.modules["sandbox.assets.provide"]


class Recorder(SilentReporter):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def program(folder: Path, name: str, version: str = "1.31.4") -> None:
    """A stand-in for a binary, which answers --version as Kubernetes' own do."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\necho Kubernetes v{version}\n")
    (folder / name).chmod(0o755)


def bundle(folder: Path, version: str = "1.31.4") -> Path:
    for name in locate.COMPONENTS:
        program(folder, name, version)
    return folder


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing configured, nothing cached, and no source that works unless a test provides one."""

    def refuse(*_: object) -> None:
        raise AssetsError("refused")

    for name in ("KUBEBUILDER_ASSETS", "KEYTURN_KUBERNETES_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KEYTURN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(PROVIDE, "_ENVTEST", tmp_path / "envtest")
    monkeypatch.setattr(download, "download", refuse)
    monkeypatch.setattr(build, "build", refuse)


def test_an_explicit_folder_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle(tmp_path / "envtest", "1.30.0")
    bundle(tmp_path / "own", "1.33.1")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "own"))
    found = provide(SilentReporter())
    assert (found.directory, found.version, found.source) == (tmp_path / "own", "1.33.1", "KUBEBUILDER_ASSETS")


def test_an_explicit_folder_that_lacks_a_program_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle(tmp_path / "own")
    (tmp_path / "own/kube-controller-manager").unlink()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "own"))
    with pytest.raises(AssetsError, match=r"KUBEBUILDER_ASSETS is .*/own, which has no kube-controller-manager"):
        provide(SilentReporter())


def test_a_program_of_another_machine_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle(tmp_path / "own")
    (tmp_path / "own/kube-apiserver").write_bytes(b"\x7fELF of another machine")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "own"))
    with pytest.raises(AssetsError, match="it is not a program for this machine"):
        provide(SilentReporter())


def test_the_envtest_folder_without_controller_manager_is_passed_over_and_named(tmp_path: Path) -> None:
    bundle(tmp_path / "envtest")
    (tmp_path / "envtest/kube-controller-manager").unlink()
    bundle(locate.cache_folder("1.31.4"))
    recorder = Recorder()
    assert provide(recorder).source == "the cache"
    assert recorder.said == [f"{tmp_path}/envtest has no kube-controller-manager: looking elsewhere"]


def test_the_newest_complete_version_in_the_cache_is_used() -> None:
    for version in ("1.9.1", "1.20.2", "1.34.6"):
        bundle(locate.cache_folder(version), version)
    (locate.cache_folder("1.34.6") / "etcd").unlink()
    assert provide(SilentReporter()).version == "1.20.2"


def test_a_wanted_version_passes_over_others_and_is_not_built_from_debian(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle(locate.cache_folder("1.20.2"), "1.20.2")
    monkeypatch.setenv("KEYTURN_KUBERNETES_VERSION", "v1.33.1")
    with pytest.raises(AssetsError) as raised:
        provide(SilentReporter())
    assert "official release" in str(raised.value)
    assert "Debian" not in str(raised.value)


def test_when_nothing_works_the_error_names_each_reason_and_the_way_out() -> None:
    with pytest.raises(AssetsError) as raised:
        provide(SilentReporter())
    for part in ("official release: refused", "Debian's source package: refused", "set KUBEBUILDER_ASSETS"):
        assert part in str(raised.value)


def test_kubectl_is_found_in_the_path_and_else_beside_the_binaries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle(locate.cache_folder("1.31.4"))
    program(locate.cache_folder("1.31.4"), "kubectl")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_kubectl(SilentReporter()) == locate.cache_folder("1.31.4") / "kubectl"
    program(tmp_path / "bin", "kubectl")
    assert find_kubectl(SilentReporter()) == tmp_path / "bin/kubectl"


def test_one_process_fills_the_cache_and_a_second_waits_for_it(tmp_path: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        from sandbox.assets import locate, provide, build, download
        from sandbox.assets.progress import PlainReporter
        from tests.sandbox.test_assets import bundle

        def fill(version, reporter):
            print("filling", flush=True)
            sys.stdin.readline()
            bundle(locate.cache_folder("1.31.4"))
            return locate.inspect(locate.cache_folder("1.31.4"), "filled")

        download.download = fill
        print(provide(PlainReporter()).source)
    """
    argv = [sys.executable, "-c", textwrap.dedent(script)]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as first:
        assert first.stdin
        assert first.stdout
        assert first.stdout.readline() == "filling\n"
        with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as second:
            assert second.stdout
            assert second.stderr
            assert any("Waiting for another process that fills" in line for line in second.stderr)
            first.stdin.write("fill it\n")
            first.stdin.flush()
            assert first.stdout.read() == "filled\n"
            assert second.stdout.read() == "the cache\n"


def test_an_interrupted_step_is_made_again_and_a_finished_one_is_not(tmp_path: Path) -> None:
    def interrupted(partial: Path) -> None:
        (partial / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once(tmp_path / "step", interrupted)
    assert not (tmp_path / "step").exists()
    once(tmp_path / "step", lambda partial: (partial / "whole").touch())
    once(tmp_path / "step", interrupted)
    assert [path.name for path in (tmp_path / "step").iterdir()] == ["whole"]


def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(AssetsError, match=r"ended with code 3:\nno such header"):
        run(["sh", "-c", "echo no such header; exit 3"], cwd=tmp_path)
