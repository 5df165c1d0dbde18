"use strict";
// Polls one small JSON document and draws it. Texts go in as text, never as HTML.

const every = 1000, keep = 60;
const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en");
const history = new Map(); // agent → [{at, done}]
let key = sessionStorage.getItem("reeve-key") || "";
let timer = 0, busy = false;

function el(tag, props, ...children) {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children.filter((c) => c != null));
  return node;
}

const number = (n) => n == null ? "–" : whole.format(n);
const cell = (n) => el("td", { className: n ? "n" : "n zero" }, number(n));

function took(ms) {
  if (ms == null) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 3600000) return `${Math.round(ms / 60000)} min`;
  return `${(ms / 3600000).toFixed(1)} h`;
}

function ago(iso, now) {
  const s = Math.max(0, (now - Date.parse(iso)) / 1000);
  const text = s < 2 ? "now" : s < 60 ? `${Math.floor(s)} s ago` : s < 3600 ? `${Math.floor(s / 60)} min ago` : s < 86400 ? `${Math.floor(s / 3600)} h ago` : `${Math.floor(s / 86400)} d ago`;
  return el("time", { dateTime: iso, title: new Date(iso).toLocaleString() }, text);
}

function uptime(s) {
  const d = Math.floor(s / 86400), h = Math.floor(s % 86400 / 3600), m = Math.floor(s % 3600 / 60);
  return d ? `${d}d ${h}h` : h ? `${h}h ${m}m` : m ? `${m}m` : `${Math.floor(s)}s`;
}

const mood = { running: "good", ready: "good", active: "good", completed: "good", up: "good", paused: "warn", stopped: "warn", degraded: "warn", retrying: "warn",
  behind: "warn", initialized: "warn", created: "warn", cancelled: "warn", discarded: "warn", absent: "warn", done: "good", waiting: "warn", unhealthy: "bad", refused: "bad", down: "bad", error: "bad", failed: "bad", dead_lettered: "bad", rejected: "bad", timed_out: "bad", crashed: "bad" };
const words = (s) => s.replaceAll("_", " ");
const tag = (s) => el("span", { className: `tag ${mood[s] || "muted"}` }, words(s));

const finished = (m) => m.completed + m.failed + m.dead_lettered + m.rejected + m.cancelled + m.discarded;

// otherwise are the ends that have no column of their own, in words: most agents have none of them.
const otherwise = (m) => ["failed", "rejected", "cancelled", "discarded"].filter((k) => m[k]).map((k) => `${number(m[k])} ${k}`);
const others = (m) => m.failed + m.rejected + m.cancelled + m.discarded;

// rates keeps a minute of samples of an agent and gives its outcomes per second: now, and one by one.
function rates(ref, at, done) {
  const samples = history.get(ref) || [];
  const last = samples.at(-1);
  if (last && done < last.done) samples.length = 0; // registered anew
  samples.push({ at, done });
  while (samples.length > keep + 1) samples.shift();
  history.set(ref, samples);
  const each = samples.slice(1).map((s, i) => (s.done - samples[i].done) / Math.max(0.2, (s.at - samples[i].at) / 1000));
  const from = samples[Math.max(0, samples.length - 4)];
  return { now: samples.length > 1 ? (done - from.done) / Math.max(0.2, (at - from.at) / 1000) : 0, each };
}

function spark(values) {
  const ns = "http://www.w3.org/2000/svg", w = 120, h = 24;
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", `0 0 ${w} ${h}`);
  svg.setAttribute("aria-hidden", "true");
  const top = Math.max(1, ...values);
  const points = values.map((v, i) => `${(w - (values.length - 1 - i) * (w / (keep - 1))).toFixed(1)},${(h - 1.5 - (v / top) * (h - 4)).toFixed(1)}`);
  if (points.length > 1) {
    const area = document.createElementNS(ns, "path"), line = document.createElementNS(ns, "path");
    area.setAttribute("class", "area");
    area.setAttribute("d", `M${points[0].split(",")[0]},${h} L${points.join(" L")} L${w},${h} Z`);
    line.setAttribute("d", `M${points.join(" L")}`);
    svg.append(area, line);
  }
  return svg;
}

