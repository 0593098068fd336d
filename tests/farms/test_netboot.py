"""What loaders and firmware are answered: over HTTP to machines in network namespaces, by dnsmasq to a DHCP client."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dom0.errors import Dom0Error, ProjectError
from dom0.farms import netboot, nodes, pin
from dom0.farms.boots import Boots
from dom0.farms.boots import hear as hear_boots
from dom0.farms.directory import FarmDirectory
from dom0.farms.netboot import Tree
from dom0.farms.nodes import Firmware, MachineInfo, NodeState, key_of
from dom0.farms.pin import Pin
from dom0.farms.publish import keep_base_os
from dom0.farms.revisions import NETWORK, NodeReport, Revision
from dom0.farms.rollout import Turn
from dom0.farms.settings import NetbootSettings
from dom0.osimage import netboot as tree_of_os
from dom0.testing.fake_uki import make_uki
from dom0.testing.wires import Node, Wires, eventually

PORT = 7700
NONE = "0.0.0.0"  # noqa: S104 -- what a machine without an address says
MAC, UUID = "52-54-00-00-00-01", "11111111-1111-4111-8111-111111111111"
CONTROL = Pin("10.77.0.2", 7701, "5f" * 32)
SETTINGS = NetbootSettings(interface="eth0", os="../dom0-os.efi", config=("format=blank",))


@pytest.fixture
async def tree(farm: FarmDirectory) -> Tree:
    if not tree_of_os.IPXE.is_dir():
        pytest.skip("ipxe is not installed")
    (farm.path / SETTINGS.os).write_bytes(make_uki(version="1.0"))
    return await netboot.prepare(farm, SETTINGS, "http://10.77.0.2:7700")


@pytest.fixture
async def served(farm: FarmDirectory, tree: Tree, wires: Wires) -> AsyncIterator[FarmDirectory]:
    """In the namespace of the wires' ambassador."""
    listening = wires.ambassador.call(lambda: socket.create_server((wires.ambassador.v4, PORT)))
    base = f"http://{wires.ambassador.v4}:{PORT}"
    async with asyncio.timeout(300), netboot.serve(farm, tree, listening, base, CONTROL):
        yield farm


