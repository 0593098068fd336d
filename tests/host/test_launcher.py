"""The launcher: dom0:latest, else the last good one, else the rescue container; killed and cut off anywhere."""

from __future__ import annotations

import hashlib
import random
import tarfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dom0.testing import api
from dom0.testing.hosts import CONTAINERD_STORE, Host
from dom0.testing.launcher import BROKEN, EXITS, HANGS, HEALTHY, UNCHECKED, Kind, Launcher, forget_stop
from dom0.testing.machines import docker_run


@pytest.fixture(scope="module", autouse=True)
def no_stop(session_host: Host) -> None:
    forget_stop(session_host)


@pytest.fixture
def machine(engine_host: Host) -> Iterator[Launcher]:
    made = Launcher(engine_host)
    yield made
    made.stop()
    engine_host.run(["rm", "-rf", "/run/dom0", "/var/lib/dom0/launcher"])


@pytest.fixture
def good(machine: Launcher) -> str:
    """The ID of an image that is good, on a machine that runs it: as soon as it is healthy, until the next start."""
    image = machine.image(HEALTHY)
    machine.start(DOM0_GOOD_AFTER="0")
    machine.until_good(image)
    return image


# start


def test_dom0_latest_is_started_and_remembered_as_good(machine: Launcher) -> None:
    image = machine.image(HEALTHY)
    machine.start()
    machine.until_good(image)
    assert machine.roots() == {"dom0": "running"}
    assert machine.id_of("dom0:last-good") == image
    assert machine.told() == {"runs": "latest", "image": image, "why": ""}
    stages = [line.split(" ")[0] for line in machine.record()]
    assert stages == ["engine", "image", "dom0", "healthy"]


def test_an_image_without_a_health_check_is_good_when_it_keeps_running(machine: Launcher) -> None:
    image = machine.image(UNCHECKED)
    machine.start()
    machine.until_good(image)


def test_any_shell_will_do(engine_host: Host) -> None:
    """A foreign host has no busybox."""
    machine = Launcher(engine_host, interpreter=("dash",))
    image = machine.image(HEALTHY)
    machine.start()
    machine.until_good(image)
    machine.stop()
    engine_host.run(["rm", "-rf", "/run/dom0", "/var/lib/dom0/launcher"])


def test_the_container_is_the_one_that_the_documented_command_makes(machine: Launcher, good: str) -> None:
    ours = settings(machine)
    machine.kill()
    machine.host.docker("rm", "--force", "dom0")
    machine.host.run(docker_run("dom0:latest"))
    assert ours == settings(machine)


def settings(machine: Launcher) -> dict[str, Any]:
    document = machine.container()
    document["Config"].pop("Hostname")  # its ID
    found = {key: document[key] for key in ("Name", "Image", "Config", "HostConfig", "Mounts")}
    found["HostConfig"]["Binds"].sort()  # docker lists them in any order
    found["Mounts"].sort(key=lambda mount: str(mount["Destination"]))
    return found


def test_what_runs_is_left_alone_when_the_launcher_starts(machine: Launcher, good: str) -> None:
    before = machine.container()
    for _ in range(3):
        machine.kill()
        machine.start()
        machine.until(lambda: machine.told()["runs"] == "latest")
    after = machine.container()
    assert (before["Id"], before["State"]["StartedAt"]) == (after["Id"], after["State"]["StartedAt"])


def test_it_waits_for_an_image_where_there_is_none(machine: Launcher) -> None:
    machine.start()
    assert machine.until_tells("nothing")["why"] == "there is no dom0 image"
    machine.until_good(machine.image(HEALTHY))


def test_an_image_that_is_none_of_dom0_is_not_run(machine: Launcher) -> None:
    machine.image(Kind(role="other"))
    machine.start()
    assert machine.until_tells("nothing")["why"] == "there is no dom0 image"
    assert "dom0" not in [row["Names"][0] for row in api.request(machine.host.socket, "GET", "/containers/json")]


def test_an_engine_that_cannot_say_which_images_it_has_is_not_one_without_images(
    fresh_host: Callable[..., Host],
) -> None:
    """Its containerd has ended, and it starts another one some seconds later; meanwhile it answers."""
    machine = Launcher(fresh_host(config=CONTAINERD_STORE))
    image = machine.image(HEALTHY)
    machine.host.run(["busybox", "killall", "-KILL", "containerd"])
    machine.start()
    machine.until_good(image)
    assert [line for line in machine.record() if line.startswith("problem")] == []
    machine.stop()


