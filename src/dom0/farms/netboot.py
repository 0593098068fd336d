"""Machines of a farm that start from the network: what their firmware finds, and what its loader is answered.

Plain HTTP, since no loader of Debian's checks anything: who can answer in the server's place on that network decides
what a machine runs. A machine that nobody has approved gets texts to show and its pass; not one byte of the base OS.

    GET /boot.ipxe              what iPXE runs first
    GET /v1/boot?mac=&uuid=     for the machine that says so: wait, or, of a node, the base OS
    GET /v1/boot/PASS           for the one that was given the pass: wait, or the base OS with its ticket
    GET /v1/boot/PASS/ticket    an archive with the ticket, once
    GET /os/WORD/FILE           files of the base OS; the word is drawn when the server starts
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import re
import secrets
import shutil
import socket
import struct
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from ipaddress import IPv4Interface
from pathlib import Path

import msgspec
from msgspec.structs import replace

from dom0 import temporary
from dom0.durable import write_atomic
from dom0.errors import Busy, Dom0Error, ProjectError
from dom0.farms import boots, loader, nodes
from dom0.farms.directory import FarmDirectory
from dom0.farms.nodes import Firmware, MachineInfo, Node, Nodes, NodeState, NotAdmitted, TooMany, draw_code, key_of
from dom0.farms.pin import Pin
from dom0.farms.revisions import BaseOs
from dom0.farms.rollout import RolloutState
from dom0.farms.settings import NetbootSettings
from dom0.host import uki
from dom0.http import server
from dom0.http.server import HttpError, Request, Response, route
from dom0.osimage import boot_contract, netboot
from dom0.osimage.boot_contract import BootContract
from dom0.run import tell_lines

LOOK_AGAIN = 1.0  # seconds until it is looked which revision is current
PREPARE_AGAIN = 30.0  # seconds, after a failure
MOST = 256  # connections at once
MOST_EACH = 16  # of one address
UNREAD = 60.0  # seconds
TICKET = "medium/dom0/ticket"  # in the archive
_PIECE = 256 << 10  # bytes
LINE = "line"  # the kernel's, beside these
_FILES = ("linux", "initrd", "medium.cpio")
_PASS = re.compile(r"[0-9a-f]{32}")
_RUN = Path("/run")  # which others may walk through; TMPDIR may be one user's
_NOBODY = ("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff")
_SIOCGIFADDR, _SIOCGIFNETMASK = 0x8915, 0x891B  # <linux/sockios.h>

log = logging.getLogger(__name__)


class ServedOs(msgspec.Struct, frozen=True):
    """Where its files lie, and its kernel line. `version`: "" of one that is not ours: a node cannot say that it runs
    it.
    """

    files: Path
    line: str
    version: str


class Tree(msgspec.Struct, frozen=True):
    """The base OS that machines get, and `older` ones, which they get where that does not start, or before their turn.
    `loaders` are files beside them. `said`: the newest is that of a revision. `architecture`: Debian's word.
    """

    top: Path
    architecture: str
    newest: ServedOs
    older: tuple[ServedOs, ...]
    loaders: tuple[str, ...]
    said: BaseOs | None = None


async def prepare(farm: FarmDirectory, settings: NetbootSettings, base: str) -> Tree:
    """Unpack the base OS into the farm's state: that of the current revision, or what farm.yaml names for the network.

    Raises Dom0Error, OSError.
    """
    current = farm.current()
    said = current.os if current else None
    os = await asyncio.to_thread(uki.read, farm.blob(said.file.digest) if said else farm.path / settings.os)
    for setting in settings.config:
        if setting.startswith(("hostname=", "farm=")):
            raise ProjectError(f"farm.yaml: netboot.config: {setting}: is said by the farm", hint="leave it out")
    contract = BootContract(
        boot_contract.config(settings.config),
        boot_contract.authorized_keys(farm.path / file for file in settings.ssh_keys),
        farm.path / settings.image if settings.image else None,
    )
    top = farm.state / "netboot"
    if top.is_symlink():
        raise ProjectError(f"{top}: is a link", hint=f"what is in it is replaced and removed; away with it: rm {top}")
    loaders = await netboot.write(os, contract, top, base)
    if not loaders:
        raise Dom0Error("iPXE is not installed", hint="apt-get install ipxe")
    newest = ServedOs(top / netboot.directory_of(os), f"dom0.medium=none {os.line}", os.version)
    write_atomic(newest.files / LINE, newest.line.encode())
    kept, older = {farm.rollout().boots.instead_of(os.version), *(one.os for one in farm.reports().values())}, []
    for path in (path for path in top.iterdir() if path.is_dir() and not path.is_symlink() and path != newest.files):
        if path.name in kept and (path / LINE).is_file():
            older.append(ServedOs(path, (path / LINE).read_text(), path.name))
        else:
            shutil.rmtree(path)
    if contract == BootContract():
        (newest.files / "medium.cpio").unlink(missing_ok=True)  # of other settings
    return Tree(top, os.architecture, newest, tuple(older), tuple(loaders), said)


@asynccontextmanager
async def serve(
    farm: FarmDirectory, tree: Tree, listening: socket.socket, base: str, control: Pin
) -> AsyncIterator[None]:
    """Answer loaders until the block ends. `base`: the URL that they reach `listening` by; `control`: where a base OS
    finds the farm's server.
    """
    answers = _BootAnswers(farm, tree, base, control)
    routes = {
        "GET /boot.ipxe": answers.first,
        "GET /v1/boot": answers.by_firmware,
        "GET /v1/boot/{pass}": answers.by_pass,
        "GET /v1/boot/{pass}/ticket": answers.ticket,
        "GET /os/{word}/{file}": answers.file,
    }
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(answers.follow_revisions())
        try:
            async with server.serve(route(routes), listening, most=MOST, most_each=MOST_EACH, unread=UNREAD):
                yield
        finally:
            following.cancel()


class _BootAnswers:
    def __init__(self, farm: FarmDirectory, tree: Tree, base: str, control: Pin) -> None:
        self._farm = farm
        self._name = farm.settings().name
        self._tree = tree
        self._base = base
        self._control = control
        self._words = {secrets.token_hex(16): os for os in (tree.newest, *tree.older)}
        self._failed: BaseOs | None = None  # which could not be unpacked

    async def follow_revisions(self) -> None:
        """Serve the base OS of whichever is current."""
        said = None
        while True:
            await asyncio.sleep(LOOK_AGAIN)
            try:
                said, settings = await asyncio.to_thread(self._find_said), self._farm.settings().netboot
                if said is not None and settings is not None and said != self._tree.said:
                    # Large files are written: others go on to be answered.
                    self._tree = await asyncio.to_thread(asyncio.run, prepare(self._farm, settings, self._base))
                    self._words |= {secrets.token_hex(16): os for os in (self._tree.newest, *self._tree.older)}
                    log.info("machines that start from the network get the base OS %s", said.version)
            except (Dom0Error, OSError) as error:
                self._failed = said
                log.error("%s", error)  # noqa: TRY400 -- no bug: the trace says nothing
                await asyncio.sleep(PREPARE_AGAIN)

    def _find_due(self, name: str) -> BaseOs | None:
        """What this node is to start in its turn, if it has one. Raises Dom0Error."""
        turn = self._farm.rollout().turns.get(name)
        revision = self._farm.revision(turn.revision) if turn else None
        return revision.os if revision else None

    def _find_said(self) -> BaseOs | None:
        """By the current revision. Raises Dom0Error."""
        current = self._farm.current()
        return current.os if current else None

    async def first(self, request: Request) -> Response:
        return _script(loader.first(self._base))

    async def by_firmware(self, request: Request) -> Response:
        try:
            said = {"mac": request.query.get("mac", "").replace("-", ":"), "uuid": request.query.get("uuid", "")}
            firmware = msgspec.convert({key: value.lower() for key, value in said.items()}, Firmware)
            machine = msgspec.convert({"architecture": request.query.get("arch", "")}, MachineInfo)
        except msgspec.ValidationError as error:
            raise HttpError(400, str(error)) from error
        if firmware.mac in _NOBODY:
            raise HttpError(400, "mac: is nobody's")
        if not loader.can_start(machine.architecture, self._tree.architecture):
            why = f"the base OS of this farm is for {self._tree.architecture}, and this machine is another one"
            return _script(loader.refused(self._base, why))
        if (await asyncio.to_thread(self._farm.epochs)).is_superseded:
            return _script(loader.refused(self._base, "another copy of this farm was promoted, and is its server"))
        known = nodes.of_firmware(await asyncio.to_thread(self._farm.nodes), firmware)
        if known is not None:
            return await self._base_os(known, [])
        own = secrets.token_hex(16)
        return await self._change(
            lambda before: nodes.hear(before, key_of(own), machine, request.address, time.time(), draw_code, firmware),
            lambda node: self._waits(node, own, is_new=True),
        )

    async def by_pass(self, request: Request) -> Response:
        own = request.captured["pass"]

        def step(before: Nodes) -> tuple[Nodes, Node]:
            node = _of_pass(before, own)
            return nodes.hear(before, node.key, node.machine, request.address, time.time(), draw_code, node.firmware)

        try:
            return await self._change(step, lambda node: self._waits(node, own))
        except HttpError:
            return _script(loader.refused(self._base, "this code is not good any more"))

    async def _waits(self, node: Node, own: str, *, is_new: bool = False) -> Response:
        if is_new:
            assert node.firmware
            log.info("%s waits in its network loader: code %s at %s", node.firmware.mac, node.code, node.address)
        if node.state is NodeState.WAITING:
            return _script(loader.waiting(self._base, self._name, node.code, own))
        return await self._base_os(node, [f"{self._base}/v1/boot/{own}/ticket"])

    async def ticket(self, request: Request) -> Response:
        own, ticket, now = request.captured["pass"], secrets.token_hex(32), time.time()
        if request.method != "GET":
            raise HttpError(405, "Method Not Allowed")
        return await self._change(
            lambda before: nodes.load(before, _of_pass(before, own).key, key_of(ticket), now),
            lambda node: self._loaded(node, ticket),
        )

    async def _loaded(self, node: Node, ticket: str) -> Response:
        log.info("%s has loaded its base OS, with a ticket", node.name)
        return Response(loader.archive({TICKET: ticket.encode()}), content_type="application/octet-stream")

    async def file(self, request: Request) -> Response:
        name, word = request.captured["file"], request.captured["word"]
        os = next(
            (os for known, os in self._words.items() if secrets.compare_digest(word.encode(), known.encode())), None
        )
        if name not in _FILES or os is None:
            raise HttpError(404, "Not Found")
        path = os.files / name
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            raise HttpError(404, "Not Found") from None
        headers = (("Content-Length", str(size)),)
        return Response(_content(path, size), content_type="application/octet-stream", headers=headers)

    async def _base_os(self, node: Node, archives: list[str]) -> Response:
        due = None
        with suppress(Dom0Error):
            due = await asyncio.to_thread(self._find_due, node.name)
        if due not in (None, self._tree.said, self._failed):
            return _script(loader.refused(self._base, "the base OS of its revision is not unpacked yet"))
        os = await self._choose(node, is_due=self._tree.said in (None, due))  # else it comes back, and says so
        word = next(word for word, one in self._words.items() if one is os)
        files = f"{self._base}/os/{word}"
        if (os.files / "medium.cpio").exists():
            archives = [f"{files}/medium.cpio", *archives]
        line = f"dom0.hostname={node.name} dom0.farm={self._control} {os.line}"
        return _script(loader.booting(self._base, files, line, archives))

    async def _choose(self, node: Node, *, is_due: bool) -> ServedOs:
        """The try is on the disk before the node hears of it. Where that cannot be written nobody counts. Who restarts
        before it `is_due` gets what it ran.
        """
        newest, older = self._tree.newest, {os.version: os for os in self._tree.older}
        if not newest.version:
            return newest
        runs = (await asyncio.to_thread(self._farm.report, node.key)).os
        if not is_due and runs in older:
            return older[runs]

        def step(state: RolloutState) -> tuple[RolloutState, str]:
            after, which = boots.serve(state.boots, node.name, node.role, newest.version, older, time.time())
            return replace(state, boots=after), which

        try:
            which = await asyncio.to_thread(self._farm.change_rollout, step)
        except Dom0Error as error:
            log.error("%s", error.message)  # noqa: TRY400 -- no bug: the trace says nothing
            return newest
        if which != newest.version:
            log.warning("%s did not come up with the base OS %s; it gets %s", node.name, newest.version, which)
        return older.get(which, newest)

    async def _change(
        self, step: Callable[[Nodes], tuple[Nodes, Node]], answer: Callable[[Node], Awaitable[Response]]
    ) -> Response:
        try:
            return await answer(await asyncio.to_thread(self._farm.change, step))
        except NotAdmitted as error:
            raise HttpError(403, error.message) from error
        except TooMany as error:
            return _script(loader.refused(self._base, error.message))
        except Dom0Error as error:
            log.error("%s", error.message)  # noqa: TRY400 -- no bug: the trace says nothing
            return _script(loader.refused(self._base, "the server of the farm has a problem: its log says which"))


def _of_pass(found: Nodes, own: str) -> Node:
    """Raises NotAdmitted."""
    key = key_of(own) if _PASS.fullmatch(own) else ""
    node = next((node for node in found.nodes if node.key == key and node.is_in_loader), None)
    if node is None or node.state is NodeState.LOADING:
        raise NotAdmitted("this pass is not known, or was used")
    return node


def _script(text: str) -> Response:
    return Response(text.encode(), content_type="text/plain")


async def _content(path: Path, size: int) -> AsyncGenerator[bytes]:
    with path.open("rb") as file:
        while size > 0 and (piece := await asyncio.to_thread(file.read, min(_PIECE, size))):
            size -= len(piece)
            yield piece
    if size:
        raise ConnectionAbortedError("it has become shorter")


# beside the DHCP server that gives addresses


def address_of(interface: str) -> IPv4Interface:
    """Raises ProjectError where it has none."""
    asked = struct.pack("256s", interface.encode())
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            found = [fcntl.ioctl(any_socket, what, asked)[20:24] for what in (_SIOCGIFADDR, _SIOCGIFNETMASK)]
    except OSError as error:
        what = f"farm.yaml: netboot.interface: {interface}: {error.strerror}"
        raise ProjectError(what, hint="it needs an IPv4 address: ip address") from error
    return IPv4Interface("/".join(socket.inet_ntoa(one) for one in found))


def dnsmasq_lines(interface: str, address: IPv4Interface, directory: Path) -> str:
    """Its configuration: says to firmware on that network which loader to get from here, and gives no addresses."""
    lines = (
        "port=0",
        "pid-file",
        "leasefile-ro",
        f"interface={interface}",
        "bind-interfaces",
        f"dhcp-range={address.network.network_address},proxy",
        "enable-tftp",
        f"tftp-root={directory}",
        "dhcp-match=set:ipxe,175",
        'pxe-service=tag:!ipxe,x86PC,"dom0",undionly.kpxe',
        'pxe-service=tag:!ipxe,x86-64_EFI,"dom0",snponly.efi',
        f"dhcp-boot=tag:ipxe,autoexec.ipxe,,{address.ip}",
    )
    return "".join(f"{line}\n" for line in lines)


@asynccontextmanager
async def answering_firmware(
    interface: str, address: IPv4Interface, tree: Tree, *, inside: Sequence[str] = ()
) -> AsyncIterator[None]:
    """Debian's dnsmasq runs until the block ends; it has nothing of the farm's but loaders. `inside`: the words of a
    command that it is started by. Raises Dom0Error.
    """
    with temporary.directory("farm", _RUN) as scratch:
        scratch.chmod(0o711)  # dnsmasq reads as a user of its own, whatever our umask is
        settings, directory = scratch / "dnsmasq.conf", scratch / "tftp"
        directory.mkdir()
        directory.chmod(0o755)
        for name in (*tree.loaders, "autoexec.ipxe"):
            shutil.copyfile(tree.top / name, directory / name)
            (directory / name).chmod(0o644)
        settings.write_text(dnsmasq_lines(interface, address, directory))
        settings.chmod(0o644)
        # It would become another user by itself; that ends what ends it with us (prctl(2), PR_SET_PDEATHSIG).
        rights = [f"--{which}-caps=+net_admin,+net_raw,+net_bind_service" for which in ("inh", "ambient")]
        user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *rights, "--pdeathsig=KILL", "--"]
        argv = [*inside, *user, "dnsmasq", "--keep-in-foreground", "--log-facility=-"]
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            running = tasks.create_task(_run_dnsmasq([*argv, f"--conf-file={settings}"]))
            stack.callback(running.cancel)
            yield


async def _run_dnsmasq(argv: list[str]) -> None:
    said = deque[str](maxlen=1)  # it tells of each machine, for as long as it runs
    code = await tell_lines(argv, lambda line: said.append(line) if line else None, env=os.environ)
    missing = code == 127  # setpriv(1), as a shell
    hint = "apt-get install dnsmasq-base" if missing else "is port 67 or 69 taken? ss -ulpn; without it: dhcp: false"
    raise Busy(f"dnsmasq: exit code {code}: {said[-1] if said else 'it said nothing'}", hint=hint)
