"""The extension `x-dom0` of Compose files, at the top level and in a service: its shapes and checks. No I/O.

In Docker Compose the `x-dom0` of an upper file replaces that of a lower one; `merge` merges them as Compose merges its
own keys. docs/reference/x-dom0.md describes every key.

Annotations are not postponed, as in `engine/bodies`.
"""

import posixpath
import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import msgspec

from dom0 import sizes
from dom0.ambassador.declaration import Misdeclared, declare
from dom0.ambassador.settings import Settings
from dom0.compose.findings import Finding, KeyPath
from dom0.compose.tags import Override, Reset
from dom0.durations import seconds
from dom0.names import HOME
from dom0.socketproxy.grants import Grants

KEY = "x-dom0"

# Patterns are text, compiled when one is used: most processes check no x-dom0.
_HOSTNAME = r"(?=.{1,64}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
_USER = r"[a-z_][a-z0-9_-]{0,31}"
_VOLUME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}"
_SSH_KEY = (
    r"(?:\S.* )?(?:ssh-(?:ed25519|rsa)|ecdsa-sha2-nistp(?:256|384|521)"
    r"|sk-(?:ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com) [A-Za-z0-9+/]{32,}={0,2}(?: .*)?"
)
_BACKUP_TARGET = r"/[^,:]+|sftp:[^\s-]\S*|s3:(?:https?://)?[^\s/-][^\s/]*/[^\s/]\S*|rest:https?://\S+"
_MOST_PARALLEL = 16
_REPLACED = {"command"}  # lists that are one value, as `command` of a service is for Compose


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    pass


class SshSettings(_Part, frozen=True, kw_only=True):
    port: int = 2222
    user: str = "dom0"
    uid: int = 1000
    authorized_keys: tuple[str, ...] = ()


class HomeSettings(_Part, frozen=True, kw_only=True):
    volume: str = HOME
    path: str = ""  # "": /home/<user>


class DevSettings(_Part, frozen=True, kw_only=True):
    image: str = ""
    command: tuple[str, ...] = ()


class RolloutSettings(_Part, frozen=True, kw_only=True):
    timeout: str = "5m"
    monitor: str = "5s"


class VerifySettings(_Part, frozen=True, kw_only=True):
    match: str
    key: str


class ServeSettings(_Part, frozen=True, kw_only=True):
    listen: str
    allow: tuple[str, ...]
    limit: str = ""


class PullSettings(_Part, frozen=True, kw_only=True):
    limit: str = ""
    parallel: int = 2
    patience: str = "24h"
    keep: str = "2G"
    peers: tuple[str, ...] = ()
    serve: ServeSettings | None = None
    verify: tuple[VerifySettings, ...] = ()


class BackupHook(_Part, frozen=True, kw_only=True):
    service: str
    command: tuple[str, ...]
    user: str = ""
    timeout: str = "1h"


