"""What lies where a Compose file should be, and what a Compose file may draw in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dom0.compose.files import MAX_FILES, find_layers, read_project
from dom0.compose.source import MAX_BYTES
from dom0.errors import ProjectError

WEB = "services:\n  web:\n    image: busybox\n"


def message(root: Path) -> str:
    with pytest.raises(ProjectError) as refusal:
        read_project(root)
    return refusal.value.message.replace(str(root), "PROJECT")


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        (root / f"{name}.yaml").write_text(text)
    return root


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    assert message(tmp_path / "none") == "PROJECT: there is no such directory"


def test_a_file_instead_of_a_directory(tmp_path: Path) -> None:
    assert message(write(tmp_path, compose=WEB) / "compose.yaml") == "PROJECT: is not a directory"


def test_a_directory_instead_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").mkdir()
    assert message(tmp_path) == "compose.yaml: is a directory, not a file"


def test_a_pipe_instead_of_a_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "compose.yaml")
    assert message(tmp_path) == "compose.yaml: is a pipe, not a file"


def test_a_symbolic_link_round_in_circles(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").symlink_to("other.yaml")
    (tmp_path / "other.yaml").symlink_to("compose.yaml")
    assert message(tmp_path) == "compose.yaml: is a symbolic link that leads round in circles"


def test_a_symbolic_link_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").symlink_to("other.yaml")
    assert message(tmp_path) == "compose.yaml: there is no such file"


def test_a_symbolic_link_out_of_the_project(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "compose.yaml").symlink_to(write(tmp_path, outside=WEB) / "outside.yaml")
    assert message(project) == "compose.yaml: is a symbolic link that leads out of the project"


def test_a_symbolic_link_inside_the_project_is_followed(tmp_path: Path) -> None:
    write(tmp_path, real=WEB)
    (tmp_path / "compose.yaml").symlink_to("real.yaml")
    assert read_project(tmp_path).services == {"web"}


def test_a_project_that_is_itself_a_symbolic_link(tmp_path: Path) -> None:
    write(tmp_path, compose=WEB)
    link = tmp_path / "link"
    link.symlink_to(tmp_path, target_is_directory=True)
    assert read_project(link).root == tmp_path


def test_a_file_of_a_hundred_megabytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "compose.yaml").open("wb") as file:
        file.truncate(100_000_000)
    assert message(tmp_path) == f"compose.yaml: has 100000000 bytes, {MAX_BYTES} is the most it may have"


def test_a_device_as_env_file(tmp_path: Path) -> None:
    (tmp_path / "zero").symlink_to("/dev/zero")
    write(tmp_path, compose=WEB + "    env_file: zero\n")
    assert message(tmp_path).endswith("services.web.env_file: zero: is a symbolic link that leads out of the project")


def test_a_pipe_as_env_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    write(tmp_path, compose=WEB + "    env_file: pipe\n")
    assert message(tmp_path) == "compose.yaml:4: services.web.env_file: pipe: is a pipe, not a file"


def test_a_directory_as_dotenv(tmp_path: Path) -> None:
    (write(tmp_path, compose=WEB) / ".env").mkdir()
    assert message(tmp_path) == ".env: is a directory, not a file"


def test_an_env_file_counts_for_every_service_that_reads_it(tmp_path: Path) -> None:
    (tmp_path / "big.env").write_text("A=" + "x" * (MAX_BYTES - 10))
    services = "".join(f"  s{n}: {{image: busybox, env_file: big.env}}\n" for n in range(20))
    write(tmp_path, compose="services:\n" + services)
    assert "the Compose files draw in too much" in message(tmp_path)


def test_a_chain_of_includes_ends(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 1):
        write(tmp_path, **{f"c{number}": f"include: [c{number + 1}.yaml]\n"})
    write(tmp_path, compose="include: [c0.yaml]\n")
    assert "the Compose files draw in too much" in message(tmp_path)


def test_a_circle_of_includes_is_left_to_compose(tmp_path: Path) -> None:
    write(tmp_path, compose="include: [more.yaml]\n" + WEB, more="include: [compose.yaml]\n")
    assert len(read_project(tmp_path).sources) == 2


def test_a_path_longer_than_any_file_name(tmp_path: Path) -> None:
    write(tmp_path, compose=WEB + f"    env_file: {'x' * 5000}\n")
    assert message(tmp_path).endswith("the name is too long")


def test_an_optional_env_file_need_not_be_there(tmp_path: Path) -> None:
    write(tmp_path, compose=WEB + "    env_file: [{path: none.env, required: false}]\n")
    assert read_project(tmp_path).services == {"web"}


def test_paths_in_an_included_file_start_at_its_project_directory(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.env").write_text("A=b\n")
    write(tmp_path / "a", more=WEB + "    env_file: x.env\n")
    write(tmp_path, compose="include: [{path: a/more.yaml, project_directory: b}]\n")
    assert len(read_project(tmp_path).sources) == 2


def test_layers_stand_in_lexical_order_and_only_yaml_counts(tmp_path: Path) -> None:
    layers = tmp_path / "compose.d"
    layers.mkdir()
    for name in ("60-mine.yaml", "5-old.yaml", "10-farm.yml", "note.txt", "10-farm.yaml~"):
        (layers / name).write_text(WEB)
    assert find_layers(tmp_path) == ("compose.d/10-farm.yml", "compose.d/5-old.yaml", "compose.d/60-mine.yaml")


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (["compose.yaml", "docker-compose.yml"], ("compose.yaml",)),
        (["compose.yml", "compose.override.yml"], ("compose.yml", "compose.override.yml")),
        (
            ["docker-compose.yaml", "docker-compose.override.yml"],
            ("docker-compose.yaml", "docker-compose.override.yml"),
        ),
        (["compose.yaml", "compose.override.yaml"], ("compose.yaml", "compose.override.yaml")),
    ],
)
def test_names_of_compose_files_as_compose_looks_for_them(
    there: list[str], taken: tuple[str, ...], tmp_path: Path
) -> None:
    for name in there:
        (tmp_path / name).write_text(WEB)
    assert find_layers(tmp_path) == taken
