"""Project → Desired: what the machine should be, down to every create body of the Engine. Pure.

Faithful to Compose 2.26.1; where it is not, tests/compare says where and why. `Image` in a create body is the
reference as written; the agent creates from the pinned `image_id`.
"""

from __future__ import annotations

from msgspec.structs import replace

from dom0 import sizes
from dom0.compose.model import Project
from dom0.compose.x_dom0 import MachineSettings, NotifySettings, PullSettings
from dom0.durations import seconds
from dom0.plan.ambassadors import with_ambassadors
from dom0.plan.backups import backup_slots
from dom0.plan.builtins import builtin_slots, with_home_volume
from dom0.plan.checks import check_project, check_slots, check_specs
from dom0.plan.desired import Desired, Metrics, Notify, Rollout, Sharing, Web
from dom0.plan.engine_needs import check_engine
from dom0.plan.facts import Facts
from dom0.plan.orchestrators import socket_slots, with_orchestrators
from dom0.plan.service_slot import service_slots
from dom0.plan.specs import network_spec, volume_spec


def expand(project: Project, facts: Facts) -> Desired:
    """Raises ProjectError for what cannot be, before anything is changed."""
    project = with_orchestrators(with_ambassadors(project), facts.images)
    check_project(project)
    check_engine(project, facts.api_version)
    networks = tuple(network_spec(project, key, network) for key, network in sorted(project.networks.items()))
    volumes = tuple(volume_spec(project, key, volume) for key, volume in sorted(project.volumes.items()))
    volumes = with_home_volume(project, volumes)
    services = (slot for name in sorted(project.services) for slot in service_slots(project, name, facts))
    slots = (
        *builtin_slots(project, facts),
        *socket_slots(project, facts),
        *backup_slots(project, facts),
        *services,
    )
    check_specs(project, networks, volumes)
    check_slots(project, slots)
    machine = project.machine or MachineSettings()
    times, metrics, web = machine.rollout, machine.metrics, machine.web
    return Desired(
        project=project.name,
        networks=networks,
        volumes=volumes,
        slots=slots,
        rollout=Rollout(timeout=seconds(times.timeout), monitor=seconds(times.monitor)) if times else Rollout(),
        sharing=_sharing(machine.pull or PullSettings()),
        notify=notify_of(machine.notify, project.working_dir) if machine.notify else None,
        metrics=Metrics(listen=metrics.listen, allow=metrics.allow) if metrics else None,
        web=Web(listen=web.listen, names=tuple(map(str.lower, web.names))) if web else None,
        shared=tuple(project.volumes[name].name if name in project.volumes else name for name in machine.shared),
    )


def notify_of(notify: NotifySettings, directory: str) -> Notify:
    """`directory`: where its files are."""
    found = Notify(ntfy=notify.ntfy, webhook=notify.webhook)
    if notify.env_file:
        found = replace(found, env_file=f"{directory}/{notify.env_file.removeprefix('./')}")
    if mail := notify.mail:
        found = replace(found, mail_to=mail.to, mail_from=mail.sender, mail_server=mail.server)
    return found


def _sharing(pull: PullSettings) -> Sharing:
    found = Sharing(peers=pull.peers, keep=sizes.parse(pull.keep))
    if (serve := pull.serve) is None:
        return found
    rate = sizes.parse(serve.limit) if serve.limit else 0
    return replace(found, listen=serve.listen, allow=serve.allow, rate=rate)
