"""An image is signed with a key or it is not: cosign signs it, and what anybody else may put in that place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dom0.errors import Final, UsageError
from dom0.registry import verify
from dom0.registry.client import Registry
from dom0.registry.manifest import CONFIGS, OCI_MANIFEST
from dom0.registry.reference import parse
from dom0.registry.verify import MOST_BYTES, PublicKey, require_signed
from dom0.testing import signatures
from dom0.testing.debian_registry import DebianRegistry, written
from dom0.testing.possible import require
from dom0.testing.signatures import Keys
from dom0.testing.web_server import reply, served

Clients = Callable[..., Registry]
KIND = "application/vnd.dev.cosign.simplesigning.v1+json"
TYPE = "cosign container image signature"
OTHERS = "sha256:" + "0" * 64


def read(path: Path) -> PublicKey:
    return PublicKey(str(path), path.read_bytes())


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    require(signatures.missing(), "tests of signatures")
    return Keys(tmp_path_factory.mktemp("keys"))


class Signed:
    """An image in a registry, and what is below its tag of signatures."""

    def __init__(self, registry: DebianRegistry, client: Registry) -> None:
        self._content = registry.content
        self._client = client
        self.digest = registry.content.image("team/app", "1").digest
        self.name = f"{registry.host}/team/app@{self.digest}"

    def put(self, *layers: tuple[bytes, str], kind: str = KIND, **keys: Any) -> None:
        """Texts, each with its signature."""
        listed = []
        for text, signature in layers:
            described = written(self._content.blob("team/app", text, kind))
            listed.append({**described, "annotations": {"dev.cosignproject.cosign/signature": signature}})
        config = written(self._content.blob("team/app", b"{}", CONFIGS[0]))
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": listed, **keys}
        self._content.manifest("team/app", document, self.digest.replace(":", "-") + ".sig")

    async def check(self, key: Path, digest: str = "") -> None:
        await require_signed(self._client, parse(self.name), digest or self.digest, read(key))


@pytest.fixture
def signed(debian: Callable[..., DebianRegistry], client: Clients) -> Signed:
    registry = debian()
    return Signed(registry, client(registry.host))


def text(digest: str, kind: str = TYPE) -> bytes:
    identity = {"docker-reference": "whatever/name"}
    critical = {"identity": identity, "image": {"docker-manifest-digest": digest}, "type": kind}
    return json.dumps({"critical": critical, "optional": None}).encode()


async def test_what_cosign_has_signed_is_signed_by_that_key_and_no_other(signed: Signed, keys: Keys) -> None:
    with pytest.raises(Final, match=f"{signed.digest} is not signed with the key of .*cosign.pub$"):
        await signed.check(keys.public)
    keys.cosign(signed.name)
    await signed.check(keys.public)
    with pytest.raises(Final, match=r"is not signed with the key of .*plain\.pub, only by others"):
        await signed.check(keys.plain_public)
    with pytest.raises(Final, match=f"{OTHERS} is not signed"):
        await signed.check(keys.public, OTHERS)


async def test_one_good_signature_among_others_is_enough(signed: Signed, keys: Keys) -> None:
    mine = text(signed.digest)
    signed.put((text(OTHERS), keys.sign(text(OTHERS))), (b"rubbish", "rubbish"), (mine, keys.sign(mine)))
    await signed.check(keys.plain_public)


@pytest.mark.parametrize(
    "said",
    [
        lambda mine, sign: (mine, sign(mine + b" ")),
        lambda mine, sign: (mine + b" ", sign(mine)),
        lambda _, sign: (text(OTHERS), sign(text(OTHERS))),
        lambda mine, sign: (mine.replace(TYPE.encode(), b"other"), sign(mine.replace(TYPE.encode(), b"other"))),
        lambda _, sign: (b"{}", sign(b"{}")),
        lambda _, sign: (b"\xff", sign(b"\xff")),
        lambda mine, _: (mine, ""),
        lambda mine, _: (mine, "AAAA"),
        lambda mine, _: (mine, "no base64"),
        lambda mine, sign: (mine + b" " * MOST_BYTES, sign(mine + b" " * MOST_BYTES)),
    ],
)
async def test_a_signature_of_something_else_is_none(
    signed: Signed, keys: Keys, said: Callable[[bytes, Callable[[bytes], str]], tuple[bytes, str]]
) -> None:
    signed.put(said(text(signed.digest), keys.sign))
    with pytest.raises(Final, match="is not signed"):
        await signed.check(keys.plain_public)


async def test_a_layer_of_another_kind_is_no_signature(signed: Signed, keys: Keys) -> None:
    mine = text(signed.digest)
    signed.put((mine, keys.sign(mine)), kind="application/vnd.oci.image.layer.v1.tar")
    with pytest.raises(Final, match="is not signed"):
        await signed.check(keys.plain_public)


@pytest.mark.parametrize("odd", [{"layers": 1}, {"layers": [{}]}, {"layers": None}])
async def test_what_makes_no_sense_as_signatures_is_refused(client: Clients, keys: Keys, odd: dict[str, Any]) -> None:
    raw = json.dumps(odd).encode()
    async with served(lambda _: reply(200, raw, Content_Type=OCI_MANIFEST)) as server:
        reference = parse(f"{server.netloc}/team/app:1")
        with pytest.raises(Final, match="makes no sense as signatures"):
            await require_signed(client(server.netloc), reference, OTHERS, read(keys.public))


async def test_only_so_many_signatures_are_looked_at(
    signed: Signed, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "MOST_SIGNATURES", 2)
    mine = text(signed.digest)
    signed.put((b"x", "AAAA"), (b"y", "AAAA"), (mine, keys.sign(mine)))
    with pytest.raises(Final, match="only by others"):
        await signed.check(keys.plain_public)


async def test_a_file_that_is_no_public_key_is_refused(signed: Signed, keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for file in (tmp_path / "empty", keys.private):
        with pytest.raises(UsageError, match="is no public key"):
            await signed.check(file)
