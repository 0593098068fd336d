"""All steps from what is there to what is asked for, if each goes well: the planner over a picture of the Engine that
every step changes as the Engine would. Pure.

What cannot be foretold is assumed to succeed: a container becomes healthy, a job that another service waits for exits
with 0, every other container keeps running.
"""

from __future__ import annotations

from typing import assert_never

from msgspec import to_builtins
from msgspec.structs import replace

from dom0.engine.values import Container, Endpoint, Event, Health, Mount, Network, State, Volume
from dom0.plan import steps
from dom0.plan.actual import Actual
from dom0.plan.desired import Condition, Desired, NetworkSpec, Slot
from dom0.plan.memory import Memory
from dom0.plan.parents import with_parents
from dom0.plan.planner import make_plan
from dom0.plan.remember import remember, remember_plan

MOST_TURNS = 1000  # a plan that never ends is a bug of the planner's, and no reason to hang


def foretell(desired: Desired, actual: Actual, memory: Memory, now: float) -> tuple[steps.AnyStep, ...]:
    """`memory` as the agent will have it at the beginning."""
    foreseen = _Foreseen(desired, actual, memory)
    taken: list[steps.AnyStep] = []
    for _ in range(MOST_TURNS):
        plan = make_plan(desired, foreseen.actual, foreseen.memory, now)
        foreseen.memory = remember_plan(foreseen.memory, plan, foreseen.actual.containers, busy=(), now=now)
        now += 1.0
        if plan.steps:
            due = list({step.lock: step for step in reversed(plan.steps)}.values())[::-1]
            for step in due:
                foreseen.apply(step, now)
            taken += due
        # without a step health checks pass, then the generation is good
        elif starting := [c for c in foreseen.actual.containers if c.running and c.health is Health.STARTING]:
            for container in starting:
                foreseen.put(replace(container, health=Health.HEALTHY))
        elif foreseen.memory.pending:
            foreseen.memory = replace(foreseen.memory, pending=False, last_good={})
        elif plan.retry_at > now:
            now = plan.retry_at
        else:
            break
    return tuple(taken)


