"""Which module each command is, in the sections of the help."""

from __future__ import annotations

SECTIONS: dict[str, dict[str, str]] = {
    "Project": {
        "init": "dom0.cli.init",
        "build": "dom0.cli.build",
        "image": "dom0.cli.image",
    },
    "Machine": {
        "plan": "dom0.cli.plan",
        "up": "dom0.cli.up",
        "down": "dom0.cli.down",
        "try": "dom0.cli.trial",
        "confirm": "dom0.cli.confirm",
        "abort": "dom0.cli.abort",
        "history": "dom0.cli.history",
        "rollback": "dom0.cli.rollback",
        "files": "dom0.cli.files",
        "backup": "dom0.cli.backup",
    },
    "Look inside": {
        "status": "dom0.cli.status",
        "top": "dom0.cli.top",
        "web": "dom0.cli.web",
        "tree": "dom0.cli.tree",
        "events": "dom0.cli.events",
        "logs": "dom0.cli.logs",
        "exec": "dom0.cli.exec",
        "stop": "dom0.cli.stop",
        "start": "dom0.cli.start",
        "restart": "dom0.cli.restart",
        "ambassador": "dom0.cli.ambassador",
        "socket": "dom0.cli.socket",
    },
    "Home": {
        "dev": "dom0.cli.dev",
        "home": "dom0.cli.home",
        "ssh": "dom0.cli.ssh",
    },
    "Base OS": {
        "os": "dom0.cli.os",
    },
    "Farm": {
        "farm": "dom0.cli.farms",
    },
    "This host": {
        "boot": "dom0.cli.boot",
        "disk": "dom0.cli.disk",
        "install-host": "dom0.cli.install_host",
        "doctor": "dom0.cli.doctor",
        "version": "dom0.cli.version",
        "schema": "dom0.cli.schema",
        "completion": "dom0.cli.completion",
    },
}
HIDDEN = {
    "agent": "dom0.cli.agent",
    "backup-job": "dom0.cli.backup_job",
    "handover": "dom0.cli.handover",
    "notify-send": "dom0.cli.notify_send",
    "ps": "dom0.cli.status",
    "web-serve": "dom0.cli.web_serve",
}
MODULES = {name: module for section in SECTIONS.values() for name, module in section.items()} | HIDDEN
