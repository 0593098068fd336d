"""The next steps of one slot: from nothing to one ready container with the right name, networks and limits.

The rungs below are walked in order; the first that has something to do ends the walk. Names are the last rung:
they are put right by rule, never trusted as state, so a replacement that was killed at any point is continued.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain, count

import msgspec

from dom0.engine.bodies import EndpointIpamConfig, UpdateBody
from dom0.engine.resources import UNLIMITED
from dom0.engine.values import Container, Health, State
from dom0.health import Problem, Severity
from dom0.names import BACKUP_JOB
from dom0.plan.actual import slot_key
from dom0.plan.adoption import unfit
from dom0.plan.desired import Condition, Dependency, Order, Role, Slot
from dom0.plan.hashing import BY_COMPOSE
from dom0.plan.hooks import pre_stop_of
from dom0.plan.labels import COMPOSE_PROJECT, HASH
from dom0.plan.memory import CRASH_BUDGET, CRASH_BUDGET_NEW, backoff, recent, still_lasts
from dom0.plan.phase import Phase
from dom0.plan.snapshot import Snapshot, version, version_of
from dom0.plan.steps import (
    MISSING,
    REMOVED,
    UNHEALTHY,
    VANISHED,
    AnyStep,
    ConnectNetwork,
    CreateContainer,
    GiveUpContainer,
    RemoveContainer,
    RenameContainer,
    RestartContainer,
    RunPostStart,
    StartContainer,
    StopContainer,
    UnpauseContainer,
    UpdateContainer,
)
from dom0.plan.writers import in_use_problem, other_writers

ANONYMOUS_NAME_LENGTH = 64  # the Engine names anonymous volumes by 32 random bytes in hex


class SlotPlan(msgspec.Struct, frozen=True, kw_only=True):
    """`phase` and `reason` are for people.

    `retry_at` is when a back-off ends (0: not waiting for time), `next_run` when a job is due.

    `refused`: the Engine has refused its last step, and `reason` is with what words.
    """

    slot: Slot
    phase: Phase
    reason: str = ""
    container: Container | None = None
    steps: tuple[AnyStep, ...] = ()
    problems: tuple[Problem, ...] = ()
    retry_at: float = 0.0
    next_run: float = 0.0
    refused: bool = False


class ContainerPlanner:
    """Plans one slot; `phases` holds the plans of the slots it may depend on."""

    def __init__(self, snapshot: Snapshot, slot: Slot, phases: dict[str, SlotPlan]) -> None:
        self.snapshot = snapshot
        self.slot = slot
        self.phases = phases
        self.current = snapshot.current(slot)
        self.obsolete = snapshot.obsolete(slot)
        self.lock = f"slot:{slot.key}"
        self.priority = snapshot.depth[slot.service] * 2

    def plan(self) -> SlotPlan:
        """Nothing starts beside another writer of its data; a container that runs beside one gets a warning."""
        writers = other_writers(self.snapshot.desired, self.slot, self.snapshot.actual.others)
        planned = self._plan()
        if not writers:
            return planned
        if any(isinstance(step, CreateContainer | StartContainer | RestartContainer) for step in planned.steps):
            problem = in_use_problem(self.slot, writers)
            return self._result(Phase.WAITING, problem.title, problems=(problem,))
        if self.current is None or not self.current.running:
            return planned
        problem = in_use_problem(self.slot, writers, Severity.WARNING)
        return msgspec.structs.replace(planned, problems=(*planned.problems, problem))

    def _plan(self) -> SlotPlan:
        if self.current is None:
            return self._missing()
        if not self.slot.runs:
            return self._tidy(self.current, Phase.DATA)
        if job := self.snapshot.resting.get(self.slot.service):
            running = [one for one in (self.current, *self.obsolete) if one.running]
            stops = tuple(self._stop(one, f"{job} runs") for one in running)
            return self._result(Phase.STOPPED, f"stopped while {job} runs", steps=stops)
        if repair := self._repair(self.current):
            phase = Phase.STARTING if self.current.state is State.RUNNING else Phase.CREATED
            return self._result(Phase.READY if self.snapshot.is_ready(self.current) else phase, steps=repair)
        if self.current.state is State.RUNNING:
            return self._running(self.current)
        if self.current.state is State.PAUSED:
            if self.current.id in self.snapshot.memory.stopped_by_person:  # until `dom0 up`
                return self._result(Phase.STOPPED, "paused manually", problems=(self._held_problem("paused"),))
            step = UnpauseContainer(
                lock=self.lock, reason="it was paused", container_id=self.current.id, name=self.current.name
            )
            return self._result(Phase.STARTING, "it is paused", steps=(step,))
        if self.current.state is not State.RESTARTING:
            return self._not_running(self.current)
        # the Engine's restart policy is at work: it is left alone until the budget is used up
        if self._has_given_up() or self._crashed_too_often(self.current):
            return self._give_up(self.current, "crash loop")
        return self._result(Phase.FAILED, f"exited with code {self.current.exit_code}, the Engine restarts it")

    # rungs

    def _missing(self) -> SlotPlan:
        done = self.snapshot.memory.completed.get(self.slot.key)
        if done == version(self.slot) and not self.slot.schedule:
            return self._tidy(None, Phase.COMPLETED, "ran for this configuration before; its container is gone")
        if not self.slot.create.image:
            return self._result(Phase.FAILED, "Docker Compose made it, and it is gone")
        if waiting := self._lacks_ground(self.snapshot.made_meanwhile):
            return waiting
        # its own name, or Compose's `<12hex>_<name>` with the ID of who has that; a number where that is taken too
        reason, names, own = self._creation_reason(), self.snapshot.actual.names, self.slot.name
        numbered = (_set_aside(own, f"{number:012x}") for number in count())
        name = next(free for free in chain((own, _set_aside(own, names.get(own, ""))), numbered) if free not in names)
        replaced = self.obsolete[0] if self.obsolete else None
        step = CreateContainer(
            lock=self.lock,
            reason=reason,
            priority=self.priority,
            slot=self.slot,
            name=name,
            parents=self.snapshot.parent_ids(self.slot),
            inherit=self._inherited(replaced),
            replaces=replaced.id if replaced else "",
        )
        return self._result(Phase.MISSING, reason, steps=(step,))

    def _running(self, current: Container) -> SlotPlan:
        if self._has_given_up():
            return self._give_up(current, "failed too often")
        if current.id in self.snapshot.actual.vanished:
            return self._restart(current, VANISHED)
        if self.snapshot.is_ready(current):
            return self._must_follow(current) or self._must_bind_anew(current) or self._tidy(current, Phase.READY)
        if self.snapshot.awaits_post_start(current):
            lock = f"post-start:{current.id}"
            step = RunPostStart(
                lock=lock,
                reason="its post_start is due",
                priority=self.priority + 1,
                slot=self.slot,
                container_id=current.id,
                started=current.started,
            )
            if refusal := self.snapshot.memory.refused.get(lock):
                return self._result(Phase.FAILED, refusal.message, steps=(step,))
            return self._result(Phase.STARTING, "its post_start has not ended yet", steps=(step,))
        if current.health is Health.UNHEALTHY:
            return self._unhealthy(current)
        return self._result(Phase.STARTING, "its health check has not passed yet")

    def _unhealthy(self, current: Container) -> SlotPlan:
        said = current.health_output.strip().rpartition("\n")[2][-200:]
        problem = Problem(
            code="unhealthy",
            subject=self.slot.key,
            title=f"{self.slot.service}: health check failed{f': {said}' if said else ' and printed nothing'}",
            hint=f"dom0 logs {self.slot.service}",
        )
        crashes = self._crashes(current)
        if self.snapshot.memory.pending or len(crashes) >= CRASH_BUDGET:
            return self._result(Phase.UNHEALTHY, problem.title, problems=(problem,))
        retry_at = (crashes[-1] if crashes else 0.0) + backoff(len(crashes) + 1)
        if retry_at > self.snapshot.now:
            return self._result(Phase.UNHEALTHY, problem.title, problems=(problem,), retry_at=retry_at)
        step = self._restart_step(current, UNHEALTHY)
        return self._result(Phase.UNHEALTHY, problem.title, steps=(step,), problems=(problem,))

    def _not_running(self, current: Container) -> SlotPlan:
        if current.id in self.snapshot.memory.stopped_by_person and not self._has_given_up():
            return self._result(Phase.STOPPED, "stopped manually", problems=(self._held_problem("stopped"),))
        if self.slot.schedule:
            return self._scheduled(current)
        # A job: it ended by itself, with 0. Compose's default policy is `no`, so any service can be one.
        ended = current.started > 0 and current.exit_code == 0 and not current.error
        by_itself = current.id not in self.snapshot.memory.stopped
        if ended and by_itself and self.slot.restart_policy in ("no", "on-failure"):
            return self._tidy(current, Phase.COMPLETED)
        if self._has_given_up() or self._crashed_too_often(current):
            return self._given_up(current, ())
        if waiting := self._awaits_others(current) or self._lacks_ground():
            return waiting
        crashes = self._crashes(current)
        retry_at = crashes[-1] + backoff(len(crashes)) if crashes and current.started else 0.0
        quiet = self.snapshot.memory.stop_expected.get(current.id, 0.0)
        if still_lasts(quiet, self.snapshot.now):
            retry_at = max(retry_at, quiet)
        if retry_at > self.snapshot.now:
            return self._result(Phase.FAILED, f"exited with code {current.exit_code}", retry_at=retry_at)
        reason = "created" if not current.started else f"it exited with code {current.exit_code}"
        if current.started and not by_itself:
            reason = "dom0 had stopped it"
        return self._start(current, Phase.CREATED if not current.started else Phase.FAILED, reason)

    def _start(self, current: Container, phase: Phase, reason: str) -> SlotPlan:
        """Once its predecessors, and what leaves and holds a port or volume it needs, are stopped."""
        stops_first = self.slot.order is Order.STOP_FIRST or any(self._inherited(old) for old in self.obsolete)
        blocking = [c for c in self.snapshot.leaving if self.snapshot.stands_in_the_way(c, self.slot)]
        own = [c for c in self.obsolete if c.running and (stops_first or c in blocking)]
        others = [c for c in blocking if slot_key(c) != self.slot.key]
        if stops := tuple(self._stop(container, f"makes room for {self.slot.name}") for container in (*own, *others)):
            return self._result(Phase.CREATED, "the container it replaces is stopped first", steps=stops)
        step = StartContainer(
            lock=self.lock, reason=reason, priority=self.priority + 1, slot=self.slot, container_id=current.id
        )
        return self._result(phase, reason, steps=(step,))

    def _scheduled(self, current: Container) -> SlotPlan:
        """A job between two runs. It is due at once where one was missed, or cut off: the machine was off.

        A start in the future is left out: the clock was wrong then. At a boot without a clock even `created` is one.
        """
        from dom0 import schedule  # few machines have one

        now = self.snapshot.now
        began = current.started if 0 < current.started <= now else current.created
        ended = current.finished if began <= current.finished <= now else began
        due = schedule.next_run(self.slot.schedule, self.slot.timezone, began, ended)
        if current.id in self.snapshot.memory.stopped and current.created <= now:
            due = now
        if due > now:
            said = f"its next run is at {schedule.moment(due, self.slot.timezone)}"
            failed = current.started > 0 and (current.exit_code != 0 or current.error)
            planned = self._tidy(current, Phase.SCHEDULED, said)
            problems = (self._failed_job(current, said),) if failed else planned.problems
            return msgspec.structs.replace(planned, next_run=due, problems=problems)
        if waiting := self._awaits_others(current) or self._lacks_ground():
            return waiting
        # all stays well: else no generation would be good that is watched for longer than to the next run
        is_refused = self.lock in self.snapshot.memory.refused
        return self._start(current, Phase.CREATED if is_refused else Phase.SCHEDULED, "it is due")

    def _failed_job(self, current: Container, said: str) -> Problem:
        service, how = self.slot.service, current.error or f"exited with code {current.exit_code}"
        what, command = f"{service} {how}", f"dom0 start {service}"
        if self.slot.role is Role.BACKUP:
            key = service.removeprefix(BACKUP_JOB)
            what, command = f"the backup of {key} failed: {how}", f"dom0 backup now {key}"
        hint = f"see why: dom0 logs {service}; then run it: {command}"
        return Problem(code="job-failed", subject=self.slot.key, title=f"{what}; {said}", hint=hint)

    def _must_follow(self, current: Container) -> SlotPlan | None:
        """Restart with the owner of a namespace, which is a new one then; or with a replaced `restart: true`."""
        for owner in self.snapshot.shared_with(current):
            if owner.running and self._is_since(owner.started, current):
                return self._restart(current, f"{owner.name} was restarted, and it shares a namespace with it")
        for dependency in self.slot.depends_on:
            for container in self._currents(dependency.service) if dependency.restart else ():
                # whether it is as far as it was awaited: a job that runs for a moment is not done yet
                plan, awaits_end = self.phases.get(slot_key(container)), dependency.condition is Condition.COMPLETED
                has_completed = plan is not None and plan.phase is Phase.COMPLETED
                is_back = has_completed or (not awaits_end and self.snapshot.is_ready(container))
                if is_back and self._is_since(container.created, current):
                    return self._restart(current, f"{dependency.service} was replaced")
        return None

    def _is_since(self, time: float, current: Container) -> bool:
        """After its start. A time in the future means that the clock went back: following it would never end."""
        return current.started < time <= self.snapshot.now

    def _must_bind_anew(self, current: Container) -> SlotPlan | None:
        """A start binds what has the name of the Engine's socket then."""
        if current.id not in self.snapshot.actual.cut_off or self._lacks_ground():
            return None
        if self.snapshot.in_use(current, self.slot):
            return self._result(Phase.READY, "in use; it is restarted for the Engine's new socket as soon as it is not")
        return self._restart(current, "the Engine's socket was made anew, and it has the one before bound")

    def _tidy(self, current: Container | None, phase: Phase, reason: str = "") -> SlotPlan:
        """It is as it should be: now its predecessors go, and it gets its name."""
        if running := [c for c in self.obsolete if c.running]:
            stops = tuple(self._stop(c, "its replacement is ready") for c in running)
            return self._result(phase, "its predecessor is being stopped", steps=stops)
        # each with a lock of its own: one that the Engine does not remove is no reason to leave the service alone
        removals = tuple(
            RemoveContainer(lock=f"container:{c.id}", reason="replaced", container_id=c.id, name=c.name)
            for c in self.obsolete
            if not self.snapshot.is_kept(c) and c.state is not State.REMOVING
        )
        if any(step.lock not in self.snapshot.memory.refused for step in removals):
            return self._result(phase, reason, steps=removals)
        rename = self._rename(current) if current is not None else ()
        if steps := (*rename, *removals):
            return self._result(phase, reason, steps=steps)
        if current is not None and current.name != self.slot.name:
            if self.snapshot.actual.names.get(self.slot.name) in {old.id for old in self.obsolete}:
                return self._result(phase, "its predecessor is being removed")
            # a container of Compose is not renamed: Compose would make another one beside it
            holder = next((other for other in self.snapshot.actual.others if other.name == self.slot.name), None)
            project = holder.labels.get(COMPOSE_PROJECT) if holder else None
            problem = Problem(
                code="name-taken",
                subject=self.slot.key,
                title=f"the name {self.slot.name} belongs to a container that dom0 did not make",
                severity=Severity.WARNING,
                hint=f"docker compose -p {project} down" if project else f"docker rename {self.slot.name} ANOTHER-NAME",
            )
            return self._result(phase, problem.title, problems=(problem,))
        outdated = current is not None and version_of(current) != version(self.slot)
        if current is not None and outdated and self.snapshot.in_use(current, self.slot):
            reason = "in use; it is replaced as soon as it is not"
        return self._result(phase, reason)

    # what a rung is made of

    def _result(
        self,
        phase: Phase,
        reason: str = "",
        *,
        steps: tuple[AnyStep, ...] = (),
        problems: tuple[Problem, ...] = (),
        retry_at: float = 0.0,
    ) -> SlotPlan:
        return SlotPlan(
            slot=self.slot,
            phase=phase,
            reason=reason,
            container=self.current or next((c for c in self.obsolete if c.running), None),
            steps=steps,
            problems=problems,
            retry_at=retry_at,
        )

    def _currents(self, service: str) -> tuple[Container, ...]:
        found = (self.snapshot.current(slot) for slot in self.snapshot.slots_of.get(service, ()))
        return tuple(container for container in found if container is not None)

    def _lacks_ground(self, later: Collection[str] = ()) -> SlotPlan | None:
        """Networks, volumes, the parents' containers, and the socket that an orchestrator binds, come first.

        Networks in `later` need not be there yet, except for a fixed address. One that does not fit is refused at the
        create (Engine 25 and later) if the network is there, else at the start: by then the predecessor is stopped.
        """
        lacking = (a for a in self.slot.attachments if a.network not in self.snapshot.network_ids)
        anywhere = (None, EndpointIpamConfig())
        networks = [a.network for a in lacking if a.network not in later or a.endpoint.ipam_config not in anywhere]
        volumes = [name for name in self.slot.volumes if name not in self.snapshot.volume_names]
        parents = [name for name in self.slot.parents if name not in self.snapshot.parent_ids(self.slot)]
        needed = (slot for one in self.slot.depends_on for slot in self.snapshot.slots_of.get(one.service, ()))
        serving = (slot.service for slot in needed if slot.role is Role.SOCKET)
        sockets = [name for name in serving if not any(map(self.snapshot.is_ready, self._currents(name)))]
        missing = [f"network {n}" for n in networks] + [f"volume {v}" for v in volumes] + parents + sockets
        return self._result(Phase.WAITING, f"waits for {', '.join(missing)}") if missing else None

    def _creation_reason(self) -> str:
        if not self.obsolete:
            return MISSING
        old = self.obsolete[0]
        if old.state in (State.REMOVING, State.DEAD):
            return REMOVED
        if old.image_id != self.slot.image_id:
            return "its image changed"
        if old.labels.get(HASH) != self.slot.hash:
            by_compose = old.labels.get(HASH, "").startswith(BY_COMPOSE)
            return unfit(self.slot) if by_compose else "its configuration changed"
        if old.id in self.snapshot.memory.recreate:
            return "recreated"
        return f"{' and '.join(self.slot.parents)}, which it shares namespaces or volumes with, is a new container"

    def _inherited(self, old: Container | None) -> dict[str, str]:
        """Anonymous volumes move to the replacement, as with Compose (convergence rules in compose.md)."""
        if old is None:
            return {}
        found = (m for m in old.mounts if m.type == "volume" and len(m.name) == ANONYMOUS_NAME_LENGTH)
        return {mount.target: mount.name for mount in found if mount.target in self.slot.anonymous}

    def _stop(self, container: Container, reason: str) -> AnyStep:
        return StopContainer(
            lock=f"container:{container.id}",
            reason=reason,
            container_id=container.id,
            name=container.name,
            pre_stop=pre_stop_of(container),
            rests=container.restart_policy == "always",
        )

    def _restart(self, current: Container, reason: str) -> SlotPlan:
        return self._result(Phase.STARTING, reason, steps=(self._restart_step(current, reason),))

    def _restart_step(self, current: Container, reason: str) -> AnyStep:
        return RestartContainer(
            lock=self.lock, reason=reason, slot=self.slot, container_id=current.id, pre_stop=pre_stop_of(current)
        )

    def _rename(self, current: Container) -> tuple[AnyStep, ...]:
        own, holder = self.slot.name, self.snapshot.actual.names.get(self.slot.name)
        if current.name == own:
            return ()
        if holder is None:
            id_, name, to, reason = current.id, current.name, own, "its name"
        elif any(c.id == holder and c.state is not State.REMOVING for c in self.obsolete):
            # Of one that is just being removed the Engine (26.1) keeps the name for ever.
            # not with its own ID, which may be in the name that `current` was given
            id_, name, to, reason = holder, own, _set_aside(own, current.id), "its name is needed for another container"
        else:
            return ()
        return (RenameContainer(lock=self.lock, reason=reason, container_id=id_, name=name, to=to),)

    def _repair(self, current: Container) -> tuple[AnyStep, ...]:
        """Undoes `docker update`, `docker network disconnect` and `docker network rm`."""
        if self._has_given_up():
            return ()
        if update := self._drift(current):
            reason = f"changed from outside: {', '.join(sorted(update))}"
            step = UpdateContainer(
                lock=self.lock,
                reason=reason,
                container_id=current.id,
                name=current.name,
                update=msgspec.convert(update, UpdateBody),
            )
            return (step,)
        attached = {endpoint.network: endpoint.network_id for endpoint in current.endpoints}
        for attachment in self.slot.attachments:
            network_id = self.snapshot.network_ids.get(attachment.network)
            known = attached.get(attachment.network)
            not_connected_yet = known == "" and not current.running
            if network_id is None or known == network_id or not_connected_yet:
                continue
            return (
                ConnectNetwork(
                    lock=self.lock,
                    reason=f"not connected to {attachment.network}",
                    container_id=current.id,
                    name=current.name,
                    attachment=attachment,
                    stale=known is not None,
                ),
            )
        return ()

    def _drift(self, current: Container) -> dict[str, object]:
        """A limit that is missing is one that this kernel does not support: setting it again would never end."""
        wanted, found = self.slot.resources, current.resources
        update: dict[str, object] = {
            key: value for key, value in wanted.items() if found.get(key, NO_LIMIT) not in (value, NO_LIMIT)
        }
        unlimited = {**UNLIMITED, "NanoCpus": self.snapshot.actual.cpus * 1_000_000_000}
        too_much = (key for key in found.keys() - wanted.keys() if found[key] not in (unlimited.get(key), NO_LIMIT))
        update |= {key: unlimited[key] for key in too_much if unlimited.get(key)}
        if {"Memory", "MemorySwap"} & update.keys():  # the Engine compares each with the other one's old value
            memory = wanted.get("Memory", 0)
            swap = 2 * memory or UNLIMITED["MemorySwap"]
            update |= {"Memory": memory or UNLIMITED["Memory"], "MemorySwap": wanted.get("MemorySwap", swap)}
        policy = (self.slot.restart_policy, self.slot.restart_retries)
        if policy != (current.restart_policy or "no", current.restart_retries):
            update["RestartPolicy"] = {"Name": policy[0], "MaximumRetryCount": policy[1]}
        return update

    def _has_given_up(self) -> bool:
        """Until `dom0 up`, unless a person starts it, or what it depends on has come back since it gave up."""
        if self.snapshot.memory.crash_loops.get(self.slot.key) != version(self.slot):
            return False
        if self.current is None:
            return True
        started_by_a_person = self.current.running and self.current.restart_policy == "no"  # giving up took it away
        dependency_came_back = not self.current.running and self.current.finished < self._newest_dependency()
        return not started_by_a_person and not dependency_came_back

    def _newest_dependency(self) -> float:
        """When that one of its ready dependencies was started that was started last (0: none)."""
        services = {dependency.service for dependency in self.slot.depends_on} | set(self.slot.parents)
        found = (c for service in services for c in self._currents(service) if self.snapshot.is_ready(c))
        return max((c.started for c in found if c.started <= self.snapshot.now), default=0.0)

    def _crashes(self, current: Container) -> tuple[float, ...]:
        """Its recent ends, those left out that came before its dependencies did: they may have been the cause."""
        crashes = recent(self.snapshot.memory.crashes.get(current.id, ()), self.snapshot.now)
        return tuple(time for time in crashes if time >= self._newest_dependency()) if crashes else ()

    def _crashed_too_often(self, current: Container) -> bool:
        return len(self._crashes(current)) >= (CRASH_BUDGET_NEW if self.snapshot.memory.pending else CRASH_BUDGET)

    def _give_up(self, current: Container, reason: str) -> SlotPlan:
        step = GiveUpContainer(
            lock=self.lock,
            reason=reason,
            container_id=current.id,
            name=current.name,
            pre_stop=pre_stop_of(current),
        )
        return self._given_up(current, (step,))

    def _given_up(self, current: Container, steps: tuple[AnyStep, ...]) -> SlotPlan:
        title = f"{self.slot.service} keeps exiting and is not restarted any more (last exit code {current.exit_code})"
        hint = f"see why: dom0 logs {self.slot.service}; then correct it and run dom0 up"
        problem = Problem(code="crash-loop", subject=self.slot.key, title=title, hint=hint)
        return self._result(Phase.CRASH_LOOP, title, steps=steps, problems=(problem,))

    def _awaits_others(self, current: Container) -> SlotPlan | None:
        """What ran before awaits only the owners of its namespaces, and comes back as with the Engine's policies."""
        if not current.started:
            for dependency in self.slot.depends_on:
                if reason := self._unmet(dependency):
                    return self._result(Phase.WAITING, reason)

        for owner in self.snapshot.shared_with(current):
            if owner.state not in (State.RUNNING, State.PAUSED):
                return self._result(Phase.WAITING, f"waits for {owner.name}, whose namespace it shares")
        return None

    def _unmet(self, dependency: Dependency) -> str:
        plans = [self.phases[s.key] for s in self.snapshot.slots_of.get(dependency.service, ()) if s.key in self.phases]
        if not plans:
            return ""
        phases = {plan.phase for plan in plans}
        given_up = phases <= {Phase.CRASH_LOOP, Phase.STOPPED, Phase.UNHEALTHY, Phase.FAILED}
        if given_up and not dependency.required:
            return ""
        match dependency.condition:
            case Condition.STARTED:
                met = all(self._has_started(plan) for plan in plans)
            case Condition.HEALTHY:
                met = phases <= {Phase.READY}
            case Condition.COMPLETED:
                met = Phase.COMPLETED in phases
        wanted = dependency.condition.removeprefix("service_").replace("_", " ")
        return "" if met else f"waits for {dependency.service} to be {wanted}"

    def _has_started(self, plan: SlotPlan) -> bool:
        container = plan.container
        if container is None or plan.phase is Phase.COMPLETED:
            return plan.phase in STARTED
        set_up = container.id in self.snapshot.memory.post_started or not self.snapshot.has_post_start(container)
        return set_up and (plan.phase in STARTED or container.started > 0)

    def _held_problem(self, how: str) -> Problem:
        return Problem(
            code="held",
            subject=self.slot.key,
            title=f"{self.slot.service} was {how} manually",
            severity=Severity.WARNING,
            hint="dom0 up" if how == "stopped" else f"docker unpause {self.slot.name}; or dom0 up",
        )


NO_LIMIT = -1
STARTED = (Phase.STARTING, Phase.READY, Phase.UNHEALTHY, Phase.COMPLETED)


def _set_aside(name: str, container_id: str) -> str:
    """Compose's `<12hex>_<name>`. What ends in a dot stays in front: an orchestrator's name says its scope."""
    scope, dot, own = name.rpartition(".")
    return f"{scope}{dot}{container_id[:12]}_{own}"
