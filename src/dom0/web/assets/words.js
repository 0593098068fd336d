// How states, times and sizes read. Pure.

/** How long: 40 s, 12 min, 5 h, 3 days. */
export function age(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 2 * 86400) return `${Math.floor(whole / 3600)} h`;
  return `${Math.floor(whole / 86400)} days`;
}

/** What is left: 0:07, 4:59, 1:02:03. */
export function countdown(seconds) {
  const whole = Math.max(0, Math.ceil(seconds));
  const two = (number) => String(number).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}:${two(whole % 60)}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`;
}

const CLOCK = new Intl.DateTimeFormat([], { timeStyle: "medium", hour12: false }); // a new one for each time is slow

export function clock(seconds) {
  return Number.isNaN(seconds) ? "?" : CLOCK.format(seconds * 1000); // it throws at what is no time
}

export function day(seconds) {
  return new Date(seconds * 1000).toLocaleDateString([], { weekday: "long", day: "numeric", month: "long", year: "numeric" });
}

export function moment(seconds, now) {
  const same = new Date(seconds * 1000).toDateString() === new Date(now * 1000).toDateString();
  return same ? clock(seconds) : new Date(seconds * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "medium", hour12: false });
}

/** Bytes: 4.6 kB, 1.3 GB. */
export function size(bytes) {
  const step = bytes < 1000 ? 0 : Math.min(4, Math.floor(Math.log10(bytes) / 3));
  return `${(bytes / 1000 ** step).toFixed(step ? 1 : 0)} ${["B", "kB", "MB", "GB", "TB"][step]}`;
}

export function shortId(id) {
  return id.replace(/^sha256:/, "").slice(0, 12);
}

/** Phase -> sign, kind of it. The sign is never alone: the word stands beside it. */
export const PHASES = {
  ready: ["●", "ok"],
  completed: ["✓", "quiet"],
  scheduled: ["◷", "quiet"],
  data: ["▣", "quiet"],
  created: ["○", "quiet"],
  waiting: ["◔", "busy"],
  starting: ["◐", "busy"],
  stopped: ["■", "quiet"],
  missing: ["✕", "bad"],
  unhealthy: ["▲", "bad"],
  failed: ["✕", "bad"],
  "crash-loop": ["✕", "bad"],
};

const WELL = ["ready", "completed", "scheduled", "data"];

export const OUTCOMES = {
  pending: ["◐", "busy"],
  trial: ["◷", "busy"],
  good: ["✓", "ok"],
  failed: ["✕", "bad"],
  expired: ["✕", "bad"],
  aborted: ["✕", "bad"],
  replaced: ["–", "quiet"],
};

const TROUBLE = /^(refused|step-refused|generation-(failed|expired|aborted)|container-(exited|oom)|give-up-container|engine-trouble|handover-failed|file-conflict|entries-lost)$/;
const CHANGES = /^(command|generation-|handover-|rewired|down|file-conflict)/;

/** What an event is about: its sign, and the filters that show it. */
export function sortOf(event) {
  const trouble = TROUBLE.test(event.kind) && !/exited with code 0$/.test(event.text);
  const person = /^uid /.test(event.actor ?? "");
  const change = CHANGES.test(event.kind);
  const sign = trouble ? "✕" : person ? "›" : event.kind === "generation-back" ? "↩" : /generation-(good|confirmed)|engine-back/.test(event.kind) ? "✓" : change ? "◆" : "↻";
  return { trouble, person, change, repair: !change && !trouble && !person, sign };
}

/** `is` one of ok, busy, bad, none; `title` the sentence, `rest` what else a person wants to know at once. */
export function headline(status, now) {
  const generation = status.generation;
  if (!generation) return { is: "none", title: "There is no generation yet", rest: "The first one comes with dom0 up." };
  const blind = status.problems.find((problem) => problem.subject === "engine");
  const errors = status.problems.filter((problem) => problem.severity === "error");
  const since = `Generation ${generation.number} (${generation.outcome}), ${generation.cause}, ${age(now - generation.created)} ago.`;
  const back = generation.back_at ? ` The machine came back to it ${age(now - generation.back_at)} ago: ${generation.back_because}.` : "";
  const well = status.services.filter((one) => WELL.includes(one.phase)).length;
  const all = status.services.length;
  const containers = well === all ? `All ${all} containers are well.` : `${well} of ${all} containers are well.`;
  const warnings = status.problems.length - errors.length;
  const rest = `${since}${back} ${containers}`;
  if (blind) return { is: "bad", title: "The Docker Engine cannot be asked", rest: `${blind.title}. Below is what was seen last.` };
  if (generation.trial_until) {
    return { is: "busy", title: `Generation ${generation.number} is on trial`, rest };
  }
  if (!status.converged) return { is: "busy", title: "Not yet as desired", rest };
  if (errors.length) return { is: "bad", title: errors.length === 1 ? "One thing is wrong" : `${errors.length} things are wrong`, rest };
  if (generation.watched_until) {
    return { is: "ok", title: "Ready, and watched", rest: `It is good at ${clock(generation.watched_until)} if all stays well. ${rest}` };
  }
  if (warnings) return { is: "busy", title: `As desired, with ${warnings === 1 ? "one warning" : `${warnings} warnings`}`, rest };
  return { is: "ok", title: "Everything is as desired", rest };
}

/** What a receipt of an ambassador says of new connections: 7000/tcp from 10.0.0.2:7000 to 10.0.0.3:7000. */
export function leads(receipt) {
  return `${receipt.listeners.join(", ")} from ${receipt.before.join(", ") || "nowhere"} to ${receipt.after.join(", ") || "nowhere"}`;
}

/** What it says of old ones. */
export function becomes(receipt) {
  return ["kept", "ended", "cut", "moved", "rescued"].filter((name) => receipt[name]).map((name) => `${receipt[name]} ${name}`).join(", ") || "none";
}
