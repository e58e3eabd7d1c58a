// Asks /live.json some times a second and shows what it says. What peers and policies say is set as text, never as HTML.

import { bars, duration, keyed, made, short, spark, stacked } from "/live/charts.js";
import { chosen, showSelected, showSessions } from "/live/session.js";

const EVERY_MS = 400;
const $ = (id) => document.getElementById(id);
const STACK = [["network", "network in"], ["queue", "queue"], ["infer", "policy"], ["write", "write"]];

async function ask() {
  // With the origin, since a page that was opened with a key in its URL may fetch nothing relative to that.
  const answer = await fetch(`${location.origin}/live.json?pictures=1&session=${chosen.number}`, {
    cache: "no-store", signal: AbortSignal.timeout(5000),
  });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

async function keepAsking() {
  if (!document.hidden) {
    try {
      const told = await ask();
      show(told);
      $("trouble").hidden = true;
    } catch (error) {
      const isGone = error instanceof TypeError || error.name === "TimeoutError";
      $("trouble").textContent = isGone ? "The server does not answer. Asking again …" : error.message;
      $("trouble").hidden = false;
    }
    document.body.dataset.asked = String(Number(document.body.dataset.asked ?? 0) + 1);
  }
  setTimeout(keepAsking, EVERY_MS);
}

function show(told) {
  showPolicy(told.policy, told.server);
  showPolicies(told.policies);
  showNumbers(told.numbers, told.history);
  showTimes(told.history);
  $("batches-none").hidden = told.batches.length > 0;
  $("batches").hidden = !told.batches.length;
  bars($("batches"), told.batches);
  showSessions(told);
  showSelected(told);
  showRefusals(told.refusals);
  $("version").textContent = told.server.version;
}

function showPolicy(policy, server) {
  $("policy").textContent = policy.name || "policyserve";
  document.title = `${policy.name || "policyserve"} · ${location.host}`;
  const hasFailed = policy.stage.includes("failed");
  $("ready").textContent = policy.is_ready ? "ready" : hasFailed ? "failed" : "not ready";
  $("ready").className = `badge ${policy.is_ready ? "good" : hasFailed ? "bad" : ""}`;
  const since = new Date(server.started_at * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
  $("since").textContent = `since ${since}, ${duration(server.up_s)}`;
  $("stage").hidden = policy.is_ready;
  $("stage-text").textContent = policy.stage;
  const percent = policy.stage.match(/(\d+) %/);
  if (percent) $("stage-bar").value = Number(percent[1]);
  else $("stage-bar").removeAttribute("value");
  $("stage-bar").hidden = hasFailed;
  const facts = Object.entries(policy.facts).filter(([, value]) => value !== policy.checkpoint);
  const checkpoint = policy.checkpoint ? [`checkpoint ${policy.checkpoint}`] : [];
  $("facts").textContent = [...checkpoint, ...facts.map(([name, value]) => `${name} ${value}`)].join(" · ");
  keyed($("takes").tBodies[0], policy.takes, (leaf) => leaf.path, madeLeaf, (row, leaf) => {
    [leaf.path, leaf.kind, leaf.doc].forEach((text, index) => { row.cells[index].textContent = text; });
  });
  $("takes-any").hidden = !policy.is_ready || policy.takes.length > 0;
  $("gives").textContent = policy.gives || "–";
  $("gives-doc").textContent = policy.gives_doc;
  showClients(server);
}

/** How far each of several policies is; what else stands above is the default one's. */
function showPolicies(policies) {
  $("policies").hidden = policies.length < 2;
  const told = policies.map((one) => `/${one.name} ${one.is_ready ? "ready" : one.stage}`);
  $("policies").textContent = told.join(" · ");
}

function madeLeaf() {
  const row = made("tr");
  row.append(made("td"), made("td"), made("td"));
  return row;
}

const WITH_A_LINE = { openpi: "openpi", wall_x: "Wall-X", vibe_rl: "vibe_rl" };

/** Lines to paste for the usual families of clients, by the address under which this page was opened; others by name. */
function showClients({ needs_key: needsKey, dialects, dialect }) {
  const isTls = location.protocol === "https:";
  const url = `${isTls ? "wss" : "ws"}://${location.host}`;
  const host = isTls ? `wss://${location.hostname}` : location.hostname;
  const port = location.port || (isTls ? "443" : "80");
  const key = needsKey ? ', api_key="KEY"' : "";
  const lines = [["Python", `policyserve.Client("${url}"${key})`]];
  const isShown = (name) => dialect === name || (dialect === "auto" && name in WITH_A_LINE);
  for (const name of dialects.filter(isShown)) {
    if (name === "openpi") lines.push(["openpi", `WebsocketClientPolicy(host="${host}", port=${port}${key})`]);
    else lines.push([WITH_A_LINE[name] ?? name, `${url}/${name}`]);
  }
  const others = dialects.filter((name) => !isShown(name));
  $("other-clients").textContent = others.length ? `Others, each at /NAME: ${others.join(", ")}` : "";
  lines.push(["check", `policyserve doctor ${url}`]);
  keyed($("clients"), lines, ([name]) => name, madeClient, (item, [name, line]) => {
    item.children[0].textContent = name;
    item.children[1].textContent = line;
    item.children[2].setAttribute("aria-label", `copy the line for ${name}`);
  });
}

function madeClient() {
  const item = made("li"), copy = made("button", "copy");
  copy.type = "button";
  copy.addEventListener("click", async () => {
    copy.textContent = (await copied(item.children[1])) ? "copied" : "select";
    setTimeout(() => { copy.textContent = "copy"; }, 1500);
  });
  item.append(made("span"), made("code"), copy);
  return item;
}

/** Copy an element's text; where the browser allows that on https alone, select it instead. */
async function copied(element) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(element.textContent);
      return true;
    } catch { /* not allowed: select it */ }
  }
  getSelection().selectAllChildren(element);
  return document.execCommand("copy");
}

