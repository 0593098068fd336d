"""What this place does not let us do, asked of the kernel, and what is lost without it. Changes nothing.

serve.py chooses the plane by whether an essential one is among them, and shows every `Lack`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from dom0.forward import conntrack, nft
from dom0.forward.interfaces import interfaces, is_of_a_host
from dom0.forward.place import Place
from dom0.forward.table import Down, Listener, Protocol, Route, Target, table
from dom0.run import CommandFailed, capture

_NET_ADMIN, _NET_RAW = 12, 13  # <linux/capability.h>
_SECONDS = 30.0
# Every form of rule that we write, for both families.
_SAMPLE = table(
    Route(Listener(protocol, 1 + number), 1 + 2 * number + later, targets, down)
    for later, protocol in enumerate(Protocol)
    for number, (targets, down) in enumerate(
        [
            ((Target("192.0.2.1", 1), Target("2001:db8::1", 1)), None),
            ((Target("192.0.2.1", 1, 2), Target("192.0.2.2", 2)), Down.REFUSE),
            ((Target("2001:db8::1", 1, 2), Target("2001:db8::2", 2)), Down.HOLD),
        ]
    )
)


class Lack(msgspec.Struct, frozen=True):
    name: str
    means: str
    remedy: str
    essential: bool = False  # the kernel cannot forward without it


async def find_lacks(place: Place) -> tuple[Lack, ...]:
    """Call it after `interfaces.let_through`, which mends what can be mended."""
    effective, lacks = _effective(), list[Lack]()
    if effective >> _NET_ADMIN & 1:
        rules = nft.replace(place, _SAMPLE) + nft.end(place, ())
        if why := await _refusal(place, ["nft", "--check", "-f", "-"], rules):
            remedy = "a kernel with nftables NAT (CONFIG_NF_TABLES, CONFIG_NFT_NAT, CONFIG_NFT_MASQ)"
            lacks.append(Lack("nftables", f"a relay copies the bytes: {why}", remedy, essential=True))
        if why := await _refusal(place, conntrack.list_command([1]), ""):
            remedy = "a kernel with CONFIG_NF_CT_NETLINK"
            lacks.append(Lack("conntrack", f"a relay copies the bytes: {why}", remedy, essential=True))
    else:
        means = "a relay copies the bytes: slower, no UDP replies kept apart, a restart ends connections"
        remedy = "docker run --cap-add NET_ADMIN, in Compose cap_add: [NET_ADMIN]"
        lacks.append(Lack("net-admin", means, remedy, essential=True))
    if is_of_a_host(place):
        means = "a relay copies the bytes: rules of ours would be for all that this host forwards"
        lacks.append(Lack("own-namespace", means, "docker run without --network host", essential=True))
    if not effective >> _NET_RAW & 1:
        means = "`cut` cannot tell silent ends, and a restart may reset connections that send meanwhile"
        lacks.append(Lack("net-raw", means, "do not drop NET_RAW, which Docker gives by default"))
    return (*lacks, *_of_sysctls(place))


def _of_sysctls(place: Place) -> Iterator[Lack]:
    here = interfaces(place)
    if any(place.sysctl(f"net.ipv4.conf.{it.name.replace('.', '/')}.forwarding") != "1" for it in here):
        remedy = "--sysctl net.ipv4.ip_forward=1"
        yield Lack("forward-ipv4", "nothing is forwarded over IPv4", remedy, essential=True)
    has_v6 = any(":" in address for it in here for address in it.addresses)
    if has_v6 and place.sysctl("net.ipv6.conf.all.forwarding") != "1":
        yield Lack("forward-ipv6", "nothing is forwarded over IPv6", "--sysctl net.ipv6.conf.all.forwarding=1")
    if place.sysctl("net.netfilter.nf_conntrack_tcp_be_liberal") != "1":
        means = (
            "a segment that is far out of its connection's window, as after a burst of losses, resets the connection"
        )
        yield Lack("be-liberal", means, "--sysctl net.netfilter.nf_conntrack_tcp_be_liberal=1")


async def _refusal(place: Place, argv: list[str], stdin: str) -> str:
    try:
        await capture(place.command(argv), stdin=stdin.encode(), timeout=_SECONDS)
    except CommandFailed as error:
        return error.stderr.strip().partition("\n")[0] or error.message
    return ""


def _effective() -> int:
    """Of this process, in whatever namespace it will act."""
    return int(Path("/proc/thread-self/status").read_text().partition("\nCapEff:")[2].split()[0], 16)
