"""The project out of a layer that somebody hands over."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from dom0.errors import UsageError
from dom0.images.unpack import unpack_layer


def tar(*entries: tarfile.TarInfo) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for entry in entries:
            archive.addfile(entry, io.BytesIO(b"x" * entry.size))
    return packed.getvalue()


def file(name: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = 1
    return entry


def link(name: str, to: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, to
    return entry


def test_the_project_is_in_there(tmp_path: Path) -> None:
    assert (unpack_layer(tar(file("etc/dom0/conf/a")), tmp_path) / "conf/a").read_bytes() == b"x"


@pytest.mark.parametrize(
    "layer",
    [b"no tar", tar(file("etc/dom0/a"))[:700], tar(file("../outside")), tar(link("etc", "../.."), file("etc/outside"))],
    ids=["no tar", "cut off", "outside by its name", "outside by a link"],
)
def test_what_is_no_layer_is_refused_and_nothing_leads_out(layer: bytes, tmp_path: Path) -> None:
    into = tmp_path / "into" / "deep"
    into.mkdir(parents=True)
    with pytest.raises(UsageError, match="layer: "):
        unpack_layer(layer, into)
    assert [path.name for path in (*tmp_path.iterdir(), *into.parent.iterdir())] == ["into", "deep"]