const rate = (r) => r >= 100 ? whole.format(Math.round(r)) : r >= 0.05 ? r.toFixed(1) : "0";

const refOf = (a) => `${a.topic}/${a.name}`;

// troubles are what keeps an agent from its work, in lines: its cause, what live nodes complain of, alerts.
function troubles(a, h) {
  const lines = [], cause = (c) => c.remediation ? `${c.message}: ${c.remediation}` : c.message;
  if (a.cause) lines.push(["bad", cause(a.cause)]);
  if (a.topic_missing) lines.push(["warn", "its topic does not exist"]);
  const health = h.agents[refOf(a)];
  if (a.phase === "active" && !a.workers) lines.push(health?.condition === "degraded" ? ["warn", health.detail] : ["bad", "no live worker"]);
  for (const p of a.problems || []) lines.push([p.state === "outage" ? "warn" : "bad", `${words(p.state)} on ${p.node}${p.error ? `: ${cause(p.error)}` : ""}`]);
  for (const x of h.alerts || []) {
    if (refOf(x) !== refOf(a) || (a.problems || []).some((p) => p.state === x.kind) || a.cause && x.message.includes(a.cause.message)) continue; // told above
    lines.push([x.severity === "critical" ? "bad" : "warn", `${words(x.kind)} since ${clock(x.since)}: ${x.message}`]);
  }
  return lines.map(([className, text]) => el("small", { className }, text));
}

function agentRow(a, h, at, wide) {
  const m = a.metrics, r = rates(refOf(a), at, finished(m));
  const wrong = troubles(a, h), condition = h.agents[refOf(a)]?.condition;
  const row = el("tr", {},
    el("th", { scope: "row", rowSpan: wrong.length ? 2 : 1 }, a.name, el("small", {}, `${a.topic} · ${a.version}`)),
    el("td", {}, tag(a.phase), ...(a.phase === "active" && condition && condition !== "healthy" ? [" ", tag(condition)] : [])),
    cell(a.workers), el("td", { className: m.received ? "n" : "n zero" }, number(m.received), m.filtered ? el("small", {}, `${number(m.filtered)} filtered`) : null),
    cell(m.completed), cell(m.retried), cell(m.dead_lettered),
    wide ? el("td", { className: others(m) ? "n" : "n zero" }, number(others(m)), ...otherwise(m).map((t) => el("small", {}, t))) : null,
    cell(m.waiting), cell(m.lag),
    el("td", { className: "n" }, took(m.timings.p50_ms)), el("td", { className: "n" }, took(m.timings.p99_ms)),
    el("td", { className: r.now >= 0.05 ? "n" : "n zero" }, rate(r.now)), el("td", {}, spark(r.each)));
  const rows = wrong.length ? [row, el("tr", { className: "wrong" }, el("td", { colSpan: row.cells.length - 1 }, ...wrong))] : [row];
  return { rows, now: r.now };
}

const taskPath = (t) => `/v1/tasks/${encodeURIComponent(t.topic)}/${encodeURIComponent(t.name)}/${t.partition}/${t.offset}`;
const taskLink = (t) => el("a", { href: taskPath(t), onclick: (e) => { e.preventDefault(); show(t); } }, t.id);

// redraw leaves what is as it should be, and whoever stands on a link or a button with the keyboard; where that is gone, at
// home.
function redraw(node, children, home) {
  const next = el("div", {}, ...children), mark = (n) => n.getAttribute("href") || n.name;
  if (next.innerHTML === node.innerHTML) return;
  const at = node.contains(document.activeElement) ? mark(document.activeElement) : null;
  node.replaceChildren(...next.childNodes);
  if (at) ([...node.querySelectorAll("a, button")].find((n) => mark(n) === at) || home)?.focus();
}

