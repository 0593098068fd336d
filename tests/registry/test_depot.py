"""Blobs that several processes share; a second Depot on the same directory is another process's."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from dom0.registry.depot import Depot, Need, NoSpace, Stored
from dom0.registry.journal import CHUNK
from dom0.registry.partial import Unwritable


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
        Stored(digest=part, size=400, have=200, used=20),
        Stored(digest=whole, size=100, have=100, used=10),
    ]
    assert [each.is_whole for each in found] == [False, True]


def test_beyond_the_limit_whole_blobs_go_first_and_the_longest_unused_before_others(depot: Depot) -> None:
    part = add(depot, b"p" * 1000, used=1, whole=False)
    old, new = add(depot, b"o" * 1000, used=2), add(depot, b"n" * 1000, used=3)
    assert depot.trim() == []
    assert depot.trim(1) == [old]
    assert depot.trim(1001) == [new]
    assert depot.trim(2001) == [part]
    assert list(depot.root.iterdir()) == []


def test_what_a_process_uses_stays(depot: Depot) -> None:
    digest = add(depot, b"a" * 4000, used=1)
    other = Depot(depot.root, 0)
    with depot.use([digest]):
        assert not other.evict(digest)
        assert other.trim() == []
        assert depot.find(digest, 4000)
    assert other.trim() == [digest]


def test_what_was_in_use_last_is_evicted_last(depot: Depot) -> None:
    first, second = add(depot, b"a" * 2000, used=1), add(depot, b"b" * 1000, used=2)
    with depot.use([first]):
        pass
    assert depot.trim(1) == [second]


def test_a_pull_that_would_fill_the_disk_is_refused_with_what_it_takes(depot: Depot, tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    depot.make_space(Need(depot=1, engine=1), tmp_path)
    with pytest.raises(NoSpace, match="MiB are needed"):
        depot.make_space(Need(depot=free * 2 // 3, engine=free * 2 // 3), tmp_path)


def test_what_nobody_uses_goes_before_a_pull_is_refused(depot: Depot, tmp_path: Path) -> None:
    digest = add(depot, b"a" * CHUNK, used=1)
    with pytest.raises(NoSpace):
        depot.make_space(Need(depot=1 << 60, engine=0), tmp_path)
    assert depot.find(digest, CHUNK) is None
