"""How a project is laid out in its image, and what Compose is told to build."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import msgspec
import pytest

from dom0.compose.load import load
from dom0.compose.model import Build, FileObject, Project, Service
from dom0.errors import ProjectError
from dom0.images import fingerprint, left_out, selection
from dom0.images.fingerprint import read_ignore
from dom0.images.layout import stage
from dom0.images.project import build_file
from dom0.images.reading import read
from dom0.names import PLACED
from dom0.run import capture

NAMED = "name: box\nservices: {a: {image: i}}\n"
COMPOSE_OF_ALL_KINDS = """
name: box
include: [parts/more.yml]
services:
  web:
    image: i:${TAG}
    env_file: env/web.env
    extends: {file: conf/base.yml, service: base}
    volumes: ["./conf/site.conf:/site.conf"]
    configs: [config]
    secrets: [secret]
    security_opt: ["seccomp:seccomp.json"]
configs: {config: {file: conf/config}}
secrets: {secret: {file: secret}}
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "compose.yaml").write_text(NAMED)
    return root


async def layout(directory: Path, tmp_path: Path) -> set[str]:
    """The files in the image, which has to be read as the project is, whether Compose is asked again or not."""
    target = tmp_path / "staged"
    reading = await read(directory)
    project = reading.project
    try:
        stage(directory, project, selection.kept(project, directory, read_ignore(directory)), target)
        anew = await load(target, PLACED, like=project)
        assert await load(target, PLACED, like=project, cache=reading.cache) == anew
    finally:
        await reading.cache.close()
    files = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_symlink() or path.is_file()}
    return files - {left_out.FILE}


async def test_the_compose_file_becomes_a_layer_and_the_rest_stays_where_it_is(directory: Path, tmp_path: Path) -> None:
    (directory / "conf").mkdir()
    (directory / "conf" / "a.conf").touch()
    (directory / ".env").touch()
    assert await layout(directory, tmp_path) == {"compose.d/50-box.yaml", "conf/a.conf", ".env"}


