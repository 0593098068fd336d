"""Projects that load and projects that are refused: `cases/loaded`, `cases/refused`; the file name says what is given.

A case is sections that begin with `=== NAME`: files of the project, then what is expected: `=== project` holds fields
of the loaded project (mappings may say less than there is), `=== expect` and `=== hint` the message of the refusal.
Where a newer Compose refuses by itself what dom0 refuses otherwise, `=== or expect` and `=== or hint` are as good.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from dom0.compose.load import load
from dom0.errors import ProjectError

CASES = Path(__file__).parent / "cases"
FINAL = Path("/final")
WHOLE = ("services", "digests", "environment", "contents")  # mappings with neither more nor less in them
EXPECTATIONS = ("project", "expect", "hint", "or expect", "or hint")


def cases(directory: str) -> list[Any]:
    return [pytest.param(path, id=path.stem) for path in sorted((CASES / directory).glob("*.txt"))]


def unpack(case: Path, directory: Path) -> dict[str, str]:
    """Write the files of the project to `directory`, return what is expected."""
    parts = re.split(r"^=== (.+)\n", case.read_text(encoding="utf-8"), flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    for name, text in sections.items():
        if name not in EXPECTATIONS:
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return {name: sections.get(name, "").strip() for name in EXPECTATIONS}


@pytest.mark.parametrize("case", cases("refused"))
async def test_refused(case: Path, tmp_path: Path) -> None:
    project = tmp_path / "box"
    project.mkdir()
    expected = unpack(case, project)
    with pytest.raises(ProjectError) as refusal:
        await load(project, FINAL)
    message = refusal.value.message.replace(str(project), "PROJECT")
    hint = refusal.value.hint.replace(str(tmp_path), "ABOVE").replace(str(tmp_path.parent), "ROOT")
    said = message, hint.replace(tmp_path.name, "TMP")
    if said != (expected["or expect"], expected["or hint"]):
        assert said == (expected["expect"], expected["hint"])


WHOLE_FILE = {  # refusals that are of no line, or of no key
    "a-compose-file-and-layers",
    "a-file-of-comments",
    "an-empty-file",
    "layers-without-a-name",
    "no-compose-file-at-all",
    "two-layers-of-comments",
}


@pytest.mark.parametrize("case", [case for case in cases("refused") if case.id not in WHOLE_FILE])
def test_every_refusal_has_a_line_and_a_way_out(case: Path, tmp_path: Path) -> None:
    project = tmp_path / "box"  # some files of a case lie beside it
    project.mkdir()
    expected = unpack(case, project)
    for which in ("", "or "):
        found = expected[f"{which}expect"].splitlines()
        assert all(re.match(r"\S+:\d+: ", line) for line in found)
        assert not found or expected[f"{which}hint"] or " has to be " in found[0]


@pytest.mark.parametrize("case", cases("loaded"))
async def test_loaded(case: Path, tmp_path: Path) -> None:
    project = tmp_path / "box"
    project.mkdir()
    expected = yaml.safe_load(unpack(case, project)["project"])
    found = msgspec.json.decode(msgspec.json.encode(await load(project, FINAL)))
    for field, value in expected.items():
        assert_says(found.get(field, type(value)()), value, field)
    assert found.get("compose_hashes", {}).keys() == found.get("services", {}).keys()


def assert_says(found: Any, expected: Any, where: str) -> None:
    """Every key of `expected` is in `found`; lists and single values are equal."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key, value in expected.items():
            assert key in found, f"{where} lacks {key}"
            assert_says(found[key], value, f"{where}.{key}")
        assert where not in WHOLE or set(found) == set(expected)
    else:
        assert found == expected, where
