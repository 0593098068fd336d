"""`dom0 farm tree`: what a farm is made of, by what its nodes said last."""

from __future__ import annotations

import time

import msgspec
from click.testing import CliRunner

from dom0.cli.commands import cli
from dom0.cli.farms.tree import FarmTree
from dom0.farms import nodes
from dom0.farms.directory import FarmDirectory
from dom0.farms.float_content import FloatProject
from dom0.farms.nodes import Firmware, MachineInfo, key_of
from dom0.farms.revisions import Blob, FarmImage, Floating, NodeReport, Revision, RoleContent, RoleState

FIRMWARE = Firmware(mac="52:54:00:00:00:03", uuid="00000000-0000-0000-0000-000000000003")


def content_of(digit: str) -> RoleContent:
    blob = Blob(digest=f"sha256:{digit * 64}", size=1)
    return RoleContent(image=FarmImage(reference="dom0:latest", manifest=blob, config=blob, layers=(blob,)))


def hear(farm: FarmDirectory, name: str, ago: float = 0.0, firmware: Firmware | None = None) -> str:
    """Returns the code."""
    said = (key_of(name), MachineInfo(hostname=name), "10.0.0.1", time.time() - ago, nodes.draw_code, firmware)
    return farm.change(lambda before: nodes.hear(before, *said)).code


def join(farm: FarmDirectory, name: str, role: str, ago: float = 0.0, firmware: Firmware | None = None) -> None:
    code = hear(farm, name, ago, firmware)
    farm.change(lambda before: nodes.approve(before, code, name, role))


def enroll(farm: FarmDirectory, name: str, role: str, report: NodeReport, ago: float = 0.0) -> None:
    join(farm, name, role, ago)
    hear(farm, name, ago)
    farm.put_report(key_of(name), report)


def show(farm: FarmDirectory, *options: str) -> str:
    done = CliRunner().invoke(cli, ["farm", "tree", "--dir", str(farm.path), *options])
    assert done.exit_code == 0, done.output
    return done.stdout


def good(content: RoleContent, revision: int) -> NodeReport:
    digest = content.digest
    return NodeReport(content=digest, fetched=digest, revision=revision, state=RoleState.GOOD, os="0.1.0-c653")


def fill(farm: FarmDirectory) -> None:
    """Two roles in two revisions; a node of each standing."""
    old, new = content_of("1"), content_of("2")
    farm.revise(lambda _known: Revision(number=1, made=1.0, roles={"web": old}))
    floating = Floating(projects={"blog": FloatProject(name="blog", files={}, services=())})
    farm.revise(lambda _known: Revision(number=2, made=2.0, roles={"web": new}, floating=floating))
    enroll(farm, "pi1", "web", good(new, 2))
    enroll(farm, "pi2", "web", good(old, 1))
    enroll(farm, "pi3", "web", good(new, 2), ago=3600.0)
    failed = NodeReport(content=new.digest, revision=2, state=RoleState.FAILED, reason="web is \x1b[31munhealthy")
    enroll(farm, "pi4", "web", failed)
    enroll(farm, "nas", "store", NodeReport())
    join(farm, "pi5", "web")
    join(farm, "pi6", "web", firmware=FIRMWARE)
    farm.change(lambda before: nodes.load(before, key_of("pi6"), key_of("ticket"), time.time()))
    hear(farm, "fresh")


def test_every_machine_is_below_its_role_and_the_line_says_why_it_is_not_ready(farm: FarmDirectory) -> None:
    fill(farm)
    found = msgspec.json.decode(show(farm, "--json"), type=FarmTree)
    assert (found.farm, found.revision, found.served) == ("attic", 2, False)
    assert [(one.hostname, one.state) for one in found.waiting] == [("fresh", "waiting")]
    store, web = found.roles
    assert (store.name, store.images, [node.standing for node in store.nodes]) == ("store", (), ["enrolled"])
    assert store.nodes[0].why == "no revision has its role"
    assert {node.machine.name: node.standing for node in web.nodes} == {
        "pi1": "ready",
        "pi2": "enrolled",
        "pi3": "enrolled",
        "pi4": "enrolled",
        "pi5": "approved",
        "pi6": "loading",
    }
    why = {node.machine.name: node.why for node in web.nodes}
    assert why["pi1"] == ""
    assert why["pi2"] == web.waits != ""
    assert why["pi3"].startswith("silent since ")
    assert why["pi4"].startswith("web is \x1b[31munhealthy; ")
    images = {node.machine.name: [image.id[7] for image in node.images] for node in web.nodes}
    assert images == {"pi1": ["2"], "pi2": ["1"], "pi3": ["2"], "pi4": [], "pi5": [], "pi6": []}
    assert [(one.name, one.services) for one in found.floating] == [("blog", ())]


def test_people_see_one_tree_and_nothing_that_moves_their_terminal(farm: FarmDirectory) -> None:
    fill(farm)
    code = next(node.code for node in farm.nodes().nodes if node.code)
    said = show(farm)
    lines = said.splitlines()
    assert lines[:3] == [
        "attic  revision 2, no server runs here: dom0 farm serve",
        f"├── fresh  waiting at 10.0.0.1: dom0 farm approve {code} --as NAME --role ROLE",
        "├── role store  no revision has it: dom0 farm up",
    ]
    assert lines[3].startswith("│   └── nas  enrolled, seen ")
    assert "│   ├── dom0:latest  222222222222" in lines
    assert any(line.startswith("│   ├── pi1  ready, revision 2 good, base OS 0.1.0-c653, seen ") for line in lines)
    (other,) = [at for at, line in enumerate(lines) if line.endswith("dom0:latest  111111111111")]
    assert lines[other - 1].startswith("│   ├── pi2  enrolled, revision 1 good")
    floating = lines.index("├── float blog  nothing of it is known to run")
    assert lines[floating + 1] == "└── Swarm mode"
    assert "    ├── pi1: has not said what it is in Swarm mode" in lines[floating + 2 :]
    assert "\x1b" not in said
    assert f"dom0:latest  sha256:{'2' * 64}" in show(farm, "--no-trunc")


def test_a_farm_without_anything_is_a_tree_too(farm: FarmDirectory) -> None:
    assert show(farm).splitlines() == [
        "attic  no revision: dom0 farm up, no server runs here: dom0 farm serve",
        "└── role web  no revision has it: dom0 farm up",
    ]