def ask_now(wires: Wires, path: str, node: Node | None = None, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(wires.ambassador.v4, PORT, timeout=60)
    connection.sock = (node or wires.consumer).socket()
    connection.sock.connect((wires.ambassador.v4, PORT))
    with contextlib.closing(connection):
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()


async def ask(wires: Wires, path: str, **asked: Any) -> tuple[int, str]:
    status, body = await asyncio.to_thread(ask_now, wires, path, **asked)
    return status, body.decode("latin-1")


async def boots(wires: Wires, mac: str = MAC, uuid: str = UUID, **asked: Any) -> str:
    status, text = await ask(wires, f"/v1/boot?mac={mac}&uuid={uuid}&arch=i386", **asked)
    assert status == 200
    return text


def paths(text: str) -> list[str]:
    """Of this server, in a script; of the scheme and host nothing is left."""
    return re.findall(r"http://10\.77\.0\.2:7700(/\S+)", text)


def code_in(text: str) -> str:
    found = re.search("dom0 farm approve ([0-9a-f]{6}) ", text)
    assert found, text
    return found[1]


async def approved(farm: FarmDirectory, wires: Wires) -> str:
    """The path of its pass."""
    text = await boots(wires)
    farm.change(lambda before: nodes.approve(before, code_in(text), "nas", "web"))
    return paths(text)[0]


def unpacked(archive: str, directory: Path) -> str:
    directory.mkdir()
    argv = ["cpio", "--extract", "--quiet", "--make-directories", f"--directory={directory}"]
    subprocess.run(argv, input=archive.encode("latin-1"), check=True)
    assert (directory / netboot.TICKET).stat().st_mode & 0o777 == 0o600
    return (directory / netboot.TICKET).read_text()


async def test_a_machine_waits_is_approved_and_gets_the_base_os_and_its_ticket_once(
    served: FarmDirectory, wires: Wires, tmp_path: Path
) -> None:
    first = (await ask(wires, "/boot.ipxe"))[1]
    assert paths(first)[0].startswith("/v1/boot?mac=${netX/mac:hexhyp}&uuid=${uuid}")
    waits = await boots(wires)
    (own,) = paths(waits)
    assert await ask(wires, own) == (200, waits)
    served.change(lambda before: nodes.approve(before, code_in(waits), "nas", "web"))
    status, text = await ask(wires, own)
    linux, initrd, medium, ticket, again = paths(text)
    assert f" dom0.hostname=nas dom0.farm={CONTROL} dom0.medium=none " in text
    for path, file in ((linux, "linux"), (initrd, "initrd"), (medium, "medium.cpio")):
        status, body = await ask(wires, path)
        assert (status, body.encode("latin-1")) == (200, (served.state / "netboot" / "1.0" / file).read_bytes())
    secret = unpacked((await ask(wires, ticket))[1], tmp_path / "unpacked")
    (node,) = served.nodes().nodes
    assert (node.state, node.key) == (NodeState.LOADING, key_of(secret))
    assert secret not in (served.state / "nodes.json").read_text()
    assert (await ask(wires, ticket))[0] == 403
    assert paths((await ask(wires, own))[1]) == [again] == ["/boot.ipxe"]


async def test_a_node_that_is_enrolled_gets_the_base_os_and_no_ticket(served: FarmDirectory, wires: Wires) -> None:
    ticket = (await approved(served, wires)) + "/ticket"
    assert (await ask(wires, ticket))[0] == 200
    assert code_in(await boots(wires))  # until its base OS has come with the ticket, it is unknown
    (node,) = (node for node in served.nodes().nodes if node.name)
    served.change(lambda before: nodes.enroll(before, node.key, key_of("secret"), node.last))
    text = await boots(wires)
    assert "dom0.hostname=nas" in text
    assert not any("ticket" in path or "/v1/boot/" in path for path in paths(text))
    for other in ({"mac": MAC.replace("01", "02")}, {"uuid": UUID.replace("8", "9")}):
        assert code_in(await boots(wires, **other))


async def test_a_copy_that_was_superseded_boots_no_machine(served: FarmDirectory, wires: Wires, tmp_path: Path) -> None:
    enroll(served)
    assert "dom0.hostname=nas" in await boots(wires)
    served.hear_epoch(FarmDirectory(shutil.copytree(served.path, tmp_path / "copy")).promote().own)
    for mac in (MAC, MAC.replace("01", "02")):
        text = await boots(wires, mac=mac)
        assert "echo another copy of this farm was promoted, and is its server\n" in text
        assert paths(text) == ["/boot.ipxe"]  # to ask again, which may be another server by then


def enroll(farm: FarmDirectory) -> None:
    """The node nas, with the key of `secret`."""
    firmware = Firmware(mac=MAC.replace("-", ":"), uuid=UUID)
    hear = (key_of("secret"), MachineInfo(), "10.0.0.1", 1e6, nodes.draw_code, firmware)
    waiting = farm.change(lambda before: nodes.hear(before, *hear))
    farm.change(lambda before: nodes.approve(before, waiting.code, "nas", "web"))
    (node,) = farm.nodes().nodes
    farm.change(lambda before: (before.put(replace(node, state=NodeState.ENROLLED)), None))


async def given_to(wires: Wires, tree: Tree) -> str:
    """The version that nas gets now, "" for none."""
    found = paths(await boots(wires))
    if "linux" not in found[0]:
        return ""
    linux = (await ask(wires, found[0]))[1].encode("latin-1")
    return next(os.name for os in tree.top.iterdir() if os.is_dir() and (os / "linux").read_bytes() == linux)


async def test_a_node_gets_the_base_os_of_a_revision_in_its_turn_and_what_it_ran_before_that(
    farm: FarmDirectory, tree: Tree, wires: Wires, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(netboot, "LOOK_AGAIN", 0.02)
    settings = f"netboot: {{interface: eth0, os: {SETTINGS.os}}}"
    (farm.path / "farm.yaml").write_text(f"name: attic\nos: next.efi\n{settings}\n")
    enroll(farm)
    farm.put_report(key_of("secret"), NodeReport(os="1.0", boots=NETWORK))
    listening = wires.ambassador.call(lambda: socket.create_server((wires.ambassador.v4, PORT)))
    base = f"http://{wires.ambassador.v4}:{PORT}"
    async with asyncio.timeout(300), netboot.serve(farm, tree, listening, base, CONTROL):
        assert await given_to(wires, tree) == "1.0"
        (farm.path / "next.efi").write_bytes(make_uki(version="2.0"))
        with farm.publishing():
            made = Revision(number=1, made=1.0, roles={}, os=keep_base_os(farm))
            farm.revise(lambda _known: made)
        while not (tree.top / "2.0" / netboot.LINE).exists():  # noqa: ASYNC110 -- it tells nobody
            await asyncio.sleep(0.01)
        assert await given_to(wires, tree) == "1.0"
        turn = Turn(number=1, role="web", revision=1, content="", since=1.0)
        farm.change_rollout(lambda before: (replace(before, turns={"nas": turn}, boots=Boots(good="1.0")), None))
        found = ""
        while not found:  # it is told to ask again until the newest is unpacked
            found = await given_to(wires, tree)
        assert [found, *[await given_to(wires, tree) for _ in range(3)]] == ["2.0", "2.0", "2.0", "1.0"]
    again = await netboot.prepare(farm, SETTINGS, base)
    assert (again.newest.version, [os.version for os in again.older]) == ("2.0", ["1.0"])


async def test_a_node_gets_what_it_ran_where_the_base_os_of_its_turn_cannot_be_unpacked(
    farm: FarmDirectory, tree: Tree, wires: Wires, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def prepare(*_: object) -> Tree:
        raise Dom0Error("no space left on device")

    monkeypatch.setattr(netboot, "LOOK_AGAIN", 0.02)
    monkeypatch.setattr(netboot, "prepare", prepare)
    (farm.path / "farm.yaml").write_text(
        f"name: attic\nos: next.efi\nnetboot: {{interface: eth0, os: {SETTINGS.os}}}\n"
    )
    enroll(farm)
    farm.put_report(key_of("secret"), NodeReport(os="1.0", boots=NETWORK))
    (farm.path / "next.efi").write_bytes(make_uki(version="2.0"))
    with farm.publishing():
        made = Revision(number=1, made=1.0, roles={}, os=keep_base_os(farm))
        farm.revise(lambda _known: made)
    turn = Turn(number=1, role="web", revision=1, content="", since=1.0)
    farm.change_rollout(lambda before: (replace(before, turns={"nas": turn}), None))
    listening = wires.ambassador.call(lambda: socket.create_server((wires.ambassador.v4, PORT)))
    async with (
        asyncio.timeout(60),
        netboot.serve(farm, tree, listening, f"http://{wires.ambassador.v4}:{PORT}", CONTROL),
    ):
        while not (found := await given_to(wires, tree)):
            pass
    assert found == "1.0"


async def test_a_base_os_that_never_says_a_word_is_given_three_times_and_then_the_last_good_one(
    farm: FarmDirectory, tree: Tree, wires: Wires
) -> None:
    farm.change_rollout(lambda before: (replace(before, boots=Boots(good="1.0")), None))
    (farm.path / SETTINGS.os).write_bytes(make_uki(version="2.0"))
    base = f"http://{wires.ambassador.v4}:{PORT}"
    newer = await netboot.prepare(farm, SETTINGS, base)
    enroll(farm)

    async def given() -> str:
        return await given_to(wires, tree)

    listening = wires.ambassador.call(lambda: socket.create_server((wires.ambassador.v4, PORT)))
    async with asyncio.timeout(300), netboot.serve(farm, newer, listening, base, CONTROL):
        assert [await given() for _ in range(4)] == ["2.0", "2.0", "2.0", "1.0"]
    again = await netboot.prepare(farm, SETTINGS, base)  # the server is started anew
    listening = wires.ambassador.call(lambda: socket.create_server((wires.ambassador.v4, PORT)))
    async with asyncio.timeout(300), netboot.serve(farm, again, listening, base, CONTROL):
        assert await given() == "1.0"
        said = (("nas", "2.0", time.time() + 1),)
        farm.change_rollout(lambda before: (replace(before, boots=hear_boots(before.boots, said)), None))
        assert await given() == "2.0"
    after = await netboot.prepare(farm, SETTINGS, base)
    assert [os.version for os in after.older] == ["1.0"]  # for nodes that do not come up with what is good on others


async def test_of_a_thousand_unknown_and_forged_boots_none_gets_a_byte_of_the_base_os_or_a_ticket(
    served: FarmDirectory, wires: Wires
) -> None:
    own = await approved(served, wires)
    files = paths((await ask(wires, own))[1])[0].split("/")[2]
    before = served.nodes().named("nas")

    def flood() -> None:
        for number in range(1000):
            word = secrets.token_hex(16)
            path = (
                f"/v1/boot?mac={MAC[:-2]}{number % 100:02}&uuid={UUID}",
                f"/v1/boot/{word}",
                f"/v1/boot/{word}/ticket",
                f"/os/{word}/{('linux', 'initrd', 'medium.cpio')[number % 3]}",
                f"/os/{files}/../{files}/linux",
            )[number % 5]
            status, body = ask_now(wires, path, wires.providers[number % 2])
            assert status in (403, 404) or (body.startswith(b"#!ipxe") and b"kernel" not in body), path

    await asyncio.to_thread(flood)
    assert served.nodes().named("nas") == before
    assert len(served.nodes().nodes) <= 1 + 2 * nodes.MOST_WAITING_EACH
    assert (await ask(wires, f"{own}/ticket"))[0] == 200


HOSTILE = (
    "/v1/boot",
    f"/v1/boot?mac={MAC}",
    f"/v1/boot?mac=${{net0/mac}}&uuid={UUID}",
    f"/v1/boot?mac={MAC}%0Ashell&uuid={UUID}",
    f"/v1/boot?mac={MAC}&uuid={UUID}%0A",
    f"/v1/boot?mac={MAC}&uuid={UUID}&arch=%24%7Bx%7D",
    f"/v1/boot?mac=00-00-00-00-00-00&uuid={UUID}",
    f"/v1/boot?mac=ff-ff-ff-ff-ff-ff&uuid={UUID}",
    "/v1/boot/..%2f..%2fstate%2fserver.pem/ticket",
    "/os/%2e%2e/linux",
    "/state/server.pem",
    "/os//server.pem",
)
OUTSIDE = (
    "..%2f..%2fserver.pem",
    "..%2f1.0%2flinux",
    "%2fetc%2flinux",
    "x%00%2flinux",
    "linux%2flinux",
    "linux%00",
    "%ff",
    "boot.ipxe",
    "",
)


async def test_what_is_injected_is_refused_and_not_noted(served: FarmDirectory, wires: Wires) -> None:
    for path in HOSTILE:
        status, text = await ask(wires, path)
        assert status in (400, 403, 404), (path, text)
    assert served.nodes() == nodes.Nodes()
    word = paths((await ask(wires, await approved(served, wires)))[1])[0].split("/")[2]
    (served.path / "linux").write_bytes(b"of somebody else")
    elsewhere = (served.path / "linux").as_posix().replace("/", "%2f")
    for file in (elsewhere, *OUTSIDE):
        assert (await ask(wires, f"/os/{word}/{file}"))[0] == 404, file
    for method in ("POST", "DELETE"):
        assert (await ask(wires, "/boot.ipxe", method=method))[0] == 405


async def test_a_machine_of_another_architecture_is_told_so_and_not_noted(served: FarmDirectory, wires: Wires) -> None:
    asked = f"/v1/boot?mac={MAC}&uuid={UUID}&arch="
    status, text = await ask(wires, f"{asked}arm64")
    assert (status, paths(text)) == (200, ["/boot.ipxe"])
    assert "echo the base OS of this farm is for amd64, and this machine is another one\n" in text
    assert text.endswith("chain --replace http://10.77.0.2:7700/boot.ipxe || goto again\n")  # it may be away
    assert served.nodes() == nodes.Nodes()
    assert code_in((await ask(wires, f"{asked}x86_64"))[1])


async def test_who_boots_again_at_once_is_told_to_wait_and_writes_nothing(
    served: FarmDirectory, wires: Wires, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "AGAIN_AFTER", 3600.0)
    code = code_in(await boots(wires))
    before = (served.state / "nodes.json").stat().st_ino
    again = await boots(wires)
    assert "echo this machine has begun to wait a moment ago\n" in again
    assert paths(again) == ["/boot.ipxe"]
    assert (served.state / "nodes.json").stat().st_ino == before
    assert served.nodes().waiting(code)


async def test_a_question_about_a_ticket_does_not_spend_it(served: FarmDirectory, wires: Wires) -> None:
    ticket = (await approved(served, wires)) + "/ticket"
    assert (await ask(wires, ticket, method="HEAD"))[0] == 405
    assert (await ask(wires, ticket))[0] == 200


async def test_a_base_os_that_cannot_be_is_refused_before_anything_is_served(farm: FarmDirectory) -> None:
    (farm.path / "os.efi").write_bytes(make_uki(version="1.0"))
    for settings, what in (
        (NetbootSettings(interface="eth0", os="none.efi"), "none.efi"),
        (NetbootSettings(interface="eth0", os="farm.yaml"), "is not an EFI program"),
        (NetbootSettings(interface="eth0", os="os.efi", config=("hostname=x",)), "is said by the farm"),
        (NetbootSettings(interface="eth0", os="os.efi", config=("colour=red",)), "no such setting"),
        (NetbootSettings(interface="eth0", os="os.efi", ssh_keys=("farm.yaml",)), "is not a public key"),
    ):
        with pytest.raises((Dom0Error, FileNotFoundError), match=what):
            await netboot.prepare(farm, settings, "http://10.77.0.2:7700")


async def test_what_is_no_tree_of_an_older_base_os_stays(farm: FarmDirectory, tree: Tree, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "kept").mkdir(parents=True)
    (tree.top / "0.9").mkdir()
    (tree.top / "link").symlink_to(elsewhere)
    await netboot.prepare(farm, SETTINGS, "http://10.77.0.2:7700")
    assert not (tree.top / "0.9").exists()
    shutil.rmtree(tree.top)
    tree.top.symlink_to(elsewhere)
    with pytest.raises(ProjectError, match="is a link"):
        await netboot.prepare(farm, SETTINGS, "http://10.77.0.2:7700")
    assert [path.name for path in elsewhere.iterdir()] == ["kept"]


def test_a_second_server_leaves_the_tree_of_the_first_one(farm: FarmDirectory, tree: Tree, wires: Wires) -> None:
    (farm.path / "os.efi").write_bytes(make_uki(version="2.0"))
    (farm.path / "farm.yaml").write_text("name: attic\nnetboot: {interface: eth0, os: os.efi}\n")
    argv = ["nsenter", f"--net={wires.ambassador.namespace}", sys.executable, "-m", "dom0", "farm", "serve"]
    with wires.ambassador.call(lambda: socket.create_server((wires.ambassador.v4, PORT))):
        refused = subprocess.run([*argv, "--dir", str(farm.path)], capture_output=True, text=True, check=False)
    assert (refused.returncode, "netboot.port: 10.77.0.2:7700: Address already in use" in refused.stderr) == (6, True)
    assert tree.newest.files.is_dir()


def test_an_interface_without_an_address_is_named() -> None:
    with pytest.raises(ProjectError, match=r"netboot\.interface: none0: No such device"):
        netboot.address_of("none0")
    assert str(netboot.address_of("lo")) == "127.0.0.1/8"


# firmware


def message(kind: int, arch: int, own: str, *more: tuple[int, bytes]) -> bytes:
    """What the PXE firmware of a machine says (RFC 2131, 4578). `own`: its address; of `arch` 0 is BIOS, 7 EFI."""
    head = b"\x01\x01\x06\x00" + b"\x12\x34\x56\x78" + b"\x00\x00\x80\x00" + socket.inet_aton(own) + bytes(12)
    head += bytes.fromhex("525400000001") + bytes(10) + bytes(192) + b"\x63\x82\x53\x63"
    options = (
        (53, bytes((kind,))),
        (55, bytes((1, 3, 43, 60, 66, 67))),
        (60, f"PXEClient:Arch:{arch:05}:UNDI:003000".encode()),
        (93, arch.to_bytes(2, "big")),
        (94, b"\x01\x03\x00"),
        (97, b"\x00" + bytes.fromhex(UUID.replace("-", ""))),
        *more,
    )
    return head + b"".join(bytes((code, len(value))) + value for code, value in options) + b"\xff"


def answered(wires: Wires, arch: int, server: Node | None = None) -> bytes:
    """What a machine on the consumer's end is told to load by one server: BIOS is first shown a menu, of one thing."""
    server = server or wires.ambassador
    asking = wires.consumer.socket(4, socket.SOCK_DGRAM)
    asking.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    asking.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    asking.bind(("", 68))
    asking.settimeout(1)

    def ask(said: bytes, address: str, port: int) -> bytes:
        for _ in range(60):  # it may not listen yet
            asking.sendto(said, (address, port))
            with contextlib.suppress(TimeoutError):
                while (heard := asking.recvfrom(4096))[1][0] != server.v4:
                    pass
                return bytes(heard[0])
        raise AssertionError("nothing was answered")

    with contextlib.closing(asking):
        offer = ask(message(1, arch, NONE), "255.255.255.255", 67)
        assert b"PXEClient" in offer
        assert offer[16:20] == socket.inet_aton(NONE)  # no address for the machine
        chosen = [] if arch else [(43, b"\x47\x04\x80\x00\x00\x00\xff")]  # PXE's boot item: the first one
        return ask(message(3, arch, wires.consumer.v4, *chosen), server.v4, 4011)


def by_tftp(wires: Wires, name: str, server: Node | None = None) -> bytes:
    """The first 512 bytes of the file, or why not."""
    asking = wires.consumer.socket(4, socket.SOCK_DGRAM)
    with contextlib.closing(asking):
        asking.sendto(b"\x00\x01" + name.encode() + b"\x00octet\x00", ((server or wires.ambassador).v4, 69))
        return asking.recv(1024)[4:]


@pytest.fixture
def for_us_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """So is what is made, and where temporary files are made."""
    (tmp_path / "private").mkdir(mode=0o700)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "private"))
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="dnsmasq is not installed")
async def test_firmware_is_told_which_loader_to_get_and_gets_nothing_else(
    tree: Tree, wires: Wires, for_us_alone: None
) -> None:
    """It is another user who reads that."""
    address = IPv4Interface(f"{wires.ambassador.v4}/24")
    inside = ["nsenter", f"--net={wires.ambassador.namespace}"]
    async with asyncio.timeout(120), netboot.answering_firmware("eth0", address, tree, inside=inside):
        for arch, name in ((0, b"undionly.kpxe"), (7, b"snponly.efi")):
            told = await asyncio.to_thread(answered, wires, arch)
            assert told[108:236].rstrip(b"\0") == name
            got = await asyncio.to_thread(by_tftp, wires, name.decode())
            assert got == (tree.top / name.decode()).read_bytes()[:512]
        script = (await asyncio.to_thread(by_tftp, wires, "autoexec.ipxe")).decode()
        assert "chain http://10.77.0.2:7700/boot.ipxe" in script
        for other in ("boot.ipxe", "1.0/linux", "../nodes.json", "/etc/passwd", "dnsmasq.conf"):
            assert b"#!" not in (said := await asyncio.to_thread(by_tftp, wires, other))
            assert b"root:" not in said


@pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="dnsmasq is not installed")
async def test_of_two_servers_in_a_house_each_leads_firmware_to_itself(
    farm: FarmDirectory, tree: Tree, wires: Wires, pem: bytes
) -> None:
    second, other = FarmDirectory(farm.path.parent / "second"), wires.providers[0]
    second.make("second", pem, {})
    trees = {wires.ambassador: tree, other: await netboot.prepare(second, SETTINGS, f"http://{other.v4}:{PORT}")}
    async with asyncio.timeout(120), contextlib.AsyncExitStack() as stack:
        for server, own in trees.items():
            inside = ["nsenter", f"--net={server.namespace}"]
            address = IPv4Interface(f"{server.v4}/24")
            await stack.enter_async_context(netboot.answering_firmware("eth0", address, own, inside=inside))
        for server in trees:
            told = await asyncio.to_thread(answered, wires, 7, server)
            assert (told[20:24], told[108:119]) == (socket.inet_aton(server.v4), b"snponly.efi")
            script = (await asyncio.to_thread(by_tftp, wires, "autoexec.ipxe", server)).decode()
            assert f"chain http://{server.v4}:{PORT}/boot.ipxe" in script


@pytest.mark.skipif(os.geteuid() != 0, reason="writes to /run")
async def test_a_dnsmasq_that_is_not_installed_is_named(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    setpriv = shutil.which("setpriv")
    assert setpriv
    (tmp_path / "bin" / "setpriv").symlink_to(setpriv)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.RaisesGroup(pytest.RaisesExc(Dom0Error, check=lambda error: "dnsmasq-base" in error.hint)):
        async with asyncio.timeout(60), netboot.answering_firmware("lo", IPv4Interface("127.0.0.1/8"), tree):
            await asyncio.Event().wait()


@pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="dnsmasq is not installed")
async def test_a_dnsmasq_that_ends_is_not_passed_over(tree: Tree, wires: Wires) -> None:
    address = IPv4Interface(f"{wires.ambassador.v4}/24")
    inside = ["nsenter", f"--net={wires.ambassador.namespace}"]
    with pytest.RaisesGroup(Dom0Error, flatten_subgroups=True):
        async with asyncio.timeout(60), netboot.answering_firmware("none0", address, tree, inside=inside):
            await asyncio.Event().wait()


@pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="dnsmasq is not installed")
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_the_command_serves_both_and_whatever_ends_it_ends_dnsmasq(
    farm: FarmDirectory, wires: Wires, end: signal.Signals
) -> None:
    (farm.path / "os.efi").write_bytes(make_uki(version="1.0"))
    (farm.path / "farm.yaml").write_text("name: attic\nnetboot: {interface: eth0, os: os.efi}\n")
    argv = ["nsenter", f"--net={wires.ambassador.namespace}", sys.executable, "-m", "dom0", "farm", "serve"]
    argv = ["setpriv", "--pdeathsig=KILL", "--", *argv, "--dir", str(farm.path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process, contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        assert process.stdout
        assert process.stdout.readline().startswith("attic: answers at 0.0.0.0:7701; ")
        assert process.stdout.readline() == "network boots on eth0: http://10.77.0.2:7700/boot.ipxe\n"
        status, script = ask_now(wires, f"/v1/boot?mac={MAC}&uuid={UUID}")
        own = paths(script.decode())[0]
        farm.change(lambda before: nodes.approve(before, code_in(script.decode()), "nas", "web"))
        started = ask_now(wires, own)[1].decode()
        assert (status, f" dom0.farm=10.77.0.2:7701:{pin.fingerprint(farm.server_pem)} " in started) == (200, True)
        assert answered(wires, 7)[108:119] == b"snponly.efi"
        process.send_signal(end)
        assert process.wait(20) == (0 if end == signal.SIGTERM else -end)
    eventually(lambda: ":67 " not in wires.ambassador.run("ss", "-Hulpn"))