class KeepSettings(_Part, frozen=True, kw_only=True):
    """How many snapshots restic keeps of each kind; 0: none for that reason."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0


class BackupSettings(_Part, frozen=True, kw_only=True):
    to: str
    env_file: str
    schedule: str = "@daily"
    keep: KeepSettings | None = None  # None: all
    stop: tuple[str, ...] = ()
    before: tuple[BackupHook, ...] = ()
    after: tuple[BackupHook, ...] = ()
    ssh_key: str = ""
    known_hosts: tuple[str, ...] = ()


class MailSettings(_Part, frozen=True, kw_only=True):
    to: tuple[str, ...]
    sender: str = msgspec.field(name="from")
    server: str


class NotifySettings(_Part, frozen=True, kw_only=True):
    ntfy: str = ""
    webhook: str = ""
    mail: MailSettings | None = None
    env_file: str = ""


class MetricsSettings(_Part, frozen=True, kw_only=True):
    listen: str = "127.0.0.1:9180"
    allow: tuple[str, ...] = ()  # whoever comes to a loopback address may ask


class WebSettings(_Part, frozen=True, kw_only=True):
    listen: str
    names: tuple[str, ...] = ()  # besides addresses


class MachineSettings(_Part, frozen=True, kw_only=True):
    hostname: str = ""
    ssh: SshSettings | None = None
    home: HomeSettings | None = None
    dev: DevSettings | None = None
    rollout: RolloutSettings | None = None
    timezone: str = ""  # of schedules; "": UTC
    pull: PullSettings | None = None
    shared: tuple[str, ...] = ()
    backup: dict[str, BackupSettings] = {}  # by volume
    notify: NotifySettings | None = None
    metrics: MetricsSettings | None = None
    web: WebSettings | None = None


class OrchestratorSettings(_Part, frozen=True, kw_only=True):
    grants: Grants = Grants()


class ServiceSettings(_Part, frozen=True, kw_only=True):
    health_gate: bool = True
    schedule: str = ""  # "": none
    ambassador: Settings | None = None
    orchestrator: OrchestratorSettings | None = None


def merge(lower: Any, upper: Any, key: str = "") -> Any:
    """Mappings key by key, lists appended without duplicates, else the upper value unless it is null.

    `!reset` takes the key away, `!override` replaces it.
    """
    if isinstance(upper, Override):
        return merge(None, upper.value)
    if isinstance(upper, dict):
        merged = dict(lower) if isinstance(lower, dict) else {}
        for name, value in upper.items():
            merged[str(name)] = merge(merged.get(str(name)), value, str(name))
        return {name: value for name, value in merged.items() if value is not Reset}
    if isinstance(upper, list):
        entries = [entry for entry in (merge(None, entry) for entry in upper) if entry is not Reset]
        kept = lower if isinstance(lower, list) and key not in _REPLACED else []
        return kept + [entry for entry in entries if entry not in kept]
    return lower if upper is None else upper


def with_empty_sections(section: Any) -> Any:
    """An empty `ssh:` means `ssh: {}`, as `volumes: {data:}` does for Compose."""
    if not isinstance(section, dict):
        return {} if section is None else section
    sections = {"ssh", "home", "dev", "rollout", "pull", "metrics", "web"}
    return {name: {} if value is None and name in sections else value for name, value in section.items()}


def findings(machine: MachineSettings) -> Iterator[Finding]:
    """Values of the right type that are invalid."""
    if machine.hostname and not re.fullmatch(_HOSTNAME, machine.hostname, re.IGNORECASE):
        yield _finding("hostname", f"{machine.hostname!r} is not a host name", "letters, digits and -, at most 64")
    if machine.ssh:
        yield from _ssh(machine.ssh)
    if home := machine.home:
        if not re.fullmatch(_VOLUME, home.volume):
            yield _finding("home.volume", f"{home.volume!r} is not a volume name", "letters, digits, _ . and -")
        if home.path and (posixpath.normpath(home.path) != home.path or not re.match(r"/[^/\s:]", home.path)):
            yield _finding("home.path", f"{home.path!r} is not a directory", "an absolute path such as /home/dom0")
    if machine.rollout:
        yield from _rollout(machine.rollout)
    if machine.timezone and not _is_timezone(machine.timezone):
        hint = "such as Europe/Berlin: a file of the package tzdata, below /usr/share/zoneinfo"
        yield _finding("timezone", f"{machine.timezone!r} is not a time zone", hint)
    yield from _pull(machine.pull or PullSettings())
    yield from _data(machine)
    yield from _told(machine)


def _told(machine: MachineSettings) -> Iterator[Finding]:
    """Of what others hear of it, and see."""
    if machine.notify:
        yield from notify_findings(machine.notify)
    if metrics := machine.metrics:
        yield from _listening("metrics", metrics.listen, metrics.allow, may_be_loopback=True)
    if web := machine.web:
        yield from _listening("web", web.listen, ("::/0",))  # whoever comes: who looks is a device that was paired
        for number, name in enumerate(web.names):
            if not re.fullmatch(_HOSTNAME, name, re.IGNORECASE):
                yield _finding(f"web.names.{number}", f"{name!r} is not a host name", "such as box.lan")


def _data(machine: MachineSettings) -> Iterator[Finding]:
    for number, entry in enumerate(machine.shared):
        if not re.fullmatch(_VOLUME, entry) and (not entry.startswith("/") or posixpath.normpath(entry) != entry):
            hint = "the key or name of a volume, or an absolute path such as /srv/media"
            yield _finding(f"shared.{number}", f"{entry!r} is neither a volume nor a directory", hint)
    for name, backup in machine.backup.items():
        yield from _backup(name, backup)


def files_of(machine: MachineSettings | None) -> Iterator[tuple[KeyPath, str]]:
    """The secret files of the project that it names, and the keys that do."""
    for name, backup in machine.backup.items() if machine else ():
        for key, path in (("env_file", backup.env_file), ("ssh_key", backup.ssh_key)):
            if path:
                yield (KEY, "backup", name, key), path.removeprefix("./")
    if machine and machine.notify and machine.notify.env_file:
        yield (KEY, "notify", "env_file"), machine.notify.env_file.removeprefix("./")


def service_findings(name: str, own: ServiceSettings) -> Iterator[Finding]:
    if own.schedule:
        yield from _schedule(("services", name, KEY, "schedule"), own.schedule)
    if own.ambassador is None:
        return
    try:
        declare(own.ambassador)
    except Misdeclared as wrong:
        for flaw in wrong.flaws:
            yield Finding(("services", name, KEY, "ambassador", *flaw.steps), flaw.what, flaw.hint)


def _ssh(ssh: SshSettings) -> Iterator[Finding]:
    if not 1 <= ssh.port <= 65535:
        yield _finding("ssh.port", f"{ssh.port} is not a port", "1 to 65535, 2222 unless you say otherwise")
    if not re.fullmatch(_USER, ssh.user) or ssh.user == "root":
        yield _finding("ssh.user", f"{ssh.user!r} cannot be the user", "lowercase letters, digits, - and _")
    if not 1 <= ssh.uid < 2**31:
        yield _finding("ssh.uid", f"{ssh.uid} cannot be the user's ID", "1000 unless you say otherwise")
    for number, key in enumerate(ssh.authorized_keys):
        if not re.fullmatch(_SSH_KEY, key):
            hint = "one line as in ~/.ssh/id_ed25519.pub: ssh-ed25519 AAAA… you@there"
            yield _finding(f"ssh.authorized_keys.{number}", "this is not an SSH public key", hint)


def _is_timezone(name: str) -> bool:
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(name)
    except (ValueError, KeyError, OSError):
        return False
    return True


def _rollout(rollout: RolloutSettings) -> Iterator[Finding]:
    times = {}
    for name in ("timeout", "monitor"):
        text = getattr(rollout, name)
        try:
            times[name] = seconds(text)
        except ValueError:
            yield _finding(f"rollout.{name}", f"{text!r} is not a duration", "such as 90s, 5m or 1m30s")
    if len(times) < 2:
        return
    if times["timeout"] <= 0:
        yield _finding("rollout.timeout", "a rollout needs some time", "5m unless you say otherwise")
    elif not 0 <= times["monitor"] <= times["timeout"]:
        yield _finding("rollout.monitor", "has to be between 0s and the timeout", "5s unless you say otherwise")


def _pull(pull: PullSettings) -> Iterator[Finding]:
    if pull.limit and _bytes(pull.limit) <= 0:
        yield _finding("pull.limit", f"{pull.limit!r} is no number of bytes a second", "such as 100k or 1.5M")
    if not 1 <= pull.parallel <= _MOST_PARALLEL:
        yield _finding("pull.parallel", f"{pull.parallel} connections are not possible", f"1 to {_MOST_PARALLEL}")
    if not _is_time(pull.patience):
        yield _finding("pull.patience", f"{pull.patience!r} is no time to wait", "24h unless you say otherwise")
    if _bytes(pull.keep) < 0:
        yield _finding("pull.keep", f"{pull.keep!r} is not a size", "2G unless you say otherwise")
    if pull.peers or pull.serve:
        yield from _shared(pull)
    for number, entry in enumerate(pull.verify):
        if not entry.match:
            yield _finding(f"pull.verify.{number}.match", "matches no image", "such as registry.example/team/*")
        yield from _file((KEY, "pull", "verify", str(number), "key"), entry.key, "keys/team.pub")


def _file(path: KeyPath, name: str, example: str) -> Iterator[Finding]:
    if posixpath.normpath(name) != name or name.startswith(("/", "..")) or name == ".":
        yield Finding(path, f"{name!r} is no file of this directory", f"one below it, such as {example}")


def _schedule(path: KeyPath, text: str) -> Iterator[Finding]:
    from dom0.schedule import parse  # few projects have one

    try:
        parse(text)
    except ValueError as error:
        yield Finding(
            path, str(error), "minute hour day month weekday, as in `30 3 * * mon-fri`; @daily; or `every 6h`"
        )


def _backup(name: str, backup: BackupSettings) -> Iterator[Finding]:
    path: KeyPath = (KEY, "backup", name)
    yield from _backup_target((*path, "to"), backup)
    yield from _file((*path, "env_file"), backup.env_file.removeprefix("./"), "backup.env")
    if backup.ssh_key:
        yield from _file((*path, "ssh_key"), backup.ssh_key.removeprefix("./"), "backup.key")
    yield from _schedule((*path, "schedule"), backup.schedule)
    if backup.keep is not None:
        numbers = [getattr(backup.keep, field) for field in backup.keep.__struct_fields__]
        if not any(numbers) or min(numbers) < 0:
            hint = "such as {daily: 7, weekly: 4}; without keep all are kept"
            yield Finding((*path, "keep"), "it keeps no snapshot", hint)
    for key, hooks in (("before", backup.before), ("after", backup.after)):
        for number, hook in enumerate(hooks):
            if not hook.command:
                yield Finding(
                    (*path, key, str(number), "command"), "there is no command", "such as [sh, -c, ./dump.sh]"
                )
            if not _is_time(hook.timeout):
                what = f"{hook.timeout!r} is no time to wait"
                yield Finding((*path, key, str(number), "timeout"), what, "1h unless you say otherwise")


def _backup_target(path: KeyPath, backup: BackupSettings) -> Iterator[Finding]:
    by_ssh = backup.to.startswith("sftp:")
    if re.match(r"rest:https?://[^/@]*:[^/@]*@", backup.to):
        hint = "write RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD into its env_file"
        yield Finding(path, "there is a password in it", hint)
    elif not re.fullmatch(_BACKUP_TARGET, backup.to) or posixpath.normpath(backup.to) == "/":
        hint = (
            "a directory of the host as /srv/backup, sftp:USER@HOST:/PATH, s3:https://HOST/BUCKET, rest:https://HOST/"
        )
        yield Finding(path, f"{backup.to!r} is no place for backups", hint)
    elif by_ssh and not (backup.ssh_key and backup.known_hosts):
        hint = "the file with the key as ssh_key, and the lines that `ssh-keyscan HOST` prints as known_hosts"
        yield Finding(path, "sftp: needs a key, and the host's", hint)
    elif not by_ssh and (backup.ssh_key or backup.known_hosts):
        yield Finding(path, "ssh_key and known_hosts go with sftp: only", "leave them out")


def notify_findings(notify: NotifySettings) -> Iterator[Finding]:
    for key, url, example in (
        ("ntfy", notify.ntfy, "https://ntfy.sh/TOPIC"),
        ("webhook", notify.webhook, "https://example.org/hook; one that is secret is WEBHOOK_URL=… in an env_file"),
    ):
        if url and not re.fullmatch(r"https?://[^\s/@]+(/\S*)?", url):
            yield _finding(f"notify.{key}", f"{url!r} is not http(s)://HOST/…, without a login", f"such as {example}")
    if notify.env_file:
        yield from _file((KEY, "notify", "env_file"), notify.env_file.removeprefix("./"), "notify.env")
    elif not (notify.ntfy or notify.webhook or notify.mail):
        yield _finding("notify", "nobody is told", "name ntfy, webhook or mail, or an env_file with WEBHOOK_URL=…")
    if (mail := notify.mail) is not None:
        if not re.fullmatch(r"[a-zA-Z0-9.-]+(:\d{1,5})?", mail.server):
            yield _finding(
                "notify.mail.server", f"{mail.server!r} is no server", "HOST or HOST:PORT, as smtp.example.org:587"
            )
        if not mail.to:
            yield _finding("notify.mail.to", "nobody gets it", "such as [me@example.org]")
        for key, address in (("from", mail.sender), *(("to", address) for address in mail.to)):
            if not re.fullmatch(r"[^\s,<>@]+@[^\s,<>@]+", address):
                yield _finding(f"notify.mail.{key}", f"{address!r} is no address", "such as me@example.org")


def _shared(pull: PullSettings) -> Iterator[Finding]:
    from dom0.registry.listening import read_address  # few projects have one

    for number, entry in enumerate(pull.peers):
        try:
            read_address(entry)
        except ValueError as error:
            yield _finding(f"pull.peers.{number}", str(error), "as 192.168.1.5:5050, or [fd00::5]:5050")
    if pull.serve is None:
        return
    yield from _listening("pull.serve", pull.serve.listen, pull.serve.allow)
    if pull.serve.limit and _bytes(pull.serve.limit) <= 0:
        yield _finding("pull.serve.limit", f"{pull.serve.limit!r} is no number of bytes a second", "such as 2M")


def _listening(path: str, listen: str, allow: tuple[str, ...], *, may_be_loopback: bool = False) -> Iterator[Finding]:
    """`may_be_loopback`: nobody needs to be named who may ask there."""
    from dom0.registry.listening import read_address, read_networks  # few projects have one

    is_loopback = False
    try:
        address = ip_address(read_address(listen)[0])
        is_loopback = may_be_loopback and address.is_loopback
    except ValueError:
        hint = "an address of this machine, as 192.168.1.5:5050, or 0.0.0.0:5050 for all that it has"
        yield _finding(f"{path}.listen", f"{listen!r} is not ADDRESS:PORT", hint)
    hint = "addresses and networks of your machines, such as 192.168.1.0/24"
    if not allow and not is_loopback:
        yield _finding(f"{path}.allow", "nobody may ask", hint)
    for number, entry in enumerate(allow):
        try:
            read_networks([entry])
        except ValueError:
            yield _finding(f"{path}.allow.{number}", f"{entry!r} is neither an address nor a network", hint)


def _is_time(duration: str) -> bool:
    try:
        return seconds(duration) > 0
    except ValueError:
        return False


def _bytes(size: str) -> int:
    """-1: it is none."""
    try:
        return sizes.parse(size)
    except ValueError:
        return -1


def _finding(dotted: str, what: str, hint: str) -> Finding:
    path: KeyPath = (KEY, *dotted.split("."))
    return Finding(path, what, hint)