def test_an_image_that_the_engine_cannot_read_is_as_good_as_none(fresh_host: Callable[..., Host]) -> None:
    machine = Launcher(fresh_host(config=CONTAINERD_STORE))
    digest = machine.image(HEALTHY).removeprefix("sha256:")
    blobs = "/var/lib/docker/containerd/daemon/io.containerd.content.v1.content/blobs/sha256"
    machine.host.run(["rm", f"{blobs}/{digest}"])
    machine.start()
    machine.until_tells("nothing")
    machine.until_good(machine.image(HEALTHY))
    machine.stop()


def test_somebody_elses_container_of_that_name_is_not_touched(machine: Launcher) -> None:
    machine.host.docker("run", "--detach", "--name", "dom0", "busybox:test", "sleep", "100000")
    before = machine.container()["State"]["StartedAt"]
    machine.image(HEALTHY)
    machine.start()
    assert "none of dom0" in machine.until_tells("nothing")["why"]
    assert machine.container()["State"]["StartedAt"] == before


# a boot


def test_a_boot_goes_on_with_the_same_container(machine: Launcher, good: str) -> None:
    before = machine.container()["Id"]
    machine.reboot()
    machine.until_runs(good, "latest")
    assert machine.container()["Id"] == before


def test_a_boot_takes_up_a_new_dom0_latest(machine: Launcher, good: str) -> None:
    new = machine.image(HEALTHY)
    machine.reboot()
    machine.until_good(new)
    assert machine.running() == ["dom0"]
    assert machine.told()["runs"] == "latest"


def test_a_new_dom0_latest_waits_for_the_next_boot(machine: Launcher, good: str) -> None:
    machine.image(HEALTHY)
    machine.kill()
    machine.host.restart_engine()
    machine.start()
    machine.until_runs(good, "chosen")


def test_a_boot_keeps_what_somebody_else_has_put_in_the_place_of_dom0_latest(machine: Launcher, good: str) -> None:
    """A rollback: dom0:latest has run, and then dom0 was made from another image."""
    other = machine.image(HEALTHY, "dom0:other")
    machine.host.docker("rm", "--force", "dom0")
    machine.kill()
    machine.host.docker("rm", "--force", "dom0", check=False)
    machine.host.run(docker_run("dom0:other"))
    machine.reboot()
    machine.until_good(other)
    assert machine.told()["runs"] == "chosen"


# what does not work


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_dom0_latest_is_left_for_the_last_good_one(machine: Launcher, good: str, broken: str) -> None:
    bad = machine.image(BROKEN[broken])
    machine.reboot(DOM0_HEALTHY_WITHIN="10")
    machine.until_runs(good, "last-good")
    assert machine.told()["why"].startswith(f"dom0:latest {bad.removeprefix('sha256:')[:12]} ")
    assert machine.running() == ["dom0"]
    assert machine.container("dom0-failed")["Image"] == bad
    assert machine.id_of("dom0:latest") == bad
    assert [line for line in machine.record() if line.startswith("problem ")]


def test_what_failed_is_not_tried_again_at_the_next_boot(machine: Launcher, good: str) -> None:
    bad = machine.image(EXITS)
    machine.reboot()
    machine.until_runs(good, "last-good")
    machine.reboot()
    machine.until_runs(good, "last-good")
    assert machine.container("dom0-failed")["Image"] == bad
    better = machine.image(HEALTHY)
    machine.reboot()
    machine.until_good(better)
    assert machine.told()["why"] == ""


def test_failed_containers_do_not_pile_up(machine: Launcher, good: str) -> None:
    """Each boot brings another broken image; of each one container stays, as its image does."""
    for _ in range(3):
        machine.image(EXITS)
        machine.reboot()
        machine.until_runs(good, "last-good")
    assert len(machine.roots()) == 4
    for _ in range(2):
        machine.reboot()
        machine.until_runs(good, "last-good")
    assert len(machine.roots()) == 4


def test_a_name_that_is_gone_does_not_stop_a_boot(machine: Launcher, good: str) -> None:
    machine.host.docker("rm", "--force", "dom0")
    machine.kill()
    machine.host.docker("rm", "--force", "dom0", check=False)
    machine.host.docker("image", "rm", "dom0:latest")
    machine.reboot()
    machine.until_runs(good, "last-good")


def test_where_nothing_works_everything_is_tried_again(machine: Launcher) -> None:
    """Each time as fast as the first time: the Engine doubles its pause at each end, up to a minute."""
    machine.image(EXITS)
    machine.start(DOM0_RETRY="1")
    machine.until(lambda: machine.log().count("no dom0 image works") >= 4)
    machine.until_good(machine.image(HEALTHY))


