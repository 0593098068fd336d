"""`dom0 image ls`: which images are of the chain, and what lies on what."""

from __future__ import annotations

from dom0.cli.image import ChainImage, rows_of
from dom0.engine.values import Image
from dom0.plan import labels

ROOTFS = Image(id="sha256:r", tags=("dom0-rootfs:latest",), labels={labels.INPUTS: "x"}, size=75)
BASE_LABELS = {labels.INPUTS: "x", labels.ROLE: "root", labels.ROOTFS_ID: "sha256:r"}
BASE = Image(id="sha256:b", tags=("dom0-base:latest",), labels=BASE_LABELS, size=243)
MACHINE = Image(id="sha256:m", tags=("dom0-kept:m", "dom0:latest"), labels=BASE_LABELS | {labels.BASE: "sha256:b"})
OLD = Image(id="sha256:o", tags=("dom0-kept:o",), labels=BASE_LABELS | {labels.BASE: "sha256:b"})
SERVICE = Image(id="sha256:s", tags=("box-web:latest",), labels={labels.INPUTS: "x"})


def test_the_lowest_comes_first_and_unnamed_ones_come_last() -> None:
    rows = rows_of([OLD, MACHINE, SERVICE, BASE, ROOTFS], {"sha256:m": ["dom0", "generation 2"]})
    assert [(row.name, row.based_on, row.used_by) for row in rows] == [
        ("dom0-rootfs", "", ()),
        ("dom0-base", "sha256:r", ()),
        ("dom0", "sha256:b", ("dom0", "generation 2")),
        ("", "sha256:b", ()),
    ]


def test_what_a_service_builds_on_the_rootfs_is_no_part_of_the_chain() -> None:
    assert rows_of([SERVICE], {}) == []


def test_the_image_of_ambassadors_stands_alone_and_is_used_by_them() -> None:
    alone = Image(
        id="sha256:a", tags=("dom0-ambassador:latest",), labels={labels.INPUTS: "x", labels.ROLE: "ambassador"}
    )
    (row,) = rows_of([alone], {"sha256:a": ["redis", "box-db-1"]})
    assert (row.name, row.based_on, row.used_by) == ("dom0-ambassador", "", ("redis", "box-db-1"))


def test_a_row_says_its_size() -> None:
    assert rows_of([ROOTFS], {}) == [ChainImage(name="dom0-rootfs", id="sha256:r", size=75, based_on="", used_by=())]
