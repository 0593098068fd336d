"""Taking over what Docker Compose made for a project of our name. Pure.

Labels cannot be added to a container, so what is taken over is known by its ID: a desired state carries, for each, the
labels that one of ours would have. Where Compose's own hash and the image are what we would write, the container is as
good as one of ours and goes on running. Any other is a predecessor, replaced as an outdated one of ours is.

How it was before is a desired state too (`as_it_was`), of containers that are only started and stopped, never made: a
failed adoption goes back to it as to any other, and then lets go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from dom0.engine.bodies import ContainerBody
from dom0.engine.values import Container, ContainerSummary
from dom0.plan import labels
from dom0.plan.actual import slot_key_in
from dom0.plan.desired import Desired, Order, Role, Slot
from dom0.plan.hashing import BY_COMPOSE


def adopt(desired: Desired, theirs: Iterable[Container]) -> Desired:
    """`desired`, which takes over what Compose made for its services."""
    slots, adopted = {slot.key: slot for slot in desired.slots}, dict(desired.adopted)
    for one in theirs:
        number = one.labels.get(labels.COMPOSE_NUMBER, "")
        own = {
            labels.PROJECT: one.labels[labels.COMPOSE_PROJECT],
            labels.ROLE: Role.SERVICE.value,
            labels.SERVICE: one.labels.get(labels.COMPOSE_SERVICE, ""),
            labels.NUMBER: number if number.isascii() and number.isdigit() else "1",
        }
        pre_stop, digest = "", BY_COMPOSE + one.labels.get(labels.COMPOSE_HASH, "")
        slot = slots.get(slot_key_in(own))
        if slot is not None and fits(one, slot):
            pre_stop, digest = slot.create.labels.get(labels.PRE_STOP, ""), slot.hash
        adopted[one.id] = own | {labels.PRE_STOP: pre_stop, labels.HASH: digest}
    return replace(desired, adopted=adopted)


def carry_over(desired: Desired, before: Desired | None) -> Desired:
    """What was taken over stays the machine's."""
    if before is None or before.project != desired.project:
        return desired
    return replace(desired, adopted=before.adopted | desired.adopted)


def as_it_was(desired: Desired, theirs: Iterable[Container]) -> Desired:
    """What Compose made, as the desired state to go back to. `desired` is what takes it over."""
    slots = tuple(
        Slot(
            service=own[labels.SERVICE],
            number=int(own[labels.NUMBER]),
            name=one.name,
            role=Role.SERVICE,
            hash=own[labels.HASH],
            image=one.image,
            image_id=one.image_id,
            create=ContainerBody(),
            volumes=tuple(sorted({mount.name for mount in one.mounts if mount.type == "volume"})),
            order=Order.STOP_FIRST,
            restart_policy=one.restart_policy,
            restart_retries=one.restart_retries,
            resources=one.resources,
            ports=one.ports,
            runs=one.running,
        )
        for one, own in ((one, desired.adopted[one.id]) for one in theirs)
    )
    return Desired(project=desired.project, slots=slots, adopted=desired.adopted, rollout=desired.rollout)


def fits(container: Container, slot: Slot) -> bool:
    """Whether it is what `docker compose up` would leave running for this project: Compose's hash is over its words.

    Contents that are written into a container are not in that hash, and may be old; of what it shares with another
    container that one's ID is, so that the hash of the words alone is never the same.
    """
    return (
        container.image_id == slot.image_id
        and container.name == slot.name
        and container.labels.get(labels.COMPOSE_HASH) == slot.create.labels.get(labels.COMPOSE_HASH)
        and not slot.files
        and not slot.parents
    )


def unfit(slot: Slot) -> str:
    """Why what Compose made for `slot` is not what it would be now, or cannot be known to be."""
    if slot.parents:
        shared = " and ".join(slot.parents)
        return f"Docker Compose made it, and what shares namespaces or volumes with {shared} is made anew"
    if slot.files:
        return "Docker Compose made it, and what has texts of configs or secrets written into it is made anew"
    return "Docker Compose made it from another configuration"


def project_directories(theirs: Iterable[Container | ContainerSummary]) -> Iterator[str]:
    """Where Compose read the project, as its labels say."""
    yield from sorted({one.labels.get(labels.COMPOSE_WORKING_DIR, "") for one in theirs} - {""})
