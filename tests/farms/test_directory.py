"""A farm on the disk: killed at each write, shared by processes, damaged."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace

from dom0.errors import Busy, Dom0Error, ProjectError, UsageError
from dom0.farms import directory, lock, nodes, pin
from dom0.farms.directory import FarmDirectory
from dom0.farms.nodes import MachineInfo, Node, NodeState, key_of
from dom0.farms.revisions import KEPT, Blob, FarmImage, NodeReport, Revision, RoleContent, RoleState
from dom0.farms.rollout import Lock, Pause, RolloutState, Settled, Turn
from dom0.registry.manifest import digest_of

# strace(1) counts each system call for itself, so one test kills at one of them, again and again
BOTH = ("write", "fchmod", "fsync", "?rename,?renameat,?renameat2", "?unlink,?unlinkat", "?mkdir,?mkdirat")
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
OFTEN = range(1, 20)  # more than either script calls one of them
APPROVE = """
import os, sys
from pathlib import Path
from dom0.farms import nodes
from dom0.farms.directory import FarmDirectory
farm = FarmDirectory(Path(sys.argv[1]))
farm.change(lambda before: nodes.approve(before, sys.argv[2], "nas", "web"))
os.write(1, b"done")
"""
LOCK = """
import os, sys
from pathlib import Path
from dom0.farms import lock, rollout
from dom0.farms.directory import FarmDirectory
farm = FarmDirectory(Path(sys.argv[1]))
wanted = rollout.Lock(group="web", id="pi2", since=2e9)
farm.change_rollout(lambda before: (lock.acquire(before, farm.settings(), wanted), None))
os.write(1, b"done")
"""
PRUNE = """
import os, sys
from pathlib import Path
from dom0.farms.directory import FarmDirectory
farm = FarmDirectory(Path(sys.argv[1]))
with farm.publishing():
    farm.prune()
os.write(1, b"done")
"""
FULL = """
import os, sys
from pathlib import Path
from dom0.durable import Unwritable
from dom0.farms import nodes, revisions, rollout
from dom0.farms.directory import FarmDirectory
farm = FarmDirectory(Path(sys.argv[1]) / "attic")
farm.make("attic", b"a key", {"roles/web/compose.yaml": b"name: web"})
raw = bytes(20_000)
blob = revisions.Blob(digest=f"sha256:{1:064}", size=len(raw))
image = revisions.FarmImage(reference="dom0:latest", manifest=blob, config=blob, layers=())
made = [
    revisions.Revision(number=number, made=1.0, roles={"web": revisions.RoleContent(image=image)})
    for number in range(1, revisions.KEPT + 3)
]
farm.add_blob(blob.digest, [raw])
farm.add_blob(f"sha256:{2:064}", [3 * raw])  # which no revision has
for revision in made[:-1]:
    farm.revise(lambda known: revision)
farm.put_report("a" * 64, revisions.NodeReport(os="1.0"))
filler = os.open(Path(sys.argv[1]) / "filler", os.O_WRONLY | os.O_CREAT)
try:
    while True:
        os.write(filler, bytes(4096))
except OSError:
    pass
machine = nodes.MachineInfo()
steps = (
    lambda: farm.change(lambda before: nodes.hear(before, "b" * 64, machine, "fd00::1", 1e6, nodes.draw_code)),
    lambda: farm.change_rollout(lambda before: (rollout.drain(before, "nas"), None)),
    lambda: farm.put_report("a" * 64, revisions.NodeReport(os="2.0")),
    lambda: farm.add_blob(f"sha256:{3:064}", [raw]),
    lambda: farm.revise(lambda known: made[-1]),
)
for step in steps:
    try:
        step()
    except Unwritable as error:
        assert "No space left on device" in error.message, error.message
    else:
        raise AssertionError
assert farm.nodes() == nodes.Nodes() and farm.rollout() == rollout.RolloutState()
assert farm.reports() == {"a" * 64: revisions.NodeReport(os="1.0")}
assert farm.revisions() == made[:-1] and farm.current() == made[-2]
assert farm.has_blob(blob.digest, blob.size) and not farm.blob(f"sha256:{3:064}").exists()
with farm.publishing():
    assert farm.prune() == ([1], 3 * len(raw))
for step in steps:
    step()