def test_the_only_one_is_not_taken_away_when_it_is_slow(machine: Launcher) -> None:
    """It is healthy when a file is there, which comes long after it was given up."""
    image = machine.image(Kind(health="--interval=300ms --start-period=1h CMD test -e /var/lib/dom0/launcher/slow"))
    machine.start(DOM0_HEALTHY_WITHIN="3")
    machine.until_tells("nothing")
    before = machine.container()["State"]["StartedAt"]
    machine.host.path("/var/lib/dom0/launcher/slow").touch()
    machine.until_good(image)
    assert machine.container()["State"]["StartedAt"] == before
    machine.until_tells("latest")


@pytest.mark.parametrize(("seconds", "interval"), [(12, "300ms"), (9, "8s")], ids=["works", "waits for the next check"])
def test_one_that_is_not_done_with_its_start_has_time_for_it(machine: Launcher, seconds: int, interval: str) -> None:
    """By the clock its health check has failed long ago; its processor time says that it is not done, or has just been,
    and the next check is still to come.
    """
    work = f"timeout {seconds} sh -c 'while :; do :; done'; touch /started; exec sleep 1000"
    image = machine.image(Kind(("sh", "-c", work), health=f"--interval={interval} --retries=1 CMD test -e /started"))
    machine.start()
    machine.until(lambda: machine.container()["State"].get("Health", {}).get("Status") == "unhealthy")
    before = machine.container()["State"]["StartedAt"]
    machine.until_good(image)
    assert machine.container()["State"]["StartedAt"] == before
    assert [line for line in machine.record() if line.startswith("problem")] == []
    assert "is unhealthy" not in machine.log()


@pytest.mark.parametrize("work", ["while :; do :; done", "while :; do timeout 0.7 sh -c 'while :; do :; done'; done"])
def test_one_that_works_for_ever_has_no_more_than_that_time(machine: Launcher, work: str) -> None:
    """Itself, or by programs that it starts one after the other."""
    machine.image(Kind(("sh", "-c", work), health="--interval=300ms --retries=1 CMD false"))
    machine.start(DOM0_HEALTHY_WITHIN="6")
    machine.until_tells("nothing")
    assert [line for line in machine.log().splitlines() if "is unhealthy" in line] == []
    assert "was not healthy within 6 s" in machine.log()


def test_an_image_that_takes_the_machine_with_it_is_left_after_some_boots(machine: Launcher, good: str) -> None:
    bad = machine.image(HANGS)
    for _ in range(5):
        machine.reboot(crash=True)
        machine.until_runs(bad, "latest")
    machine.reboot(crash=True)
    machine.until_runs(good, "last-good")


# the image on the boot medium


def carry(machine: Launcher, kind: Kind) -> str:
    """An archive with a dom0:latest that the Engine does not have; returns its image's ID."""
    image = machine.image(kind)
    save(machine, "dom0:latest")
    machine.host.docker("image", "rm", "dom0:latest")
    return image


def save(machine: Launcher, *names: str) -> None:
    archive = machine.host.root / "medium/dom0/image.tar"
    archive.parent.mkdir(parents=True, exist_ok=True)
    machine.host.docker("save", "--output", str(archive), *names)


def boot_with_medium(machine: Launcher) -> None:
    machine.shut_down()
    machine.host.run(["mkdir", "-p", "/run/dom0/os"])
    machine.host.path("/run/dom0/os/contract").write_text("image=dom0/image.tar\n")
    machine.boot(DOM0_MEDIUM=str(machine.host.root / "medium"))


def test_the_image_of_the_medium_is_loaded_once(machine: Launcher) -> None:
    first = carry(machine, HEALTHY)
    boot_with_medium(machine)
    machine.until_good(first)
    assert [line for line in machine.record() if line.startswith(("engine", "image"))][1] == "images loaded"
    newer = machine.image(HEALTHY)
    boot_with_medium(machine)
    machine.until_good(newer)
    (machine.host.root / "medium/dom0/image.tar").touch()  # the same archive, copied once more
    boot_with_medium(machine)
    machine.until_runs(newer, "latest")
    assert [line for line in machine.record() if line.startswith("images")] == []


def test_another_image_on_the_medium_takes_the_name_and_the_one_before_keeps_one(machine: Launcher, good: str) -> None:
    new = carry(machine, HEALTHY)
    machine.host.docker("tag", good, "dom0:latest")
    boot_with_medium(machine)
    machine.until_good(new)
    assert machine.id_of("dom0:before-medium") == good


