"""What a machine is told about a farm's server."""

from __future__ import annotations

import pytest

from dom0.errors import UsageError
from dom0.farms import pin
from dom0.osimage import boot_contract

HASH = "5f" * 32


@pytest.mark.parametrize("host", ["192.168.0.2", "nas.home.example", "fd00::2", "::1"])
def test_it_is_read_as_it_is_written_and_fits_into_a_boot_contract(host: str) -> None:
    found = pin.parse(f"{host}:7701:{HASH}")
    assert (found.host, found.port, found.fingerprint) == (host, 7701, HASH)
    assert pin.parse(str(found)) == found
    assert boot_contract.config([f"farm={found}"]) == f"farm={found}\n".encode()


@pytest.mark.parametrize(
    "text",
    [
        "192.168.0.2:7701",
        f"192.168.0.2:{HASH}",
        f"192.168.0.2:0:{HASH}",
        f"192.168.0.2:65536:{HASH}",
        f"192.168.0.2:7701:{HASH[:-1]}",
        f"192.168.0.2:7701:{HASH}0",
        f"192.168.0.2:7701:{HASH.upper()}",
        f"192.168.0.2:7701:{HASH}\n",
        f"[fd00::2]:7701:{HASH}",
        f"-oProxyCommand=x y:7701:{HASH}",
        f"a/b:7701:{HASH}",
        f"a..b:7701:{HASH}",
        f".a:7701:{HASH}",
        f"{'a' * 64}.example:7701:{HASH}",
        f"{'a.' * 127}a:7701:{HASH}",
        f"\x1b[31m:7701:{HASH}",
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not HOST:PORT:FINGERPRINT"):
        pin.parse(text)
