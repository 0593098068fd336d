"""Revisions as values: what is new in one, and which one an `up` makes."""

from __future__ import annotations

import msgspec
import pytest

from dom0.errors import UsageError
from dom0.farms.revisions import Blob, FarmImage, NodeReport, Revision, RoleContent, changed_roles, find_earlier, revise
from dom0.testing.builders import image_id


def blob(name: str) -> Blob:
    return Blob(digest=image_id(name), size=len(name))


def image(name: str, *layers: str) -> FarmImage:
    contents = tuple(blob(layer) for layer in layers)
    return FarmImage(reference=name, manifest=blob(f"m{name}"), config=blob(f"c{name}"), layers=contents)


WEB = RoleContent(image=image("dom0:latest", "base", "web"), images=(image("nginx", "nginx"),))
STORE = RoleContent(image=image("dom0:latest", "base", "store"), private=blob("secret"))
FIRST = Revision(number=1, made=0.0, roles={"web": WEB})
SECOND = Revision(number=2, made=1.0, roles={"web": WEB, "store": STORE})


def test_what_says_the_same_as_a_revision_is_that_one_and_makes_no_other() -> None:
    assert revise((), {"web": WEB}, 0.0) == FIRST
    assert revise((FIRST,), SECOND.roles, 1.0) == SECOND
    assert revise((FIRST, SECOND), {"store": STORE, "web": WEB}, 2.0) is SECOND
    assert revise((SECOND, FIRST), {"web": WEB}, 2.0) is FIRST
    assert revise((FIRST, msgspec.structs.replace(SECOND, number=7)), {"store": STORE}, 2.0).number == 8


def test_roles_are_new_changed_or_removed() -> None:
    other = msgspec.structs.replace(WEB, images=())
    assert changed_roles(None, FIRST) == {"web": "new"}
    assert changed_roles(SECOND, Revision(number=3, made=0.0, roles={"web": other})) == {
        "store": "removed",
        "web": "changed",
    }
    assert changed_roles(SECOND, SECOND) == {}


def test_the_same_content_has_the_same_digest_and_any_other_blob_another_one() -> None:
    read = msgspec.json.decode(msgspec.json.encode(SECOND), type=Revision)
    assert read == SECOND
    assert read.roles["web"].digest == WEB.digest != STORE.digest
    assert msgspec.structs.replace(STORE, private=blob("other")).digest != STORE.digest
    assert set(STORE.blobs) == {image_id(name) for name in ("mdom0:latest", "cdom0:latest", "base", "store", "secret")}


def test_what_a_rollback_goes_to_is_there_and_earlier() -> None:
    assert find_earlier((FIRST, SECOND), 2, None) is FIRST
    assert find_earlier((FIRST, SECOND), 1, 2) is SECOND
    for current, number in ((1, None), (2, 3), (0, None), (2, 0)):
        with pytest.raises(UsageError):
            find_earlier((FIRST, SECOND), current, number)


@pytest.mark.parametrize(
    "said",
    [
        {"content": "sha256:../../etc/passwd"},
        {"content": "a" * 64},
        {"revision": -1},
        {"state": "perfect"},
        {"reason": "x" * 501},
        {"turn": 1.5},
        {"os": "\x1b[31m"},
        {"os": "a\n"},
    ],
)
def test_a_report_that_says_what_cannot_be_is_none(said: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(said, NodeReport)
