"""Archives of images on their way to the Engine: what is passed on, and what is refused. And tar in general."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import hashlib
import io
import json
import lzma
import random
import tarfile
import tracemalloc
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dom0.socketproxy import imagearchive, pipe, strict, tarstream
from dom0.socketproxy.imagearchive import MANIFEST, ArchiveLoad
from dom0.socketproxy.refusal import Refused
from dom0.socketproxy.scope import Scope
from dom0.testing.tars import tar_of

LAYER = b"a layer" + bytes(1017)
CONFIG = json.dumps(
    {"rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(LAYER).hexdigest()]}}
).encode()
IMAGES = [{"Config": "config.json", "RepoTags": ["app:dev"], "Layers": ["layer.tar"], "Parent": "sha256:1"}]
GOOD: Mapping[str, bytes] = {"layer.tar": LAYER, "config.json": CONFIG, MANIFEST: json.dumps(IMAGES).encode()}


async def pieces(content: bytes, size: int = 700) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def loaded(content: bytes, size: int = 700) -> bytes:
    async def work() -> bytes:
        passed = ArchiveLoad()
        sent = b"".join([chunk async for chunk in passed.pass_on(pieces(content, size))])
        return sent + passed.end(passed.images())

    return asyncio.run(work())


def unpacked(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]


def test_the_manifest_comes_last_and_in_our_own_words() -> None:
    sent = unpacked(
        loaded(
            tar_of({**{name: GOOD[name] for name in reversed(list(GOOD))}, "repositories": b"{}", "oci-layout": b"{}"})
        )
    )
    assert list(sent) == ["config.json", "layer.tar", MANIFEST]
    assert json.loads(sent.pop(MANIFEST)) == [{key: IMAGES[0][key] for key in ("Config", "RepoTags", "Layers")}]
    assert sent == {"layer.tar": LAYER, "config.json": CONFIG}


def manifest(**changed: Any) -> dict[str, bytes]:
    return {**GOOD, MANIFEST: json.dumps([{**IMAGES[0], **changed}]).encode()}


def labelled(key: str, labels: Any) -> dict[str, bytes]:
    return {**GOOD, "config.json": json.dumps({**json.loads(CONFIG), key: {"Labels": labels}}).encode()}


def test_the_configuration_of_many_images_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short manifest that names a long one a hundred thousand times would keep all scopes waiting for minutes."""
    read, parse = list[bytes](), strict.parse

    def noted(raw: bytes) -> Any:
        read.append(raw)
        return parse(raw)

    monkeypatch.setattr(strict, "parse", noted)
    many = [{**IMAGES[0], "RepoTags": [f"app:{number}"]} for number in range(100)]
    sent = unpacked(loaded(tar_of({**GOOD, MANIFEST: json.dumps(many).encode()})))
    assert len(json.loads(sent[MANIFEST])) == 100
    assert read.count(CONFIG) == 1


LINK = tarfile.TarInfo("link")
LINK.type, LINK.linkname = tarfile.SYMTYPE, "/etc/passwd"
AGAIN = tarfile.TarInfo("layer.tar")


@pytest.mark.parametrize(
    "flawed",
    [
        tar_of({"layer.tar": LAYER, "config.json": CONFIG}),
        tar_of(manifest(RepoTags=None)),
        tar_of(manifest(RepoTags=[])),
        tar_of(manifest(Config="other.json")),
        tar_of(manifest(Layers=[])),
        tar_of(manifest(Layers=["config.json"])),
        tar_of(manifest(Layers=["layer.tar", "layer.tar"])),
        tar_of({**GOOD, "layer.tar": b"another"}),
        tar_of({**GOOD, "config.json": CONFIG[:-1] + b',"RootFS":{"diff_ids":[]}}'}),
        tar_of({**GOOD, "config.json": CONFIG.replace(b"rootfs", b"RootFS")}),
        tar_of({**GOOD, MANIFEST: GOOD[MANIFEST].replace(b'"RepoTags"', b'"repotags": ["x:1"], "RepoTags"')}),
        tar_of(GOOD, LINK),
        tar_of(GOOD, AGAIN),
        tar_of(GOOD)[:1500],
        tar_of(GOOD)[:512],
        b"",
        b"x" * 10240,
    ],
)
def test_what_is_not_what_it_says_is_refused(flawed: bytes) -> None:
    with pytest.raises(Refused):
        loaded(flawed)


