"""Pictures of boots: sound SVG whatever the record says, every stage in its place."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from dom0.host.boot import Boot, analyze
from dom0.host.boot_plot import strips, waterfall
from dom0.host.boot_record import Record, parse

WHOLE = b"""\
-1.00\tfirmware\t
2.00\tkernel\t
3.00\tinit\t
8.00\tengine\t
9.00\tdom0\t
9.50\tservice:redis\t
9.60\tready\t
"""
SVG = "{http://www.w3.org/2000/svg}"


def boot(content: bytes, number: int = 7) -> Boot:
    marks, _ = parse(content)
    return analyze(Record(marks=marks, number=number))


def read(picture: str) -> ET.Element:
    return ET.fromstring(picture)  # noqa: S314 -- our own


def texts(picture: str) -> list[str]:
    return [element.text or "" for element in read(picture).iter(f"{SVG}text")]


def bars(picture: str) -> dict[str, tuple[float, float]]:
    """By what a mouse over it says: left end and width."""
    found = {}
    for element in read(picture).iter(f"{SVG}rect"):
        title = element.find(f"{SVG}title")
        if title is not None and title.text is not None:
            found[title.text] = (float(element.attrib["x"]), float(element.attrib["width"]))
    return found


def test_every_stage_has_a_bar_that_begins_where_the_one_before_ends() -> None:
    found = bars(waterfall([boot(WHOLE)]))
    assert list(found) == [
        "firmware: 1.00 s",
        "kernel: 2.00 s",
        "init: 1.00 s",
        "engine: 5.00 s",
        "dom0: 1.00 s",
        "service:redis: 0.50 s",
    ]
    for (left, width), (right, _) in zip(list(found.values())[:-1], list(found.values())[1:], strict=True):
        assert abs(left + width - right) < 0.2
    assert abs(found["engine: 5.00 s"][1] - 5 * found["init: 1.00 s"][1]) < 0.5


def test_the_slowest_stage_and_the_end_are_named() -> None:
    said = texts(waterfall([boot(WHOLE)]))
    assert {"Boot 7: ready after 10.60 s", "slowest: engine, 5.00 s", "5.00 s slowest", "ready", "redis"} <= set(said)
    assert "seconds since power-on" in said


def test_an_unknown_firmware_is_said_to_be_unknown() -> None:
    said = texts(waterfall([boot(WHOLE.split(b"\n", 1)[1])]))
    assert "seconds since the kernel's start; time of the firmware unknown" in said


def test_everything_is_within_the_picture() -> None:
    picture = waterfall([boot(WHOLE)])
    width = float(read(picture).attrib["width"])
    assert all(left >= 0 and left + wide <= width for left, wide in bars(picture).values())


def test_two_boots_share_a_row() -> None:
    picture = waterfall([boot(WHOLE, 6), boot(WHOLE.replace(b"8.00", b"8.50"), 7)])
    assert {"Boots 6 and 7 compared", "boot 6", "boot 7", "5.00 s", "5.50 s"} <= set(texts(picture))
    assert texts(picture).count("engine") == 1


def test_many_boots_have_a_row_each() -> None:
    picture = strips([boot(WHOLE, 5), boot(b"2.00\tkernel\t\n", 6), boot(WHOLE, 7)])
    assert {"boot 5", "boot 6", "boot 7", "10.60 s", "2.00 s, not ready"} <= set(texts(picture))


def test_hostile_texts_are_shown_and_do_nothing() -> None:
    picture = waterfall([boot(b'2.00\tkernel\t</title><script>"&\x1b[2J\xe2\x80\xae\n')])
    assert "<script>" not in picture
    assert '</title><script>"&\\x1b[2J\\u202e' in "".join(bars(picture))


def test_a_boot_without_stages_is_a_picture_too() -> None:
    assert "Boot 7: not ready" in texts(waterfall([boot(b"")]))
    assert "0.00 s, not ready" in texts(strips([boot(b"")]))