// fill draws the rows of a table, each cell with its column's name, which a narrow screen shows beside it.
function fill(id, rows) {
  const heads = [...$(id).closest("table").querySelectorAll("thead tr > :not([hidden])")];
  for (const row of rows) {
    row.role = "row"; // said, since a table that isn't drawn as one is none to a screen reader
    for (const c of row.cells) c.role = c.tagName === "TH" ? "rowheader" : "cell";
    if (row.cells.length === heads.length) [...row.cells].forEach((c, i) => { c.dataset.label = heads[i].textContent; });
  }
  redraw($(id), rows);
  const empty = $(`${id}-empty`);
  empty.hidden = rows.length > 0;
  $(id).closest("table").hidden = rows.length === 0;
}

function setText(id, text) { if ($(id).textContent !== text) $(id).textContent = text; }

// standing is the system's status, and how many agents aren't healthy though it runs: [mood, words].
function standing(h) {
  const n = { unhealthy: 0, degraded: 0 };
  for (const a of Object.values(h.agents)) if (a.condition in n) n[a.condition]++;
  const worse = Object.entries(n).filter(([, count]) => count).map(([condition, count]) => `${count} agent${count > 1 ? "s" : ""} ${condition}`);
  return h.status === "running" && worse.length ? ["warn", [h.status, ...worse].join(", ")] : [mood[h.status], h.status];
}

function draw(o) {
  const at = Date.parse(o.at), h = o.health, [how, said] = standing(h);
  $("status").className = `status ${how}`;
  setText("status-text", said); // announced only when it changes
  setText("detail", h.detail || `${h.registered_agents} agent${h.registered_agents === 1 ? "" : "s"}, ${h.active_consumers} served${h.uptime_seconds ? `, up ${uptime(h.uptime_seconds)}` : ""}`);
  setText("updated", `updated ${new Date(at).toLocaleTimeString()}`);
  document.title = `Reeve · ${said}`;

  const sum = { running: 0, waiting: 0, lag: 0, completed: 0, retried: 0, dead: 0, rate: 0, other: 0, filtered: 0 };
  const ends = { failed: 0, rejected: 0, cancelled: 0, discarded: 0 };
  for (const a of o.agents) for (const k in ends) ends[k] += a.metrics[k];
  $("other-head").hidden = !others(ends);
  const rows = o.agents.flatMap((a) => {
    const { rows, now } = agentRow(a, h, at, others(ends) > 0), m = a.metrics;
    sum.running += m.running; sum.waiting += m.waiting; sum.lag += m.lag || 0; sum.completed += m.completed; sum.retried += m.retried; sum.dead += m.dead_lettered; sum.rate += now; sum.other += others(m); sum.filtered += m.filtered;
    return rows;
  });
  fill("agents", rows);
  for (const [name, n] of Object.entries(sum)) setText(`t-${name}`, name === "rate" ? rate(n) : number(n));
  setText("t-other-parts", otherwise(ends).join(", "));
  for (const name of ["other", "filtered"]) $(`tile-${name}`).hidden = !sum[name];

  fill("tasks", o.tasks.map((t) => el("tr", {}, el("td", {}, taskLink(t)), el("td", { className: "name" }, t.name),
    el("td", { className: t.error_message ? "wrap" : "" }, tag(t.status), t.error_message ? el("small", {}, t.error_message) : null),
    el("td", { className: "n" }, number(t.attempts)), el("td", { className: "n" }, took(t.duration_ms)), el("td", { className: "n" }, ago(t.settled_at, at)))));
  fill("dead", o.dead_letters.map((t) => el("tr", {}, el("td", { className: "name" }, taskLink(t), el("small", {}, t.name)),
    el("td", { className: "wrap" }, words(t.error_class || "error"), el("small", {}, t.error_message || "")), el("td", { className: "n" }, ago(t.settled_at, at)))));

  $("parts").replaceChildren(...Object.entries(h.components).sort().map(([name, c]) => el("li", {}, name, " ", tag(c.status),
    c.detail || c.behind ? el("small", {}, c.detail || `${number(c.behind)} ${name === "control" ? "changes to publish" : "records to read"}`) : c.nodes ? el("small", {}, c.nodes === 1 ? "1 node" : `${c.nodes} nodes`) : null)));
  const rowed = new Set(o.agents.map(refOf)); // theirs stand with them
  $("alerts").replaceChildren(...(h.alerts || []).filter((a) => !rowed.has(refOf(a))).map((a) => el("li", {}, tag(a.severity === "critical" ? "error" : "degraded"), ` ${a.name ? refOf(a) : a.subject}: ${a.message}`)));
}

