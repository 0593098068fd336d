"""What lies where a Compose file should be, and what a Compose file may reference."""

from __future__ import annotations

import asyncio
import os
import shlex
from pathlib import Path

import pytest

from dom0.compose.files import MAX_FILES, MAX_NESTED, ProjectFiles, read_project, read_regular
from dom0.compose.load import load
from dom0.compose.parser import find_parser, view_of
from dom0.compose.source import MAX_BYTES
from dom0.errors import ProjectError
from dom0.run import capture

WEB = "services:\n  web:\n    image: busybox\n"


def read(root: Path) -> ProjectFiles:
    with view_of("project") as view:
        return asyncio.run(read_project(root, find_parser(view, profiles=(), variables={}), view))


def message(root: Path) -> str:
    with pytest.raises(ProjectError) as refusal:
        read(root)
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
    assert message(tmp_path) == "compose.yaml: is a symbolic link that leads back to itself"


def test_a_symbolic_link_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").symlink_to("other.yaml")
    assert message(tmp_path) == "compose.yaml: there is no such file"


def test_a_symbolic_link_out_of_the_project(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "compose.yaml").symlink_to(write(tmp_path, outside=WEB) / "outside.yaml")
    assert message(project) == "compose.yaml: is a symbolic link that leads out of the project"


def test_a_symbolic_link_out_of_a_project_that_brings_its_own_directory_above(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / ".dom0-parent").mkdir(parents=True)
    write(project, compose=WEB)
    (project / "compose.override.yaml").symlink_to(write(tmp_path, outside=WEB) / "outside.yaml")
    assert message(project) == "compose.override.yaml: is a symbolic link that leads out of the project"


def test_no_copy_is_proposed_to_where_the_file_lies_already(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    write(tmp_path, outside=WEB)
    (tmp_path / "project/around").symlink_to(tmp_path)
    with pytest.raises(ProjectError) as refusal:
        read(write(tmp_path / "project", compose="include: [around/outside.yaml]\n"))
    assert "put the file itself there" in refusal.value.hint
    assert "cp " not in refusal.value.hint


def test_a_symbolic_link_inside_the_project_is_followed(tmp_path: Path) -> None:
    write(tmp_path, real=WEB)
    (tmp_path / "compose.yaml").symlink_to("real.yaml")
    assert read(tmp_path).services == {"web"}


def test_a_project_that_is_itself_a_symbolic_link(tmp_path: Path) -> None:
    write(tmp_path, compose=WEB)
    link = tmp_path / "link"
    link.symlink_to(tmp_path, target_is_directory=True)
    assert read(link).root == tmp_path


def test_a_file_of_a_hundred_megabytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "compose.yaml").open("wb") as file:
        file.truncate(100_000_000)
    assert message(tmp_path) == f"compose.yaml: has 100000000 bytes, it may have at most {MAX_BYTES}"


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
    assert "the project is too large" in message(tmp_path)


def test_a_chain_of_includes_ends(tmp_path: Path) -> None:
    for number in range(MAX_NESTED):
        write(tmp_path, **{f"c{number}": f"include: [c{number + 1}.yaml]\n"})
    write(tmp_path, compose="include: [c0.yaml]\n")
    assert f"more than {MAX_NESTED} Compose files include or extend each other" in message(tmp_path)


def test_a_project_of_very_many_files_is_read_and_of_too_many_is_not(tmp_path: Path) -> None:
    for number in range(MAX_FILES):
        write(tmp_path, **{f"c{number}": f"services: {{s{number}: {{image: busybox}}}}\n"})
    names = [f"c{number}.yaml" for number in range(MAX_FILES)]
    write(tmp_path, compose=f"include: [{', '.join(names[:-1])}]\n")
    assert len(read(tmp_path).services) == MAX_FILES - 1
    write(tmp_path, compose=f"include: [{', '.join(names)}]\n")
    assert "the project is too large" in message(tmp_path)


