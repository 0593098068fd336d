"""The control plane put together: plane, state, names, probes, sockets, metrics. Decides nothing.

It may be killed and started at any time; what forwards is in the kernel, or in processes of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Mapping
from pathlib import Path

from dom0 import __version__
from dom0.ambassador.capabilities import find_lacks
from dom0.ambassador.carry import save_often
from dom0.ambassador.control import control, watch
from dom0.ambassador.declaration import Declaration, Misdeclared, from_environment
from dom0.ambassador.desired import Findings
from dom0.ambassador.forwarder import Forwarder, is_own
from dom0.ambassador.lookup import Lookup, Names
from dom0.ambassador.messages import CONTROL, RUN_DIRECTORY, WATCH
from dom0.ambassador.probe import Probes
from dom0.ambassador.report import Reporter
from dom0.ambassador.requests import Requests
from dom0.ambassador.settings import STATE_DIRECTORY
from dom0.ambassador.state import StateFile, moment
from dom0.forward import interfaces
from dom0.forward.dataplane import DataPlane
from dom0.forward.kernel import KernelPlane
from dom0.forward.place import own
from dom0.wording import Flaw

log = logging.getLogger(__name__)


async def serve(environ: Mapping[str, str]) -> None:
    """Until SIGTERM. Raises Dom0Error if there is nothing to forward, or it cannot begin.

    DOM0_STATE and DOM0_RUN in `environ` are directories other than the image's own, for tests.
    """
    declaration, ignored = from_environment(environ)
    for name in ignored:
        log.warning("%s: is not forwarded, only TCP and UDP of a link itself are", name)
    refuse_loops(declaration)
    place = own()
    with contextlib.suppress(OSError):  # find_lacks tells what is missing
        if not interfaces.is_of_a_host(place):
            interfaces.let_through(place)
    lacks = await find_lacks(place)
    plane: DataPlane = KernelPlane()
    if any(lack.essential for lack in lacks):
        from dom0.forward.relay import RelayPlane

        plane = RelayPlane()
    directory = Path(environ.get("DOM0_STATE", STATE_DIRECTORY))
    sockets = Path(environ.get("DOM0_RUN", RUN_DIRECTORY))
    forwarder = make_forwarder(plane, declaration, StateFile(directory))
    reporter = Reporter(forwarder, __version__, lacks)
    told_to_end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_end.set)
    async with asyncio.TaskGroup() as group, contextlib.AsyncExitStack() as stack:
        looks = forwarder.looks
        tasks = [group.create_task(forwarder.run())]
        await forwarder.look_after(looks)  # nobody rewires before what was before us is known
        if declaration.metrics is not None:
            from dom0.ambassador.metrics import metrics

            await stack.enter_async_context(metrics(forwarder, reporter, declaration.metrics))
        # Last, because who is answered here takes all else to be there.
        await stack.enter_async_context(watch(forwarder, reporter, sockets / Path(WATCH).name))
        await stack.enter_async_context(control(Requests(forwarder, reporter), sockets / Path(CONTROL).name))
        if isinstance(plane, KernelPlane):
            tasks.append(group.create_task(save_often(plane, directory)))
        await told_to_end.wait()
        for task in tasks:
            task.cancel()


def make_forwarder(plane: DataPlane, declaration: Declaration, file: StateFile) -> Forwarder:
    names = Names(Lookup(), lambda: forwarder.wake("dns"), lambda: moment().ticks)
    probes = Probes(lambda: forwarder.wake("health"))
    forwarder = Forwarder(plane, declaration, file, names, probes)
    return forwarder


def refuse_loops(declaration: Declaration) -> None:
    """Raises Misdeclared for an address of our own. A name that leads here is left out while it does."""
    found = Findings(is_own=is_own, listening=declaration.listeners)
    flaws = [
        Flaw((str(rule.listener),), f"{source} is this ambassador itself: a loop", "name the provider")
        for rule in declaration.rules
        for source in found.loops(rule.sources, rule.listener)
    ]
    if flaws:
        raise Misdeclared("", flaws)