const clock = (iso) => iso ? new Date(iso).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" }) : "–";

// show opens a task with its attempts and its result.
async function show(t) {
  setText("task-title", `${t.agent} · ${t.id}`);
  $("task-body").replaceChildren(el("p", { className: "muted" }, "reading…"));
  $("task").showModal();
  try {
    const answer = await ask(taskPath(t)), body = await answer.json();
    if (!answer.ok) throw new Error(body.detail);
    $("task-body").replaceChildren(...detail(body));
  } catch (e) {
    $("task-body").replaceChildren(el("p", { className: "bad" }, e instanceof TypeError ? "The registry does not answer." : e.message));
  }
}

function detail(t) {
  const head = el("p", {}, tag(t.status), ` published ${clock(t.published_at)}, settled ${clock(t.settled_at)}${t.correlation_id ? `, correlation ${t.correlation_id}` : ""}`);
  const attempts = el("div", { className: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, ...["Attempt", "Outcome", "Then", "Version", "Where", "Started", "Took"].map((h) => el("th", { scope: "col" }, h)))),
    el("tbody", {}, ...t.history.map((a) => el("tr", {}, el("th", { scope: "row" }, String(a.attempt)),
      el("td", { className: a.error_message ? "wrap" : "" }, tag(a.outcome), a.error_message ? el("small", {}, `${a.error_class}: ${a.error_message}`) : null),
      el("td", {}, words(a.settled)), el("td", {}, a.version || "–"), el("td", {}, [a.node, a.instance].filter(Boolean).join(" ") || "–"), el("td", {}, clock(a.started_at)),
      el("td", {}, took(a.started_at ? Date.parse(a.settled_at) - Date.parse(a.started_at) : null)))))));
  const parts = [head, attempts];
  if (t.result_state === "available") parts.push(el("p", {}, "Result"), el("pre", { tabIndex: 0 }, JSON.stringify(t.result, null, 2)));
  if (t.result_state === "expired") parts.push(el("p", { className: "muted" }, "Its result is kept no longer."));
  if (t.error_message && t.status !== "completed") parts.push(el("p", {}, "Error"), el("pre", { tabIndex: 0 }, t.traceback || t.error_message));
  return parts;
}

function notice(text) {
  $("notice").hidden = !text;
  setText("notice", text);
}

const ask = (path, body) => fetch(path, { method: body ? "POST" : "GET", body: body && JSON.stringify(body), cache: "no-store",
  headers: { ...(key && { Authorization: `Bearer ${key}` }), ...(body && { "Content-Type": "application/json" }) } });

async function look() {
  if (busy) return;
  busy = true;
  try {
    const answer = await ask("/v1/overview");
    if (answer.status === 401) {
      setText("ask-wrong", key ? "That key is not the right one." : "");
      if (!$("ask").open) $("ask").showModal();
      return;
    }
    const body = await answer.json();
    if (!answer.ok) throw new Error(`${body.detail}. ${body.remediation || ""}`);
    notice("");
    draw(body);
    lookAtLetters(body);
  } catch (e) {
    $("status").className = "status bad";
    setText("status-text", e instanceof TypeError ? "unreachable" : "unknown");
    notice(e instanceof TypeError ? "The registry does not answer. What is shown is the last that it said; trying again." : e.message);
  } finally {
    busy = false;
  }
}

function go() {
  clearInterval(timer);
  if (document.hidden) return; // a page that nobody sees asks nothing
  look();
  timer = setInterval(() => { if (!$("ask").open) look(); }, every);
}

$("ask-form").addEventListener("submit", (e) => {
  e.preventDefault();
  key = $("key").value;
  sessionStorage.setItem("reeve-key", key);
  $("ask").close();
  look();
});
document.addEventListener("visibilitychange", go);
document.addEventListener("DOMContentLoaded", go); // when all scripts are there
