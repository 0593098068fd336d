"""Blobs that several processes share; a second Depot on the same directory is another process's."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from pathlib import Path

import pytest

from dom0.durable import Unwritable
from dom0.registry import depot as module
from dom0.registry.depot import KEPT_FOR, RESERVE, Depot, Need, NoSpace, StoredBlob


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def add(depot: Depot, data: bytes, *, used: float, whole: bool = True) -> str:
    digest = digest_of(data)
    with depot.use([digest]):
        if whole:
            depot.path(digest).write_bytes(data)
        else:
            with depot.fetching(digest, 2 * len(data)) as partial:
                assert partial is not None
                partial.put(0, data)
    os.utime(depot.path(digest).parent, (used, used))
    return digest


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(tmp_path / "depot", 3000)


def test_nobody_else_gets_in(tmp_path: Path) -> None:
    (tmp_path / "depot").mkdir(mode=0o755)
    assert stat.S_IMODE(Depot(tmp_path / "depot", 0).root.stat().st_mode) == 0o700


def test_a_directory_that_is_somebody_elses_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(Unwritable, match="not a directory of ours"):
        Depot(tmp_path / "link", 0)


@pytest.mark.parametrize(
    "digest",
    ["", "sha256:", "sha256:../../etc", f"sha512:{'a' * 64}", f"sha256:{'A' * 64}", f"sha256:{'a' * 64}/", "a" * 64],
)
def test_a_name_that_is_no_digest_leads_nowhere(depot: Depot, digest: str) -> None:
    with pytest.raises(ValueError, match="no digest"):
        depot.path(digest)
    with pytest.raises(ValueError, match="no digest"), depot.use([digest]):
        pass
    assert list(depot.root.iterdir()) == []


def test_a_blob_is_found_when_it_has_the_size_that_is_asked_for(depot: Depot) -> None:
    digest = add(depot, b"hello", used=1)
    assert depot.find(digest, 5) == depot.path(digest)
    assert depot.find(digest_of(b""), 0) is None
    assert depot.find(digest, 6) is None
    assert depot.find(digest, 5)
    depot.discard(digest)
    assert depot.find(digest, 5) is None


def test_how_much_of_a_blob_is_here_is_known_without_opening_it(depot: Depot) -> None:
    whole, part = add(depot, b"a" * 100, used=1), add(depot, b"b" * 200, used=1, whole=False)
    assert [depot.have(whole, 100), depot.have(part, 400), depot.have(digest_of(b"none"), 4)] == [100, 200, 0]
    assert [depot.have(whole, 99), depot.have(part, 399)] == [0, 0]


def test_one_process_at_a_time_fetches_a_blob(depot: Depot) -> None:
    digest, other = digest_of(b"x"), Depot(depot.root, 0)
    with depot.use([digest]), other.use([digest]):
        with depot.fetching(digest, 1) as ours, other.fetching(digest, 1) as theirs:
            assert ours is not None
            assert theirs is None
        with other.fetching(digest, 1) as theirs:
            assert theirs is not None


def test_all_there_is_is_listed(depot: Depot) -> None:
    whole = add(depot, b"a" * 100, used=10)
    part = add(depot, b"b" * 200, used=20, whole=False)
    (depot.root / "not-ours").mkdir()
    (depot.root / ("c" * 64)).symlink_to("/etc")
    (depot.root / ("d" * 64)).write_bytes(b"")
    with depot.use([digest_of(b"to come")]):
        pass
    found = depot.blobs()
    assert found == [
        StoredBlob(digest=part, size=400, have=200, used=20, unfinished=True),
        StoredBlob(digest=whole, size=100, have=100, used=10, unfinished=False),
    ]
    assert [each.is_whole for each in found] == [False, True]


def interrupted(depot: Depot, data: bytes) -> str:
    """What a pull has fetched that then ends badly."""
    digest = digest_of(data)
    with contextlib.suppress(InterruptedError), depot.use([digest]):
        depot.path(digest).write_bytes(data)
        raise InterruptedError
    return digest


def there(depot: Depot) -> set[str]:
    return {each.digest for each in depot.blobs()}


def test_beyond_the_limit_whole_blobs_go_first_and_the_longest_unused_before_others(depot: Depot) -> None:
    part = add(depot, b"p" * 1000, used=1, whole=False)
    old, new = add(depot, b"o" * 1000, used=2), add(depot, b"n" * 1000, used=3)
    depot.trim()
    assert there(depot) == {part, old, new}
    depot.trim(1)
    assert there(depot) == {part, new}
    depot.trim(1001)
    assert there(depot) == {part}
    depot.trim(2001)
    assert list(depot.root.iterdir()) == []


def test_what_an_unfinished_pull_has_fetched_is_kept_beyond_the_limit_for_some_days(depot: Depot) -> None:
    now = time.time()
    part = add(depot, b"p" * 4000, used=now, whole=False)
    whole = interrupted(depot, b"w" * 4000)
    loaded = add(depot, b"l" * 10, used=now)
    depot.trim(1 << 40)
    assert there(depot) == {part, whole}
    assert loaded not in there(depot)
    for digest in (part, whole):
        os.utime(depot.path(digest).parent, (1, now - KEPT_FOR - 1))
    depot.trim(1 << 40)
    assert there(depot) == set()


def test_a_pull_that_ends_well_leaves_its_blobs_to_the_limit(depot: Depot) -> None:
    digest = interrupted(depot, b"w" * 4000)
    with depot.use([digest]):
        pass
    depot.trim()
    assert there(depot) == set()


def test_of_what_did_not_have_to_come_nothing_is_left(depot: Depot) -> None:
    digest, other = digest_of(b"x"), Depot(depot.root, 0)
    with depot.use([digest]), depot.fetching(digest, 1):
        pass
    assert list(depot.root.iterdir()) == []
    with other.use([digest]):
        with depot.use([digest]):
            pass
        other.path(digest).write_bytes(b"x")
    assert depot.find(digest, 1)


def test_what_a_process_uses_stays(depot: Depot) -> None:
    digest = add(depot, b"a" * 4000, used=1)
    other = Depot(depot.root, 0)
    with depot.use([digest]):
        assert not other.evict(digest)
        other.trim()
        assert depot.find(digest, 4000)
    other.trim()
    assert there(depot) == set()


def test_what_was_in_use_last_is_evicted_last(depot: Depot) -> None:
    first, second = add(depot, b"a" * 2000, used=1), add(depot, b"b" * 1000, used=2)
    with depot.use([first]):
        pass
    depot.trim(1)
    assert there(depot) == {first}
    assert second not in there(depot)


def test_a_pull_that_would_fill_the_disk_is_refused_with_what_it_takes(depot: Depot, tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    depot.make_space(Need(depot=1, engine=1), tmp_path)
    with pytest.raises(NoSpace, match="MiB are needed"):
        depot.make_space(Need(depot=free * 2 // 3, engine=free * 2 // 3), tmp_path)


class SmallDisk:
    """As much is free as `room` and what the depot does not have leave."""

    def __init__(self, depot: Depot, room: int) -> None:
        self.depot = depot
        self.room = room

    def free(self, _: Path) -> int:
        return RESERVE + self.room - sum(each.have for each in self.depot.blobs())


def test_what_nobody_uses_goes_for_a_pull_if_that_is_enough(
    depot: Depot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = add(depot, b"p" * 1000, used=time.time(), whole=False)
    whole, used = add(depot, b"w" * 1000, used=2), add(depot, b"u" * 1000, used=1)
    monkeypatch.setattr(module, "_free", SmallDisk(depot, 4000).free)
    with depot.use([used]):
        depot.make_space(Need(depot=1000, engine=0), tmp_path)
        assert there(depot) == {part, whole, used}
        with pytest.raises(NoSpace):
            depot.make_space(Need(depot=3001, engine=0), tmp_path)
        assert there(depot) == {part, whole, used}
        depot.make_space(Need(depot=1001, engine=0), tmp_path)
        assert there(depot) == {part, used}
        depot.make_space(Need(depot=3000, engine=0), tmp_path)
        assert there(depot) == {used}
