// Lines, areas and bars: SVG without a library. All texts are set as texts, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

export function made(tag, text = "", className = "") {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  if (className) element.className = className;
  return element;
}

/** A number with as many digits as say something: 0.042, 3.1, 12, 1,250. */
export function short(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  if (size >= 100 || size === 0) return String(Math.round(value));
  return String(Number(value.toPrecision(size >= 10 ? 3 : digits)));
}

/** How long, in its two largest units. */
export function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60), hours = Math.floor(whole / 3600);
  if (minutes < 60) return `${minutes} min ${whole % 60} s`;
  return hours < 24 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

function shape(tag, className, attributes) {
  const element = document.createElementNS(SVG, tag);
  element.setAttribute("class", className);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function prepared(svg, width, height, label) {
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-label", label);
}

/** The parts of a line between values that are missing, as [x, value] points. */
function parts(values, first) {
  const found = [[]];
  values.forEach((value, index) => {
    if (value === null) found.push([]);
    else found.at(-1).push([first + index, value]);
  });
  return found.filter((part) => part.length);
}

const path = (points) => points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(2)} ${y.toFixed(2)}`).join("");

/** A line of the last `kept` values with the area below it; a second, fainter one where there is `other`. */
export function spark(svg, values, kept, label, { top = 0, other = null } = {}) {
  const width = kept - 1, height = 40;
  prepared(svg, width, height, label);
  const known = [...values, ...(other ?? [])].filter((value) => value !== null);
  const most = Math.max(top, ...known, 1e-9) * 1.08;
  const at = (value) => height - 1 - (value / most) * (height - 3);
  const drawn = [];
  for (const part of parts(values, kept - values.length)) {
    const points = part.map(([x, value]) => [x, at(value)]);
    if (points.length === 1) points.push([points[0][0] + 0.3, points[0][1]]);
    drawn.push(shape("path", "fill", { d: `${path(points)}L${points.at(-1)[0]} ${height}L${points[0][0]} ${height}Z` }));
    drawn.push(shape("path", "stroke", { d: path(points) }));
  }
  for (const part of parts(other ?? [], kept - values.length)) {
    drawn.push(shape("path", "stroke faint", { d: path(part.map(([x, value]) => [x, at(value)])) }));
  }
  svg.replaceChildren(...drawn);
}

/** Areas on top of each other. series: [class, values] from the bottom up. Returns what the top stands for. */
export function stacked(svg, series, kept, label) {
  const width = kept - 1, height = 100, count = series[0][1].length;
  prepared(svg, width, height, label);
  const sums = Array.from({ length: count }, (_, index) => series.reduce((sum, [, values]) => sum + (values[index] ?? 0), 0));
  const most = niceTop(Math.max(...sums, 1e-6));
  const below = new Array(count).fill(0);
  const drawn = series.map(([name, values]) => {
    const lower = below.slice();
    values.forEach((value, index) => { below[index] += value ?? 0; });
    const at = (value) => height - (value / most) * height;
    const upward = below.map((value, index) => [kept - count + index, at(value)]);
    const back = lower.map((value, index) => [kept - count + index, at(value)]).reverse();
    if (count === 1) { upward.push([kept - 0.4, at(below[0])]); back.unshift([kept - 0.4, at(lower[0])]); }
    return shape("path", name, { d: count ? `${path([...upward, ...back])}Z` : "" });
  });
  svg.replaceChildren(...drawn);
  return most;
}

function niceTop(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return unit * [1, 1.5, 2, 3, 5, 7.5, 10].find((step) => step * unit >= value * 0.999);
}

const MOST_BARS = 16;

/** Sizes and how often each came, those beside each other together where there are too many to show. */
function grouped(counts) {
  if (counts.length <= MOST_BARS) return counts;
  const width = Math.ceil(counts.at(-1)[0] / MOST_BARS);
  const groups = new Map();
  for (const [size, count] of counts) {
    const first = Math.floor((size - 1) / width) * width + 1;
    groups.set(first, (groups.get(first) ?? 0) + count);
  }
  return [...groups].map(([first, count]) => [`${first}–${first + width - 1}`, count]);
}

/** Bars of [size, count], and what share of all each is. */
export function bars(holder, found) {
  const counts = grouped(found);
  const most = Math.max(...counts.map(([, count]) => count), 1);
  const total = counts.reduce((sum, [, count]) => sum + count, 0);
  holder.replaceChildren(...counts.map(([size, count]) => {
    const column = made("div"), bar = made("i");
    bar.style.height = `${(count / most) * 78}%`;
    const share = (count / total) * 100;
    column.append(made("span", `${share < 1 ? "<1" : Math.round(share)}%`), bar, made("b", String(size)));
    column.title = `${count.toLocaleString("en")} calls with ${size} request${size === 1 ? "" : "s"} each`;
    return column;
  }));
}

/** One dimension of a chunk, or of the last actions: a line, with zero where it lies within. */
export function dimension(svg, values, label) {
  const width = Math.max(values.length - 1, 1), height = 34;
  prepared(svg, width, height, label);
  const known = values.filter((value) => value !== null);
  let least = Math.min(...known), most = Math.max(...known);
  if (most - least < 1e-9 + Math.abs(most) * 1e-4) { least -= Math.abs(least) * 0.5 + 1e-3; most += Math.abs(most) * 0.5 + 1e-3; }
  const at = (value) => height - 2 - ((value - least) / (most - least)) * (height - 4);
  const drawn = [];
  if (least < 0 && most > 0) drawn.push(shape("line", "zero", { x1: 0, x2: width, y1: at(0), y2: at(0) }));
  for (const part of parts(values, 0)) {
    const points = part.map(([x, value]) => [x, at(value)]);
    if (points.length === 1) points.push([points[0][0] + width, points[0][1]]);
    drawn.push(shape("path", "stroke", { d: path(points) }));
  }
  svg.replaceChildren(...drawn);
}

/** Make a holder's children be one for each item, reusing those of the same key so that the focus stays. */
export function keyed(holder, items, keyOf, make, update) {
  const before = new Map([...holder.children].map((child) => [child.dataset.key, child]));
  const wanted = items.map((item) => {
    const key = String(keyOf(item));
    const child = before.get(key) ?? make(item);
    child.dataset.key = key;
    before.delete(key);
    update(child, item);
    return child;
  });
  for (const gone of before.values()) gone.remove();
  wanted.forEach((child, index) => { if (holder.children[index] !== child) holder.insertBefore(child, holder.children[index] ?? null); });
}
