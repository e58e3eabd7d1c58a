// The list of sessions, and what is seen of the chosen one: pictures, texts, numbers, actions.

import { dimension, duration, keyed, made, short } from "/live/charts.js";

const $ = (id) => document.getElementById(id);

export const chosen = { number: 0, byHand: false };

/** Choose a session; what was seen of another one goes. */
function choose(number, byHand) {
  if (number !== chosen.number) for (const id of ["pictures", "texts", "state", "actions"]) $(id).replaceChildren();
  Object.assign(chosen, { number, byHand: byHand || chosen.byHand });
}

export function showSessions(told) {
  const sessions = told.sessions;
  const isThere = sessions.some((one) => one.number === chosen.number);
  if (!isThere) Object.assign(chosen, { byHand: false });
  if (!isThere && sessions.length) choose(sessions[0].number, false);
  if (!sessions.length) choose(0, false);
  $("sessions-none").hidden = sessions.length > 0;
  $("sessions").hidden = !sessions.length;
  const left = told.sessions_left_out;
  $("sessions-more").hidden = !left;
  $("sessions-more").textContent = left ? `… and ${left} older ones.` : "";
  keyed($("sessions").tBodies[0], sessions, (one) => one.number, madeRow, updateRow);
}

function madeRow(session) {
  const row = made("tr");
  const button = made("button", String(session.number));
  button.type = "button";
  button.addEventListener("click", () => { choose(session.number, true); markChosen(); });
  button.addEventListener("keydown", moveBetweenRows);
  const first = made("td");
  first.append(button);
  row.append(first, made("td"), made("td"), ...[0, 1, 2, 3].map(() => made("td", "", "n")));
  return row;
}

function updateRow(row, session) {
  const peer = session.key ? `${session.peer} (${session.key})` : session.peer;
  const speaks = session.policy ? `${session.dialect} · ${session.policy}` : session.dialect;
  const texts = [peer, speaks, short(session.hz), short(session.p99_ms), String(session.pending), duration(session.age_s)];
  texts.forEach((text, index) => { row.cells[index + 1].textContent = text; });
  row.cells[1].dataset.dialect = session.dialect;
  mark(row);
}

function mark(row) {
  const isChosen = row.dataset.key === String(chosen.number);
  row.classList.toggle("chosen", isChosen);
  row.querySelector("button").setAttribute("aria-pressed", String(isChosen));
}

function markChosen() {
  for (const row of $("sessions").tBodies[0].rows) if (row.dataset.key) mark(row);
}

function moveBetweenRows(event) {
  const row = event.target.closest("tr");
  const next = { ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling }[event.key];
  if (next) {
    next.querySelector("button").focus();
    event.preventDefault();
  }
}

export function showSelected(told) {
  const seen = told.selected;
  $("selected").hidden = !chosen.number;
  if (!seen || seen.number !== chosen.number) return;
  const session = told.sessions.find((one) => one.number === seen.number);
  $("selected-title").textContent = `Session ${seen.number}${session ? ` · ${session.peer} · ${session.dialect}${session.policy ? ` · ${session.policy}` : ""}` : ""}`;
  const isEmpty = !seen.numbers.length && !seen.texts.length && !seen.actions.lines.length;
  $("selected-none").hidden = !isEmpty;
  $("selected-none").textContent = isEmpty ? "It has asked nothing since you look." : "";
  $("no-pictures").hidden = !told.pictures;
  $("no-pictures").textContent = told.pictures;
  keyed($("pictures"), seen.pictures, (one) => one.path, madePicture, updatePicture);
  keyed($("texts"), seen.texts, ([path]) => path, madeText, updateText);
  keyed($("state"), seen.numbers, (one) => one.path, () => made("div", "", "value"), updateNumbers);
  showActions(seen.actions);
}

function madePicture() {
  const figure = made("figure");
  figure.append(made("canvas"), made("figcaption"));
  return figure;
}

async function updatePicture(figure, picture) {
  if (figure.dataset.number === String(picture.number)) return;
  figure.dataset.number = picture.number;
  figure.lastChild.textContent = `${picture.path} · ${picture.shape.join(" × ")}`;
  const bytes = Uint8Array.from(atob(picture.jpeg), (letter) => letter.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
  const canvas = figure.firstChild;
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  canvas.classList.toggle("tiny", bitmap.width <= 128);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `camera ${picture.path}`);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  canvas.dataset.drawn = picture.number;
}

function madeText() {
  const holder = made("div", "", "value");
  holder.append(made("h4"), made("blockquote"));
  return holder;
}

function updateText(holder, [path, text]) {
  holder.firstChild.textContent = path;
  holder.lastChild.textContent = text || "(empty)";
}

function updateNumbers(holder, shown) {
  const title = made("h4", shown.path);
  const doc = shown.doc && !shown.names.length ? `${shown.doc} · ` : "";
  title.append(made("span", ` ${doc}${shown.shape.join(" × ") || "one number"}`));
  const list = made("dl", "", shown.names.length ? "named" : "");
  list.append(...shown.values.map((value, index) => {
    const cell = made("div");
    cell.append(made("dt", shown.names[index] ?? String(index)), made("dd", value === null ? "not finite" : short(value, 3)));
    return cell;
  }));
  const count = shown.shape.reduce((product, size) => product * size, 1);
  const more = count > shown.values.length ? [made("p", `first ${shown.values.length} of ${count.toLocaleString("en")}`, "muted")] : [];
  holder.replaceChildren(title, list, ...more);
}

function showActions({ is_chunk: isChunk, doc, names, lines }) {
  const steps = lines.length ? lines[0].length : 0;
  const what = isChunk ? `Newest action chunk · ${steps} steps` : `Actions · the last ${steps}`;
  $("actions-title").textContent = lines.length ? what : "Newest actions";
  $("actions-doc").textContent = names.length ? "" : doc;
  keyed($("actions"), lines.map((values, index) => ({ values, index })), (one) => one.index, madeLine, (holder, { values, index }) => {
    const name = names[index] ?? `action ${index}`;
    holder.firstChild.replaceChildren(made("span", name), made("span", short(isChunk ? values[0] : values.at(-1), 3)));
    holder.title = name;
    dimension(holder.lastChild, values, `${name}: ${values.length} values`);
  });
}

function madeLine() {
  const holder = made("div", "", "line");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("role", "img");
  holder.append(made("p"), svg);
  return holder;
}
