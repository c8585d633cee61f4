"""Kubernetes 1.20.2 from Debian's source package, for machines that reach no other source.

It is built as upstream's own Makefile does (GOPATH mode, no cgo), less what the two programs don't need: generated code
is in the tarball already, except for the OpenAPI definitions, and the cloud providers are left out, by upstream's build
tag "providerless", which halves the time.
"""

import os
import re
import shutil
from pathlib import Path

from sandbox.assets import debian
from sandbox.assets.locate import Assets, AssetsError, architecture, cache_directory, cache_folder, inspect
from sandbox.assets.progress import Reporter
from sandbox.assets.run import once, run

VERSION = "1.20.2"

_PACKAGES = ("etcd-server", "golang-1.19-go", "golang-1.19-src", "golang-github-modern-go-reflect2-dev")
_PROGRAMS = ("kube-apiserver", "kube-controller-manager")
_NEEDED_SPACE = 3 * 1024**3
_OPENAPI = "pkg/generated/openapi"
_OPENAPI_TAG = re.compile(rb"^// *\+k8s:openapi-gen=", re.MULTILINE)


def build(reporter: Reporter) -> Assets:
    """Build into the cache and return the result. An interrupted build is taken up where it was. Raises AssetsError."""
    debian.usable()
    folder = cache_directory() / "build" / f"kubernetes-{VERSION}-{architecture()}"
    folder.mkdir(parents=True, exist_ok=True)
    _check_space(folder)
    apt = debian.Apt(folder / "apt", reporter)
    apt.packages(_PACKAGES, folder / "root")
    tree = folder / "gopath/src/k8s.io/kubernetes"
    once(tree, lambda partial: _unpack_source(apt, partial, folder / "root"))
    environment = _environment(folder)
    _generate_openapi(tree, folder, environment, reporter)
    _compile(tree, folder / "bin", environment, reporter)
    shutil.copy2(folder / "root/usr/bin/etcd", folder / "bin")
    inspect(folder / "bin", "")
    target = cache_folder(VERSION)
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    (folder / "bin").rename(target)
    shutil.rmtree(folder)
    return inspect(target, f"built from Debian's source package of Kubernetes {VERSION}")


def _check_space(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < _NEEDED_SPACE:
        raise AssetsError(
            f"building Kubernetes needs {_NEEDED_SPACE / 1e9:.0f} GB for a while and {folder} has {free / 1e9:.1f} GB;"
            " make room, or set KEYTURN_CACHE to a folder on a larger disk"
        )


def _unpack_source(apt: debian.Apt, tree: Path, root: Path) -> None:
    apt.source("kubernetes", tree)
    # The vendored reflect2 1.0.1 crashes the API server on the first custom resource when built with Go >= 1.18.
    reflect2 = tree / "vendor/github.com/modern-go/reflect2"
    shutil.rmtree(reflect2)
    shutil.copytree(root / "usr/share/gocode/src/github.com/modern-go/reflect2", reflect2)


def _environment(folder: Path) -> dict[str, str]:
    """The environment for Go's commands: nothing from the user's own Go, nothing from the network."""
    goroot = folder / "root/usr/lib/go-1.19"
    (folder / "tmp").mkdir(exist_ok=True)
    return {
        "PATH": f"{goroot / 'bin'}:{os.environ['PATH']}",
        "HOME": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "GOROOT": str(goroot),
        "GOPATH": str(folder / "gopath"),
        "GOCACHE": str(folder / "gocache"),
        "GO111MODULE": "off",
        "GOENV": "off",
        "GOPROXY": "off",
        "CGO_ENABLED": "0",
        "GOGC": "200",  # less time in the compiler's garbage collector, for more memory
    }


def _generate_openapi(tree: Path, folder: Path, environment: dict[str, str], reporter: Reporter) -> None:
    """Write the OpenAPI definitions of the API types; the recipe is in build/root/Makefile.generated_files."""
    generator = folder / "openapi-gen"
    target = tree / _OPENAPI / "zz_generated.openapi.go"
    if target.exists():
        return
    with reporter.track("Generating Kubernetes' OpenAPI definitions", None):
        package = "./vendor/k8s.io/kube-openapi/cmd/openapi-gen"
        run(["go", "build", "-o", generator, package], cwd=tree, env=environment)
        generated = folder / "generated"
        arguments = {
            "--input-dirs": ",".join(f"k8s.io/kubernetes/{package}" for package in _openapi_packages(tree)),
            "--output-package": f"k8s.io/kubernetes/{_OPENAPI}",
            "--output-file-base": "zz_generated.openapi",
            "--output-base": str(generated),
            "--go-header-file": "vendor/k8s.io/code-generator/hack/boilerplate.go.txt",
            "--report-filename": str(folder / "openapi-violations"),
        }
        flags = [word for pair in arguments.items() for word in pair]
        run([generator, "--logtostderr", *flags], cwd=tree, env=environment)
        (generated / "k8s.io/kubernetes" / _OPENAPI / target.name).rename(target)


def _openapi_packages(tree: Path) -> list[str]:
    """Folders, as Go finds them, with a file that asks for OpenAPI definitions."""
    found = set()
    for part in ("pkg", "cmd", "plugin", "staging/src/k8s.io"):
        for file in (tree / part).rglob("*.go"):
            if _OPENAPI_TAG.search(file.read_bytes()):
                found.add(str(file.parent.relative_to(tree)).replace("staging/src/", "vendor/"))
    left_out = ("vendor/k8s.io/code-generator/", "vendor/k8s.io/sample-apiserver/")
    return sorted(package for package in found if not package.startswith(left_out) and "testdata" not in package)


def _compile(tree: Path, target: Path, environment: dict[str, str], reporter: Reporter) -> None:
    commands = [f"./cmd/{program}" for program in _PROGRAMS]
    packages: list[str] = []
    run(["go", "list", "-tags=providerless", "-deps", *commands], cwd=tree, env=environment, on_line=packages.append)
    target.mkdir(exist_ok=True)
    compiled = 0
    # Linking, about a tenth of the time, comes after the last package.
    with reporter.track(f"Building Kubernetes {VERSION} (some minutes, once)", len(packages) * 1.1) as update:

        def on_line(_line: str) -> None:
            nonlocal compiled
            compiled += 1
            update(compiled)

        flags = ["-v", "-tags=providerless", "-gcflags=all=-dwarf=false", f"-ldflags=-s -w {_version_flags()}"]
        run(["go", "build", *flags, "-o", f"{target}/", *commands], cwd=tree, env=environment, on_line=on_line)


def _version_flags() -> str:
    """Linker flags that set what /version and --version answer; names from hack/lib/version.sh."""
    major, minor, _ = VERSION.split(".")
    values = {"gitVersion": f"v{VERSION}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "archive"}
    packages = ("client-go/pkg/version", "component-base/version")
    prefix = "k8s.io/kubernetes/vendor/k8s.io"
    return " ".join(f"-X {prefix}/{package}.{name}={value}" for package in packages for name, value in values.items())
