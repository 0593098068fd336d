"""The labels that dom0 and Compose write. What carries them says that it is ours; `ownership` tells whether it is."""

from __future__ import annotations

import re

PROJECT = "dom0.project"  # name of the machine's project; on everything we create
ROLE = "dom0.role"  # see Role in plan/desired.py
SERVICE = "dom0.service"  # service name (also for sshd and home-volume, which have no Compose labels)
NUMBER = "dom0.number"  # 1, 2, … among the containers of one service
HASH = "dom0.hash"  # of everything that needs another container when it changes; the image is compared apart
PRE_STOP = "dom0.pre-stop"  # JSON, the hooks to run before it is stopped; empty for none (hooks)
CREATE = "dom0.create"  # the mark of one create call of ours (ownership): no two containers or networks have the same
GENERATION = "dom0.generation"  # the generation that created it, for `dom0 tree`
AWAITS = "dom0.awaits"  # "up" on a root container: its agent waits for the `dom0 up` that started it; empty: it could
BASE = "dom0.base"  # on a dom0 image: ID of the dom0-base image below it
COMPOSE = "dom0.compose"  # on a dom0-base image: version of the Docker Compose in it
INPUTS = "dom0.inputs"  # on an image of the chain: digest of everything it was made from
BUILDS = "dom0.builds"  # on a dom0 image: JSON, service image built with it -> its build context in the project
DOCKERFILE = "dom0.dockerfile"  # on a dom0 image: the project's Dockerfile that it was made with, empty for none
KEPT = "dom0.kept"  # on a dom0 image: JSON, what it holds of the project although .dockerignore leaves it out
IMAGES = "dom0.images"  # on a dom0 image: JSON, service image built with it -> its ID
IN_PLACE = "dom0.in-place"  # on a dom0 image: JSON, directories whose content stays where Docker Compose had it
PRIVATE = "dom0.private"  # on a dom0 image: JSON, what its project needs and it leaves out; see images/private.py
NEEDS = "dom0.needs"  # on a dom0 image: JSON, the images that its machine runs
HOME = "dom0.home"  # on a volume that a restore made: the volume it changed places with
BACKUP = "dom0.backup"  # on the job that backs up a volume: JSON, see plan/backups.BackupJob
ROOTFS_ID = "dom0.rootfs"  # on dom0-base: ID of the dom0-rootfs image below it
AMBASSADOR = "dom0.ambassador"  # on a container of a service that forwards connections, by x-dom0 or by its image
DEV_IMAGE = "dom0.dev.image"  # on the home-volume container: x-dom0.dev.image, for `dom0 dev`
DEV_COMMAND = "dom0.dev.command"  # on the home-volume container: x-dom0.dev.command as a JSON list

NO_PART = {PROJECT: "", ROLE: ""}  # hides the image's own: the container is no part of the machine

COMPOSE_PROJECT = "com.docker.compose.project"
COMPOSE_SERVICE = "com.docker.compose.service"
COMPOSE_NUMBER = "com.docker.compose.container-number"
COMPOSE_IMAGE = "com.docker.compose.image"
COMPOSE_HASH = "com.docker.compose.config-hash"
COMPOSE_REPLACE = "com.docker.compose.replace"
COMPOSE_NETWORK = "com.docker.compose.network"
COMPOSE_VOLUME = "com.docker.compose.volume"
COMPOSE_VERSION = "com.docker.compose.version"
COMPOSE_WORKING_DIR = "com.docker.compose.project.working_dir"
COMPOSE_CONFIG_FILES = "com.docker.compose.project.config_files"
COMPOSE_ONEOFF = "com.docker.compose.oneoff"
COMPOSE_DEPENDS_ON = "com.docker.compose.depends_on"


def compose_version(text: str) -> str:
    """Compose writes the numbers alone: `2.26.1` for `2.26.1-4`."""
    match = re.match(r"\d+\.\d+\.\d+", text)
    return match[0] if match else text