def test_layers_that_are_only_named_are_told_up_to_the_last_one() -> None:
    above = b"above" + bytes(1019)
    ids = tuple("sha256:" + hashlib.sha256(layer).hexdigest() for layer in (LAYER, b"lacks", above))
    names = ["layer.tar", "../lacks.tar", "above.tar"]
    files = {"layer.tar": LAYER, "above.tar": above, "config.json": json.dumps({"rootfs": {"diff_ids": ids}}).encode()}
    files[MANIFEST] = json.dumps([{**IMAGES[0], "Layers": names}]).encode()

    async def work() -> tuple[ArchiveLoad, list[imagearchive.Image]]:
        passed = ArchiveLoad()
        async for _ in passed.pass_on(pieces(tar_of(files))):
            pass
        return passed, passed.images()

    passed, (image,) = asyncio.run(work())
    assert passed.lacking == {ids[:2]}
    assert image.layers == ("layer.tar", imagearchive.LACKING, "above.tar")


def test_each_byte_of_a_long_layer_counts() -> None:
    layer = random.Random(1).randbytes(1_500_000)  # noqa: S311 -- no secret
    config = json.dumps({"rootfs": {"diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}).encode()
    long = {**GOOD, "layer.tar": layer, "config.json": config}
    assert unpacked(loaded(tar_of(long), 200_000))["layer.tar"] == layer
    for at in (*range(0, len(layer), 500_000), len(layer) - 1):
        other = layer[:at] + bytes([layer[at] ^ 1]) + layer[at + 1 :]
        with pytest.raises(Refused, match="its layers are not those"):
            loaded(tar_of({**long, "layer.tar": other}), 200_000)


def test_in_however_small_pieces_it_comes_no_more_of_it_is_kept() -> None:
    async def work() -> None:
        async for _ in ArchiveLoad().pass_on(pieces(content, 1)):
            pass

    content = tar_of({"layer.tar": bytes(10_000)})
    tracemalloc.start()
    try:
        asyncio.run(work())
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


def test_a_configuration_is_as_short_as_anybodys() -> None:
    assert loaded(tar_of(labelled("config", {"a": "x" * 50_000})))
    for labels in ({"a": "x" * 270_000}, {"a": "<" * 50_000}):
        with pytest.raises(Refused, match=r"config\.json: .* fewer labels and steps"):
            loaded(tar_of(labelled("config", labels)))


def test_no_more_is_kept_of_an_archive_than_images_need() -> None:
    document = b"{" + bytes(1 << 20)
    with pytest.raises(Refused, match="more small files"):
        loaded(tar_of({f"{number}.json": document for number in range(9)}))


PLAIN = (tar_of(GOOD), bytes(1024), b"")
PACKED = (
    *(pack(PLAIN[0]) for pack in (gzip.compress, bz2.compress, lzma.compress)),
    b"\x28\xb5\x2f\xfd",
    b"\x50\x2a\x4d\x18\0\0\0\0\x28\xb5\x2f\xfd",
    b"\x1f\x8b" + PLAIN[0][2:],
    b"\x5f\x2a\x4d\x18" + PLAIN[0][4:],
    b"no tar" * 200,
)


@pytest.mark.parametrize("size", [1, 3, 700, 1 << 20])
def test_what_the_engine_would_unpack_by_a_program_is_refused_in_whatever_chunks_it_comes(size: int) -> None:
    async def work(content: bytes) -> bytes:
        return b"".join([chunk async for chunk in pipe.plain(pieces(content, size))])

    for content in PLAIN:
        assert asyncio.run(work(content)) == content
    for content in PACKED:
        with pytest.raises(Refused):
            asyncio.run(work(content))


def saved(content: bytes) -> dict[str, bytes]:
    async def work() -> bytes:
        return b"".join([chunk async for chunk in imagearchive.shown(Scope("guest"), pieces(content))])

    return unpacked(asyncio.run(work()))


def test_a_saved_archive_has_the_labels_that_the_scope_gave() -> None:
    labels = {"guest/a": "b", "c": "", "guest/c": "d", "dom0.scope": "/guest"}
    strange = b'{"guest/a": "\xff"}'
    sent = saved(tar_of({**labelled("config", labels), "empty": b"", "other": b"{", "strange": strange}))
    config = json.loads(sent.pop("config.json"))["config"]
    assert config == {"Labels": {"a": "b", "c": "d", "dom0.scope": "/guest"}}
    assert {name: sent[name] for name in ("layer.tar", "empty", "other", "strange")} == {
        "layer.tar": LAYER,
        "empty": b"",
        "other": b"{",
        "strange": strange,
    }


def test_a_saved_archive_has_the_scopes_names() -> None:
    own = "dom0.invalid/guest/"
    named = {
        MANIFEST: json.dumps([{"RepoTags": [f"{own}app:1", "busybox:1"]}]),
        "repositories": f'{{"{own}app": {{}}}}',
    }
    content = tar_of({"blob": LAYER, "index.json": b"{}", **{name: text.encode() for name, text in named.items()}})
    sent = saved(content)
    assert json.loads(sent.pop(MANIFEST)) == [{"RepoTags": ["app:1", "busybox:1"]}]
    assert sent == {"blob": LAYER, "repositories": b'{"app":{}}'}


def rewritten(content: bytes, size: int = 700) -> bytes:
    async def work() -> bytes:
        writer, sent = tarstream.TarWriter(), b""
        async for event in tarstream.read(pieces(content, size)):
            sent += event if isinstance(event, memoryview) else writer.begin(event)
        return sent + writer.end()

    return asyncio.run(work())


NAMES = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1), min_size=1, max_size=4
).map("/".join)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(NAMES, st.binary(max_size=600), max_size=4), st.sampled_from([7, 511, 5000]))
def test_any_archive_is_the_same_when_it_is_written_anew(files: dict[str, bytes], size: int) -> None:
    kept = {name: text for name, text in files.items() if not {".", ".."} & set(name.split("/"))}
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
            for name, content in kept.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        sent = rewritten(buffer.getvalue(), size)
        assert unpacked(sent) == kept
        assert rewritten(sent, size) == sent


