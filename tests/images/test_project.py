"""How a project is laid out in its image, and what Compose is told to build."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from dom0.compose.model import Build, FileObject, Project, Service
from dom0.images.project import build_file, stage

NAMED = "name: box\nservices: {a: {image: i}}\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "compose.yaml").write_text(NAMED)
    return root


def layers(directory: Path) -> set[str]:
    return {path.name for path in directory.glob("compose.d/*")}


def layout(directory: Path, tmp_path: Path) -> set[str]:
    target = tmp_path / "staged"
    files = ["compose.yaml", "compose.override.yaml", *sorted(f"compose.d/{name}" for name in layers(directory))]
    there = tuple(str(directory / file) for file in files if (directory / file).exists())
    stage(directory, Project(name="box", working_dir=str(directory), config_files=there), target)
    return {str(path.relative_to(target)) for path in target.rglob("*") if not path.is_dir()}


def test_the_compose_file_becomes_a_layer_and_the_rest_stays_where_it_is(directory: Path, tmp_path: Path) -> None:
    (directory / "conf").mkdir()
    (directory / "conf" / "a.conf").touch()
    (directory / ".env").touch()
    assert layout(directory, tmp_path) == {"compose.d/50-box.yaml", "conf/a.conf", ".env"}


def test_the_override_is_the_layer_above(directory: Path, tmp_path: Path) -> None:
    (directory / "compose.override.yaml").write_text("services: {}\n")
    assert layout(directory, tmp_path) == {"compose.d/50-box.yaml", "compose.d/51-box.override.yaml"}


def test_a_name_that_came_from_the_directory_is_written_down(directory: Path, tmp_path: Path) -> None:
    (directory / "compose.yaml").write_text("services: {a: {image: i}}\n")
    assert layout(directory, tmp_path) == {"compose.d/49-box.yaml", "compose.d/50-box.yaml"}
    assert (tmp_path / "staged" / "compose.d" / "49-box.yaml").read_text() == "name: box\n"


def test_a_project_in_layers_stays_as_it_is(directory: Path, tmp_path: Path) -> None:
    (directory / "compose.yaml").unlink()
    (directory / "compose.d").mkdir()
    for name in ("10-a.yaml", "60-mine.yaml"):
        (directory / "compose.d" / name).write_text(NAMED)
    assert layout(directory, tmp_path) == {"compose.d/10-a.yaml", "compose.d/60-mine.yaml"}


def test_git_and_what_is_ignored_stay_out(directory: Path, tmp_path: Path) -> None:
    (directory / ".dockerignore").write_text("*.md\n")
    (directory / ".git").mkdir()
    (directory / ".git" / "HEAD").touch()
    (directory / "README.md").touch()
    assert layout(directory, tmp_path) == {"compose.d/50-box.yaml"}


def test_a_compose_file_that_is_a_link_is_copied(directory: Path, tmp_path: Path) -> None:
    (directory / "compose.yaml").rename(directory / "real.yaml")
    (directory / "compose.yaml").symlink_to("real.yaml")
    layout(directory, tmp_path)
    placed = tmp_path / "staged" / "compose.d" / "50-box.yaml"
    assert (placed.is_symlink(), placed.read_text()) == (False, NAMED)


def test_modes_of_the_projects_files_are_kept(directory: Path, tmp_path: Path) -> None:
    (directory / "secret").touch(mode=0o600)
    layout(directory, tmp_path)
    assert (tmp_path / "staged" / "secret").stat().st_mode & 0o777 == 0o600


def test_compose_is_told_only_what_is_to_be_built_and_expands_nothing() -> None:
    project = Project(
        name="box",
        services={
            "web": Service(build=Build(context="/p/web", args={"A": "$B"}), command=("x",)),
            "db": Service(image="postgres"),
        },
        secrets={"token": FileObject(name="box_token", file="/p/token")},
    )
    assert msgspec.json.decode(build_file(project)) == {
        "name": "box",
        "services": {"web": {"image": "box-web", "build": {"context": "/p/web", "args": {"A": "$$B"}}}},
        "secrets": {"token": {"name": "box_token", "file": "/p/token"}},
    }


def test_services_that_share_an_image_build_it_once_and_others_each_their_own() -> None:
    tools, other = Build(context="/p/tools"), Build(context="/p/other")
    services = {
        "visitor": Service(image="tools", build=tools),
        "prepare": Service(image="tools", build=tools),
        "third": Service(image="tools", build=other),
        "fourth": Service(build=tools),
    }
    told = msgspec.json.decode(build_file(Project(name="box", services=services)))["services"]
    assert sorted(told) == ["fourth", "prepare", "third"]
