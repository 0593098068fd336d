"""What a node does about the base OS that its farm's server says, over TLS: on a machine with two slots, which the test
restarts.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from dom0.cli.farms.up import changed_os
from dom0.errors import Dom0Error, EngineUnreachable, ProjectError
from dom0.farms import base_os, follow, orders, reboot, rollout
from dom0.farms import publish as publish_
from dom0.farms.base_os import Begun, OsNow
from dom0.farms.directory import FarmDirectory
from dom0.farms.nodes import key_of
from dom0.farms.revisions import NETWORK, SLOTS, BaseOs, Blob, NodeReport, Revision, revise
from dom0.farms.rollout import Lock
from dom0.host.update_file import UpdateFile
from dom0.names import pull_directory
from dom0.registry.depot import Depot
from dom0.testing.fake_uki import make_uki

from .test_follow import SECRET, Node, keep, make_content, node, quick, serving, until

__all__ = ["node", "quick"]  # fixtures


class Slots:
    """`bad` versions do not come up; what comes up has to be blessed. `installed`: in their order."""

    def __init__(self, boot: Path) -> None:
        self._boot = boot
        self.slots = {"a": "1", "b": ""}
        self.running = self.good = "a"
        self.next = ""
        self.bad: set[str] = set()
        self.refusal = ""
        self.boots = SLOTS
        self.installed: list[str] = []
        self.restarts = asyncio.Semaphore(0)

    async def look(self) -> OsNow:
        armed = self.slots.get(self.next, "")
        is_on_trial = self.running != self.good
        return OsNow(version=self.slots[self.running], boots=self.boots, is_on_trial=is_on_trial, armed=armed)

    async def install(self, update: UpdateFile) -> None:
        if self.refusal:
            raise Dom0Error(self.refusal)
        assert update.signature is not None
        assert update.signature.read_text() == "signed"
        self.next = "b" if self.running == "a" else "a"
        self.slots[self.next] = update.file.read_text()
        self.installed.append(self.slots[self.next])

    async def restart(self) -> None:
        self.restarts.release()

    def boot(self, number: int) -> None:
        self._boot.write_text(f"boot {number}")
        if self.next and self.slots[self.next] not in self.bad:
            self.running = self.next
        self.next = ""

    def bless(self) -> None:
        self.good = self.running


@pytest.fixture
async def slots(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slots:
    monkeypatch.setattr(orders, "WAIT", 0.1)
    monkeypatch.setattr(reboot, "AGAIN", 0.02)
    monkeypatch.setattr(follow, "WELL_FOR", 0.0)
    monkeypatch.setattr(reboot, "BOOT_ID", tmp_path / "boot")
    (tmp_path / "boot").write_text("boot 0")
    await node.kill()
    node.host = made = Slots(tmp_path / "boot")
    node.start()
    (node.farm.path / "farm.yaml").write_text("name: attic\nroles: {web: {soak: 0s}}\n")
    return made


def publish(farm: FarmDirectory, node: Node, number: int, version: str) -> None:
    content = make_content(farm, "first")
    node.agent.ends[content.image.config.digest] = ""
    os = BaseOs(version=version, file=keep(farm, version.encode()), signature=keep(farm, b"signed"))
    farm.revise(lambda _known: Revision(number=number, made=1.0, roles={"web": content}, os=os))


async def settle(farm: FarmDirectory, node: Node, version: str) -> None:
    publish(farm, node, 1, version)
    await until(lambda: "web" in farm.rollout().settled)


def report(farm: FarmDirectory) -> NodeReport:
    return farm.reports().get(key_of(SECRET), NodeReport())


async def test_a_node_installs_its_base_os_restarts_with_the_lock_and_is_good_when_that_has_proved_itself(
    farm: FarmDirectory, node: Node, slots: Slots, port: int
) -> None:
    async with serving(farm, port):
        publish(farm, node, 1, "1")
        await until(lambda: "web" in farm.rollout().settled and report(farm).os == "1")
        publish(farm, node, 2, "2")
        await slots.restarts.acquire()
        assert [lock.id for lock in farm.rollout().locks] == ["nas"]
        await node.kill()
        slots.boot(1)
        node.start()
        await until(lambda: report(farm).os == "2")
        assert (report(farm).os_trial, "nas" in farm.rollout().turns) == (True, True)
        slots.bless()
        await until(lambda: farm.rollout().turns == {} and farm.rollout().locks == ())
        assert report(farm).os_trial is False
    assert slots.installed == ["2"]
    assert len(node.agent.begun) == 1


async def test_a_node_that_goes_back_says_so_and_does_not_try_again_by_itself(
    farm: FarmDirectory, node: Node, slots: Slots, port: int
) -> None:
    slots.bad = {"2"}
    why = "nas failed: it went back to the base OS 1: 2 did not prove itself"
    async with serving(farm, port):
        publish(farm, node, 1, "2")
        for boot in (1, 2):  # in the turn that it was given, and in that of resume
            await slots.restarts.acquire()
            await node.kill()
            slots.boot(boot)
            node.start()
            await until(lambda: [one.why for one in farm.rollout().pauses.values()] == [why])
            await node.kill()
            node.start()
            await until(lambda: farm.rollout().locks == ())
            farm.change_rollout(lambda state: (rollout.resume(state, ["web"]), None))
        await slots.restarts.acquire()
    assert slots.installed == ["2"] * 3


async def test_a_node_that_starts_from_the_network_restarts_and_is_given_it(
    farm: FarmDirectory, node: Node, slots: Slots, port: int
) -> None:
    slots.boots = NETWORK
    (farm.path / "farm.yaml").write_text("name: attic\nroles: {web: {soak: 0s}}\nnetboot: {interface: eth0, os: x}\n")
    async with serving(farm, port):
        await settle(farm, node, "1")
        publish(farm, node, 2, "2")
        await slots.restarts.acquire()
        await node.kill()
        slots.slots["a"] = "2"
        slots.boot(1)
        node.start()
        await until(lambda: report(farm).os == "2" and farm.rollout().turns == {} and farm.rollout().locks == ())
    assert slots.installed == []


async def test_a_node_that_is_killed_before_it_restarts_does_not_install_again(
    farm: FarmDirectory, node: Node, slots: Slots, port: int
) -> None:
    async with serving(farm, port):
        await settle(farm, node, "1")
        publish(farm, node, 2, "2")
        await slots.restarts.acquire()
        await node.kill()
        node.start()
        await slots.restarts.acquire()
    assert slots.installed == ["2"]


async def test_a_base_os_that_the_machine_refuses_pauses_the_role(
    farm: FarmDirectory, node: Node, slots: Slots, port: int
) -> None:
    slots.refusal = "base OS: the boot medium has room for 1 MiB"
    async with serving(farm, port):
        publish(farm, node, 1, "2")
        await until(lambda: "web" in farm.rollout().pauses)
    assert farm.rollout().pauses["web"].why == f"nas failed: {slots.refusal}"
    assert farm.rollout().locks == ()
    assert slots.restarts.locked()


async def test_while_another_machine_has_the_lock_the_next_start_is_of_what_runs(
    farm: FarmDirectory, node: Node, slots: Slots, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, other = slots.look, Lock(group="web", id="other", since=1.0, foreign=True)

    async def look_before_the_other_has_it() -> OsNow:
        if farm.rollout().turns:
            farm.change_rollout(lambda state: (replace(state, locks=(other,)), None))
        return await look()

    async with serving(farm, port):
        await settle(farm, node, "1")
        monkeypatch.setattr(slots, "look", look_before_the_other_has_it)
        publish(farm, node, 2, "2")
        await until((node.state / reboot.FILE).exists)
        assert (slots.installed, slots.next) == ([], "")
        monkeypatch.setattr(slots, "look", look)
        farm.change_rollout(lambda state: (replace(state, locks=()), None))
        await slots.restarts.acquire()
    assert slots.installed == ["2"]


async def test_turns_of_a_farm_whose_server_counts_anew_are_no_old_ones(
    farm: FarmDirectory, node: Node, slots: Slots, port: int
) -> None:
    async with serving(farm, port):
        await settle(farm, node, "1")
        before = Begun(turn=farm.rollout().drawn + 1, boot="long ago", os="1")
        (node.state / base_os.FILE).write_bytes(msgspec.json.encode(before))
        publish(farm, node, 2, "2")
        await slots.restarts.acquire()
        assert farm.rollout().pauses == {}


async def test_a_file_that_is_damaged_on_the_disk_of_the_node_is_fetched_again(
    farm: FarmDirectory, node: Node, slots: Slots, port: int
) -> None:
    async with serving(farm, port):
        await settle(farm, node, "1")
        farm.change_rollout(lambda state: (rollout.pause(state, ["web"], 1.0), None))
        publish(farm, node, 2, "2")
        digest = keep(farm, b"2").digest
        await until(lambda: report(farm).os_fetched == digest)
        Depot(pull_directory(), 1 << 20).path(digest).write_bytes(b"3")
        farm.change_rollout(lambda state: (rollout.resume(state, ["web"]), None))
        await slots.restarts.acquire()
    assert slots.installed == ["2"]


async def test_an_engine_that_does_not_answer_is_no_failure_of_the_base_os(
    farm: FarmDirectory, node: Node, slots: Slots, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, asked = slots.look, list[int]()

    async def look_at_the_second_time() -> OsNow:
        asked.append(1)
        if len(asked) == 1:
            raise EngineUnreachable("Cannot connect to the Docker daemon")
        return await look()

    async with serving(farm, port):
        await settle(farm, node, "1")
        monkeypatch.setattr(slots, "look", look_at_the_second_time)
        publish(farm, node, 2, "2")
        await slots.restarts.acquire()
        assert farm.rollout().pauses == {}
    assert len(asked) > 1


async def test_a_disk_that_comes_to_another_linux_has_no_base_os_to_change(
    farm: FarmDirectory, node: Node, slots: Slots, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def is_another_linux() -> None:
        return None

    async with serving(farm, port):
        await until(lambda: report(farm).boots == SLOTS)
        await node.kill()
        monkeypatch.setattr(slots, "look", is_another_linux)
        node.start()
        await until(lambda: (report(farm).boots, report(farm).os) == ("", ""))


def test_a_revision_has_the_file_that_farm_yaml_names_and_its_signature(farm: FarmDirectory) -> None:
    assert publish_.keep_base_os(farm) is None
    (farm.path / "farm.yaml").write_text("name: attic\nos: dom0-os.efi\n")
    with pytest.raises(ProjectError, match=r"farm.yaml: os: dom0-os.efi: no such file"):
        publish_.keep_base_os(farm)
    file, signature = farm.path / "dom0-os.efi", farm.path / "dom0-os.efi.sig"
    file.write_bytes(make_uki(version="2.0"))
    signature.write_text("signed")
    with farm.publishing():
        found = publish_.keep_base_os(farm)
    assert found is not None
    assert (found.version, farm.blob(found.file.digest).read_bytes()) == ("2.0", file.read_bytes())
    assert found.signature is not None
    assert farm.blob(found.signature.digest).read_text() == "signed"
    of_revision = Revision(number=1, made=1.0, roles={}, os=found)
    assert of_revision.blobs == {found.file.digest, found.signature.digest}
    file.write_text("no base OS")
    with pytest.raises(Dom0Error, match=r"dom0-os.efi: "):
        publish_.keep_base_os(farm)


def test_what_changes_of_the_base_os_is_said_beside_the_roles() -> None:
    one, two = (BaseOs(version=version, file=Blob(digest="", size=1)) for version in ("1", "2"))
    before = Revision(number=1, made=1.0, roles={}, os=one)
    assert changed_os(None, one) == {"base OS": "new"}
    assert changed_os(before, two) == {"base OS": "changed"}
    assert changed_os(before, None) == {"base OS": "removed"}
    assert changed_os(before, one) == changed_os(None, None) == {}
    again = revise([before], {}, 2.0, os=one)
    assert (again.number, revise([before], {}, 2.0, os=two).number) == (1, 2)
