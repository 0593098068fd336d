"""The roles of a farm, built on the machine where its directory is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dom0.cli.report import Report
from dom0.errors import Dom0Error, UsageError
from dom0.farms.directory import FarmDirectory
from dom0.farms.revisions import FarmImage, Revision, RoleContent
from dom0.names import IMAGE, PLACED

if TYPE_CHECKING:
    from dom0.engine.protocol import Engine
    from dom0.images.built import Built


class BuiltRole(msgspec.Struct, frozen=True, kw_only=True):
    """`image`: ID of its dom0 image; `references`: of its services to the IDs that they mean now."""

    directory: Path
    tag: str
    image: str
    references: dict[str, str]
    built: dict[str, str]  # those of them that it builds
    private: tuple[str, ...]
    project: str

    def find_same(self, contents: Iterable[RoleContent]) -> RoleContent | None:
        """One of which all images are these: what is private is in the inputs of the dom0 image."""
        for content in contents:
            others = {image.reference: image for image in content.images}
            same = [self.image in content.image.ids, others.keys() == self.references.keys()]
            same += [id_ in others[ref].ids for ref, id_ in self.references.items() if ref in others]
            if all(same):
                return content
        return None


@asynccontextmanager
async def built_roles(engine: Engine, farm: FarmDirectory, report: Report) -> AsyncIterator[dict[str, BuiltRole]]:
    """All roles, built and with their images on this Engine. Images that are new have no names until the block gives
    them some. Raises Dom0Error for a role that is refused.
    """
    from dom0.images.project import Options, built_unnamed

    name = farm.settings().name
    current = farm.current()
    if not (roles := farm.roles()) and not farm.floats() and not (current and current.floating.projects):
        hint = f"make one: {farm.path / 'roles'}/NAME/compose.yaml"
        raise UsageError(f"{farm.path}: this farm has no role", hint=hint)
    found = {}
    async with AsyncExitStack() as stack:
        for role in roles:
            directory = (farm.path / "roles" / role).resolve()
            tag = f"dom0-farm-{name}:{role}"
            try:
                making = built_unnamed(engine, directory, report.say, Options(tag=tag))
                built = await stack.enter_async_context(making)
                with built.named_as_written():
                    found[role] = await _pinned(engine, directory, tag, built, report)
            except Dom0Error as error:
                error.message = f"roles/{role}: {error.message}"
                raise
        yield found


async def _pinned(engine: Engine, directory: Path, tag: str, built: Built, report: Report) -> BuiltRole:
    """With what its services name pulled, if it is not here. Raises Dom0Error."""
    from dom0.agent.pull import pulling
    from dom0.agent.source import own_of, pin_images, read_project
    from dom0.cli.report import ending_pulls
    from dom0.images.private import of_image
    from dom0.plan.facts import images_needed

    own = await own_of(engine, built.image)
    project = built.project
    if project is None:
        async with read_project(engine, built.image, PLACED, [directory]) as (_, project):
            pass
    async with pulling(engine, project, report) as pull:
        with ending_pulls(report):
            images = await pin_images(engine, images_needed(project), pull, report.say, built=own.images)
    return BuiltRole(
        directory=directory,
        tag=tag,
        image=built.image.id,
        references={ref: image.id for ref, image in images.items()},
        built=dict(own.images),
        private=of_image(built.image.labels),
        project=project.name,
    )


async def publish_roles(
    engine: Engine, farm: FarmDirectory, roles: dict[str, BuiltRole], known: list[Revision]
) -> dict[str, RoleContent]:
    """What they are in a revision, with all of it in the farm's directory. Raises Dom0Error."""
    from dom0.farms.publish import keep_private, named, publish
    from dom0.images.private import pack

    newest_first = known[::-1]
    contents = {
        role: built.find_same(
            content
            for revision in newest_first
            if (content := revision.roles.get(role)) and all(map(farm.has_blob, content.blobs, content.blobs.values()))
        )
        for role, built in roles.items()
    }
    changed = {role: built for role, built in roles.items() if contents[role] is None}
    ids = [id_ for built in changed.values() for id_ in (built.image, *built.references.values())]
    images: dict[str, FarmImage] = (
        await publish(engine, farm, ids, [image for one in newest_first for image in one.images]) if ids else {}
    )
    made = {
        role: RoleContent(
            image=named(images, {IMAGE: built.image})[0],
            images=named(images, built.references),
            private=keep_private(farm, pack(built.directory, built.private, Path())) if built.private else None,
        )
        for role, built in changed.items()
    }
    return {role: content or made[role] for role, content in contents.items()}