assert farm.current() == made[-1]
os.write(1, b"done")
"""
MAKE = """
import os, sys
from pathlib import Path
from dom0.farms.directory import FarmDirectory
farm = FarmDirectory(Path(sys.argv[1]))
farm.check_new()
farm.make("attic", Path(sys.argv[2]).read_bytes(), {"roles/web/compose.yaml": b"name: web"})
os.write(1, b"done")
"""


def hear(farm: FarmDirectory, secret: str) -> Node:
    return farm.change(
        lambda before: nodes.hear(before, key_of(secret), MachineInfo(), "fd00::1", 1e6, nodes.draw_code)
    )


def test_a_current_revision_whose_file_is_gone_is_not_taken_for_none(farm: FarmDirectory) -> None:
    farm.revise(lambda _known: Revision(number=1, made=1.0, roles={}))
    assert farm.current() is not None
    (farm.state / "revisions" / "1.json").unlink()
    with pytest.raises(Dom0Error, match="revision 1: is not there") as refused:
        farm.current()
    assert "dom0 farm rollback" in refused.value.hint


def run_killed(call: str, at: int, script: str, *arguments: str) -> bool:
    """The kernel kills the script at its `call` number `at`. Returns whether it came to its end."""
    kill = [f"-etrace={call}", f"-einject={call}:signal=KILL:when={at}"]
    argv = ["strace", "-qqq", "-f", "-o", "/dev/null", *kill, sys.executable, "-B", "-c", script, *arguments]
    return subprocess.run(argv, stdout=subprocess.PIPE, check=False).stdout == b"done"


@pytest.mark.parametrize("call", [*BOTH, "flock"])
def test_an_approval_that_is_killed_at_any_write_is_there_or_not_at_all(tmp_path: Path, pem: bytes, call: str) -> None:
    for at in OFTEN:
        farm = FarmDirectory(tmp_path / str(at))
        farm.make("attic", pem, {"roles/web/compose.yaml": b"name: web\n"})
        hear(farm, "other")
        code = hear(farm, "a").code
        is_done = run_killed(call, at, APPROVE, str(farm.path), code)
        other, found = farm.nodes().nodes
        assert other.state is NodeState.WAITING
        assert found.state in ((NodeState.APPROVED,) if is_done else (NodeState.WAITING, NodeState.APPROVED))
        if found.state is NodeState.WAITING:
            farm.change(lambda before: nodes.approve(before, code, "nas", "web"))  # noqa: B023 -- at once
        assert hear(farm, "a").state is NodeState.ENROLLED
        assert sorted(path.name for path in farm.state.iterdir()) == [".gitignore", "nodes.json", "server.pem"]
        if is_done:
            break
    assert is_done
    assert at > 1


@pytest.mark.parametrize("call", [*BOTH, "flock"])
def test_a_reboot_lock_whose_taking_is_killed_at_any_write_is_had_or_not_and_all_others_stay(
    tmp_path: Path, pem: bytes, call: str
) -> None:
    turn = Turn(number=7, role="store", revision=2, content="x", since=1e9)
    before = RolloutState(
        drawn=7, turns={"nas": turn}, pauses={"web": Pause(why="pi1 failed", since=1e9)}, drained=("pi3",)
    )
    for at in OFTEN:
        farm = FarmDirectory(tmp_path / str(at))
        farm.make("attic", pem, {"roles/web/compose.yaml": b"name: web\n"})
        farm.change_rollout(lambda _: (before, None))
        is_done = run_killed(call, at, LOCK, str(farm.path))
        after = farm.rollout()
        locked = replace(before, locks=(Lock(group="web", id="pi2", since=2e9),))
        assert after in ((locked,) if is_done else (before, locked))
        farm.change_rollout(lambda state: (lock.acquire(state, farm.settings(), locked.locks[0]), None))  # noqa: B023
        assert farm.rollout() == locked
        assert sorted(path.name for path in farm.state.iterdir()) == [".gitignore", "rollout.json", "server.pem"]
        if is_done:
            break
    assert is_done
    assert at > 1


def revise_often(farm: FarmDirectory, count: int) -> list[Revision]:
    """Each has a blob of its own, and one that all have."""
    made = []
    for number in range(1, count + 1):
        blobs = []
        for raw in (b"base", f"layer {number}".encode()):
            blobs.append(Blob(digest=digest_of(raw), size=len(raw)))
            farm.add_blob(blobs[-1].digest, [raw])
        base, own = blobs
        image = FarmImage(reference="dom0:latest", manifest=own, config=base, layers=(base,))
        revision = Revision(number=number, made=1.0, roles={"web": RoleContent(image=image)})
        made.append(farm.revise(lambda _known, revision=revision: revision)[0])  # type: ignore[misc]
    return made


def blobs_of(farm: FarmDirectory) -> set[str]:
    return {f"sha256:{path.name}" for path in (farm.state / "blobs").iterdir()}


def test_revisions_that_nobody_needs_go_with_their_blobs(farm: FarmDirectory) -> None:
    made = revise_often(farm, KEPT + 5)
    runs, fetched, in_turn, settled = made[:4]
    farm.put_report("a" * 64, NodeReport(content=runs.roles["web"].digest, state=RoleState.GOOD))
    farm.put_report("b" * 64, NodeReport(fetched=fetched.roles["web"].digest))
    turn = Turn(number=1, role="web", revision=in_turn.number, content="x", since=1.0)
    kept = Settled(revision=settled.number, content="y")
    farm.change_rollout(lambda _: (RolloutState(turns={"pi1": turn}, settled={"web": kept}), None))
    (farm.state / "blobs" / ".left.1.new").write_bytes(b"of a killed one")
    with farm.publishing():
        assert farm.prune() == ([5], len(b"layer 5") + len(b"of a killed one"))
        assert farm.prune() == ([], 0)
    left = [each for each in made if each.number != 5]
    assert farm.revisions() == left
    assert blobs_of(farm) == {digest for each in left for digest in each.roles["web"].blobs}


def test_the_current_revision_stays_however_old_it_is(farm: FarmDirectory) -> None:
    made = revise_often(farm, KEPT + 2)
    farm.revise(lambda _known: made[0])
    with farm.publishing():
        assert farm.prune()[0] == [2]
    assert farm.current() == made[0]


@pytest.mark.parametrize("call", ["?unlink,?unlinkat", "fsync"])
def test_a_prune_that_is_killed_leaves_every_revision_all_of_its_blobs(tmp_path: Path, pem: bytes, call: str) -> None:
    for at in OFTEN:
        farm = FarmDirectory(tmp_path / str(at))
        farm.make("attic", pem, {"roles/web/compose.yaml": b"name: web\n"})
        made = revise_often(farm, KEPT + 3)
        is_done = run_killed(call, at, PRUNE, str(farm.path))
        left = farm.revisions()
        assert left[-KEPT:] == made[-KEPT:]
        assert blobs_of(farm) >= {digest for each in left for digest in each.roles["web"].blobs}
        with farm.publishing():
            farm.prune()
        assert farm.revisions() == made[-KEPT:]
        assert blobs_of(farm) == {digest for each in made[-KEPT:] for digest in each.roles["web"].blobs}
        if is_done:
            break
    assert is_done
    assert at > 1


@as_root
def test_a_full_disk_changes_nothing_and_a_prune_makes_room(tmp_path: Path) -> None:
    mounted = 'mount -t tmpfs -o size=400k tmpfs "$0" && exec "$1" -B -c "$2" "$0"'
    argv = ["unshare", "--mount", "sh", "-c", mounted, str(tmp_path), sys.executable, FULL]
    found = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert found.stdout == "done", found.stderr


def test_nothing_is_pruned_while_another_one_publishes(farm: FarmDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "PATIENCE", 0.1)
    with farm.publishing(), pytest.raises(Busy, match="another process has it"), farm.publishing():
        pass


@pytest.mark.parametrize("call", [*BOTH, "?chmod,?fchmodat"])
def test_a_farm_whose_making_is_killed_at_any_write_is_made_by_the_next_one(
    tmp_path: Path, pem: bytes, call: str
) -> None:
    """A server's key that is there stays: somebody may have been told its fingerprint."""
    first, second = tmp_path / "first.pem", tmp_path / "second.pem"
    first.write_bytes(pem)
    second.write_bytes(pem + b"\n")
    for at in OFTEN:
        made = FarmDirectory(tmp_path / str(at))
        is_done = run_killed(call, at, MAKE, str(made.path), str(first))
        is_farm = (made.path / "farm.yaml").exists()
        was_there = made.server_pem.exists()
        assert is_farm or not is_done
        if not is_farm:
            made.check_new()
            made.make("attic", second.read_bytes(), {"roles/web/compose.yaml": b"name: web"})
        assert made.settings().name == "attic"
        assert made.roles() == ["web"]
        assert made.server_pem.read_bytes() == (pem if was_there else pem + b"\n")
        assert made.server_pem.stat().st_mode & 0o777 == 0o600
        assert made.state.stat().st_mode & 0o777 == 0o700
        with pytest.raises(ProjectError, match="is not empty"):
            made.check_new()
        if is_done:
            break
    assert is_done
    assert at > 1


