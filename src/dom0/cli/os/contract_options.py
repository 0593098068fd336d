"""The options that all commands have which make boot media: which base OS, and what it is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dom0.errors import UsageError

if TYPE_CHECKING:
    from dom0.host.medium import Contract
    from dom0.host.uki import Uki

F = TypeVar("F", bound=Callable[..., Any])

UKI = "dom0-os.efi"  # as in host.build, which would load what builds it
_OPTIONS = (
    click.option(
        "--os",
        "os_file",
        type=click.Path(path_type=Path, exists=True),
        default="dom0-os",
        show_default=True,
        metavar="DIR|FILE",
        help="The base OS: what `dom0 os build` made, or its dom0-os.efi.",
    ),
    click.option(
        "--config",
        multiple=True,
        metavar="KEY=VALUE",
        help="A setting of the boot contract: hostname, ip, data, format, adopt, farm. Can be given more than once.",
    ),
    click.option(
        "--ssh-key",
        multiple=True,
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        metavar="FILE",
        help="Public keys that may log in to dom0. Can be given more than once.",
    ),
    click.option(
        "--image",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        metavar="TAR",
        help="Images that the first boot loads, of `dom0 image save`: so it needs no network.",
    ),
)


def contract_options(command: F) -> F:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_os(file: Path) -> Uki:
    """Raises Dom0Error."""
    from dom0.host import uki

    found = file / UKI if file.is_dir() else file
    if not found.is_file():
        raise UsageError(f"--os {file}: holds no {UKI}", hint=f"dom0 os build --out {file}")
    return uki.read(found)


def read_contract(config: tuple[str, ...], ssh_key: tuple[Path, ...], image: Path | None) -> Contract:
    """Raises UsageError."""
    from dom0.host import boot_contract
    from dom0.host.medium import Contract

    return Contract(boot_contract.config(config), boot_contract.authorized_keys(ssh_key), image)