function showNumbers(numbers, history) {
  for (const name of ["answers_per_s", "p50_ms", "p99_ms"]) $(name).textContent = short(numbers[name]);
  $("busy").textContent = numbers.busy === null ? "–" : String(Math.round(numbers.busy * 100));
  $("session-count").textContent = String(numbers.sessions);
  $("unanswered").textContent = numbers.unanswered ? `open, ${numbers.unanswered} unanswered` : "open";
  spark($("spark-answers"), history.answers_per_s, history.kept, "answers per second");
  spark($("spark-ms"), history.p99_ms, history.kept, "p99 and p50 in ms", { other: history.p50_ms });
  spark($("spark-busy"), history.busy, history.kept, "share of time that the policy works", { top: 1 });
  spark($("spark-sessions"), history.sessions, history.kept, "open sessions", { top: 2 });
  const lately = Object.entries(numbers.refused_lately);
  const all = Object.values(numbers.refused).reduce((sum, count) => sum + count, 0);
  $("refused").hidden = !all;
  const now = lately.map(([code, count]) => `${count.toLocaleString("en")} ${code}`).join(", ");
  const ever = Object.entries(numbers.refused).map(([code, count]) => `${count.toLocaleString("en")} ${code}`).join(", ");
  $("refused").textContent = now ? `Refused in the last two minutes: ${now}` : `Refused since the start: ${ever}`;
  $("refused").title = `since the start: ${ever}`;
}

function showTimes(history) {
  const series = STACK.map(([name]) => [name, history[`${name}_ms`]]);
  const most = stacked($("stack"), series, history.kept, "milliseconds per answer, means of each second");
  $("stack-top").textContent = history.infer_ms.some((value) => value !== null) ? `${short(most)} ms` : "";
  keyed($("stack-legend"), STACK, ([name]) => name, ([name]) => made("li", "", name), (item, [name, label]) => {
    const newest = history[`${name}_ms`].at(-1) ?? null;
    item.textContent = newest === null ? label : `${label} ${short(newest)} ms`;
  });
}

function showRefusals(refusals) {
  $("refusals-none").hidden = refusals.length > 0;
  keyed($("refusals"), refusals, (one) => [one.code, one.peer.replace(/:\d+$/, ""), one.text].join(" "), () => made("li"), (item, one) => {
    const times = one.count > 1 ? ` × ${one.count.toLocaleString("en")}` : "";
    const who = [one.session === null ? "" : `session ${one.session}`, one.peer].filter(Boolean).join(" · ");
    const left = made("div"), facts = made("dl");
    left.append(made("div", `${one.code}${times}`, "code"), made("div", one.ago_s < 1 ? "now" : `${duration(one.ago_s)} ago`, "who"));
    const told = one.expected ? [["path", one.path || "(the whole message)"], ["expected", one.expected], ["got", one.got], ["hint", one.hint]] : [["why", one.text]];
    for (const [name, text] of told) if (text) facts.append(made("dt", name), made("dd", text));
    const right = made("div");
    right.append(facts, made("div", who, "who"));
    item.replaceChildren(left, right);
  });
}

document.addEventListener("visibilitychange", () => { document.body.dataset.hidden = String(document.hidden); });
keepAsking();
