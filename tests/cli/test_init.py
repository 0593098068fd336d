"""New projects."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dom0.cli.init import project_name
from dom0.compose.load import load
from dom0.errors import UsageError
from dom0.images import recipe
from dom0.run import Output

RunCommand = Callable[..., Output]


def test_init_makes_a_project_named_like_its_directory(dom0: RunCommand, tmp_path: Path) -> None:
    assert dom0("init", "My Box").code == 0
    made = (tmp_path / "work" / "My Box" / "compose.yaml").read_text()
    assert "\nname: mybox #" in made
    assert "\n  hostname: mybox\n" in made


def test_the_next_command_can_be_pasted(dom0: RunCommand) -> None:
    assert dom0("init", "my box").stdout.endswith("next: dom0 up 'my box'\n")


def test_names_are_written_in_utf_8_whatever_the_locale_says(dom0: RunCommand) -> None:
    made = dom0("init", "Körbe", env={"PYTHONIOENCODING": "ascii"})
    assert (made.code, made.stdout.splitlines()[0]) == (0, "Körbe: project krbe, like the example hello")


def test_programs_get_the_names_of_the_projects(dom0: RunCommand) -> None:
    one = json.loads(dom0("init", "box", "--json").stdout)
    assert one == {"directory": "box", "example": "hello", "projects": ["box"]}
    two = json.loads(dom0("init", "--example", "two-hosts", "--json", "two").stdout)
    assert two["projects"] == sorted(two["projects"])
    assert len(two["projects"]) == 2


def test_init_without_a_directory_uses_this_one(dom0: RunCommand, tmp_path: Path) -> None:
    assert dom0("init").stdout.endswith("next: dom0 up\n")
    assert (tmp_path / "work" / "compose.yaml").is_file()


def test_a_directory_with_anything_in_it_is_refused(dom0: RunCommand, tmp_path: Path) -> None:
    (tmp_path / "work" / ".hidden").touch()
    refused = dom0("init")
    assert (refused.code, "is not empty" in refused.stderr) == (3, True)
    assert [path.name for path in (tmp_path / "work").iterdir()] == [".hidden"]


def test_an_unknown_example_is_refused_and_the_known_ones_named(dom0: RunCommand, tmp_path: Path) -> None:
    refused = dom0("init", "--example", "nope", "box")
    assert refused.code == 2
    assert "guest-machine, hello, mybox, two-hosts" in refused.stderr
    assert not (tmp_path / "work" / "box").exists()


@pytest.mark.parametrize("name", ["", "---", "日本"])
def test_a_directory_of_which_no_project_name_can_be_made_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        project_name(name)


def test_an_example_of_several_hosts_is_a_project_for_each(dom0: RunCommand, tmp_path: Path) -> None:
    said = dom0("init", "--example", "two-hosts", "both").stdout
    assert (
        said == "both: the projects big-server, client-server, like the example two-hosts\nnext: read both/README.md\n"
    )
    assert "\nname: big-server\n" in (tmp_path / "work" / "both" / "big-server" / "compose.yaml").read_text()


@pytest.mark.parametrize("example", [path.parent for path in recipe.examples().rglob("compose.yaml")], ids=str)
async def test_every_example_is_a_project_that_loads_without_a_warning(example: Path, tmp_path: Path) -> None:
    project = await load(example, tmp_path)
    assert project.name == (example.parents[1].name if example.parent.name == "roles" else example.name)
    assert project.warnings == ()