def test_a_circle_of_includes_is_left_to_compose(tmp_path: Path) -> None:
    write(tmp_path, compose="include: [more.yaml]\n" + WEB, more="include: [compose.yaml]\n")
    assert len(read(tmp_path).sources) == 2


def test_a_path_longer_than_any_file_name(tmp_path: Path) -> None:
    write(tmp_path, compose=WEB + f"    env_file: {'x' * 5000}\n")
    assert message(tmp_path).endswith("the name is too long")


def test_an_optional_env_file_need_not_be_there(tmp_path: Path) -> None:
    write(tmp_path, compose=WEB + "    env_file: [{path: none.env, required: false}]\n")
    assert read(tmp_path).services == {"web"}


def test_paths_in_an_included_file_start_at_its_project_directory(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.env").write_text("A=b\n")
    write(tmp_path / "a", more=WEB + "    env_file: x.env\n")
    write(tmp_path, compose="include: [{path: a/more.yaml, project_directory: b}]\n")
    assert len(read(tmp_path).sources) == 2


def test_layers_stand_in_lexical_order_and_only_yaml_counts(tmp_path: Path) -> None:
    layers = tmp_path / "compose.d"
    layers.mkdir()
    for name in ("60-mine.yaml", "5-old.yaml", "10-farm.yml", "note.txt", "10-farm.yaml~"):
        (layers / name).write_text(WEB)
    assert read(tmp_path).layers == ("compose.d/10-farm.yml", "compose.d/5-old.yaml", "compose.d/60-mine.yaml")


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
    assert read(tmp_path).layers == taken


HOSTILE = [
    "${F:-/dev/zero}",
    "${F:-/etc/hostname}",
    "${HOME}/.profile",
    "$OUT/secret",
    "${PWD}/../secret",
    "${F:-../secret}",
]


@pytest.mark.parametrize("file", HOSTILE)
@pytest.mark.parametrize("key", ["env_file", "label_file", "extends"])
def test_a_variable_does_not_lead_out_of_the_project(file: str, key: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("A=secret\n")
    root = tmp_path / "project"
    root.mkdir()
    (root / ".env").write_text(f"OUT={tmp_path}\n")
    value = f"{{file: '{file}', service: web}}" if key == "extends" else f"'{file}'"
    write(root, compose=WEB + f"    {key}: {value}\n")
    assert message(root).startswith(f"compose.yaml:4: services.web.{key}")
    assert message(root).endswith("is outside the project")


@pytest.mark.parametrize("include", ["'$F'", "{path: '$F'}", "{path: more.yaml, env_file: '$F'}"])
def test_nor_does_a_variable_of_an_include(include: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("F=/etc/hostname\n")
    write(tmp_path, compose=f"include: [{include}]\n", more=WEB)
    assert message(tmp_path) == "compose.yaml:1: include.0: /etc/hostname is outside the project"


@pytest.mark.parametrize("key", ["env_file", "label_file"])
def test_a_pipe_behind_a_variable_does_not_block(key: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    write(tmp_path, compose=WEB + f"    {key}: '${{F:-pipe}}'\n")
    assert message(tmp_path) == f"compose.yaml:4: services.web.{key}: pipe: is a pipe, not a file"


def test_a_link_whose_name_looks_like_a_variable_is_not_what_is_meant(tmp_path: Path) -> None:
    (tmp_path / "${F:-e}").symlink_to("/etc/hostname")
    (tmp_path / "e").write_text("A=b\n")
    write(tmp_path, compose=WEB + "    env_file: '${F:-e}'\n")
    assert set(read(tmp_path).copies) == {"compose.yaml", "e"}
    write(tmp_path, compose=WEB + "    env_file: '$${F:-e}'\n")
    assert message(tmp_path).endswith("${F:-e}: is a symbolic link that leads out of the project")


def test_a_pipe_as_dotenv_of_an_included_project_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    os.mkfifo(tmp_path / "shop" / ".env")
    write(tmp_path / "shop", compose=WEB)
    write(tmp_path, compose="include: [shop/compose.yaml]\n")
    assert message(tmp_path) == "shop/.env: is a pipe, not a file"


def test_what_compose_reads_has_no_variable_left_in_a_path(tmp_path: Path) -> None:
    (tmp_path / "a b.env").touch()
    text = WEB + "    env_file: [&x '${F:-a b.env}', !!str '${F:-a b.env}', *x]\n    command: ['${F:-c}']\n"
    text += "  db:\n    env_file:\n      - |-\n        ${F:-a b.env}\n      - a b.env\n"
    write(tmp_path, compose=text)
    copy = read(tmp_path).copies["compose.yaml"].decode()
    values = '[&x "a b.env", !<tag:yaml.org,2002:str> "a b.env", *x]'
    written = text.replace("[&x '${F:-a b.env}', !!str '${F:-a b.env}', *x]", values)
    assert copy == written.replace("|-\n        ${F:-a b.env}", '"a b.env"')


def test_a_file_that_becomes_a_link_while_it_is_opened(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("A=secret\n")
    root = tmp_path / "project"
    root.mkdir()
    (root / "a.env").symlink_to(tmp_path / "outside")
    with pytest.raises(ProjectError, match=r"a\.env: is a symbolic link that leads out of the project"):
        read_regular(root / "a.env", name="a.env", inside=root)


def test_one_file_for_two_includes_with_different_variables(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".env").write_text(f"F={name}.env\n")
        (tmp_path / name / f"{name}.env").write_text(f"A={name}\n")
    write(tmp_path, more=WEB + "    env_file: $F\n")
    entries = ", ".join(f"{{path: more.yaml, project_directory: {name}}}" for name in ("a", "b"))
    write(tmp_path, compose=f"include: [{entries}]\n")
    assert message(tmp_path) == "compose.yaml:1: include.1: more.yaml: is read twice, and its variables differ"


def test_a_dotenv_that_leads_nowhere_is_none(tmp_path: Path) -> None:
    (tmp_path / ".env").symlink_to("settings.conf")
    write(tmp_path, compose=WEB)
    assert set(read(tmp_path).copies) == {"compose.yaml"}


@pytest.mark.parametrize("file", ["absolute", "above", "link"])
async def test_the_way_out_for_an_env_file_outside_of_the_project_works(file: str, tmp_path: Path) -> None:
    root, outside = tmp_path / "project", tmp_path / "elsewhere/web.env"
    for directory in (root, outside.parent):
        directory.mkdir()
    outside.write_text("A=b\n")
    (root / "link.env").symlink_to(outside)
    (root / "web.env").write_text("precious\n")  # is not overwritten
    named = {"absolute": str(outside), "above": "../elsewhere/web.env", "link": "link.env"}[file]
    write(root, compose=WEB + f"    env_file: {named}\n")
    with pytest.raises(ProjectError) as refused:
        await load(root, Path("/final"), hashed=False)
    assert refused.value.message.startswith(f"compose.yaml:4: services.web.env_file: {named}")
    command, _, then = refused.value.hint[refused.value.hint.index("cp ") :].partition(", and write ")
    await capture(shlex.split(command))
    write(root, compose=WEB + f"    env_file: {then.removesuffix(' here') or named}\n")
    project = await load(root, Path("/final"), hashed=False)
    assert project.services["web"].environment == {"A": "b"}
    assert (root / "web.env").read_text() == "precious\n"


async def test_a_seccomp_profile_that_is_a_link_out_of_the_project(tmp_path: Path) -> None:
    (tmp_path / "outside.json").write_text("{}")
    (tmp_path / "project").mkdir()
    (tmp_path / "project/profile.json").symlink_to("../outside.json")
    write(tmp_path / "project", compose=WEB + "    security_opt: [seccomp=profile.json]\n")
    with pytest.raises(ProjectError, match=r"compose\.yaml:4: .*: profile\.json: is a symbolic link that leads out"):
        await load(tmp_path / "project", Path("/final"), hashed=False)