async def test_what_services_write_of_a_project_that_was_taken_over_is_not_the_images(
    directory: Path, tmp_path: Path
) -> None:
    volumes = "[./data:/data, './a [b]:/b', ./site:/site:ro, ./data/one.conf:/one.conf]"
    (directory / "compose.yaml").write_text(f"{{name: box, services: {{a: {{image: i, volumes: {volumes}}}}}}}\n")
    for name in ("data/rows", "data/deep/rows", "data/one.conf", "data/app.ini", "a [b]/rows", "site/index.html"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("text")
    (directory / ".dockerignore").write_text("!data/app.ini\n")
    project = await load(directory, PLACED, hashed=False)
    writable_binds = selection.writable_binds(project, directory)
    assert writable_binds == ("a [b]", "data")
    target = tmp_path / "staged"
    kept = selection.kept(project, directory, read_ignore(directory, writable_binds), in_place=True)
    stage(directory, project, kept, target, writable_binds)
    await load(target, PLACED, like=project)
    files = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert files == {"compose.d/50-box.yaml", "data/one.conf", "data/app.ini", "site/index.html"}
    assert (target / "a [b]").is_dir()


def write(root: Path, **files: str) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def binding(*volumes: str) -> str:
    return f"name: box\nservices: {{a: {{image: i, volumes: {json.dumps(volumes)}}}}}\n"


async def test_of_the_directory_around_comes_all_that_its_dockerignore_lets_in_and_the_project_once(
    directory: Path, tmp_path: Path
) -> None:
    tree = (
        "src/main",
        "src/seen/x",
        "cache/x",
        "cache/keep",
        ".git/HEAD",
        ".env",
        ".dom0-parent/x",
        "project-2/x",
        "x.o",
    )
    write(directory.parent, **dict.fromkeys(tree, "x=y\n"))
    write(directory.parent, **{".dockerignore": "project\ncache\n!cache/keep\n.env\n**/seen\n"})
    write(
        directory, **{"compose.yaml": binding("..:/app:ro", "../src/seen:/x"), "own": "x", ".dockerignore": "**/*.o\n"}
    )
    (directory.parent / "out").symlink_to("/etc")
    in_tree = {"src/main", "src/seen/x", "cache/keep", ".env", "project-2/x", "out"}
    found = await layout(directory, tmp_path)
    of_project = {"compose.d/50-box.yaml", "compose.d/.staged", "compose.d/.way", "compose.yaml", "own"}
    assert found == {*of_project, *(f".dom0-parent/{name}" for name in in_tree)}
    placed = tmp_path / "staged/.dom0-parent/project"
    assert (placed.is_dir(), list(placed.iterdir())) == (True, [])
    stays = left_out.read(tmp_path / "staged")
    names = (".dom0-parent/cache/x", ".dom0-parent/cache/keep", ".dom0-parent/src/gone", "a.o", "cache/x")
    assert [name for name in names if stays(name)] == [".dom0-parent/cache/x", "a.o"]


async def test_a_work_tree_two_levels_above_comes_with_each_directory_in_it_once(tmp_path: Path) -> None:
    project = tmp_path / "tree/apps/box"
    write(tmp_path / "tree", **dict.fromkeys((".git/HEAD", "top", "apps/beside", "lib/x", "apps/box/own"), "x"))
    compose = binding("../../:/app", "../../lib:/lib", "../..:/other", "cache:/other/apps")
    write(project, **{"compose.yaml": f"{compose}volumes: {{cache: {{}}}}\n"})
    up = ".dom0-parent"
    layers = {"compose.d/50-box.yaml", "compose.d/.staged", "compose.d/.way", "compose.yaml"}
    assert await layout(project, tmp_path) == {*layers, "own", f"{up}/beside", f"{up}/{up}/top", f"{up}/{up}/lib/x"}
    volumes = (await load(tmp_path / "staged", PLACED, hashed=False)).services["a"].volumes
    assert [(volume.source.removeprefix(str(PLACED)), volume.target) for volume in volumes] == [
        (f"/{up}/{up}", "/app"),
        (f"/{up}/{up}/lib", "/lib"),
        (f"/{up}/{up}", "/other"),
        ("cache", "/other/apps"),
        (f"/{up}", "/app/apps"),
        ("", f"/app/apps/{up}"),
        ("", "/app/apps/box"),
        ("", f"/app/apps/box/{up}"),
    ]


@pytest.mark.parametrize("way", [None, ".", ".."])
async def test_an_image_that_does_not_say_where_the_project_was_is_refused(
    directory: Path, tmp_path: Path, way: str | None
) -> None:
    write(directory.parent, **{".git/HEAD": "x"})
    write(directory, **{"compose.yaml": binding("..:/app")})
    await layout(directory, tmp_path)
    link = tmp_path / "staged/compose.d/.way"
    link.unlink()
    if way:
        link.symlink_to(way)
    with pytest.raises(ProjectError, match=r"volumes\.0\.source: \.\. leads out of the project"):
        await load(tmp_path / "staged", PLACED)


NAMING = {  # what names a file or directory
    "services.a.volumes.0": "services: {{a: {{image: i, volumes: ['{}:/x']}}}}",
    "configs.conf.file": "services: {{a: {{image: i, configs: [conf]}}}}\nconfigs: {{conf: {{file: {}}}}}",
    "secrets.key.file": "services: {{a: {{image: i, secrets: [key]}}}}\nsecrets: {{key: {{file: {}}}}}",
    "volumes.data.driver_opts.device": "services: {{a: {{image: i, volumes: ['data:/x']}}}}\n"
    "volumes: {{data: {{driver: local, driver_opts: {{type: none, o: bind, device: {}}}}}}}",
}


@pytest.mark.parametrize("key", NAMING)
async def test_a_link_that_the_machine_could_not_follow_is_refused_at_its_key_and_both_ways_out_work(
    directory: Path, tmp_path: Path, key: str
) -> None:
    write(tmp_path, **{"real/sub/file": "x"})
    (directory / "data").symlink_to("../real")
    write(directory, **{"compose.yaml": f"name: box\n{NAMING[key].format('./data/sub/file')}\n"})
    with pytest.raises(ProjectError) as refused:
        selection.check_links(await load(directory, PLACED, hashed=False), directory)
    line = 2 if key.startswith("services") else 3
    what = "data is a link to ../real, which the machine does not have"
    assert refused.value.message == f"compose.yaml:{line}: {key}: {what}"
    first, _, command = refused.value.hint.removeprefix("write ").partition(", or make the link absolute: ")
    await capture(shlex.split(command))
    selection.check_links(await load(directory, PLACED, hashed=False), directory)
    await layout(directory, tmp_path)
    (directory / "data").unlink()
    shutil.rmtree(tmp_path / "staged")
    host = first.removesuffix(", its path on the host")
    write(directory, **{"compose.yaml": f"name: box\n{NAMING[key].format(host)}\n"})
    assert (await load(directory, PLACED)).digests == {}
    await layout(directory, tmp_path)


@pytest.mark.parametrize("key", NAMING)
async def test_a_link_that_leads_back_to_itself_is_refused_at_its_key(directory: Path, key: str) -> None:
    (directory / "data").symlink_to("data/sub")
    write(directory, **{"compose.yaml": f"name: box\n{NAMING[key].format('./data')}\n"})
    project = await load(directory, PLACED, hashed=False)
    with pytest.raises(ProjectError, match=f"{re.escape(key)}: data is a symbolic link that leads back to itself"):
        selection.check_links(project, directory)
    assert selection.kept(project, directory, read_ignore(directory), in_place=True) == ()


async def test_a_link_that_leads_out_by_way_of_another_one_is_refused(directory: Path, tmp_path: Path) -> None:
    write(tmp_path, **{"real/sub/x": "", "real/file": "x"})
    (directory / "sub").symlink_to("../real/sub")
    (directory / "data").symlink_to("sub/../file")  # beside real/sub, not in the project
    write(directory, **{"compose.yaml": binding("./data:/x"), "file": "another one"})
    project = await load(directory, PLACED, hashed=False)
    assert project.digests == {}
    with pytest.raises(ProjectError, match=r"sub is a link to \.\./real/sub"):
        selection.check_links(project, directory)


@pytest.mark.parametrize("real", ["../real", "real", "../../real"])
async def test_a_link_above_the_project_is_refused_at_its_key_and_the_way_out_works(
    directory: Path, tmp_path: Path, real: str
) -> None:
    project = directory / "app"
    project.mkdir()
    write(project, **{f"{real}/file": "x", "../.git/HEAD": "x"})
    (directory / "link").symlink_to(project / real)
    write(project, **{"compose.yaml": binding("../link/file:/x")})
    with pytest.raises(ProjectError) as refused:
        await load(project, PLACED)
    assert refused.value.message == (
        "compose.yaml:2: services.a.volumes.0.source: ../link/file leads out of the project: "
        f"../link is a link to {project / real}"
    )
    instead = refused.value.hint.removeprefix("write ").removesuffix(", its path on the host")
    assert instead == {"../real": "../real/file", "real": "./real/file"}.get(real, str(tmp_path / "real/file"))
    write(project, **{"compose.yaml": binding(f"{instead}:/x")})
    await layout(project, tmp_path)


@pytest.mark.parametrize("key", NAMING)
async def test_a_file_above_a_project_in_no_work_tree_is_refused_and_both_ways_out_work(
    directory: Path, tmp_path: Path, key: str
) -> None:
    write(tmp_path / "data", file="x")
    write(directory, **{"compose.yaml": f"name: box\n{NAMING[key].format('../data/file')}\n"})
    with pytest.raises(ProjectError) as refused:
        await load(directory, PLACED)
    line = 2 if key.startswith("services") else 3
    assert refused.value.message.startswith(f"compose.yaml:{line}: {key}")
    hint = refused.value.hint
    include = re.search(r"says include: (\[.*?\]), or", hint)
    assert include
    assert f"make {tmp_path} the project" in hint
    write(tmp_path, **{"compose.yaml": f"include: {include[1]}\n"})
    outer = tmp_path / "outer"
    outer.mkdir()
    for name in ("compose.yaml", "data", "project"):
        (tmp_path / name).rename(outer / name)
    assert "data/file" in await layout(outer, tmp_path)
    shutil.rmtree(tmp_path / "staged")
    path = hint.rpartition(", as ")[2]
    write(outer / "project", **{"compose.yaml": f"name: box\n{NAMING[key].format(path)}\n"})
    await layout(outer / "project", tmp_path)


async def test_nobody_is_told_to_make_a_project_of_a_home_directory(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "data", file="x")
    write(directory, **{"compose.yaml": binding("../data:/x")})
    with pytest.raises(ProjectError, match="leads out") as refused:
        await load(directory, PLACED)
    assert "include" not in refused.value.hint


async def test_a_volume_that_is_a_directory_above_brings_that(directory: Path, tmp_path: Path) -> None:
    write(directory.parent, **{".git/HEAD": "x", "data/file": "x"})
    volume = "{driver: local, driver_opts: {type: none, o: bind, device: ../data}}"
    write(directory, **{"compose.yaml": f"{binding('data:/data')}volumes: {{data: {volume}}}\n"})
    assert ".dom0-parent/data/file" in await layout(directory, tmp_path)


async def test_the_override_is_the_layer_above(directory: Path, tmp_path: Path) -> None:
    (directory / "compose.override.yaml").write_text("services: {}\n")
    assert await layout(directory, tmp_path) == {"compose.d/50-box.yaml", "compose.d/51-box.override.yaml"}


@pytest.mark.parametrize("name", ["project", "2024", "1e3", "null"])
async def test_a_name_that_came_from_the_directory_is_written_down(directory: Path, tmp_path: Path, name: str) -> None:
    named = directory.with_name(name)
    write(named, **{"compose.yaml": "services: {a: {image: i}}\n"})
    assert await layout(named, tmp_path) == {f"compose.d/49-{name}.yaml", f"compose.d/50-{name}.yaml"}


async def test_a_compose_file_may_be_a_link_to_the_one_that_compose_file_names(directory: Path, tmp_path: Path) -> None:
    (directory / "compose.yaml").rename(directory / "other.yaml")
    (directory / "compose.yaml").symlink_to("other.yaml")
    (directory / ".env").write_text("COMPOSE_FILE=other.yaml\n")
    assert "compose.d/.staged" in await layout(directory, tmp_path)


async def test_a_second_compose_file_that_compose_does_not_choose_is_only_a_file(
    directory: Path, tmp_path: Path
) -> None:
    (directory / "docker-compose.yml").write_text("services: {old: {image: i}}\n")
    assert await layout(directory, tmp_path) == {"compose.d/.staged", "compose.d/50-box.yaml", "docker-compose.yml"}
    assert set((await load(tmp_path / "staged", Path("/final"))).services) == {"a"}


async def test_a_project_in_layers_stays_as_it_is(directory: Path, tmp_path: Path) -> None:
    (directory / "compose.yaml").unlink()
    (directory / "compose.d").mkdir()
    for name in ("10-a.yaml", "60-mine.yaml"):
        (directory / "compose.d" / name).write_text(NAMED)
    assert await layout(directory, tmp_path) == {"compose.d/10-a.yaml", "compose.d/60-mine.yaml"}


async def test_git_and_what_is_ignored_stay_out(directory: Path, tmp_path: Path) -> None:
    (directory / ".dockerignore").write_text("*.md\n")
    (directory / ".git").mkdir()
    (directory / ".git" / "HEAD").touch()
    (directory / "README.md").touch()
    assert await layout(directory, tmp_path) == {"compose.d/50-box.yaml"}


async def test_a_compose_file_that_is_a_link_is_copied(directory: Path, tmp_path: Path) -> None:
    (directory / "compose.yaml").rename(directory / "real.yaml")
    (directory / "compose.yaml").symlink_to("real.yaml")
    await layout(directory, tmp_path)
    placed = tmp_path / "staged" / "compose.d" / "50-box.yaml"
    assert (placed.is_symlink(), placed.read_text()) == (False, NAMED)


async def test_compose_files_that_are_links_to_others_of_the_work_tree_are_taken_with_those(
    directory: Path, tmp_path: Path
) -> None:
    write(tmp_path, **{".git/HEAD": "", "parts/main.yaml": f"include: [extra.yaml]\n{NAMED}"})
    write(tmp_path, **{"parts/extra.yaml": "services: {b: {image: i}}\n", "parts/others.yaml": ""})
    for name, file in {"compose.yaml": "main", "extra.yaml": "extra"}.items():
        (directory / name).unlink(missing_ok=True)
        (directory / name).symlink_to(f"../parts/{file}.yaml")
    assert await layout(directory, tmp_path) == {"compose.d/50-box.yaml", "extra.yaml"}
    placed = tmp_path / "staged/extra.yaml"
    assert (placed.is_symlink(), placed.read_text()) == (False, "services: {b: {image: i}}\n")
    project = await load(directory, PLACED)
    assert project.services.keys() == {"a", "b"}
    kept = selection.kept(project, directory, read_ignore(directory))
    made = fingerprint.BuildInputs({}, "", kept, (), "box", None)
    before = fingerprint.inputs_digest(directory, {}, made)
    write(tmp_path, **{"parts/extra.yaml": "services: {c: {image: i}}\n"})
    assert fingerprint.inputs_digest(directory, {}, made) != before


async def test_an_env_file_that_is_a_link_out_of_the_project_is_refused_in_a_work_tree_too(
    directory: Path, tmp_path: Path
) -> None:
    write(tmp_path, **{".git/HEAD": "", "secret.env": "PASSWORD=x\n"})
    (directory / "compose.yaml").write_text("name: box\nservices: {a: {image: i, env_file: a.env}}\n")
    (directory / "a.env").symlink_to("../secret.env")
    with pytest.raises(ProjectError, match=r"a\.env: is a symbolic link that leads out of the project"):
        await load(directory, PLACED)


async def test_an_empty_layer_is_a_layer(directory: Path, tmp_path: Path) -> None:
    (directory / "compose.override.yaml").write_text("# nothing yet\n")
    assert await layout(directory, tmp_path) == {"compose.d/50-box.yaml", "compose.d/51-box.override.yaml"}


async def test_modes_of_the_projects_files_are_kept(directory: Path, tmp_path: Path) -> None:
    (directory / "secret").touch(mode=0o600)
    await layout(directory, tmp_path)
    assert (tmp_path / "staged" / "secret").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("ignored", ["*", "**\n", ".env\nenv\nparts\nconf\nsecret\n*.yaml\n*.yml\n*.json\n"])
async def test_what_the_machine_needs_is_taken_whatever_the_dockerignore_says(
    directory: Path, tmp_path: Path, ignored: str
) -> None:
    files = {
        "compose.yaml": COMPOSE_OF_ALL_KINDS,
        ".dockerignore": ignored,
        ".env": "TAG=7\n",
        "env/web.env": "A=b\n",
        "parts/more.yml": "services: {more: {image: i, env_file: more.env}}\n",
        "parts/more.env": "C=d\n",
        "parts/.env": "E=f\n",
        "conf/base.yml": "services: {base: {environment: {G: h}}}\n",
        "conf/site.conf": "x",
        "conf/config": "x",
        "conf/not-needed": "x",
        "secret": "x",
        "seccomp.json": "{}",
    }
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    needed = files.keys() - {"compose.yaml", ".dockerignore", "conf/not-needed"}
    assert await layout(directory, tmp_path) == needed | {"compose.d/50-box.yaml"}


async def test_of_a_directory_that_is_ignored_and_bound_the_machine_gets_an_empty_one(
    directory: Path, tmp_path: Path
) -> None:
    (directory / "compose.yaml").write_text("name: box\nservices: {a: {image: i, volumes: ['./data/db:/data']}}\n")
    (directory / ".dockerignore").write_text("data\n")
    (directory / "data" / "db").mkdir(parents=True)
    (directory / "data" / "db").chmod(0o750)
    for name in ("data/other", "data/db/table"):
        (directory / name).touch()
    assert await layout(directory, tmp_path) == {"compose.d/50-box.yaml"}
    assert (tmp_path / "staged" / "data" / "db").stat().st_mode & 0o777 == 0o750


async def test_what_is_ignored_in_a_bound_directory_is_not_there_and_the_image_says_so(
    directory: Path, tmp_path: Path
) -> None:
    """Not as an empty directory either: a service which asks whether it has `node_modules` would install nothing."""
    (directory / "compose.yaml").write_text("name: box\nservices: {a: {image: i, volumes: ['.:/app']}}\n")
    (directory / ".dockerignore").write_text("**/data\n*.log\n")
    for name in ("site/data/old/table", "app.log", "site/page", ".git/HEAD"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).touch()
    (directory / "link").symlink_to("site/data")
    layers = {"compose.d/50-box.yaml", "compose.d/.staged", "compose.yaml"}
    assert await layout(directory, tmp_path) == layers | {"link", "site/page"}
    staged = tmp_path / "staged"
    assert [path.name for path in (staged / "site").iterdir()] == ["page"]
    stays = left_out.read(staged)
    assert [name for name in ("site/data/old/table", "app.log", "site/page", ".git/HEAD") if stays(name)] == [
        "site/data/old/table",
        "app.log",
        ".git/HEAD",
    ]


async def test_an_allow_list_for_a_build_says_nothing_of_what_services_bind(directory: Path, tmp_path: Path) -> None:
    """As under Compose a site is served, and a directory has what its service begins with."""
    write(
        directory,
        **{
            "compose.yaml": binding(
                "./www:/www:ro", "./conf:/conf", "./src/data:/data", "../shared:/shared", "./now:/now"
            ),
            **dict.fromkeys(("www/a/index", "www/x.log", "conf/app.ini", "src/data/rows", "src/main", "other"), "x"),
            "../shared/all": "x",
            "../shared/x.log": "x",
            "../.git/HEAD": "x",
            "versions/2/page": "x",
            ".dockerignore": "*\n!src/main\n**/*.log\nsrc/data\n",
        },
    )
    (directory / "now").symlink_to("versions/2")
    files = {"www/a/index", "conf/app.ini", "src/main", ".dom0-parent/shared/all", "now", "versions/2/page"}
    assert await layout(directory, tmp_path) == {"compose.d/50-box.yaml", *files}
    assert list((tmp_path / "staged/src/data").iterdir()) == []
    stays = left_out.read(tmp_path / "staged")
    names = ("www/gone", "www/y.log", "src/data/rows", ".dom0-parent/shared/gone", ".dom0-parent/shared/y.log", "z.log")
    assert [name for name in names if stays(name)] == ["www/y.log", "src/data/rows", ".dom0-parent/shared/y.log"]


async def test_an_allow_list_says_nothing_of_what_a_volume_binds_either(directory: Path, tmp_path: Path) -> None:
    volume = "{driver: local, driver_opts: {type: none, o: bind, device: ./data}}"
    compose = f"name: box\nservices: {{a: {{image: i, volumes: ['store:/v']}}}}\nvolumes: {{store: {volume}}}\n"
    write(
        directory, **{"compose.yaml": compose, "data/rows": "x", "data/keep": "x", ".dockerignore": "*\n!data/keep\n"}
    )
    files = {"compose.d/50-box.yaml", "data/rows", "data/keep"}
    assert await layout(directory, tmp_path) == files
    assert not left_out.read(tmp_path / "staged")("data/gone")


async def test_what_a_bound_link_leads_to_is_left_to_services_by_its_own_name(directory: Path, tmp_path: Path) -> None:
    ignore = "**/*.log\n"
    write(directory, **{"compose.yaml": binding("./now:/now"), "versions/2/page": "x", ".dockerignore": ignore})
    (directory / "now").symlink_to("versions/2")
    await layout(directory, tmp_path)
    stays = left_out.read(tmp_path / "staged")
    names = ("now/a.log", "versions/2/a.log", "versions/1/a.log")
    assert [name for name in names if stays(name)] == ["now/a.log", "versions/2/a.log"]


@pytest.mark.parametrize("ignore", ["*\n!src\n", "conf.ini\n"])
async def test_a_bound_file_that_comes_later_is_a_change_although_dockerignore_leaves_it_out(
    directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ignore: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    write(directory, **{"compose.yaml": binding("./data:/data", "./conf.ini:/conf.ini"), ".dockerignore": ignore})
    project = await load(directory, PLACED, hashed=False)
    kept = selection.kept(project, directory, read_ignore(directory))
    made = fingerprint.BuildInputs({}, kept=kept)
    digests = [fingerprint.inputs_digest(directory, {}, made)]
    for name in ("data/a/rows", "conf.ini"):
        write(directory, **{name: "x"})
        digests.append(fingerprint.inputs_digest(directory, {}, made))
    assert len({*digests}) == 3


async def test_no_link_in_a_project_lets_a_build_write_elsewhere(directory: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "file").write_text("precious")
    write(directory, **{"compose.yaml": binding("./data:/data"), "data/x": "x", ".dockerignore": "**/*.log\n"})
    (directory / left_out.FILE).symlink_to(theirs / "file")
    await layout(directory, tmp_path)
    assert (theirs / "file").read_text() == "precious"
    assert left_out.read(tmp_path / "staged")("data/a.log")
    (directory / "compose.yaml").rename(directory / "other.yaml")
    write(directory, **{".env": "COMPOSE_FILE=other.yaml\n"})
    (directory / "compose.d").symlink_to(theirs)
    with pytest.raises(ProjectError, match=r"compose\.d: is a link"):
        await layout(directory, tmp_path / "again")
    assert [path.name for path in theirs.iterdir()] == ["file"]


async def test_what_a_project_itself_says_of_what_is_left_out_does_not_count(directory: Path, tmp_path: Path) -> None:
    said = '[{"bind": ".", "top": ".", "lines": ["*"]}]'
    write(directory, **{"compose.yaml": binding("./data:/data"), "data/x": "x", left_out.FILE: said})
    await layout(directory, tmp_path)
    assert not left_out.read(tmp_path / "staged")("data/x")


async def test_of_an_allow_list_all_else_is_left_out(directory: Path, tmp_path: Path) -> None:
    (directory / "compose.yaml").write_text("name: box\nservices: {a: {image: i, volumes: ['.:/app', /x/y:/y]}}\n")
    (directory / ".dockerignore").write_text("*\n!src/app\n")
    (directory / "src" / "app").mkdir(parents=True)
    (directory / "src" / "app" / "main").touch()
    await layout(directory, tmp_path)
    stays = left_out.read(tmp_path / "staged")
    names = ("src/app/main", "src/app/gone", "src/other", "data/x", "app.log")
    assert [name for name in names if stays(name)] == ["src/other", "data/x", "app.log"]


async def test_what_no_service_binds_is_not_left_to_them(directory: Path, tmp_path: Path) -> None:
    (directory / "compose.yaml").write_text("name: box\nservices: {a: {image: i, volumes: ['./data:/data']}}\n")
    (directory / ".dockerignore").write_text("**/*.log\n")
    await layout(directory, tmp_path)
    stays = left_out.read(tmp_path / "staged")
    assert [name for name in ("data/a.log", "other/a.log", "data/a") if stays(name)] == ["data/a.log"]
    (tmp_path / "staged" / left_out.FILE).write_text("{")
    assert not left_out.read(tmp_path / "staged")("data/a.log")


@pytest.mark.parametrize("ignored", ["data", "data/*", "**/base\n**/PG_VERSION"])
@pytest.mark.parametrize("bound", [".", "./data"])
async def test_a_directory_whose_content_is_all_ignored_stays_empty(
    directory: Path, tmp_path: Path, ignored: str, bound: str
) -> None:
    """Also of directories: a database finds none of its own there."""
    (directory / "compose.yaml").write_text(f"name: box\nservices: {{a: {{image: i, volumes: ['{bound}:/data']}}}}\n")
    (directory / ".dockerignore").write_text(ignored)
    (directory / "data" / "base" / "1").mkdir(parents=True)
    (directory / "data" / "PG_VERSION").touch()
    await layout(directory, tmp_path)
    assert [path.name for path in (tmp_path / "staged").glob("data/*")] == []


async def test_a_needed_file_behind_links_is_taken_with_them(directory: Path, tmp_path: Path) -> None:
    (directory / "compose.yaml").write_text("name: box\nservices: {a: {image: i, env_file: now/a.env}}\n")
    (directory / ".dockerignore").write_text("now\nv2\nreal\n")
    (directory / "v2").mkdir()
    (directory / "now").symlink_to("v2")
    (directory / "v2" / "a.env").symlink_to("../real")
    (directory / "real").write_text("A=b\n")
    assert await layout(directory, tmp_path) == {"compose.d/50-box.yaml", "now", "v2/a.env", "real"}


def test_compose_is_told_only_what_is_to_be_built_and_expands_nothing() -> None:
    project = Project(
        name="box",
        services={
            "web": Service(build=Build(context="/p/web", args={"A": "$B"}), command=("x",)),
            "db": Service(image="postgres"),
        },
        secrets={"token": FileObject(name="box_token", file="/placed/token")},
        working_dir="/placed",
    )
    assert msgspec.json.decode(build_file(project, Path("/p"), str)) == {
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
    told = msgspec.json.decode(build_file(Project(name="box", services=services), Path("/p"), str))["services"]
    assert sorted(told) == ["fourth", "prepare", "third"]
