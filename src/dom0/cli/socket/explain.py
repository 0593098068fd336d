"""`dom0 socket explain`: what would be refused of a Compose file or of a create body, and what it would take."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from msgspec.structs import replace

from dom0 import temporary, terminal
from dom0.engine import bodies
from dom0.errors import EXIT_CHANGES, ProjectError, UsageError
from dom0.printable import printable
from dom0.socketproxy import explain as rules
from dom0.socketproxy import grants, partial, registrations
from dom0.socketproxy.grants import Grants

if TYPE_CHECKING:
    from dom0.plan.desired import Slot
    from dom0.socketproxy.refusal import Refused

Found = dict[str, list["Refused"]]
"""By what it is of: `web`, `network front`."""


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    subject: str  # `web`, `network front`, `volume data`
    field: str
    value: str
    message: str
    grant: Grants | None  # the smallest that would allow it; null: no grant does


@click.command("explain")
@click.option(
    "--grants",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="What is granted (YAML). Default: nothing.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="A list of objects: subject, field, value, message, grant (null: none does).",
)
@click.argument("words", metavar="[NAME] FILE", nargs=-1, required=True)
def explain(file: Path | None, as_json: bool, words: tuple[str, ...]) -> int:
    """Say what would be refused of FILE, and print the smallest grants that would allow it (YAML).

    FILE is a Compose file, the JSON body of a create request (as docker run sends it), or - for standard input. It is
    judged by the grants of the scope NAME, of --grants, or as if nothing were granted. No Engine is asked: whether an
    image is there or has to be pulled, and what a Dockerfile is based on, is not said. Ends with 10 if something would
    be refused.

    $ dom0 socket explain compose.yaml > guest.yaml
    $ dom0 socket explain guest compose.yaml
    """
    *names, source = words
    if len(names) > 1 or (names and file):
        raise UsageError("socket explain: one scope or --grants, and one file", hint="dom0 socket explain --help")
    if names:
        registrations.require(names[0])
        granted = registrations.read(names[0]).registration.grants
    else:
        granted = grants.read(file) if file else Grants()
    found = _explained(source, granted)
    refused = [one for each in found.values() for one in each]
    rows = [
        Explained(subject=subject, field=one.field, value=one.value, message=one.message, grant=one.grant)
        for subject, each in found.items()
        for one in each
    ]
    lines = [f"# {printable(f'{row.subject}: {row.message}')}" for row in rows]
    terminal.say_result(rows, *lines, *(partial.lines(rules.needed(refused, granted)) or ["{}"]), as_json=as_json)
    return EXIT_CHANGES if refused else 0


def _explained(source: str, granted: Grants) -> Found:
    """Raises ProjectError, OSError."""
    content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    try:
        document = msgspec.json.decode(content)
    except msgspec.DecodeError:
        document = None
    if isinstance(document, dict) and "services" not in document:  # a Compose file can be an object in JSON too
        return {"container": rules.container(content, granted)}

    from dom0.compose.files import BASES
    from dom0.compose.load import load
    from dom0.plan.facts import NOWHERE, Facts, images_needed
    from dom0.plan.service_slot import service_slots
    from dom0.plan.specs import network_spec, volume_spec

    with _project(source, content) as (directory, final):
        try:
            project = asyncio.run(load(directory, final, hashed=False))
        except ProjectError as error:  # which knows the name that the file has for us
            named = "standard input" if source == "-" else source
            raise ProjectError(re.sub(f"^{BASES[0]}(?=[:/])", named, error.message), hint=error.hint) from error
    facts = Facts(images={need.ref: NOWHERE for need in images_needed(project)})
    found: Found = {}
    for name in sorted(project.services):
        for slot in service_slots(project, name, facts)[:1]:
            is_built = project.services[name].build is not None
            found[name] = rules.build(slot.image, granted) if is_built else []
            found[name] += rules.container(_body(slot, "" if is_built else slot.image), granted)
    for key, network in sorted(project.networks.items()):
        if not (spec := network_spec(project, key, network)).external:
            found[f"network {key}"] = rules.network(spec.create, spec.name, granted)
    for key, volume in sorted(project.volumes.items()):
        if not (kept := volume_spec(project, key, volume)).external:
            found[f"volume {key}"] = rules.volume(kept.create, kept.name)
    return found


@contextmanager
def _project(source: str, content: bytes) -> Iterator[tuple[Path, Path]]:
    """A directory with that file as its compose.yaml, and the one that its paths are meant from."""
    from dom0.compose.files import BASES

    file = Path("compose.yaml" if source == "-" else source).absolute()
    if source != "-" and file.name in BASES:
        yield file.parent, file.parent
        return
    with temporary.directory("explain") as directory:
        (directory / BASES[0]).write_bytes(content)
        yield directory, file.parent


def _body(slot: Slot, image: str) -> bytes:
    """As Compose sends it, with names of services in the place of IDs; `image` is "" for one of the scope's own."""
    from dom0.plan.parents import with_parents

    endpoints = {one.network: one.endpoint for one in slot.attachments}
    return msgspec.json.encode(
        replace(
            slot.create,
            image=image,
            host_config=with_parents(slot.create.host_config, {parent: parent for parent in slot.parents}),
            networking_config=bodies.NetworkingConfig(endpoints_config=endpoints),
        )
    )
