// Where the data is: volumes, who mounts them, what is in no backup, snapshots of the home, and the room on disks.

import { ask } from "/act.js";
import { h } from "/dom.js";
import { backupJob, card, cmd, copied, isOld, isUnseen, state, time } from "/parts.js";
import { moment, size } from "/words.js";
import { Asked, get } from "/wire.js";

const EVERY = 2000; // milliseconds between two times that it is asked for

export function askForStorage(changed) {
  return new Asked(() => get("/v1/storage"), EVERY, changed);
}

/** What is known of the backup of a volume of the project. */
function backup(volume, status, now) {
  const one = (status.backups ?? []).find((it) => it.volume === volume.name);
  if (volume.kept_of) return [state(["▣", "quiet"], "kept"), h("small", null, `what was in ${volume.kept_of} before something was restored; to remove it: `, copied(`docker volume rm ${volume.name}`))];
  if (!one) return [state(["–", "quiet"], volume.declared ? "what an ambassador remembers" : "in none"), !volume.declared && h("small", null, "the project does not name it, so it cannot be in one")];
  if (!one.key) return [state(["△", "warn"], "in no backup"), h("small", null, "x-dom0.backup")];
  const { job, failed, under } = backupJob(one, status);
  return [failed ? state(["✕", "bad"], "the last run failed") : under ? state(["◐", "busy"], "under way") : !one.last ? state(["△", "warn"], "not yet") : one.complete ? state(["✓", "ok"], "backed up") : state(["△", "warn"], "some files could not be read"),
    h("small", null, one.last ? ["last ", time(one.last, now), ` ago, snapshot ${one.snapshot.slice(0, 8)}, `] : null, `to ${one.to}`, job?.next_run ? `, next at ${moment(job.next_run, now)}` : ""),
    failed ? h("small", null, failed, " ", cmd(`logs ${one.service}`)) : null,
    h("p.acts", null, !under && ask(`backup ${one.service} ${one.key}`, "Back up now…", `Back up ${one.key} now`), cmd(`backup restore ${one.key}`))];
}

function users(volume) {
  if (!volume.users.length) return h("span.mute", null, "nobody");
  return volume.users.map((user) => h("div", null, user.container, " ", h("code", null, user.path), user.writable ? null : h("span.mute", null, " read-only")));
}

function volumes({ volumes: all, others }, status, now) {
  const titles = ["volume", "backup", "mounted by", "size"];
  const sizeOf = (volume) => (status.backups ?? []).find((one) => one.volume === volume.name && one.last)?.size;
  return card("Volumes", { sub: `${all.length} of this machine`, right: [cmd("backup ls"), " ", copied("docker volume ls")] },
    all.length ? h("table.wide", null,
      h("thead", null, h("tr", null, titles.map((title) => h("th", { scope: "col" }, title)))),
      h("tbody", null, all.map((volume) => h("tr", { "data-key": volume.name },
        h("th", { scope: "row" }, volume.name, volume.is_home && h("span.tag", null, "home"), volume.driver !== "local" && h("small", null, volume.driver)),
        h("td", { "data-title": "backup" }, backup(volume, status, now)),
        h("td", { "data-title": "mounted by" }, users(volume)),
        h("td", { "data-title": "size" }, sizeOf(volume) === undefined ? h("span.mute", null, "not measured") : [size(sizeOf(volume)), h("small", null, "at its last backup")]))))) : h("p.empty", null, "Nothing here has a volume."),
    h("p.more", null, others > 0 && `${others} more on this Docker Engine have nothing to do with the project. `, "Who mounts one: ", copied("docker ps -a --filter volume=NAME"), ". Sizes of all as they are now, which takes a while: ", copied("docker system df -v")));
}

function home({ volumes: all, home_snapshots: count, last_home_snapshot: last }, now) {
  const volume = all.find((one) => one.is_home);
  return volume && card("Home", { sub: volume.name, right: cmd("home ls") },
    h("ul.plain", null,
      h("li", null, count ? [`${count} ${count === 1 ? "snapshot" : "snapshots"} on this machine, the last one `, time(last, now), " ago"] : state(["△", "warn"], "no snapshot on this machine")),
      h("li", null, h("span.mute", null, "keep it as it is now: "), cmd("home snapshot")),
      count > 0 && h("li", null, h("span.mute", null, "bring the last one back: "), cmd("home restore latest")),
      h("li", null, h("span.mute", null, "for another place: "), cmd("home backup home.backup"))));
}

function disks({ disks: all }) {
  return all.length > 0 && card("Room", { right: copied(`df -h ${all.map((one) => one.path).join(" ")}`) },
    h("ul.plain", null, all.map((one) => h("li", { "data-key": one.path }, h("code", null, one.path), ` ${size(one.free)} of ${size(one.size)} are free `,
      h("meter", { min: 0, max: one.size, value: one.size - one.free, "aria-label": `used of the disk with ${one.path}` })))));
}

export function storage({ asked, status, now }) {
  const found = asked?.found;
  const old = isOld(asked);
  if (!found) return card("Volumes", { right: cmd("backup ls") }, old || h("p.empty", null, "asking…"));
  return h("div.columns", null, h("div.column", null, old, isUnseen(status), volumes(found, status, now)), h("div.column", null, home(found, now), disks(found)));
}
