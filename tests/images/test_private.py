"""What stays out of an image: which files, how the image knows them, and how they come into their places."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from msgspec.structs import replace

from dom0.compose.load import load
from dom0.engine.bodies import ContainerBody
from dom0.errors import ProjectError
from dom0.images import fingerprint, private, selection
from dom0.names import PLACED
from dom0.plan import labels
from dom0.plan.desired import Desired
from dom0.testing.box import Box
from dom0.testing.builders import image_id
from dom0.testing.fake_engine import FakeEngine

COMPOSE = """
name: box
services:
  a:
    image: i
    env_file: [conf/a.env, link.env]
    secrets: [word]
    volumes: ["./conf:/conf"]
configs: {open: {file: conf/open}}
secrets:
  word: {file: word}
  unused: {file: ./old/word}
  above: {file: ../word}
  outside: {file: /etc/hostname}
  variable: {environment: WORD}
"""
FILES = {
    ".env": "WORD=x\n",
    "conf/a.env": "A=b\n",
    "conf/open": "x",
    "real.env": "C=d\n",
    "word": "secret\n",
    "old/word": "secret\n",
    "README": "x",
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name, content in {"compose.yaml": COMPOSE, **FILES}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    (tmp_path / "link.env").symlink_to("real.env")
    return tmp_path


async def names(directory: Path) -> tuple[str, ...]:
    project = await load(directory, PLACED, hashed=False)
    return selection.private(project, directory, fingerprint.read_ignore(directory))


async def test_secrets_env_files_and_dotenv_are_private_and_nothing_else(directory: Path) -> None:
    assert await names(directory) == (".env", "conf/a.env", "old/word", "real.env", "word")


async def test_the_dotenv_of_a_directory_above_that_is_bound_is_private(directory: Path) -> None:
    project = directory / "apps/box"
    project.mkdir(parents=True)
    (project / "compose.yaml").write_text("services: {a: {image: i, volumes: ['../..:/app', '../conf:/conf']}}\n")
    (directory / ".git").mkdir()
    assert await names(project) == (".dom0-parent/.dom0-parent/.env",)
    (directory / "apps/.env").touch()
    assert await names(project) == (".dom0-parent/.dom0-parent/.env", ".dom0-parent/.env")
    (project / ".dockerignore").write_text("!.dom0-parent/.env\n")
    assert await names(project) == (".dom0-parent/.dom0-parent/.env",)


async def test_a_compose_file_cannot_be_private(directory: Path) -> None:
    (directory / "compose.yaml").write_text(COMPOSE.replace("{file: word}", "{file: compose.yaml}"))
    assert "compose.yaml" not in await names(directory)


async def test_an_exception_for_the_file_itself_lets_it_into_the_image(directory: Path) -> None:
    (directory / ".dockerignore").write_text("*\n!conf\n!.env\n!/word\n!link.env\n")
    assert await names(directory) == ("conf/a.env",)
    (directory / ".dockerignore").write_text("!.env\n*\n")
    assert "old/word" not in await names(directory)  # nor in the image
    assert ".env" in await names(directory)


def inputs(directory: Path, project: str = "box") -> str:
    made = fingerprint.BuildInputs({}, private=("word",), project=project)
    return fingerprint.inputs_digest(directory, {}, made)


def test_an_image_knows_another_content_and_another_mode(directory: Path) -> None:
    before = inputs(directory)
    assert inputs(directory) == before
    (directory / "word").chmod(0o600)
    changed = inputs(directory)
    (directory / "word").write_text("Secret\n")
    assert len({before, changed, inputs(directory), inputs(directory, "other")}) == 4


def test_an_exception_that_comes_or_goes_is_noticed(directory: Path) -> None:
    (directory / ".dockerignore").write_text("!.env\n")
    before = inputs(directory)
    (directory / ".dockerignore").write_text("#!.env\n")
    assert inputs(directory) != before


@pytest.mark.parametrize("label", ["", "x", "{}", '["../x", "/x", 7, "", "a/../../b"]'])
def test_a_label_that_leads_elsewhere_is_not_followed(label: str) -> None:
    assert private.of_image({labels.PRIVATE: label}) == ()


def test_what_is_brought_keeps_owner_and_mode_and_is_marked_when_all_is_there(directory: Path) -> None:
    (directory / "word").chmod(0o640)
    packed = private.pack(directory, ("conf/a.env", "word"), Path("private/1"))
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        found = {entry.name: entry.mode for entry in archive}
    assert found == {
        "private": 0o700,
        "private/1": 0o700,
        "private/1/conf": 0o700,
        "private/1/conf/a.env": 0o644,
        "private/1/word": 0o640,
        "private/1/.complete": 0o644,
    }
    assert list(found)[-1] == "private/1/.complete"


class Brought(FakeEngine):
    """Notes the names in the tar that it gets."""

    names: tuple[str, ...] = ()

    async def create_container(self, name: str, body: ContainerBody, *, platform: str = "") -> str:
        return await super().create_container(name or "unnamed", body, platform=platform)

    async def put_archive(self, ref: str, path: str, tar: bytes) -> None:
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            self.names = tuple(archive.getnames())
        await super().put_archive(ref, path, tar)


def brought() -> tuple[Brought, str]:
    """With the ID of an image there."""
    engine, image = Brought(Box(Desired(project="box")).docker), image_id("app")
    engine.docker.images.all[image] = replace(engine.docker.images.all[image], cmd=("true",))
    return engine, image


async def test_what_was_packed_without_a_directory_comes_into_that_of_its_image_whatever_it_is_called(
    tmp_path: Path,
) -> None:
    names = ("schlüssel.env", f"{'long/' * 23}a.env")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    engine, image = brought()
    await private.deliver_packed(engine, image, private.pack(tmp_path, names, Path()))
    into = str(private.brought_for(Path(), image))
    assert {name for name in engine.names if not name.startswith(f"{into}/")} == {"private", into}
    assert {f"{into}/{name}" for name in names} <= {*engine.names}


@pytest.mark.parametrize("name", ["/etc/passwd", "../other/a.env", f"../{'long/' * 23}a.env"])
async def test_what_was_packed_to_lead_elsewhere_is_refused(name: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo(name))
    engine, image = brought()
    with pytest.raises(ValueError, match="private files: "):
        await private.deliver_packed(engine, image, packed.getvalue())
    assert engine.names == ()


def test_a_file_that_is_gone_when_it_is_brought_is_named(directory: Path) -> None:
    with pytest.raises(ProjectError, match="gone"):
        private.pack(directory, ("gone",), Path())


def test_each_file_comes_from_the_first_place_that_has_it(tmp_path: Path) -> None:
    one, other, etc = tmp_path / "one", tmp_path / "other", tmp_path / "etc"
    for path in (one / "a", other / "a", other / "sub" / "b"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(path))
    private.lay(("a", "sub/b"), etc, [one, other], "box")
    assert (etc / "a").read_text() == str(one / "a")
    assert (etc / "sub" / "b").read_text() == str(other / "sub" / "b")


def test_files_that_are_nowhere_are_all_named_with_where_to_put_them_and_nothing_is_laid(tmp_path: Path) -> None:
    root, etc = tmp_path / "root", tmp_path / "etc"
    root.mkdir()
    (root / "a").touch()
    with pytest.raises(ProjectError, match=r"^sub/b, c: private, ") as caught:
        private.lay(("a", "sub/b", "c"), etc, [root], "box")
    assert not etc.exists()
    assert "/var/lib/dom0/private/box/sub/b" in caught.value.hint