def header(name: str, **more: Any) -> bytes:
    entry = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(entry, key, value)
    return entry.tobuf(tarfile.GNU_FORMAT)


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    return header("pax", type=kind, size=len(records)) + records.ljust(-(-len(records) // 512) * 512, b"\0")


@pytest.mark.parametrize(
    "flawed",
    [
        header("/etc/passwd"),
        header("a/../../b"),
        header(".."),
        header("d", type=tarfile.BLKTYPE),
        header("d", type=tarfile.FIFOTYPE),
        header("d", type=tarfile.GNUTYPE_SPARSE),
        header("d", type=tarfile.CONTTYPE),
        header("d", type=tarfile.DIRTYPE, size=512) + bytes(512),
        header("l", type=tarfile.LNKTYPE, linkname="../x"),
        header("l", type=tarfile.SYMTYPE),
        header("a")[:300] + b"x" * 212,
        pax(b"12 path=../x\n") + header("a"),
        pax(b"20 GNU.sparse.size=1\n") + header("a"),
        pax(b"21 hdrcharset=BINARY\n") + header("a"),
        pax(b"9 size=-1\n") + header("a"),
        pax(b"9 path=a\n9 path=b\n") + header("a"),
        pax(b"99 path=a\n") + header("a"),
        pax(b"x path=a\n") + header("a"),
        pax(b"9 path=a\n", b"g") + header("a"),
        pax(b"9 path=a\n"),
        header("long", type=tarfile.GNUTYPE_LONGNAME, size=1 << 30),
    ],
)
def test_an_archive_that_can_be_read_in_two_ways_is_refused(flawed: bytes) -> None:
    with pytest.raises(Refused):
        rewritten(flawed + bytes(1024))