def test_many_at_once_lose_nothing(farm: FarmDirectory) -> None:
    waiting = [hear(farm, str(number)) for number in range(8)]

    def approve(number: int) -> None:
        farm.change(lambda before: nodes.approve(before, waiting[number].code, f"pi{number}", "web"))
        assert hear(farm, str(number)).state is NodeState.ENROLLED

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(approve, range(8)))
    assert sorted(node.name for node in farm.nodes().nodes) == [f"pi{number}" for number in range(8)]


def test_who_keeps_the_lock_is_waited_for_and_not_for_ever(
    farm: FarmDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "PATIENCE", 0.05)
    held = os.open(farm.state, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(Busy, match="another process has it"):
        hear(farm, "a")
    os.close(held)
    assert hear(farm, "a").state is NodeState.WAITING


def test_a_refused_change_writes_nothing(farm: FarmDirectory) -> None:
    hear(farm, "a")
    before = (farm.state / "nodes.json").stat()
    with pytest.raises(UsageError):
        farm.change(lambda before: nodes.approve(before, "ffffff", "nas", "web"))
    after = (farm.state / "nodes.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert after.st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"nodes": [{}]}',
        b'{"nodes": [], "more": 1}',
        b"\xff\xfe",
        b'{"nodes": [{"key": "\xff"}]}',
        b'{"nodes": [' + b"[" * 100_000,
    ],
)
def test_a_damaged_list_lets_nobody_in_and_is_not_overwritten(farm: FarmDirectory, content: bytes) -> None:
    (farm.state / "nodes.json").write_bytes(content)
    with pytest.raises(Dom0Error, match=r"nodes\.json: is damaged"):
        hear(farm, "a")
    assert (farm.state / "nodes.json").read_bytes() == content


