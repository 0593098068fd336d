"""The pages agree with each other and with the code: links, paths, commands, projects, tables."""

from __future__ import annotations

import ast
import importlib
import json
import pydoc
import re
import shlex
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

import click
import msgspec
import pytest

from dom0 import errors
from dom0.agent import (
    ambassador_status,
    api,
    device_status,
    events,
    file_status,
    refusal,
    scope_status,
    served_farms,
    status,
    storage,
    vitals,
)
from dom0.agent.three_way import FileVersion
from dom0.ambassador import messages
from dom0.cli.farms.nodes import NodeInfo
from dom0.cli.farms.status import FarmStatus, FloatStatus, NodeStatus, ServiceStatus
from dom0.cli.farms.tree import FarmFloat, FarmImageInfo, FarmNode, FarmRole, FarmTree
from dom0.cli.modules import MODULES
from dom0.compose.load import load
from dom0.engine import values
from dom0.farms.nodes import Standing
from dom0.forward.dataplane import Flow
from dom0.health import Problem
from dom0.host import boot, disk, slots
from dom0.names import Access
from dom0.plan.differences import Difference
from dom0.plan.preview import Change
from dom0.plan.steps import AnyStep
from dom0.plan.text import kind_of
from dom0.testing.command_lines import parse_dom0
from dom0.testing.pages import CHECKOUT, Page, page, pages, section

PAGES = pages()
SOURCES = sorted((CHECKOUT / "src" / "dom0").rglob("*.py"))
TOP = ("src/", "tests/", "docs/", "scripts/", "images/", "os/", "examples/", "bench/")
HEREDOC = re.compile(r"<<'EOF'\n(.*?)^EOF$", re.DOTALL | re.MULTILINE)
each_page = pytest.mark.parametrize("of", [pytest.param(of, id=of.name) for of in PAGES])
ROW = re.compile(r"^\| (?:\[?`)([^`]+)`\]?", re.MULTILINE)


# links and paths


@each_page
def test_every_link_inside_the_repository_leads_somewhere(of: Page) -> None:
    for link in of.links:
        parts = urlsplit(link)
        if parts.scheme:
            continue
        target = (of.path.parent / parts.path).resolve() if parts.path else of.path
        assert target.exists(), link
        if parts.fragment:
            assert parts.fragment in page(str(target.relative_to(CHECKOUT))).anchors, link


@each_page
def test_every_path_that_a_page_names_exists(of: Page) -> None:
    for code in of.code:
        if code.startswith(TOP) and re.fullmatch(r"[\w./-]+", code):
            assert (CHECKOUT / code).exists(), code


