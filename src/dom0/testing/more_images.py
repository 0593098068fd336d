"""A machine without a network makes images of those that it was brought: what is typed in its login for that."""

from __future__ import annotations

IMAGES = ("dom0-rootfs", "dom0-base", "dom0:latest", "my-tools")

_COMPOSE = """\
name: {name}
x-dom0:
  ssh: {{port: {port}}}
  home: {{}}
  dev: {{image: "{dev}", command: ["true"]}}
  rollout: {{monitor: 1s, timeout: {timeout}s}}
"""
_BEGIN = """\
set -e
cd /home/dom0
mkdir tools plain box
printf 'FROM dom0-rootfs\\nRUN dpkg --list apt >/installed\\n' >tools/Dockerfile
docker build --quiet --network none --tag my-tools tools
cat >plain/compose.yaml <<'END'
{compose}END
dom0 up --wait plain
"""
_BY_DOCKERFILE = """\
cp plain/compose.yaml box
printf 'FROM dom0-base\\nRUN echo another >/etc/motd\\nCOPY compose.yaml /etc/dom0/\\n' >box/Dockerfile.dom0
dom0 up --wait box
"""
_END = """\
dom0 dev my-tools -- cat /installed
docker image inspect --format 'layers={{{{join .RootFS.Layers ","}}}}' {images}
"""


def compose(name: str, *, port: int, dev: str = "my-tools", timeout: int = 60) -> str:
    """A project with a login and an image to work in. `timeout`: seconds until its change is given up."""
    return _COMPOSE.format(name=name, port=port, dev=dev, timeout=timeout)


def script(project: str, *, by_dockerfile: bool) -> str:
    """Makes an image to work in on dom0-rootfs and a dom0 of `project`, a second one as a Dockerfile says; works in
    the first.
    """
    steps = (_BEGIN, _BY_DOCKERFILE, _END) if by_dockerfile else (_BEGIN, _END)
    return "".join(steps).format(compose=project, images=" ".join(IMAGES))


def check(said: str, *, generation: int) -> None:
    """Of what the script has said: an assertion fails unless all of it is there, made of what was brought."""
    assert f"generation {generation} is good" in said
    assert "ii  apt" in said
    found = [line.removeprefix("layers=").split(",") for line in said.splitlines() if line.startswith("layers=")]
    layers = dict(zip(IMAGES, found, strict=True))
    assert layers["dom0-base"][0] == layers["my-tools"][0] == layers["dom0-rootfs"][0]
    assert layers["dom0:latest"][:3] == layers["dom0-base"]