def test_a_load_that_was_cut_off_does_not_lose_the_image_before(machine: Launcher, good: str) -> None:
    new = carry(machine, HEALTHY)
    machine.host.docker("tag", good, "dom0:latest")
    archive = machine.host.root / "medium/dom0/image.tar"
    with tarfile.open(archive) as files:
        named = [files.extractfile(member) for member in files if member.name in ("manifest.json", "index.json")]
        manifests = b"".join(file.read() for file in named if file)
    boot_with_medium(machine)
    machine.until_good(new)
    # as if the power had gone after the name was set, and before that was written down
    digest = hashlib.sha256(manifests).hexdigest()
    machine.host.path("/var/lib/dom0/launcher/medium").unlink()
    machine.host.path("/var/lib/dom0/launcher/loading").write_text(f"{digest}\n")
    boot_with_medium(machine)
    machine.until(lambda: digest in machine.recall("medium"))
    machine.until(lambda: machine.recall("loading") == "")
    assert machine.id_of("dom0:before-medium") == good


def test_the_archive_may_have_other_images_or_one_of_another_name(machine: Launcher) -> None:
    image = machine.image(HEALTHY)
    save(machine, "busybox:test", "dom0:latest")
    machine.host.docker("image", "rm", "dom0:latest")
    boot_with_medium(machine)
    machine.until_good(image)
    other = machine.image(HEALTHY, "box:new")
    save(machine, "busybox:test", "box:new")
    boot_with_medium(machine)
    machine.until(lambda: any("has no dom0:latest" in line for line in machine.record()))
    machine.until_runs(image, "latest")
    save(machine, "box:new")
    boot_with_medium(machine)
    machine.until_good(other)


def test_a_damaged_archive_stops_nothing(machine: Launcher, good: str) -> None:
    (machine.host.root / "medium/dom0").mkdir(parents=True, exist_ok=True)
    (machine.host.root / "medium/dom0/image.tar").write_bytes(b"half of it")
    boot_with_medium(machine)
    machine.until_runs(good, "latest")
    assert [line for line in machine.record() if "cannot be loaded" in line]


# where containerd keeps the images, as in the base OS


def test_images_of_containerd_are_told_apart_too(fresh_host: Callable[..., Host]) -> None:
    machine = Launcher(fresh_host(config=CONTAINERD_STORE))
    image = machine.image(HEALTHY)
    machine.start()
    machine.until_good(image)
    machine.image(EXITS)
    machine.reboot()
    machine.until_runs(image, "last-good")
    new = carry(machine, HEALTHY)
    boot_with_medium(machine)
    machine.until_good(new)
    machine.stop()


# supervision


def test_a_crash_costs_a_restart_and_many_cost_the_image(machine: Launcher, good: str) -> None:
    new = machine.image(HEALTHY)
    machine.reboot(DOM0_GOOD_AFTER="600")
    machine.until_runs(new, "latest")
    killed: set[int] = set()
    while len(killed) < 3:
        pid = machine.until(lambda: machine.container()["State"]["Pid"])
        if pid not in killed:
            machine.host.run(["kill", "-9", str(pid)])
            killed.add(pid)
    machine.until_runs(good, "last-good")


def test_a_good_image_is_given_up_after_ten_ends(machine: Launcher, good: str) -> None:
    """Killed by a person each time, after which the Engine does not start it and makes no pauses."""
    for _ in range(10):
        before = machine.container()["State"]["StartedAt"]
        machine.host.docker("kill", "dom0")
        found = machine.until(lambda: machine.container()["State"]["Running"] and machine.container())
        assert found["State"]["StartedAt"] != before
    last = "problem no dom0 image works: the last one ended 10 times"
    machine.until(lambda: last in machine.record())
    problems = [line for line in machine.record() if line.startswith("problem ")]
    assert problems == [f"problem dom0 of image {good.removeprefix('sha256:')[:12]} ended 10 times", last]


def test_a_good_image_that_becomes_unhealthy_is_restarted_once_and_then_given_up(machine: Launcher) -> None:
    """It is unhealthy while a file is there. The Engine would leave it so."""
    ill = machine.host.path("/var/lib/dom0/launcher/ill")
    image = machine.image(Kind(health="--interval=300ms --retries=1 CMD sh -c '! test -e /var/lib/dom0/launcher/ill'"))
    machine.start(DOM0_LOOK_EVERY="1")
    machine.until_good(image)
    before = machine.container()["State"]["StartedAt"]
    ill.touch()
    assert machine.until_tells("nothing")["why"] == "no dom0 image works: the last one is unhealthy"
    assert machine.log().count("dom0 is unhealthy and is started again") == 1
    assert machine.container()["State"]["StartedAt"] != before
    ill.unlink()
    machine.until_runs(image, "latest")


