// What the machine was asked to be, what each one changed, and what going back would do.

import { h } from "/dom.js";
import { card, cmd, outcome } from "/parts.js";
import { age, moment, shortId } from "/words.js";
import { command } from "/wire.js";

/** `268435456` of a key that counts bytes reads `256 MiB`. */
function value(key, text) {
  if (/Memory|ShmSize/.test(key) && /^\d{5,}$/.test(text)) {
    const units = ["bytes", "KiB", "MiB", "GiB"];
    let size = Number(text);
    let unit = 0;
    while (size >= 1024 && size % 1024 === 0 && unit < units.length - 1) { size /= 1024; unit += 1; }
    return `${size} ${units[unit]}`;
  }
  return text;
}

function differences(found) {
  if (!found) return h("p.mute", null, "reading…");
  if (found.error) return h("p.mute", null, found.error);
  if (!found.list.length) return h("p.mute", null, "Its containers are asked for as by the one before it.");
  const subjects = Map.groupBy(found.list, (one) => one.subject);
  return h("div.difference", null, [...subjects].map(([subject, list]) =>
    h("div", { "data-key": subject }, h("h4", null, subject), list.map((one) => h("div.change", null,
      one.key === "" ? h(`span.${one.after ? "ok" : "bad"}`, null, one.after ? "+ new" : "− gone") : [
        h("span.key", null, one.key.replace(/^HostConfig\./, "")),
        one.before !== "" && h("del", null, value(one.key, one.before)), one.before !== "" && one.after !== "" && h("span.mute", { "aria-label": "becomes" }, "→"),
        one.after !== "" && h("ins", null, value(one.key, one.after))])))));
}

function plan(generation, found, now) {
  if (!found) return null;
  if (found.error) return h("p.plan", null, found.error);
  return h("div.plan", null,
    h("p", null, found.list.length ? `Going back to generation ${generation.number} would, as the machine was at ${moment(found.at, now)}:` : `Going back to generation ${generation.number} would have changed nothing at ${moment(found.at, now)}.`),
    h("table", null, h("tbody", null, found.list.map((one) => h("tr", null, h(`td.${one.action}`, null, one.action), h("td.mute", null, one.kind), h("th", { scope: "row" }, one.name), h("td.mute", null, one.reason))))),
    h("p.mute", null, "Data in volumes stays as it is. This page changes nothing; this command does it:"), cmd(`rollback ${generation.number}`));
}

export function generations({ history, now, details, chosen }) {
  return card("Generations", { sub: "newest first; the good ones can be gone back to", right: cmd("history") },
    h("ol.line.long", null, history.map((one) => {
      const open = chosen === one.number || one.current || details.has(`plan ${one.number}`);
      return h("li", { "data-key": one.number, id: `generation-${one.number}` },
        h(`span.dot.${one.current ? "current" : one.outcome}`, { "aria-hidden": "true" }, one.number),
        h("div.head", null, h("h3", null, `Generation ${one.number}`), outcome(one), one.current && h("span.tag", null, "runs now"),
          h("time.n", { datetime: new Date(one.created * 1000).toISOString(), title: `${age(now - one.created)} ago` }, moment(one.created, now))),
        h("p", null, one.cause, `, ${one.services} containers`, one.dom0_image && [", dom0 image ", h("code", null, shortId(one.dom0_image))]),
        one.back_at ? h("p", null, `The machine came back to it ${age(now - one.back_at)} ago: ${one.back_because}`) : null,
        one.reason && h("p.bad", null, one.reason),
        one.trial_until ? h("p", null, `On trial: goes back in ${age(one.trial_until - now)} unless confirmed. `, cmd("confirm")) : null,
        one.said.length ? h("details", null, h("summary", null, "What its services said last"), h("pre", { tabindex: "0" }, one.said.join("\n"))) : null,
        h("details", { open, "data-load": `differences ${one.number}` }, h("summary", null, "What it changed"), differences(details.get(`differences ${one.number}`))),
        !one.current && h("p.acts", null, h("button", { type: "button", "data-load": `plan ${one.number}`, "aria-label": `What going back to generation ${one.number} would do` }, "What going back would do"), " ", h("span.mute", null, command(`rollback --plan ${one.number}`))),
        plan(one, details.get(`plan ${one.number}`), now));
    })));
}
