"""What everything of dom0 is called: images, containers, directories, sockets. Labels are in plan/labels.py.

Imports nothing of dom0, and little else: the quickest commands load it.
"""

from __future__ import annotations

import os
from enum import IntEnum
from pathlib import Path

IMAGE = "dom0:latest"  # of the machine
BASE_IMAGE = "dom0-base"  # below it: the agent, the login, the programs of both
ROOTFS_IMAGE = "dom0-rootfs"  # below that: Debian
AMBASSADOR_IMAGE = "dom0-ambassador"
KEPT_IMAGES = "dom0-kept"  # the repository of tags that only keep an image from being pruned

ROOT = "dom0"  # the root container, with the agent in it
HANDOVER = "dom0-handover"  # puts one root container in the place of another
FAILED = "dom0-failed"  # a root container that did not answer, kept for its log
SSHD = "dom0-sshd"
BACKUP_JOB = "dom0-backup-"  # the job that backs up a volume, whose key in the project follows
HOME = "home-volume"  # the container that mounts the home, and the volume unless the project names another
OURS = (ROOT, SSHD, HOME)
"""Names that no service may have."""

LABELS = "dom0."  # in front of the labels of all that is ours
ENGINE_SOCKET = "/var/run/docker.sock"  # on the host
ENGINE_SOCKET_INSIDE = "/run/docker.sock"  # in a container: /var/run may be a link, see DockerEngine.put_archive
STATE = "/var/lib/dom0"  # what the agent keeps
BACKUPS = f"{STATE}/backups"  # what is known of the backups of volumes
PLACED = Path(STATE, "project")  # where it puts the project's files
RUN = "/run/dom0"  # its socket
WEB_SOCKET = "web/agent.sock"  # below, alone there, for the process that has the page on the network
WEB_USER = 61000  # its uid and gid, which no package and no systemd gives to anybody
SCOPES = f"{RUN}/scopes"  # the sockets of scopes
SCOPE_NAME = r"[a-z0-9][a-z0-9_-]{0,30}"  # what each of their names matches
SCOPED_IMAGES = "dom0.invalid"  # in front of the names in the Engine of their images
CGROUPS = "/sys/fs/cgroup"
CGROUPS_INSIDE = "/host/sys/fs/cgroup"  # those of the host, in a container that was given them
MIRROR = "127.0.0.1:15050"  # of docker.io, for the Engine of this machine; no service is likely to want that port
ETC = "/etc/dom0"  # where a dom0 image keeps its project
HOME_SNAPSHOTS = "home-snapshots"  # in the state directory, of the home, for this machine alone: a restic repository
FARM_SOCKET = "server.sock"  # in `FarmDirectory.reach`: asks its server for the Engine of a node
IN_PLACE_FILE = "in-place.json"  # in the state directory, see agent/in_place
MEMORY_FILE = "memory.json"  # in the state directory: what the agent remembers for the next one
FARM_FILE = "farm.json"  # in the state directory, of a machine that is in a farm, or waits to be
HOST_ROOT = Path("/proc/1/root")  # of the host, as the root container sees it
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # of this boot, a UUID
PROGRAM = "/usr/bin/dom0"  # in containers of dom0-base
OS_VERSION = Path("/etc/dom0-os")  # the file in which the base OS says its version


class Access(IntEnum):
    """What is answered on one of the agent's sockets, each of which answers what the ones before it do."""

    VIEW = 0  # what changes nothing, and tells no variables and no contents of files
    OPERATE = 1  # what makes of the machine nothing but what it was, stops and starts services, rewires within it
    ALL = 2

    @property
    def socket(self) -> str:
        return ("view.sock", "operate.sock", "dom0.sock")[self]


def state_directory() -> Path:
    return _directory("DOM0_STATE", STATE)


def run_directory() -> Path:
    return _directory("DOM0_RUN", RUN)


def scopes_directory() -> Path:
    return run_directory() / "scopes"


def pull_directory() -> Path:
    """Where what comes from registries is kept until the Engine has it: root's is the agent's too."""
    if os.geteuid() == 0:
        return state_directory() / "pull"
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "dom0" / "pull"


def cache_directory() -> Path:
    """What is made again where it is missing; each user has one."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "dom0"


def etc_directory() -> Path:
    return _directory("DOM0_ETC", ETC)


def short_id(identifier: str) -> str:
    """An ID as docker shows it: twelve hex digits."""
    return identifier.removeprefix("sha256:")[:12]


def _directory(variable: str, default: str) -> Path:
    """Tests have theirs elsewhere; an empty variable is none."""
    return Path(os.environ.get(variable) or default)
