"""`dom0 boot` on records as hosts leave them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from dom0.host.boot import Boot, Difference
from dom0.run import Output

RunCommand = Callable[..., Output]
FIRST = "2.00\tkernel\t\n3.00\tinit\t\n9.00\tengine\t\n10.00\tdom0\t\n12.00\tready\t\n"
SECOND = (
    "-4.00\tfirmware\tACPI FPDT\n2.00\tkernel\t\n3.00\tinit\t\n11.00\tengine\t\n12.00\tdom0\tlatest\n14.00\tready\t\n"
)


@pytest.fixture
def records(environment: dict[str, str]) -> Path:
    """Boot 3 has a copy, boot 4 is running."""
    run, kept = Path(environment["DOM0_RUN"]), Path(environment["DOM0_STATE"]) / "boot"
    for directory in (run, kept):
        directory.mkdir(parents=True)
    (kept / "0003.record").write_text(FIRST)
    (run / "boot.record").write_text(SECOND)
    return run / "boot.record"


def test_the_running_boot_is_told_stage_by_stage_with_the_slowest_named(records: Path, dom0: RunCommand) -> None:
    lines = dom0("boot").stdout.splitlines()
    assert lines[0].startswith("boot 4, ")
    assert lines[0].endswith(": ready after 18.00 s; slowest: engine, 8.00 s")
    assert lines[1].split() == ["STAGE", "FROM", "TOOK"]
    assert [line.split()[:3] for line in lines[2:]] == [
        ["firmware", "0.00", "4.00"],
        ["kernel", "4.00", "2.00"],
        ["init", "6.00", "1.00"],
        ["engine", "7.00", "8.00"],
        ["dom0", "15.00", "1.00"],
    ]
    assert lines[5].endswith("slowest")


def test_an_earlier_boot_is_told_by_its_number(records: Path, dom0: RunCommand) -> None:
    said = dom0("boot", "3").stdout
    assert "ready after 12.00 s; slowest: engine, 6.00 s" in said
    assert "does not tell how long its firmware took" in said
    refused = dom0("boot", "9")
    assert (refused.code, "recorded: 3 to 4" in refused.stderr) == (2, True)


def test_the_last_boots_are_listed(records: Path, dom0: RunCommand) -> None:
    rows = [line.split() for line in dom0("boot", "--last", "5").stdout.splitlines()]
    assert rows[0] == ["BOOT", "RECORDED", "FIRMWARE", "ENGINE", "DOM0", "READY", "SLOWEST"]
    assert rows[1][0:1] + rows[1][3:] == ["3", "-", "9.00", "10.00", "12.00", "engine", "6.00"]
    assert rows[2][0:2] + rows[2][4:] == ["*", "4", "4.00", "15.00", "16.00", "18.00", "engine", "8.00"]
    assert len(dom0("boot", "--last", "1").stdout.splitlines()) == 2


def test_two_boots_are_compared_and_the_largest_difference_named(records: Path, dom0: RunCommand) -> None:
    lines = dom0("boot", "--compare", "3", "4").stdout.splitlines()
    assert ["engine", "6.00", "8.00", "+2.00"] in [line.split() for line in lines]
    assert ["firmware", "-", "4.00", "+4.00"] in [line.split() for line in lines]
    assert lines[-1] == "largest difference: firmware, +4.00 s"


def test_json_is_for_programs(records: Path, dom0: RunCommand) -> None:
    assert msgspec.json.decode(dom0("boot", "--json").stdout, type=Boot).slowest == "engine"
    assert [boot["number"] for boot in json.loads(dom0("boot", "--last", "2", "--json").stdout)] == [3, 4]
    rows = msgspec.json.decode(dom0("boot", "--compare", "3", "4", "--json").stdout, type=list[Difference])
    assert rows[-1] == Difference(name="ready", before=12.0, after=18.0)


def test_a_boot_is_drawn(records: Path, dom0: RunCommand, tmp_path: Path) -> None:
    for arguments in ((), ("--last", "2"), ("--compare", "3", "4")):
        picture = tmp_path / "boot.svg"
        shown = dom0("boot", *arguments, "--plot", str(picture))
        assert (shown.code, shown.stdout) == (0, f"{picture}\n")
        assert picture.read_text().startswith("<svg ")
        picture.unlink()


@pytest.mark.skipif(shutil.which("rsvg-convert") is None, reason="not installed: rsvg-convert (librsvg2-bin)")
def test_a_png_is_a_picture_of_pixels(records: Path, dom0: RunCommand, tmp_path: Path) -> None:
    assert dom0("boot", "--plot", str(tmp_path / "boot.png")).code == 0
    assert (tmp_path / "boot.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_png_without_the_program_for_it_is_refused_with_a_way_out(
    records: Path, dom0: RunCommand, tmp_path: Path
) -> None:
    refused = dom0("boot", "--plot", "boot.png", env={"PATH": str(tmp_path)})
    assert refused.code == 1
    assert "librsvg2-bin" in refused.stderr
    assert "--plot boot.svg" in refused.stderr


def test_a_record_that_says_too_much_is_shown_as_text(records: Path, dom0: RunCommand) -> None:
    with records.open("ab") as file:
        file.write(b"13.00\tengine\t\x1b]0;owned\x07\n13.50\tproblem\t\x1b[2J\nno line\n16.00\tdo")
    shown = dom0("boot").stdout
    assert "\x1b" not in shown
    assert r"\x1b]0;owned\x07" in shown
    assert "problem after 17.50 s: " + r"\x1b[2J" in shown
    assert shown.endswith("Lines of the record that are not understood: 1\n")


@pytest.mark.parametrize(
    "wrong",
    [
        ("--plot", "boot.pdf"),
        ("--last", "0"),
        ("--last", "2", "--compare", "3", "4"),
        ("3", "--last", "2"),
        ("--compare", "3"),
        ("three",),
    ],
)
def test_a_wrong_line_is_refused(records: Path, dom0: RunCommand, wrong: tuple[str, ...]) -> None:
    assert dom0("boot", *wrong).code == 2


def test_a_host_without_records_is_no_error_of_the_record(dom0: RunCommand) -> None:
    refused = dom0("boot")
    assert refused.code == 1
    assert "there is no record of a boot" in refused.stderr
    assert "docs/boot.md" in refused.stderr