def test_every_page_that_the_sources_name_exists() -> None:
    sources = [*SOURCES, CHECKOUT / "Makefile", *(CHECKOUT / "scripts").iterdir(), *(CHECKOUT / "bench").glob("*.py")]
    named = {name for path in sources for name in re.findall(r"docs/[\w/-]+\.md", path.read_text())}
    assert named
    assert {name for name in named if not (CHECKOUT / name).exists()} == set()


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [CHECKOUT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path not in reached and path.suffix == ".md" and path.exists():
            reached.add(path)
            links = page(str(path.relative_to(CHECKOUT))).links
            waiting += [(path.parent / urlsplit(link).path).resolve() for link in links if not urlsplit(link).scheme]
    assert {of.path for of in PAGES} - reached == set()


# blocks of code


def shell_lines(of: Page) -> Iterator[str]:
    """What a person would type: of `sh` blocks all, of `console` blocks what stands behind the prompt."""
    for block in of.blocks:
        text = HEREDOC.sub("", block.text).replace("\\\n", "")
        if block.language == "sh":
            yield from text.splitlines()
        elif block.language == "console":
            yield from (line[2:] for line in text.splitlines() if line.startswith("$ "))


def simple_commands(line: str) -> Iterator[list[str]]:
    """The commands of a shell line: without comments, variables before them, and what joins them."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    argv: list[str] = []
    for word in [*lexer, ";"]:
        if re.fullmatch(r"[();<>|&]+", word):
            if argv:
                yield argv
            argv = []
        elif argv or not re.fullmatch(r"\w+=.*", word):
            argv.append(word)


def test_parsing_knows_right_from_wrong() -> None:
    parse_dom0(["home", "backup", "FILE", "--force"], complete=True)
    for wrong in (["hoem"], ["home", "bakcup"], ["up", "--forcce"], ["rollback", "1", "2"], ["exec", "redis"]):
        with pytest.raises((click.UsageError, AssertionError)):
            parse_dom0(wrong, complete=True)


@each_page
def test_every_dom0_command_in_a_block_is_one(of: Page) -> None:
    for line in shell_lines(of):
        for program, *arguments in simple_commands(line):
            if program in ("dom0", ".venv/bin/dom0"):
                parse_dom0(arguments, complete=True)


@each_page
def test_every_dom0_command_in_the_text_is_one(of: Page) -> None:
    for code in of.code:
        if code.startswith("dom0 "):
            words = [word for word in shlex.split(code.split(" | ")[0])[1:] if not re.search(r"[…\[\]|]", word)]
            parse_dom0(words, complete=False)


@each_page
def test_every_make_target_is_one(of: Page) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    typed = [argv for line in shell_lines(of) for argv in simple_commands(line)]
    typed += [shlex.split(code) for code in of.code if code.startswith("make ")]
    asked = {word for argv in typed if argv[0] == "make" for word in argv[1:] if "=" not in word}
    assert asked - targets == set()


@each_page
def test_every_test_that_a_page_runs_exists(of: Page) -> None:
    typed = [argv for line in [*shell_lines(of), *of.code] if "pytest" in line for argv in simple_commands(line)]
    for word in (word for argv in typed for word in argv if word.startswith("tests/")):
        path, _, name = word.partition("::")
        assert (CHECKOUT / path).exists()
        assert f"def {name.partition('[')[0]}(" in (CHECKOUT / path).read_text() if name else True


def projects() -> Iterator[tuple[str, str]]:
    """Complete projects on the pages: their place, and the YAML."""
    for of in PAGES:
        for block in of.blocks:
            texts = [block.text] if block.language == "yaml" else HEREDOC.findall(block.text)
            for text in texts:
                if re.search(r"^services:", text, re.MULTILINE):
                    yield f"{of.name}:{block.line}", text


@pytest.mark.parametrize("text", [pytest.param(text, id=place) for place, text in projects()])
async def test_every_project_on_a_page_loads(text: str, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(text)
    for file in re.findall(r"(?:file|env_file|ssh_key): (\./\S+)", text):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert (await load(tmp_path, tmp_path)).services


@each_page
def test_every_block_of_json_and_python_can_be_read(of: Page) -> None:
    for block in of.blocks:
        if block.language == "json":
            json.loads(block.text)
        if block.language == "python":
            for node in ast.walk(ast.parse(block.text)):
                if isinstance(node, ast.ImportFrom):
                    module = importlib.import_module(node.module or "")
                    assert all(hasattr(module, alias.name) for alias in node.names)


# what the reference says, and what the code does


def problem_codes() -> set[str]:
    """Every code that a Problem can have, from the sources."""
    found = {code for _, code, _ in refusal.KNOWN}
    for path in SOURCES:
        if "testing" in path.parts:
            continue
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem":
                found |= {code for keyword in node.keywords if keyword.arg == "code" for code in texts(keyword.value)}
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                found |= texts(node.value) if node.targets[0].id in ("code", "CODE") else set()
            elif isinstance(node, ast.FunctionDef) and node.name == "classify":
                returned = (inner.value for inner in ast.walk(node) if isinstance(inner, ast.Return))
                found |= {code for value in returned if isinstance(value, ast.Tuple) for code in texts(value.elts[0])}
    return found


def texts(node: ast.expr) -> set[str]:
    """The constants that an expression may be: one, or one of two."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}
    return texts(node.body) | texts(node.orelse) if isinstance(node, ast.IfExp) else set()


def test_every_problem_code_has_a_section_and_every_section_a_code() -> None:
    reference = page("docs/reference/problems.md")
    codes = problem_codes()
    assert {"crash-loop", "project-invalid", "engine-refused", "port-taken", "name-taken"} <= codes
    assert {title for title in reference.headings if re.fullmatch(r"[a-z]+-[a-z-]+|held|unhealthy", title)} == codes
    assert set(ROW.findall(reference.text)) == codes
    for code in codes:
        assert "What to do:" in section(reference, code), code


def test_every_exit_code_is_documented() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    codes = {str(getattr(kind, "exit_code", 1)) for kind in classes} | {"0", str(errors.EXIT_CHANGES)}
    text = page("docs/reference/exit-codes.md").text
    shell = {"130", "141", "143"}  # as a shell calls interrupted, nobody reads and terminated
    assert set(re.findall(r"^\| (\d+) \|", text, re.MULTILINE)) == codes | shell


DOCUMENTS: tuple[tuple[type[msgspec.Struct], type[StrEnum] | None], ...] = (
    (status.Status, None),
    (status.ServiceStatus, status.Phase),
    (status.GenerationInfo, status.Outcome),
    (status.Progress, None),
    (events.Entry, None),
    (events.EventsRequest, None),
    (status.WatchRequest, None),
    (status.LogsRequest, None),
    (status.LogLine, None),
    (Difference, None),
    (Change, None),
    (Problem, None),
    (status.UpRequest, None),
    (status.PullStatus, None),
    (status.PullEvent, None),
    (status.Acted, None),
    (status.BackupStatus, None),
    (status.MembershipStatus, None),
    (storage.StorageStatus, None),
    (storage.VolumeStatus, None),
    (storage.VolumeUser, None),
    (storage.DiskSpace, None),
    (vitals.UsageStatus, None),
    (values.Usage, None),
    (served_farms.ServedFarm, None),
    (served_farms.ServedNode, None),
    (scope_status.ScopeStatus, None),
    (scope_status.ScopeBudget, None),
    (scope_status.ScopeRefusal, None),
    (vitals.Vitals, None),
    (vitals.FileSystem, None),
    (status.RollbackRequest, None),
    (status.CurrentRequest, None),
    (status.TryRequest, None),
    (file_status.FileInfo, file_status.FileState),
    (file_status.FileDiff, None),
    (file_status.DiffRequest, None),
    (file_status.FilesRequest, None),
    (file_status.FilesPlanRequest, None),
    (FileVersion, None),
    (device_status.Devices, None),
    (device_status.Device, None),
    (device_status.PairRequest, None),
    (device_status.Invitation, None),
    (ambassador_status.AmbassadorStatus, None),
    (ambassador_status.ShortcutStatus, None),
    (ambassador_status.PlacedFlow, None),
    (ambassador_status.Rewired, None),
    (ambassador_status.InShortcuts, None),
    (messages.Rewire, None),
    (messages.Undo, None),
    (messages.Receipt, None),
    (messages.State, None),
    (messages.ListenerState, None),
    (Flow, None),
)


def command_modules() -> Iterator[str]:
    for module in MODULES.values():
        yield module
        command = importlib.import_module(module).command
        for one in command.commands.values() if isinstance(command, click.Group) else ():
            yield one.callback.__module__


def test_the_map_has_every_module_that_is_longer_than_a_screen() -> None:
    """By its name in the row of its package, or as a command."""
    rows = re.findall(r"^\| `([\w.]+)/?`(.*)$", section(page("docs/ARCHITECTURE.md"), "Map"), re.MULTILINE)
    named = {place: set(re.findall(r"`(\w+)`", row)) for place, row in rows}
    package = CHECKOUT / "src" / "dom0"
    commands = {package.joinpath(*module.split(".")[1:]).with_suffix(".py") for module in command_modules()}
    shipped = {path for path in package.glob("*/**/*.py") if path.relative_to(package).parts[0] != "testing"} - commands
    long = [path for path in shipped if path.read_text().count("\n") > 60 and path.stem != "__init__"]
    assert [str(path) for path in long if path.stem not in named[path.relative_to(package).parts[0]]] == []


def test_every_place_where_something_is_decided_exists() -> None:
    places = re.findall(r"\| `([\w.]+)` \|$", section(page("docs/HACKING.md"), "Where is it decided …"), re.MULTILINE)
    assert len(places) >= 12
    for place in places:
        assert callable(pydoc.locate(f"dom0.{place}")), place


@pytest.mark.parametrize(("document", "words"), DOCUMENTS, ids=lambda one: getattr(one, "__name__", ""))
def test_every_field_of_the_api_is_documented(document: type[msgspec.Struct], words: type[StrEnum] | None) -> None:
    rows = ROW.findall(section(page("docs/reference/api.md"), document.__name__))
    assert rows == [*document.__struct_encode_fields__, *(words or ())]


def test_every_kind_of_event_is_documented() -> None:
    steps = [kind_of(step) for step in get_args(AnyStep)]
    assert ROW.findall(section(page("docs/events.md"), "Kinds")) == [*events.Kind, *steps]


@pytest.mark.parametrize("document", [boot.Boot, boot.Stage, boot.Difference], ids=lambda one: one.__name__)
def test_every_field_of_a_boot_is_documented(document: type[msgspec.Struct]) -> None:
    assert ROW.findall(section(page("docs/boot.md"), document.__name__)) == [*document.__struct_fields__]


@pytest.mark.parametrize("document", [disk.Data, disk.Device], ids=lambda one: one.__name__)
def test_every_field_of_a_disk_is_documented(document: type[msgspec.Struct]) -> None:
    assert ROW.findall(section(page("docs/disk.md"), document.__name__)) == [*document.__struct_fields__]


@pytest.mark.parametrize(
    "document",
    [
        *(NodeInfo, Standing, FarmStatus, NodeStatus, FloatStatus, ServiceStatus),
        *(FarmTree, FarmRole, FarmNode, FarmImageInfo, FarmFloat),
    ],
    ids=lambda one: one.__name__,
)
def test_every_field_of_a_farm_is_documented(document: type[msgspec.Struct]) -> None:
    assert ROW.findall(section(page("docs/farm.md"), document.__name__)) == [*document.__struct_fields__]


@pytest.mark.parametrize("document", [slots.OsStatus, slots.OsSlot], ids=lambda one: one.__name__)
def test_every_field_of_the_state_of_the_base_os_is_documented(document: type[msgspec.Struct]) -> None:
    assert ROW.findall(section(page("docs/os.md"), document.__name__)) == [*document.__struct_fields__]


def test_every_request_of_the_api_is_documented_with_who_may_ask_it() -> None:
    rows = re.findall(r"^\| `((?:GET|POST) [^`]+)` \|([^|]*)\|", page("docs/reference/api.md").text, re.MULTILINE)
    marks = {Access.VIEW: {"*view*"}, Access.OPERATE: {"*operate*"}, Access.ALL: set[str]()}
    assert {request: set(re.findall(r"\*\w+\*", body)) for request, body in rows} == {
        request: marks[route.access] for request, route in api.ROUTES.items()
    }


def test_the_map_of_the_architecture_names_every_module() -> None:
    package = CHECKOUT / "src" / "dom0"
    modules = {f"{path.name}/" for path in package.iterdir() if (path / "__init__.py").exists()}
    modules |= {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    rows = re.findall(r"^\| (`[^|]+) \|", section(page("docs/ARCHITECTURE.md"), "Map"), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([^`]+)`", row) if "src" not in name} == modules
