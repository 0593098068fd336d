"""The machine's numbers as OpenMetrics text. Pure; docs/metrics.md says what each of them means.

All families are always there, some without a sample. Names of services, images and problems are other people's: they
are escaped, and cannot end a line or a label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from dom0.agent.ambassador_status import AmbassadorStatus
from dom0.agent.status import Outcome, ServiceStatus, Status
from dom0.agent.vitals import Vitals
from dom0.engine.values import Usage
from dom0.printable import printable

UNITS = ("bytes", "seconds")  # a name that ends with one has it
SUFFIXES = {"counter": "_total", "info": "_info"}
UNDECIDED = (Outcome.PENDING, Outcome.TRIAL)

Sample = tuple[Mapping[str, str], float]


class Family(msgspec.Struct, frozen=True):
    name: str
    kind: str  # gauge, counter, info
    help: str
    samples: Sequence[Sample]


def render(
    status: Status,
    ambassadors: Sequence[AmbassadorStatus],
    events: Mapping[str, int],
    vitals: Vitals,
    usages: Mapping[str, Usage] = {},
) -> bytes:
    """`events`: how many the journal has had, by kind; `usages`: of containers that run, by their IDs."""
    families = (
        *_of_machine(status),
        *_of_vitals(vitals),
        *_of_services(status.services),
        *_of_usages(status.services, usages),
        *_of_ambassadors(ambassadors),
        *_of_data(status),
        _each("dom0_journal_events", "counter", "Events since the agent started.", "kind", events),
    )
    lines = [line for family in families for line in _lines(family)]
    return "\n".join([*lines, "# EOF", ""]).encode(errors="replace")


def _of_machine(status: Status) -> Iterator[Family]:
    generation = status.generation
    about = {"project": status.project, "version": status.version, "dom0_image": status.dom0_image}
    yield Family("dom0_machine", "info", "Which machine it is.", [(about, 1)])
    yield _one("dom0_converged", "1: everything is as desired, or stands still on purpose.", status.converged)
    yield _one("dom0_generation", "Number of the current generation.", generation.number if generation else 0)
    yield _one("dom0_generation_last_good", "Number of the newest good one.", status.last_good or 0)
    is_pending = generation is not None and generation.outcome in UNDECIDED
    yield _one("dom0_generation_pending", "1: the current one is not good yet, or on trial.", is_pending)
    count = Counter((one.code, one.subject, one.severity.value) for one in status.problems)
    samples = [(dict(zip(("code", "subject", "severity"), key, strict=True)), float(n)) for key, n in count.items()]
    yield Family("dom0_problems", "gauge", "Problems that the status lists.", samples)


def _of_vitals(vitals: Vitals) -> Iterator[Family]:
    yield _one("dom0_machine_memory_bytes", "Memory of the machine.", vitals.memory)
    yield _one("dom0_machine_memory_available_bytes", "Of it, what programs can have.", vitals.memory_available)
    yield _each("dom0_machine_cpu_seconds", "counter", "Of all processors together.", "mode", vitals.processors)
    yield _one("dom0_machine_load1", "Load of one minute.", vitals.load)
    yield _one("dom0_machine_boot_time_seconds", "When it booted, since the epoch.", vitals.booted)
    sizes = {one.path: one.size for one in vitals.file_systems}
    yield _each("dom0_machine_filesystem_size_bytes", "gauge", "File systems with data of dom0.", "path", sizes)
    left = {one.path: one.available for one in vitals.file_systems}
    yield _each("dom0_machine_filesystem_available_bytes", "gauge", "What is left there.", "path", left)
    yield _one("dom0_agent_resident_memory_bytes", "Memory of the agent.", vitals.own_memory)
    yield Family("dom0_agent_cpu_seconds", "counter", "Processor time of the agent.", [({}, vitals.own_processor)])


def _of_services(services: Sequence[ServiceStatus]) -> Iterator[Family]:
    both = [(_called(one), one) for one in services]
    phases = [(own | {"phase": one.phase.value}, 1.0) for own, one in both]
    yield Family("dom0_service_phase", "gauge", "1: the phase that it is in.", phases)
    starts = [(own, one.started) for own, one in both if one.started]
    yield Family("dom0_service_start_time_seconds", "gauge", "Its last start, since the epoch.", starts)
    restarts = [(own, float(one.restarts)) for own, one in both if one.container]
    yield Family("dom0_service_restarts", "counter", "By the Engine, since its container was created.", restarts)


def _of_usages(services: Sequence[ServiceStatus], usages: Mapping[str, Usage]) -> Iterator[Family]:
    both = [(_called(one), usages[one.container_id]) for one in services if one.container_id in usages]
    memory = [(own, float(used.memory)) for own, used in both]
    yield Family("dom0_service_memory_bytes", "gauge", "Without what the kernel may drop.", memory)
    processor = [(own, used.processor) for own, used in both]
    yield Family("dom0_service_cpu_seconds", "counter", "Since its start, of all processors.", processor)
    received = [(own, float(used.received)) for own, used in both]
    yield Family("dom0_service_network_receive_bytes", "counter", "Since its start.", received)
    sent = [(own, float(used.sent)) for own, used in both]
    yield Family("dom0_service_network_transmit_bytes", "counter", "Since its start.", sent)


def _called(service: ServiceStatus) -> dict[str, str]:
    return {"service": service.service, "number": str(service.number), "container": service.container}


def _of_ambassadors(ambassadors: Sequence[AmbassadorStatus]) -> Iterator[Family]:
    up = {one.service: float(one.running and one.state is not None) for one in ambassadors}
    yield _each("dom0_ambassador_up", "gauge", "1: it runs, and has told what it forwards.", "ambassador", up)
    states = [(one.service, one.state) for one in ambassadors if one.state is not None]
    listeners = [
        ({"ambassador": service, "listener": one.listener}, one) for service, state in states for one in state.listeners
    ]
    flows = [(own, float(one.flows)) for own, one in listeners]
    yield Family("dom0_ambassador_connections", "gauge", "Connections that it last told of.", flows)
    targets = [
        (own | {"target": target}, float(target not in one.unhealthy))
        for own, one in listeners
        for target in sorted({*one.targets, *one.unhealthy})
    ]
    yield Family("dom0_ambassador_target_up", "gauge", "1: gets connections.", targets)
    receipts = {service: state.receipts for service, state in states}
    yield _each("dom0_ambassador_receipts", "counter", "Changes of where it leads.", "ambassador", receipts)


def _of_data(status: Status) -> Iterator[Family]:
    kept = {one.volume: float(bool(one.key)) for one in status.backups}
    yield _each("dom0_volume_backed_up", "gauge", "1: the project has it backed up.", "volume", kept)
    last = {one.volume: one.last for one in status.backups if one.last}
    yield _each(
        "dom0_backup_last_success_timestamp_seconds", "gauge", "Its last backup, since the epoch.", "volume", last
    )
    sizes = {one.volume: one.size for one in status.backups if one.last}
    yield _each("dom0_backup_size_bytes", "gauge", "Files in its last backup.", "volume", sizes)
    pulls = {one.image: one for one in status.pulls}
    expected = {image: one.size for image, one in pulls.items()}
    yield _each("dom0_pull_size_bytes", "gauge", "What has to come of an image.", "image", expected)
    came = {image: one.have for image, one in pulls.items()}
    yield _each("dom0_pull_received_bytes", "gauge", "What has come of it.", "image", came)


def _one(name: str, about: str, value: float) -> Family:
    return Family(name, "gauge", about, [({}, float(value))])


def _each(name: str, kind: str, about: str, label: str, values: Mapping[str, float]) -> Family:
    return Family(name, kind, about, [({label: key}, float(value)) for key, value in values.items()])


def _lines(family: Family) -> Iterator[str]:
    yield f"# TYPE {family.name} {family.kind}"
    if (unit := family.name.rpartition("_")[2]) in UNITS:
        yield f"# UNIT {family.name} {unit}"
    yield f"# HELP {family.name} {family.help}"
    for labels, value in family.samples:
        yield f"{family.name}{SUFFIXES.get(family.kind, '')}{_labels(labels.items())} {value!r}"


def _labels(labels: Iterable[tuple[str, str]]) -> str:
    r"""Controls are written as `\x1b`: some readers end at them."""
    told = [f'{name}="{_escaped(printable(value))}"' for name, value in labels if value]
    return f"{{{','.join(told)}}}" if told else ""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"")
