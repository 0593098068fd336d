"""`dom0 farm serve`: the server of a farm."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import click
import msgspec
from msgspec.structs import replace

from dom0 import log, terminal
from dom0.cli.farms.farm_option import farm_option
from dom0.errors import Busy, UsageError
from dom0.farms import pin
from dom0.farms.directory import FarmDirectory
from dom0.wording import excerpt

if TYPE_CHECKING:
    from dom0.compose.x_dom0 import NotifySettings
    from dom0.farms.orders import Orders

logger = logging.getLogger(__name__)
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 -- compared, not bound


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it, once it answers."""

    name: str
    address: str
    join: str  # what a machine is told


@click.command("serve", short_help="Answer the machines of a farm.")
@farm_option
@click.option("--json", "as_json", is_flag=True, help="A line with an object, once it answers: name, address, join.")
def serve(farm: FarmDirectory, as_json: bool) -> None:
    """Answer the machines of a farm, until SIGTERM or Ctrl-C.

    Prints what machines join with: the address and the fingerprint of the server. Nodes need it only to join: what they
    run goes on without it. With netboot in farm.yaml, machines start from the network too.

    $ dom0 farm serve --dir attic
    """
    settings = farm.settings()
    host, port = settings.address
    shown = pin.Pin(_reachable(host), port, pin.fingerprint(farm.server_pem))
    try:
        pin.parse(str(shown))
    except UsageError as error:
        what = f"farm.yaml: listen: {settings.listen}: machines cannot be told {excerpt(shown.host)}"
        raise UsageError(what, hint="say the address that they reach this machine by") from error
    with _listening("listen", host, port) as listening:
        log.configure()
        served = Served(name=settings.name, address=settings.listen, join=str(shown))
        asyncio.run(_serve(farm, listening, served, shown, as_json))


def _listening(key: str, host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, dualstack_ipv6=both)
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (")[0]
        hint = f"who has it: ss -ltnp; another one: {key} in farm.yaml"
        raise Busy(f"farm.yaml: {key}: {host}:{port}: {why}", hint=hint) from error


def _reachable(host: str) -> str:
    """For every address of this machine the one that it leaves by; its name where it has no way out."""
    if host not in _WILDCARDS:
        return host
    ways = [(socket.AF_INET6, "2001:db8::1")] if ":" in host else []
    for family, other in (*ways, (socket.AF_INET, "192.0.2.1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as asked:
            asked.connect((other, 9))  # sends nothing
            return str(asked.getsockname()[0])
    return socket.gethostname()


async def _serve(farm: FarmDirectory, listening: socket.socket, served: Served, shown: pin.Pin, as_json: bool) -> None:
    from dom0.cli.farms.shown import show
    from dom0.farms import serve

    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with AsyncExitStack() as stack:
        orders = await stack.enter_async_context(serve.serve(farm, listening))
        booted = await _netboot(farm, shown, stack)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        stack.callback(tasks.create_task(show(farm)).cancel)
        if (asked := farm.settings().notify) is not None:
            stack.callback(tasks.create_task(tell(farm, served.name, orders, asked)).cancel)
        if as_json:
            terminal.say_json_line(served)
        else:
            terminal.say(f"{served.name}: answers at {served.address}; on a machine: dom0 farm join {served.join}")
            if booted:
                terminal.say(booted)
        await ended.wait()


async def tell(farm: FarmDirectory, name: str, orders: Orders, asked: NotifySettings) -> None:
    """People, of nodes that are lost and roles that are paused, until it is cancelled."""
    from dom0.agent.notify import EVERY, Notifier
    from dom0.farms import lost, paused
    from dom0.plan.expand import notify_of

    notify = notify_of(asked, str(farm.path.resolve()))
    notifier = Notifier(farm.state, _log_told)
    while True:
        wrong = [*orders.find_lost(notifier.told(lost.CODE)), *orders.find_paused(notifier.told(paused.CODE))]
        await notifier.turn(notify, name, wrong)
        await asyncio.sleep(EVERY)


def _log_told(_kind: str, _place: str, text: str, reason: str) -> None:
    logger.info("%s%s", text, f" ({reason})" if reason else "")


async def _netboot(farm: FarmDirectory, control: pin.Pin, stack: AsyncExitStack) -> str:
    """Answer loaders as well, if farm.yaml says so. Returns what to tell of that."""
    settings = farm.settings()
    if settings.netboot is None:
        return ""
    from dom0.farms import netboot

    address = netboot.address_of(settings.netboot.interface)
    if settings.address[0] in _WILDCARDS:
        control = replace(control, host=str(address.ip))
    host, port = str(address.ip), settings.netboot.port
    base = f"http://{host}:{port}"
    loaders = stack.enter_context(_listening("netboot.port", host, port))
    tree = await netboot.prepare(farm, settings.netboot, base)  # after that: another server's tree stays whole
    await stack.enter_async_context(netboot.serve(farm, tree, loaders, base, control))
    if settings.netboot.dhcp:
        await stack.enter_async_context(netboot.answering_firmware(settings.netboot.interface, address, tree))
    return f"network boots on {settings.netboot.interface}: {base}/boot.ipxe"
