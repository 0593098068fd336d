"""What this place lets us do, asked of the kernel, and what is lost without the rest. Changes nothing.

serve.py chooses the plane by `Capabilities.kernel`, and shows every `Lack`.
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


class Capabilities(msgspec.Struct, frozen=True):
    """`nftables` and `conntrack` are empty, or why they do not work."""

    net_admin: bool
    net_raw: bool
    nftables: str
    conntrack: str
    forwards_v4: bool
    forwards_v6: bool  # also where there is no IPv6 to forward
    liberal: bool
    of_a_host: bool  # the network namespace is not this container's own

    @property
    def kernel(self) -> bool:
        """Whether KernelPlane can be used."""
        return not any(lack.essential for lack in self.lacks)

    @property
    def lacks(self) -> tuple[Lack, ...]:
        return tuple(_lacks(self))


async def probe(place: Place) -> Capabilities:
    """Call it after `interfaces.let_through`, which mends what can be mended."""
    effective = _effective()
    rules = nft.replace(place, _SAMPLE) + nft.end(place, ())
    has_v6 = any(":" in address for interface in interfaces(place) for address in interface.addresses)
    net_admin, net_raw = bool(effective >> _NET_ADMIN & 1), bool(effective >> _NET_RAW & 1)
    return Capabilities(
        net_admin=net_admin,
        net_raw=net_raw,
        nftables=await _refusal(place, ["nft", "--check", "-f", "-"], rules) if net_admin else "",
        conntrack=await _refusal(place, conntrack.list_command([1]), "") if net_admin else "",
        forwards_v4=all(
            place.sysctl(f"net.ipv4.conf.{it.name.replace('.', '/')}.forwarding") == "1" for it in interfaces(place)
        ),
        forwards_v6=not has_v6 or place.sysctl("net.ipv6.conf.all.forwarding") == "1",
        liberal=place.sysctl("net.netfilter.nf_conntrack_tcp_be_liberal") == "1",
        of_a_host=is_of_a_host(place),
    )


def _lacks(found: Capabilities) -> Iterator[Lack]:
    if not found.net_admin:
        yield Lack(
            "net-admin",
            "a relay copies the bytes: slower, no UDP replies kept apart, a restart ends connections",
            "docker run --cap-add NET_ADMIN, in Compose cap_add: [NET_ADMIN]",
            essential=True,
        )
    if found.of_a_host:
        means = "a relay copies the bytes: rules of ours would be for all that this host forwards"
        yield Lack("own-namespace", means, "docker run without --network host", essential=True)
    if found.nftables:
        remedy = "a kernel with nftables NAT (CONFIG_NF_TABLES, CONFIG_NFT_NAT, CONFIG_NFT_MASQ)"
        yield Lack("nftables", f"a relay copies the bytes: {found.nftables}", remedy, essential=True)
    if found.conntrack:
        remedy = "a kernel with CONFIG_NF_CT_NETLINK"
        yield Lack("conntrack", f"a relay copies the bytes: {found.conntrack}", remedy, essential=True)
    if not found.net_raw:
        yield Lack(
            "net-raw",
            "`cut` cannot tell silent ends, and a restart may reset connections that send meanwhile",
            "do not drop NET_RAW, which Docker gives by default",
        )
    if not found.forwards_v4:
        remedy = "--sysctl net.ipv4.ip_forward=1"
        yield Lack("forward-ipv4", "nothing is forwarded over IPv4", remedy, essential=True)
    if not found.forwards_v6:
        yield Lack("forward-ipv6", "nothing is forwarded over IPv6", "--sysctl net.ipv6.conf.all.forwarding=1")
    if not found.liberal:
        yield Lack(
            "be-liberal",
            "a segment that is far out of its connection's window, as after a burst of losses, resets the connection",
            "--sysctl net.netfilter.nf_conntrack_tcp_be_liberal=1",
        )


async def _refusal(place: Place, argv: list[str], stdin: str) -> str:
    try:
        await capture(place.command(argv), stdin=stdin.encode(), timeout=_SECONDS)
    except CommandFailed as error:
        return error.stderr.strip().partition("\n")[0] or error.message
    return ""


def _effective() -> int:
    """Of this process, in whatever namespace it will act."""
    status = Path("/proc/thread-self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
