"""The options that all commands have which make boot media: which base OS, and what the machine is told."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from msgspec.structs import replace

from dom0.errors import UsageError
from dom0.run import CommandFailed

if TYPE_CHECKING:
    from dom0.host.uki import Uki
    from dom0.osimage.boot_contract import BootContract

UKI = "dom0-os.efi"  # as in osimage.build, which would load what builds it
_OPTIONS = (
    click.option(
        "--os",
        "os_file",
        type=click.Path(path_type=Path),
        default="dom0-os",
        show_default=True,
        metavar="DIR|FILE",
        help="The base OS: what `dom0 os build` made, or its dom0-os.efi.",
    ),
    click.option(
        "--config",
        multiple=True,
        metavar="KEY=VALUE",
        help="A setting of the boot contract: hostname, ip, data, format, adopt. Can be given more than once.",
    ),
    click.option(
        "--ssh-key",
        multiple=True,
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        metavar="FILE",
        help="Public keys that may log in to dom0 (with `x-dom0.ssh`) and to the rescue server. "
        "Can be given more than once.",
    ),
    click.option(
        "--image",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        metavar="TAR",
        help="The machine's images, of `dom0 image save`. A new machine without them has no dom0, only the rescue "
        "server.",
    ),
)


class MediumOptions(msgspec.Struct, frozen=True):
    """The values of these options; `config`, `ssh_key` and `image` are for the machine."""

    os_file: Path
    config: tuple[str, ...]
    ssh_key: tuple[Path, ...]
    image: Path | None

    def os(self) -> Uki:
        """Raises Dom0Error."""
        from dom0.host import uki

        found = self.os_file / UKI if self.os_file.is_dir() else self.os_file
        if not found.exists():
            directory = self.os_file.parent if self.os_file.name == UKI else self.os_file
            raise UsageError(f"--os {self.os_file}: there is no base OS", hint=f"dom0 os build --out {directory}")
        return uki.read(found)

    def contract(self, **defaults: str) -> BootContract:
        """`defaults` are settings for keys that were not said. Raises UsageError."""
        from dom0.osimage import boot_contract
        from dom0.osimage.boot_contract import BootContract

        said = {setting.partition("=")[0] for setting in self.config}
        config = (*self.config, *(f"{key}={value}" for key, value in defaults.items() if key not in said))
        return BootContract(boot_contract.config(config), boot_contract.authorized_keys(self.ssh_key), self.image)

    async def prepared(self, contract: BootContract, say: Callable[[str], None]) -> BootContract:
        """With what spares a first boot to load the images, for as long as the command runs. Raises UsageError."""
        if contract.image is None:
            return contract
        from dom0 import temporary
        from dom0.osimage import medium, prepared

        medium.image_of(contract.image)
        scratch = click.get_current_context().with_resource(temporary.directory("store", temporary.LARGE))
        say("preparing the images for a first boot")
        try:
            store = await prepared.prepare(contract.image, scratch)
            medium.store_of(store)
        except (CommandFailed, UsageError) as error:
            say(f"the images are not prepared, and loaded at the first boot, which takes longer: {error}")
            return contract
        return replace(contract, store=store)

    def is_for_the_machine(self) -> bool:
        return bool(self.config or self.ssh_key or self.image)


def contract_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command gets all of them as `given`."""

    @functools.wraps(command)
    def with_told(
        *, os_file: Path, config: tuple[str, ...], ssh_key: tuple[Path, ...], image: Path | None, **others: Any
    ) -> None:
        command(given=MediumOptions(os_file, config, ssh_key, image), **others)

    decorated: Callable[..., None] = with_told
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated
