"use strict";
// Dead letters by agent and failure, webhooks that were given up by their endpoint, and the redrives and purges of both, which
// can be taken back. To count them the registry reads them, so the page asks only when the counters have changed, while an
// order is carried out, and once a minute (a purge changes no counter, and webhooks have none).

const graves = new Map(); // agent → its dead-letter topic with the failures on it
const orders = new Map(); // id → the order as it was last seen
const takenBack = new Map(); // id of an order that is taken back → what went wrong with that, or ""
const pace = 2000, anyway = 60000, shown = 5;
let counted = "", lookedAt = 0, looking = false;

const over = (o) => ["done", "stopped", "refused", "cancelled"].includes(o.state);
const webhooks = { topic: "", name: "webhooks" }; // no agent has an empty topic
const letterPath = (d, rest) => d.topic ? `/v1/dlq/${encodeURIComponent(d.topic)}/${encodeURIComponent(d.name)}${rest}` : `/v1/webhooks/dlq${rest}`;
const ownerOf = (d) => d.topic ? refOf(d) : d.name;
const many = (n) => `${number(n)} dead letter${n === 1 ? "" : "s"}`;

async function json(path, body) {
  const answer = await ask(path, body), said = await answer.json();
  if (!answer.ok) throw new Error(said.remediation ? `${said.detail}: ${said.remediation}` : said.detail);
  return said;
}

const reason = (e) => e instanceof TypeError ? "the registry does not answer" : e.message;

// lookAtLetters is called with every overview.
async function lookAtLetters(overview) {
  const now = Date.now(), counts = overview.agents.map((a) => [a.topic, a.name, a.metrics.dead_lettered]).join();
  const open = [...orders.values()].filter((o) => !over(o));
  if (looking || now - lookedAt < (open.length || counts !== counted ? pace : anyway)) return;
  looking = true;
  try {
    for (const o of open) follow(await json(letterPath(o, `/orders/${o.id}`)));
    const all = (await json("/v1/dlq")).items.filter((d) => d.records > 0), post = await json(letterPath(webhooks, "/endpoints"));
    if (post.total > 0) all.push({ ...webhooks, records: post.total });
    for (const ref of graves.keys()) if (!all.some((d) => refOf(d) === ref)) graves.delete(ref);
    for (const d of all) {
      const known = graves.get(refOf(d));
      if (known && !known.error && known.records === d.records && now - known.at < anyway && !open.some((o) => refOf(o) === refOf(d))) continue;
      graves.set(refOf(d), { ...known, ...d, at: now, ...await failures(d) });
    }
    counted = counts;
  } catch (e) {
    counted = "";
    setText("letters-wrong", `What is shown may be old: ${reason(e)}`);
    return;
  } finally {
    lookedAt = Date.now();
    looking = false;
    drawLetters();
  }
  setText("letters-wrong", "");
}

async function failures(d) {
  try {
    const found = await json(letterPath(d, d.topic ? "/fingerprints" : "/endpoints"));
    for (const o of (await json(letterPath(d, "/orders"))).items) if (!over(o)) follow(o); // somebody else's, or from before this page was opened
    return { items: found.items.map((f) => ({ ...f, fingerprint: f.fingerprint || f.endpoint })), total: found.total, complete: found.complete, error: "" };
  } catch (e) {
    return { error: reason(e) };
  }
}

function follow(o) {
  const before = orders.get(o.id);
  orders.set(o.id, o);
  if (before?.state !== o.state) setText("order-said", `${o.verb} of ${ownerOf(o)}: ${o.state}. ${over(o) ? progress(o) : ""} ${o.reason || ""}`);
  const ended = [...orders.values()].filter(over);
  for (const old of ended.slice(0, -shown)) {
    orders.delete(old.id);
    takenBack.delete(old.id);
  }
}

function progress(o) {
  if (o.verb === "purge") return `${number(o.moved)} of ${number(o.matched)} purged`;
  const parts = [`${number(o.moved)} of ${number(o.matched)} sent`, `${number(o.completed)} ${o.topic ? "completed" : "delivered"}`];
  if (o.came_back) parts.push(`${number(o.came_back)} ${o.topic ? "came back dead" : "failed again"}`);
  if (o.kept) parts.push(`${number(o.kept)} stay`);
  if (o.guarded) parts.push(`${number(o.guarded)} left out`);
  if (o.unfit) parts.push(`${number(o.unfit)} left that the agent doesn't take`);
  return parts.join(", ");
}

function drawLetters() {
  if ($("redrive").open) return; // the focus returns to its button
  redraw($("orders"), [...orders.values()].reverse().map(orderItem), $("failures-title"));
  const all = [...graves.values()].sort((a, b) => refOf(a).localeCompare(refOf(b)));
  redraw($("failures"), all.flatMap((d) => [agentHead(d), ...(d.items || []).map((f) => failureRow(d, f))]), $("failures-title"));
  $("failures").closest("table").hidden = all.length === 0;
  $("failures-empty").hidden = all.length > 0 || !lookedAt;
}

function orderItem(o) {
  const wrong = over(o) ? "" : takenBack.get(o.id);
  return el("li", {}, el("div", {}, tag(o.state), ` ${o.verb} of ${ownerOf(o)}: ${progress(o)}`, o.reason ? el("small", {}, o.reason) : null, wrong ? el("small", { className: "bad" }, wrong) : null),
    over(o) ? null : takeBackButton(o, wrong === ""));
}

// takeBackButton stays until the order has ended, so that whoever stands on it with the keyboard keeps their place.
function takeBackButton(o, asked) {
  const button = el("button", { type: "button", className: "plain", name: `take back ${o.id}`, onclick: () => takeBack(o) }, asked ? "Taking back…" : "Take back");
  button.setAttribute("aria-label", `${button.textContent} the ${o.verb} of ${ownerOf(o)}`);
  button.setAttribute("aria-disabled", String(asked));
  return button;
}

async function takeBack(o) {
  if (takenBack.get(o.id) === "") return;
  takenBack.set(o.id, "");
  drawLetters();
  try {
    follow(await json(letterPath(o, `/orders/${o.id}/cancel`), {}));
  } catch (e) {
    takenBack.set(o.id, reason(e)); // where it has ended meanwhile the next look says so
    setText("order-said", reason(e));
  }
  lookedAt = 0;
  drawLetters();
}

function agentHead(d) {
  const about = d.error || (d.deleted ? "deleted: register it again to redrive them" : d.complete === false ? "these are the first of them" : "");
  return el("tr", { className: "group" }, el("th", { scope: "rowgroup" }, d.name, el("small", {}, [d.topic || "given up", about].filter(Boolean).join(" · "))),
    cell(d.total ?? d.records), el("td", { className: "n" }, d.deleted || d.error ? null : redriveButton(d, null, d.total)));
}

function failureRow(d, f) {
  return el("tr", {}, el("td", { className: "wrap" }, f.error_message || "no message", el("small", {}, `${words(f.error_class || "error")} · ${f.fingerprint || "no fingerprint"}`),
    el("small", {}, span(f.first_failed_at, f.last_failed_at))),
  cell(f.count), el("td", { className: "n" }, d.deleted || !f.fingerprint ? null : redriveButton(d, f, f.count)));
}

const days = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const span = (first, last) => first && last ? days.formatRange(new Date(first), new Date(last)) : clock(last || first);

function redriveButton(d, f, n) {
  const button = el("button", { type: "button", className: f ? "plain" : "", name: `${refOf(d)} ${f ? f.fingerprint : ""}`, onclick: () => offer(d, f) }, f ? "Redrive" : "Redrive all");
  button.setAttribute("aria-label", `${button.textContent} ${f ? `${many(n)} of ${ownerOf(d)}: ${f.error_message}` : `${many(n)} of ${ownerOf(d)}`}`);
  return button;
}

// offer asks whether to redrive what a dry run has counted.
async function offer(d, f) {
  const which = !f ? { all: true } : d.topic ? { fingerprint: f.fingerprint } : { endpoint: f.endpoint };
  setText("redrive-title", `Redrive dead letters of ${ownerOf(d)}?`);
  setText("redrive-what", "counting…");
  setText("redrive-wrong", "");
  $("redrive-yes").disabled = true;
  setText("redrive-yes", "Redrive");
  $("redrive-form").onsubmit = (e) => { e.preventDefault(); redrive(d, which); };
  $("redrive").showModal();
  try {
    const o = await json(letterPath(d, "/redrive"), { ...which, dry_run: true });
    setText("redrive-title", `Redrive ${many(o.matched)} of ${ownerOf(d)}?`);
    setText("redrive-what", `${f ? `“${f.error_message}”` : "All failures."} ${d.topic ? "Five of each failure go first" : "One to each endpoint goes first"}, the others as far as those succeed. What fails again comes back here.`
      + (o.guarded ? ` ${many(o.guarded)} came back too often and stay; reeve ${d.topic ? "dlq" : "webhook"} redrive --force takes them too.` : "")
      + (o.unfit ? ` ${many(o.unfit)} stay that the agent doesn't take.` : ""));
    setText("redrive-yes", `Redrive ${number(o.matched)}`);
    $("redrive-yes").disabled = o.matched === 0;
  } catch (e) {
    setText("redrive-what", "");
    setText("redrive-wrong", reason(e));
  }
}

async function redrive(d, which) {
  $("redrive-yes").disabled = true; // a second click is no second order
  try {
    const o = await json(letterPath(d, "/redrive"), which);
    if (o.id) follow(o);
    lookedAt = 0;
    $("redrive").close();
  } catch (e) {
    setText("redrive-wrong", reason(e));
    $("redrive-yes").disabled = false;
  }
}

$("redrive-no").addEventListener("click", () => $("redrive").close());
$("redrive").addEventListener("close", drawLetters);