def test_an_end_that_the_engine_missed_costs_a_restart(machine: Launcher) -> None:
    """Its containerd was down: it calls dom0 running, as which nobody has it."""
    image = machine.image(UNCHECKED)
    machine.start()
    machine.until_good(image)
    pid = machine.container()["State"]["Pid"]
    machine.host.kill_unnoticed(pid)
    machine.until(lambda: machine.container()["State"]["Pid"] not in (0, pid))
    machine.until_runs(image, "latest")
    assert "dom0 has ended, which the Engine did not notice" in machine.log()


def test_a_person_who_kills_or_removes_dom0_gets_it_back(machine: Launcher, good: str) -> None:
    for doing in (["kill"], ["rm", "--force"]):
        before = machine.container()["State"]["StartedAt"]
        machine.host.docker(*doing, "dom0")
        found = machine.until(lambda: machine.container()["State"]["Running"] and machine.container())
        assert found["State"]["StartedAt"] != before
        machine.until_runs(good, "latest")


def test_while_dom0_is_handed_over_it_waits_in_one_call_and_then_looks_again(machine: Launcher, good: str) -> None:
    machine.kill()
    machine.host.docker("run", "--detach", "--name", "dom0-handover", "busybox:test", "sleep", "100000")
    machine.start()
    machine.until(lambda: machine.host.run(["pgrep", "-f", "^docker wait dom0-handover"]))
    machine.host.docker("rm", "--force", "dom0")
    assert machine.host.run(["pgrep", "-f", "^docker wait dom0-handover"])
    assert machine.roots() == {}
    machine.host.docker("rm", "--force", "dom0-handover")
    machine.until_runs(good, "latest")


def test_a_removal_that_takes_its_time_is_no_fault_of_the_image(machine: Launcher, good: str) -> None:
    stays = machine.container()["GraphDriver"]["Data"]["UpperDir"] + "/stays"
    machine.host.run(["touch", stays])
    machine.host.run(["chattr", "+i", stays])
    try:
        machine.host.docker("rm", "--force", "dom0", check=False)
        machine.until(lambda: any(name.startswith(("dom0-prev", "dom0-aside")) for name in machine.roots()))
    finally:
        machine.host.run(["chattr", "-i", stays])
    machine.until_runs(good, "latest")
    assert not machine.recall("failed")


@pytest.mark.parametrize("also_removed", [False, True])
def test_a_person_who_stops_dom0_has_it_stopped(machine: Launcher, good: str, also_removed: bool) -> None:
    machine.host.docker("stop", "dom0")
    if also_removed:  # as `dom0 down` does
        machine.host.docker("rm", "dom0")
    machine.until_tells("stopped")
    machine.kill()
    machine.start()
    machine.until_tells("stopped")
    assert machine.running() == []
    if also_removed:
        machine.host.run(docker_run("dom0:latest"))
    else:
        machine.host.docker("start", "dom0")
    machine.until_runs(good, "latest")


def test_a_stop_holds_until_the_next_boot(machine: Launcher, good: str) -> None:
    machine.host.docker("stop", "dom0")
    machine.until_tells("stopped")
    machine.reboot()
    machine.until_runs(good, "latest")


# cut off


@pytest.mark.parametrize("seed", range(8))
def test_a_launcher_that_is_killed_anywhere_ends_with_one_root_container(
    machine: Launcher, good: str, seed: int
) -> None:
    """A new image is taken up, or given up, while the launcher and sometimes the machine end at random moments."""
    chance = random.Random(seed)  # noqa: S311 -- a test's choice
    works = chance.random() < 0.5
    new = machine.image(HEALTHY if works else EXITS)
    machine.reboot()
    for _ in range(chance.randrange(3, 8)):
        time.sleep(chance.random() * 2.0)
        if chance.random() < 0.2:
            machine.reboot(crash=chance.random() < 0.5)
        else:
            machine.kill()
            machine.start()
    wanted = new if works else good
    machine.until_good(wanted)
    machine.until(lambda: machine.running() == ["dom0"])
    assert {machine.id_of("dom0:latest"), machine.id_of("dom0:last-good")} == {new, wanted}