@as_root
def test_what_root_changes_stays_the_owners(farm: FarmDirectory) -> None:
    """As `sudo dom0 farm approve` beside a server that is not root."""
    os.chown(farm.state, NOBODY, NOBODY)
    hear(farm, "a")
    found = (farm.state / "nodes.json").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (NOBODY, NOBODY, 0o600)


def test_a_list_that_cannot_be_read_is_named(farm: FarmDirectory) -> None:
    (farm.state / "nodes.json").mkdir()
    with pytest.raises(Dom0Error, match=r"nodes\.json: cannot be read: Is a directory"):
        hear(farm, "a")


@as_root
def test_a_list_of_another_owner_is_named(farm: FarmDirectory) -> None:
    hear(farm, "a")
    os.seteuid(NOBODY)
    try:
        with pytest.raises(Dom0Error, match=r"nodes\.json: permission denied") as refused:
            farm.nodes()
    finally:
        os.seteuid(0)
    assert "chown " in refused.value.hint


def test_a_damaged_key_of_the_server_is_named(farm: FarmDirectory) -> None:
    farm.server_pem.write_bytes(farm.server_pem.read_bytes()[:100])
    for read in (pin.fingerprint, pin.of_server):
        with pytest.raises(Dom0Error, match=r"server\.pem: is damaged"):
            read(farm.server_pem)
    farm.server_pem.unlink()
    with pytest.raises(Dom0Error, match=r"server\.pem: is not there"):
        pin.fingerprint(farm.server_pem)


def test_roles_are_directories_with_a_project(farm: FarmDirectory) -> None:
    for name in ("store", "Bad", "empty"):
        (farm.path / "roles" / name).mkdir()
    for name in ("store", "Bad"):
        (farm.path / "roles" / name / "compose.yaml").touch()
    assert farm.roles() == ["store", "web"]
    farm.check_role("store")
    with pytest.raises(UsageError) as refused:
        farm.check_role("stor")
    assert (refused.value.message, refused.value.hint) == ("stor: is no role of this farm", "did you mean store?")
    for wrong in ("../roles/web", "", "Bad"):
        with pytest.raises(UsageError):
            farm.check_role(wrong)


@pytest.mark.parametrize("file", ["Blog/compose.yaml", "blog/compose.yml", "blog/docker-compose.yaml"])
def test_a_floating_project_that_would_not_be_read_is_not_taken_for_gone(farm: FarmDirectory, file: str) -> None:
    wiki = farm.path / "float" / "wiki"
    wiki.mkdir(parents=True)
    (wiki / "compose.yaml").touch()
    (wiki / "docker-compose.yml").touch()  # beside the one that is read
    assert farm.floats() == ["wiki"]
    path = farm.path / "float" / file
    path.parent.mkdir()
    path.touch()
    with pytest.raises(ProjectError, match=f"float/{file}: nobody reads a file there"):
        farm.floats()


def test_nothing_is_made_over_what_somebody_has(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProjectError, match="is not empty"):
        FarmDirectory(tmp_path).check_new()
    with pytest.raises(ProjectError, match="is no directory"):
        FarmDirectory(tmp_path / "file").check_new()
    with pytest.raises(ProjectError, match=r"no farm is here: it has no farm\.yaml"):
        FarmDirectory(tmp_path / "file").settings()
