// What the machine was asked to be, what each one changed, and what going back would do.

import { ask } from "/act.js";
import { h } from "/dom.js";
import { card, cmd, outcome, picker } from "/parts.js";
import { age, countdown, moment, shortId } from "/words.js";

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
  if (!found.said.length) return h("p.mute", null, "Its containers are asked for as by that one.");
  const subjects = Map.groupBy(found.said, (one) => one.subject);
  return h("div.difference", null, [...subjects].map(([subject, list]) =>
    h("div", { "data-key": subject }, h("h4", null, subject), list.map((one) => h("div.change", null,
      one.key === "" ? h(`span.${one.after ? "ok" : "bad"}`, null, one.after ? "+ new" : "− gone") : [
        h("span.key", null, one.key.replace(/^HostConfig\./, "")),
        one.before !== "" && h("del", null, value(one.key, one.before)), one.before !== "" && one.after !== "" && h("span.mute", null, h("span", { "aria-hidden": "true" }, "→"), h("span.hidden-text", null, "becomes")),
        one.after !== "" && h("ins", null, value(one.key, one.after))])))));
}

/** What a generation is compared with: the one that was picked, or the last before it that is kept, or ""; and what is asked for then (app.js: load). */
export function compared({ number }, history, picked) {
  const others = history.map((it) => it.number).filter((it) => it !== number).map(String);
  const wanted = picked.get(`differences ${number}`);
  const earlier = others.find((it) => Number(it) < number) ?? "";
  if (!earlier) others.push("");
  const before = others.includes(wanted) ? wanted : earlier;
  return { others, before, what: before ? `differences ${number} ${before}` : `differences ${number}` };
}

function comparison(one, { details, history, picked, chosen }) {
  const { others, before, what } = compared(one, history, picked);
  const words = before && Number(before) !== one.number - 1 ? `history --compare ${before} ${one.number}` : `history ${one.number}`;
  return h("details", { open: chosen === one.number || one.current, "data-load": what }, h("summary", null, "What it changed"),
    others[0] && h("p", null, h("label", null, "than in generation ", picker(`differences ${one.number}`, others, before)), " ", cmd(words)), differences(details.get(what)));
}

/** Of a generation that is not good yet: what is decided, and when. */
export function under(one, now) {
  if (one.trial_until) {
    return h("div.trial", { "data-key": "trial" },
      h("p", null, `Generation ${one.number} is on trial. It goes back${one.goes_back_to ? ` to generation ${one.goes_back_to}` : ""} in `, h("b", null, countdown(one.trial_until - now)), " unless it is confirmed."),
      h("p.acts", null, ask(`confirm ${one.number}`, "Keep it…", `Keep generation ${one.number}`), ask(`abort ${one.number} ${one.goes_back_to}`, "Go back now…"), " ", cmd("confirm"), " ", cmd("abort")));
  }
  if (one.outcome !== "pending" || !one.goes_back_to) return null;
  return h("div.trial", { "data-key": "trial" },
    h("p", null, `Generation ${one.number} is not good yet. If it does not become so, the machine goes back to generation ${one.goes_back_to}.`),
    h("p.acts", null, ask(`abort ${one.number} ${one.goes_back_to}`, "Go back now…"), " ", cmd("abort")));
}

export function generations(seen) {
  const { history, now } = seen;
  return card("Generations", { sub: "newest first; any of them can be gone back to", right: cmd("history") },
    h("ol.line.long", null, history.map((one) => {
      return h("li", { "data-key": one.number, id: `generation-${one.number}` },
        h(`span.dot.${one.current ? "current" : one.outcome}`, { "aria-hidden": "true" }, one.number),
        h("div.head", null, h("h3", null, `Generation ${one.number}`), outcome(one), one.current && h("span.tag", null, "runs now"),
          h("time.n", { datetime: new Date(one.created * 1000).toISOString(), title: `${age(now - one.created)} ago` }, moment(one.created, now))),
        h("p", null, one.cause, `, ${one.services} containers`, one.dom0_image && [", dom0 image ", h("code", null, shortId(one.dom0_image))]),
        one.back_at ? h("p", null, `The machine came back to it ${age(now - one.back_at)} ago: ${one.back_because}`) : null,
        one.reason && h("p.bad", null, one.reason),
        one.current && under(one, now),
        one.said.length ? h("details", null, h("summary", null, "What its services said last"), h("p", null, cmd(`history --json | jq -r '.[] | select(.number == ${one.number}).said[]'`)), h("pre", { tabindex: "0" }, one.said.join("\n"))) : null,
        comparison(one, seen),
        !one.current && h("p.acts", null, ask(`rollback ${one.number}`, "Go back…", `Go back to generation ${one.number}: what that would do`), " ", cmd(`rollback --plan ${one.number}`)));
    })));
}
