// What boots went through, stage by stage, and how one differs from another.

import { h } from "/dom.js";
import { card, cmd, isOld, picker, state } from "/parts.js";
import { moment } from "/words.js";
import { Asked, get } from "/wire.js";

const EVERY = 10_000; // milliseconds between two times that they are asked for
const WIDTH = 320; // of the drawing of a stage

export function askForBoots(changed) {
  return new Asked(() => get("/v1/boots"), EVERY, changed);
}

const began = (boot) => -(boot.firmware ?? 0);
const seconds = (number) => `${number.toFixed(2)} s`;
const ready = (boot) => (boot.ready === null ? null : boot.ready - began(boot));

/** Stage -> how long all of that name took. */
function totals(boot) {
  const sums = new Map();
  for (const stage of boot?.stages ?? []) sums.set(stage.name, (sums.get(stage.name) ?? 0) + stage.seconds);
  return sums;
}

function more(now, before) {
  if (before === undefined) return h("span.mute", null, "–");
  const by = now - before;
  const shown = `${by < 0 ? "−" : "+"}${Math.abs(by).toFixed(2)} s`;
  return Math.abs(by) < 0.005 ? h("span.mute", null, "the same") : h(by < 0 ? "span.ok" : "span.bad", null, shown);
}

function bar(stage, boot, longest) {
  const scale = (time) => ((time - began(boot)) / longest) * WIDTH;
  return h("svg.bar", { viewBox: `0 0 ${WIDTH} 12`, preserveAspectRatio: "none", "aria-hidden": "true" },
    h(`rect.${stage.name === boot.slowest ? "slowest" : "stage"}`, { x: scale(stage.began).toFixed(1), y: 1, width: Math.max(1, scale(stage.ended) - scale(stage.began)).toFixed(1), height: 10, rx: 3 }));
}

function stages(boot, beside, all) {
  const before = totals(beside);
  const longest = Math.max(0.01, ...boot.stages.map((stage) => stage.ended - began(boot)));
  const gone = [...before.keys()].filter((name) => !boot.stages.some((stage) => stage.name === name));
  const others = all.filter((one) => one !== boot).map((one) => String(one.number));
  return card(`Boot ${boot.number}`, { key: "boot", sub: boot.running ? "this machine is in it" : "", right: [cmd(`boot ${boot.number}`), " ", beside && cmd(`boot --compare ${beside.number} ${boot.number}`)] },
    h("div.tools", null, ready(boot) === null ? state(["△", "warn"], "it has not become ready") : h("span", null, "ready after ", h("b", null, seconds(ready(boot))), beside && ready(beside) !== null ? [" (", more(ready(boot), ready(beside)), ")"] : null),
      others.length > 0 && h("label", null, "beside boot ", picker("boot", others, String(beside?.number)))),
    h("table.wide.stages", null,
      h("thead", null, h("tr", null, ["stage", "", "from", "took", beside ? `than in boot ${beside.number}` : ""].map((title) => title === "" ? h("td") : h("th", { scope: "col" }, title)))),
      h("tbody", null, boot.stages.map((stage) => h("tr", null,
        h("th", { scope: "row" }, stage.name, stage.name === boot.slowest && h("span.tag", null, "slowest"), stage.text && h("small", null, stage.text)),
        h("td", null, bar(stage, boot, longest)),
        h("td.n", { "data-title": "from" }, seconds(stage.began - began(boot))),
        h("td.n", { "data-title": "took" }, seconds(stage.seconds)),
        h("td.n", { "data-title": "difference" }, beside ? more(totals(boot).get(stage.name), before.get(stage.name)) : ""))))),
    gone.length > 0 && h("p.more", null, `Only in boot ${beside.number}: `, gone.map((name) => `${name} ${seconds(before.get(name))}`).join(", ")),
    boot.troubles.length > 0 && h("ul.plain", null, boot.troubles.map((it) => h("li.bad", null, `after ${seconds(it.at - began(boot))}: ${it.text}`))),
    boot.firmware === null && h("p.more", null, "Times are from the kernel's start: this machine does not tell how long its firmware took."));
}

export function boots({ asked, chosen, picked, now }) {
  const all = asked?.found;
  const old = isOld(asked);
  if (!all) return card("Boots", { right: cmd("boot --last 20") }, old || h("p.empty", null, "asking…"));
  if (!all.length) return card("Boots", { right: cmd("boot --last 20") }, old, h("p.empty", null, "There is no record of a boot: dom0's base OS keeps one, and the launcher on another host."));
  const boot = all.find((one) => one.number === chosen) ?? all.at(-1);
  const earlier = all[all.indexOf(boot) - 1] ?? all.find((one) => one !== boot);
  const beside = all.find((one) => one !== boot && String(one.number) === picked.get("boot")) ?? earlier;
  return h("div.columns", null,
    h("div.column", null, stages(boot, beside, all)),
    h("div.column", null, card("Boots", { right: cmd("boot --last 20") }, old,
      h("table", null, h("thead", null, h("tr", null, ["boot", "recorded", "ready after", "slowest"].map((title) => h("th", { scope: "col" }, title)))),
        h("tbody", null, all.toReversed().map((one) => h("tr", { "data-key": one.number },
          h("th", { scope: "row" }, h("a", { href: `#/boots/${one.number}`, "aria-current": one === boot ? "true" : null }, one.number), one.running && h("span.tag", null, "now")),
          h("td", null, moment(one.written, now)),
          h("td", null, ready(one) === null ? h("span.warn", null, "not ready") : seconds(ready(one))),
          h("td", null, one.slowest))))))));
}