class _Foreseen:
    def __init__(self, desired: Desired, actual: Actual, memory: Memory) -> None:
        self.actual = actual
        self.memory = memory
        self._jobs = {
            dependency.service
            for slot in desired.slots
            for dependency in slot.depends_on
            if dependency.condition is Condition.COMPLETED
        }
        self._made = 0

    def apply(self, step: steps.AnyStep, now: float) -> None:  # noqa: C901 -- a flat match, one line a step
        match step:
            case steps.CreateNetwork(spec=spec):
                self._add_network(spec)
            case steps.ReplaceNetwork(spec=spec, network_id=old, attached=attached):
                for container in self.actual.containers:
                    if container.id in attached:
                        kept = tuple(e for e in container.endpoints if e.network != spec.name)
                        self.put(replace(container, endpoints=kept))
                self._remove_network(old)
                self._add_network(spec)
            case steps.RemoveNetwork(network_id=old):
                self._remove_network(old)
            case steps.CreateVolume(spec=spec):
                volume = Volume(name=spec.name, driver="", labels={})
                self.actual = replace(self.actual, volumes=(*self.actual.volumes, volume))
            case steps.CreateContainer():
                self.put(self._created(step, now))
            case steps.StartContainer(slot=slot, container_id=id_):
                self._start(slot, id_, now)
            case steps.RunPostStart(container_id=id_, started=started):
                self.memory = replace(self.memory, post_started=self.memory.post_started | {id_: started})
            case steps.RestartContainer(slot=slot, container_id=id_):
                self._stop(id_, now)
                self._start(slot, id_, now)
            case steps.UnpauseContainer(container_id=id_):
                self._tell("unpause", id_, now)
                self.put(replace(self._get(id_), state=State.RUNNING))
            case steps.StopContainer(container_id=id_):
                self._stop(id_, now)
            case steps.StopInScope(member_id=id_):
                rows = (replace(row, state=State.EXITED) if row.id == id_ else row for row in self.actual.others)
                self.actual = replace(self.actual, others=tuple(rows))
            case steps.GiveUpContainer(container_id=id_):
                self.put(replace(self._get(id_), restart_policy="no"))
                self._stop(id_, now)
            case steps.RemoveContainer(container_id=id_):
                containers = tuple(container for container in self.actual.containers if container.id != id_)
                names = {name: holder for name, holder in self.actual.names.items() if holder != id_}
                self.actual = replace(self.actual, containers=containers, names=names)
            case steps.RenameContainer(container_id=id_, to=name):
                self.put(replace(self._get(id_), name=name))
            case steps.ConnectNetwork(container_id=id_, attachment=attachment):
                container = self._get(id_)
                others_ = tuple(e for e in container.endpoints if e.network != attachment.network)
                self.put(replace(container, endpoints=(*others_, self._endpoint(attachment.network))))
            case steps.UpdateContainer(container_id=id_, update=update):
                container = self._get(id_)
                if policy := update.restart_policy:
                    retries = policy.maximum_retry_count
                    container = replace(container, restart_policy=policy.name, restart_retries=retries)
                numbers = {key: value for key, value in to_builtins(update).items() if isinstance(value, int)}
                self.put(replace(container, resources={**container.resources, **numbers}))
            case _:
                assert_never(step)

    def _created(self, step: steps.CreateContainer, now: float) -> Container:
        slot, host = step.slot, with_parents(step.slot.create.host_config, step.parents)
        return Container(
            id=self._new_id(),
            name=step.name,
            image_id=slot.image_id,
            image=slot.image,
            labels=slot.create.labels,
            state=State.CREATED,
            created=now,
            restart_policy=slot.restart_policy,
            restart_retries=slot.restart_retries,
            resources=slot.resources,
            network_mode=host.network_mode,
            ipc_mode=host.ipc_mode,
            pid_mode=host.pid_mode,
            volumes_from=host.volumes_from,
            endpoints=tuple(Endpoint(network=a.network, network_id="") for a in slot.attachments),
            mounts=tuple(Mount(type="volume", target="", name=name) for name in slot.volumes),
            ports=slot.ports,
        )

    def _start(self, slot: Slot, container_id: str, now: float) -> None:
        container = self._get(container_id)
        self._tell("start", container_id, now)
        vanished, cut_off = self.actual.vanished - {container_id}, self.actual.cut_off - {container_id}
        self.actual = replace(self.actual, vanished=vanished, cut_off=cut_off)
        if slot.service in self._jobs:
            self.put(replace(container, state=State.EXITED, started=now, finished=now, exit_code=0, error=""))
            return
        endpoints = tuple(self._endpoint(endpoint.network) for endpoint in container.endpoints)
        health = Health.NONE if slot.health is None else Health.STARTING
        self.put(replace(container, state=State.RUNNING, started=now, error="", health=health, endpoints=endpoints))

    def _stop(self, container_id: str, now: float) -> None:
        self.memory = replace(self.memory, stopped=self.memory.stopped | {container_id: now})
        self.put(replace(self._get(container_id), state=State.EXITED, finished=now, health=Health.NONE))

    def _tell(self, action: str, container_id: str, now: float) -> None:
        event = Event(type="container", action=action, id=container_id, attributes={}, time=now)
        self.memory = remember(self.memory, event)

    # the picture

    def _get(self, container_id: str) -> Container:
        return next(container for container in self.actual.containers if container.id == container_id)

    def put(self, container: Container) -> None:
        found = {known.id: known for known in self.actual.containers} | {container.id: container}
        names = {name: id_ for name, id_ in self.actual.names.items() if id_ != container.id}
        names[container.name] = container.id
        self.actual = replace(self.actual, containers=tuple(found.values()), names=names)

    def _add_network(self, spec: NetworkSpec) -> None:
        network = Network(id=self._new_id(), name=spec.name, driver="", labels=spec.create.labels)
        own = self.actual.own_networks | {network.id}
        self.actual = replace(self.actual, networks=(*self.actual.networks, network), own_networks=own)

    def _remove_network(self, network_id: str) -> None:
        others = tuple(network for network in self.actual.networks if network.id != network_id)
        self.actual = replace(self.actual, networks=others)

    def _endpoint(self, network: str) -> Endpoint:
        found = (known.id for known in self.actual.networks if known.name == network)
        return Endpoint(network=network, network_id=next(found, ""))

    def _new_id(self) -> str:
        self._made += 1
        return f"{self._made:064x}"
