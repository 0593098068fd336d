"""dom0-ambassador: what it is asked of mmdebstrap for, what is in it, when it is built."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0 import __version__
from dom0.engine.docker import DockerEngine
from dom0.images import chain, contents, recipe
from dom0.images.ambassador import PYTHON, mmdebstrap
from dom0.images.archive import DEBIAN_KEYS, Archive, version_in
from dom0.images.project import build_project
from dom0.names import AMBASSADOR_IMAGE
from dom0.testing.chain import CACHE
from dom0.testing.hosts import Host

LARGEST = 100_000_000  # bytes, unpacked
ARCHIVE = Archive("http://archive/debian/", "trixie", ("main",), f"{DEBIAN_KEYS}keyring.pgp")


def test_packages_are_unpacked_and_nothing_is_installed() -> None:
    argv = mmdebstrap([ARCHIVE], Path("debian.sources"), Path("rootfs.tar"))
    assert "--variant=extract" in argv
    assert argv[-3:] == ["trixie", "rootfs.tar", "debian.sources"]
    (included,) = (word for word in argv if word.startswith("--include="))
    assert {"nftables", "conntrack", "socat", "python3-minimal"} <= set(included.removeprefix("--include=").split(","))


def test_the_part_of_the_package_that_goes_in_is_enough(tmp_path: Path) -> None:
    contents.copy(recipe.ambassador_files(), tmp_path / "dom0", time=recipe.EPOCH)
    files = sorted(path for of in ("ambassador", "forward") for path in (tmp_path / "dom0" / of).glob("*.py"))
    modules = [f"dom0.{path.parent.name}.{path.stem}" for path in files]
    assert {"dom0.ambassador.command", "dom0.forward.kernel"} <= set(modules)
    path = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    program = f"{path}; import dom0, {', '.join(modules)}; print(dom0.__file__)"
    found = subprocess.run([sys.executable, "-B", "-c", program], capture_output=True, text=True, check=False)
    assert found.stderr == ""
    assert found.stdout.strip() == str(tmp_path / "dom0" / "__init__.py")


def test_the_python_that_wheels_are_for_is_the_one_in_the_root() -> None:
    names = ("./usr/bin/python3", "./usr/bin/python3.13", "./usr/bin/py3versions")
    assert version_in(names, PYTHON) == "3.13"


def test_a_change_of_its_recipe_or_code_is_one_of_the_bases_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    base_inputs = recipe.base_inputs.__wrapped__
    before = base_inputs()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # nothing is remembered
    monkeypatch.setattr(recipe, "ambassador_inputs", lambda: "another")
    assert base_inputs() != before


@pytest.fixture(scope="module")
def host(session_host: Host, ambassador_image: None) -> Host:
    return session_host


@pytest.fixture(scope="module")
def inside(host: Host) -> Iterator[str]:
    """Name of a container of it that waits."""
    argv = ("run", "-d", "--rm", "--cap-add", "NET_ADMIN", "--entrypoint", "sleep", AMBASSADOR_IMAGE, "infinity")
    name = host.docker(*argv).stdout.strip()
    yield name
    host.docker("rm", "--force", name, check=False)


def run(host: Host, inside: str, *argv: str) -> str:
    return host.docker("exec", inside, *argv).stdout.strip()


def test_it_is_small(host: Host) -> None:
    assert int(host.docker("image", "inspect", "--format", "{{.Size}}", AMBASSADOR_IMAGE).stdout) <= LARGEST


def test_it_says_what_it_is_and_how_it_is_run(host: Host) -> None:
    config = json.loads(host.docker("image", "inspect", AMBASSADOR_IMAGE).stdout)[0]["Config"]
    assert config["Labels"] == {"dom0.role": "ambassador", "dom0.inputs": recipe.ambassador_inputs()}
    assert config["Entrypoint"] == ["/usr/lib/dom0/hold-ambassador"]
    assert config["Healthcheck"]["Test"][0] == "CMD-SHELL"


def test_everything_that_is_imported_is_there_and_byte_compiled(host: Host, inside: str) -> None:
    script = (
        "import sys; sys.path.append('/usr/lib/dom0/python'); sys.dont_write_bytecode = True\n"
        "import os, pkgutil, importlib, dom0.ambassador, dom0.forward\n"
        "packages = (dom0.ambassador, dom0.forward)\n"
        "names = [f'{of.__name__}.{it.name}' for of in packages for it in pkgutil.iter_modules(of.__path__)]\n"
        "for name in names: importlib.import_module(name)\n"
        "print([m.__name__ for m in list(sys.modules.values()) if getattr(m, '__cached__', None) "
        "and not os.path.exists(m.__cached__)])"
    )
    assert run(host, inside, "python3", "-IS", "-c", script) == "[]"


def test_its_programs_find_their_libraries(host: Host, inside: str) -> None:
    assert run(host, inside, "dom0-ambassador", "version") == f"dom0-ambassador {__version__}"
    assert run(host, inside, "nft", "list", "tables") == ""
    assert "flow entries" in host.docker("exec", inside, "conntrack", "-L").stderr
    assert "socat version" in run(host, inside, "socat", "-V")


def test_no_package_manager_and_no_test_kit_is_in_it(host: Host, inside: str) -> None:
    for path in ("/usr/bin/apt-get", "/usr/bin/dpkg", "/usr/bin/perl", "/usr/lib/dom0/python/dom0/testing"):
        assert host.docker("exec", inside, "test", "-e", path, check=False).code == 1


async def test_what_is_there_is_not_built_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", host.docker_host)
    engine = await DockerEngine.connect(host.docker_host)
    said: list[str] = []
    try:
        image = await chain.build_ambassador(engine, said.append)
    finally:
        await engine.close()
    assert said == []
    assert image.tags == (f"{AMBASSADOR_IMAGE}:latest",)


async def test_a_project_that_uses_it_gets_it(
    chain_images: None, ambassador_image: None, engine_host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine_host.docker_host)
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE))
    (tmp_path / "compose.yaml").write_text(f"name: box\nservices: {{redis: {{image: {AMBASSADOR_IMAGE}}}}}\n")
    engine_host.docker("tag", AMBASSADOR_IMAGE, "kept:test")
    engine_host.docker("image", "rm", "--force", AMBASSADOR_IMAGE)
    said: list[str] = []
    engine = await DockerEngine.connect(engine_host.docker_host)
    try:
        built = await build_project(engine, tmp_path, said.append)
        again = await build_project(engine, tmp_path, said.append)
        assert (built.changed, again.changed) == (True, False)
        assert (await engine.image(AMBASSADOR_IMAGE)).labels["dom0.inputs"] == recipe.ambassador_inputs()
        engine_host.docker("image", "rm", "--force", AMBASSADOR_IMAGE)
        await build_project(engine, tmp_path, said.append)
    finally:
        await engine.close()
    assert said.count(f"{AMBASSADOR_IMAGE}: unpacking Debian packages and wheels") == 2
