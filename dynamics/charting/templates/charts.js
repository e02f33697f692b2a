// One state for all charts of a page: the checkpoint under the cursor, the axis, the part of training that is shown.
const DATA = JSON.parse(document.getElementById("chart-data").textContent);
const N = DATA.steps.length;
const view = {at: Math.max(0, DATA.status.lastIndexOf("complete")), axis: "steps", log: true, zoom: null};
const HEIGHT = 196, LEFT = 46, RIGHT = 10, TOP = 8, BOTTOM = 22, LINEAR = 0.35;
const panels = [];
const drawn = [], followed = [];  // what else is drawn anew with the axis (measures, and returns what draws), and what else follows the cursor

function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
const colour = c => typeof c === "number" ? `var(--c${c})` : c;
const dashes = {solid: "", dashed: "5 3", dotted: "1.5 3"};
const minus = text => text.replace("-", "−");
function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  return minus(size >= 1e6 ? value.toPrecision(3) : size >= 100 || Number.isInteger(value) ? String(Math.round(value * 10) / 10) : size >= 1 || size === 0 ? value.toFixed(2) : size >= 0.01 ? value.toFixed(3) : value.toPrecision(2));
}
function count(value) {
  for (const [size, unit] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]])
    if (value >= size && (unit !== "k" || value >= 1e4)) return `${+(value / size).toPrecision(3)}${unit}`;
  return String(+value.toPrecision(3));
}

// The horizontal axis: linear up to the first positive value, logarithmic from there, so that step 0 is shown.
let axis;
function makeAxis() {
  const given = view.axis === "tokens" ? DATA.tokens : DATA.steps;
  const positive = given.filter(v => v !== null && v > 0);
  const unit = view.axis === "tokens" ? Math.min(...positive, Infinity) : 1;
  const scale = v => v === null ? null : !view.log ? v : v <= unit ? LINEAR * v / unit : LINEAR + Math.log10(v / unit);
  const at = given.map(scale);
  const known = at.filter(t => t !== null);
  let low = known.length ? Math.min(...known) : 0, high = known.length ? Math.max(...known) : 1;
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const pad = 0.012 * (high - low);
  axis = {given, at, scale, full: [low - pad, high + pad], unit};
  axis.shown = view.zoom ?? axis.full;
  axis.ticks = ticksOf();
}
function ticksOf() {
  const [low, high] = axis.shown, found = [];
  const top = Math.max(...axis.given.filter(v => v !== null), 1);
  if (view.log) {
    const first = axis.given.find(v => v !== null);
    const least = Math.floor(Math.log10(axis.unit)), candidates = [];
    if (first === 0) candidates.push([0, 0]);
    for (let power = least; power <= Math.log10(top); power++)
      for (const [digit, rank] of [[1, 0], [3, 1], [2, 2], [5, 2], [4, 3], [6, 3], [7, 3], [8, 3], [9, 3], [1.5, 3], [2.5, 3]]) candidates.push([digit * 10 ** power, rank]);
    const inside = candidates.filter(([v]) => v <= top * 1.001 && (v === 0 || v >= axis.unit) && axis.scale(v) >= low && axis.scale(v) <= high);
    for (let rank = 0; rank < 4; rank++) {
      const chosen = inside.filter(([, r]) => r <= rank).map(([v]) => v);
      found.splice(0, found.length, ...chosen);
      if (found.length >= 4) break;
    }
    if (found.length < 3) found.push(...axis.given.filter((v, i) => v !== null && axis.at[i] >= low && axis.at[i] <= high).filter((v, i, all) => i === 0 || i === all.length - 1));
  } else {
    const step = niceStep(high - low, 5);
    for (let v = Math.max(0, Math.ceil(low / step) * step); v <= high + 1e-9 * step; v += step) found.push(v);
  }
  return [...new Set(found)].sort((a, b) => a - b);
}
function niceStep(range, wanted) {
  const raw = range / wanted, power = 10 ** Math.floor(Math.log10(raw)), part = raw / power;
  return power * (part > 5 ? 10 : part > 2 ? 5 : part > 1 ? 2 : 1);
}
// Where a step lies on the axis in use; between checkpoints, in proportion to the logarithm of the step.
function placeOf(step) {
  if (view.axis === "steps") return axis.scale(step);
  const after = DATA.steps.findIndex(s => s >= step);
  if (after <= 0 || DATA.steps[after] === step) return axis.at[after < 0 ? N - 1 : after];
  const [a, b] = [axis.at[after - 1], axis.at[after]];
  if (a === null || b === null) return null;
  const [x, y, z] = [DATA.steps[after - 1], step, DATA.steps[after]].map(s => Math.log10(s + 1));
  return a + (b - a) * (y - x) / (z - x);
}
const across = (t, width, left = LEFT) => left + (t - axis.shown[0]) / (axis.shown[1] - axis.shown[0]) * (width - left - RIGHT);
function nearest(x, width, left = LEFT) {
  const t = axis.shown[0] + (x - left) / (width - left - RIGHT) * (axis.shown[1] - axis.shown[0]);
  let best = view.at, distance = Infinity;
  axis.at.forEach((place, i) => { if (place !== null && Math.abs(place - t) < distance) [best, distance] = [i, Math.abs(place - t)]; });
  return best;
}

// Paths through what was measured; a gap where nothing was.
function path(values, x, y, stepped = false) {
  let d = "", last = null;
  values.forEach((value, i) => {
    if (value === null || axis.at[i] === null) return;  // a line goes on through checkpoints without a number, as in the picture
    const [px, py] = [x(axis.at[i]).toFixed(1), y(value).toFixed(1)];
    d += last === null ? `M${px} ${py}` : stepped ? `L${px} ${last}L${px} ${py}` : `L${px} ${py}`;
    last = py;
  });
  return d;
}
function area(low, high, x, y) {
  const parts = [[]];
  low.forEach((value, i) => {
    if (value === null || high[i] === null || axis.at[i] === null) { if (parts.at(-1).length) parts.push([]); }
    else parts.at(-1).push([x(axis.at[i]).toFixed(1), y(value).toFixed(1), y(high[i]).toFixed(1)]);
  });
  return parts.filter(p => p.length > 1).map(p =>
    `M${p.map(([a, b]) => `${a} ${b}`).join("L")}L${p.toReversed().map(([a, , c]) => `${a} ${c}`).join("L")}Z`).join("");
}
const dots = (values, x, y) => values.map((v, i) => v === null || axis.at[i] === null ? "" : `M${x(axis.at[i]).toFixed(1)} ${y(v).toFixed(1)}h0`).join("");

class Panel {
  constructor(spec, host, number) {
    this.spec = spec;
    this.lines = spec.lines.map(line => ({...line, ...(line.curve === undefined ? {} : DATA.curves[line.curve]), on: true}));
    this.plot = svg("svg", {class: "plot", tabindex: 0, role: "slider", "aria-label": `${spec.title}, ${spec.metric}: checkpoint`, "aria-valuemin": 0, "aria-valuemax": N - 1});
    const heading = el("h4", {}, spec.title);
    if (spec.metric) heading.append(el("span", {}, `${spec.title ? " · " : ""}${spec.metric}`));
    this.legend = el("ul", {class: "legend"});
    host.append(el("div", {class: "panel"}, heading, this.plot, this.legend));
    this.values = this.lines.map((line, i) => this.entry(line, i));
    for (const label of new Set(spec.marks.map(([, label]) => label).filter(Boolean))) this.markEntry(label);
    this.plot.addEventListener("pointermove", event => this.pointed(event));
    this.plot.addEventListener("pointerdown", event => { if (event.pointerType !== "touch" && event.button === 0) { this.from = this.x(event); this.plot.setPointerCapture(event.pointerId); } this.pointed(event); });
    this.plot.addEventListener("pointerup", event => this.released(event));
    this.plot.addEventListener("pointercancel", () => { this.from = null; this.select(null); });
    this.plot.addEventListener("dblclick", () => zoom(null));
    this.plot.addEventListener("keydown", keyed);
    panels.push(this);
  }
  entry(line, i) {
    const look = svg("svg", {viewBox: "0 0 22 10", "aria-hidden": "true"}, svg("path", {d: "M0 5H22", stroke: colour(line.colour), "stroke-width": 2, "stroke-dasharray": dashes[line.dash]}));
    if (line.dash === "solid" && !line.stepped) look.append(svg("path", {d: "M11 5h0", stroke: colour(line.colour), "stroke-width": 5.5, "stroke-linecap": "round"}));
    const button = el("button", {type: "button", "aria-pressed": "true"}, look, el("span", {}, line.label || this.spec.title));
    const value = el("span", {class: "value"});
    button.addEventListener("click", () => { line.on = !line.on; button.setAttribute("aria-pressed", line.on); this.draw(); this.move(); });
    this.legend.append(el("li", {}, button, value));
    return value;
  }
  markEntry(label) {
    const steps = this.spec.marks.filter(([, other]) => other === label).map(([step]) => step.toLocaleString("en"));
    const look = svg("svg", {viewBox: "0 0 22 10", "aria-hidden": "true"}, svg("path", {class: "mark", d: "M11 0V10"}));
    this.legend.append(el("li", {class: "of-mark"}, look, el("span", {}, label), el("span", {class: "at"}, `${DATA.unit} ${steps.join(", ")}`)));
  }
  x(event) { const box = this.plot.getBoundingClientRect(); return (event.clientX - box.left) * this.width / box.width; }
  pointed(event) {
    if (event.pointerType === "touch" && event.type === "pointermove" && !event.isPrimary) return;
    if (this.from !== undefined && this.from !== null && Math.abs(this.x(event) - this.from) > 6) this.select([this.from, this.x(event)]);
    go(nearest(this.x(event), this.width));
  }
  released(event) {
    const [a, b] = [this.from, this.x(event)].sort((p, q) => p - q);
    const dragged = this.from !== undefined && this.from !== null && b - a > 6;
    this.from = null;
    this.select(null);
    if (dragged) {
      const t = x => axis.shown[0] + (Math.min(Math.max(x, LEFT), this.width - RIGHT) - LEFT) / (this.width - LEFT - RIGHT) * (axis.shown[1] - axis.shown[0]);
      zoom([t(a), t(b)]);
    }
  }
  select(range) {
    this.plot.querySelector(".zoomed")?.remove();
    if (range) this.plot.append(svg("rect", {class: "zoomed", x: Math.min(...range), y: TOP, width: Math.abs(range[1] - range[0]), height: HEIGHT - TOP - BOTTOM}));
  }
  // The range of what is shown, of the lines that are on.
  range() {
    const {limits, levels, log} = this.spec;
    if (limits) return limits;
    const seen = [];
    const inside = i => axis.at[i] !== null && axis.at[i] >= axis.shown[0] && axis.at[i] <= axis.shown[1];
    for (const line of this.lines.filter(line => line.on))
      for (const values of [line.values, line.low, line.high, line.bound])
        (values ?? []).forEach((v, i) => { if (v !== null && inside(i) && !(log && v <= 0)) seen.push(v); });
    seen.push(...levels.filter(v => !(log && v <= 0)));
    let [low, high] = seen.length ? [Math.min(...seen), Math.max(...seen)] : [log ? 1 : 0, log ? 10 : 1];
    if (log) return [low / 1.2, high * 1.2];
    if (low === high) [low, high] = [low - 0.5, high + 0.5];
    const pad = 0.05 * (high - low);
    return [low - pad, high + pad];
  }
  // Measured for all panels before the first is drawn: each drawing in between would have the page laid out anew.
  measure() { this.width = Math.max(200, Math.round(this.plot.parentNode.clientWidth) || 330); }
  draw() {
    const {width} = this;
    const [low, high] = this.range(), {log} = this.spec;
    const up = v => log ? Math.log10(Math.max(v, 1e-12)) : v;
    const y = v => HEIGHT - BOTTOM - (up(v) - up(low)) / (up(high) - up(low) || 1) * (HEIGHT - TOP - BOTTOM);
    const x = t => across(t, width);
    this.y = y;
    const inner = svg("svg", {x: LEFT, y: TOP, width: width - LEFT - RIGHT, height: HEIGHT - TOP - BOTTOM, viewBox: `${LEFT} ${TOP} ${width - LEFT - RIGHT} ${HEIGHT - TOP - BOTTOM}`, overflow: "hidden"});
    const outer = [];
    for (const v of ticksUp(low, high, log)) {
      inner.append(svg("path", {class: "grid", d: `M${LEFT} ${y(v)}H${width - RIGHT}`}));
      outer.push(svg("text", {x: LEFT - 5, y: y(v) + 4, "text-anchor": "end"}, minus(short(v))));
    }
    outer.push(...ticksAcross(width, HEIGHT - BOTTOM));
    const alone = this.lines.length === 1;
    for (const line of this.lines.filter(line => line.on)) {
      const stroke = colour(line.colour);
      if (line.onset) strip(inner, line.onset, stroke, x);
      if (line.bound && alone) inner.append(svg("path", {d: area(line.mean.map((v, i) => v ?? line.bound[i]), line.bound, x, y), fill: "var(--c8)", opacity: 0.14}));
      if (line.low) inner.append(svg("path", {d: area(line.low, line.high, x, y), fill: stroke, opacity: 0.18}));
    }
    for (const v of this.spec.levels) inner.append(svg("path", {class: "level", d: `M${LEFT} ${y(v)}H${width - RIGHT}`}));
    for (const [step, label] of this.spec.marks) {
      const t = placeOf(step);
      if (t !== null) inner.append(svg("path", {class: "mark", d: `M${x(t)} ${TOP}V${HEIGHT}`}, svg("title", {}, `${label ? `${label}: ` : ""}${DATA.unit} ${step.toLocaleString("en")}`)));
    }
    for (const line of this.lines.filter(line => line.on)) {
      const stroke = colour(line.colour);
      if (line.bound) inner.append(svg("path", {d: path(line.bound, x, y), fill: "none", stroke: alone ? "var(--c8)" : stroke, "stroke-width": 1, "stroke-dasharray": "4 2.5"}));
      inner.append(svg("path", {class: "line", d: path(line.values, x, y, line.stepped), fill: "none", stroke, "stroke-width": 1.7, "stroke-linejoin": "round", "stroke-dasharray": dashes[line.dash]}));
      if (line.dash === "solid" && !line.stepped) inner.append(svg("path", {d: dots(line.values, x, y), stroke, "stroke-width": 4, "stroke-linecap": "round"}));
    }
    this.over = svg("g");
    this.plot.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.plot.replaceChildren(inner, ...bad(width, HEIGHT - BOTTOM), ...outer, this.over);
  }
  move() {
    const t = axis.at[view.at], said = [];
    this.over.replaceChildren();
    if (t !== null && t >= axis.shown[0] && t <= axis.shown[1]) {
      const x = across(t, this.width).toFixed(1);
      this.over.append(svg("path", {class: "cursor", d: `M${x} ${TOP}V${HEIGHT - BOTTOM}`}));
      for (const line of this.lines) {
        const value = line.values[view.at];
        if (line.on && value !== null) this.over.append(svg("circle", {class: "dot", cx: x, cy: Math.min(Math.max(this.y(value), TOP), HEIGHT - BOTTOM).toFixed(1), r: 3.6, fill: colour(line.colour), stroke: "var(--paper)", "stroke-width": 1.4}));
      }
    }
    this.lines.forEach((line, i) => {
      const at = list => list?.[view.at] ?? null;
      const band = at(line.low) === null ? "" : ` [${number(at(line.low))}, ${number(at(line.high))}]`;
      const null_ = at(line.bound) === null ? "" : ` · null ${line.down ? "≥" : "≤"} ${number(at(line.bound))}`;
      this.values[i].textContent = number(at(line.values)) + band + null_;
      if (line.on) said.push(`${line.label || this.spec.title} ${this.values[i].textContent}`);
    });
    this.plot.setAttribute("aria-valuenow", view.at);
    this.plot.setAttribute("aria-valuetext", `${where()}: ${said.join("; ")}`);
  }
}
function short(v) { const size = Math.abs(v); return size >= 10000 || (size > 0 && size < 0.001) ? v.toExponential(0).replace("+", "") : String(+v.toPrecision(3)); }
function ticksUp(low, high, log) {
  const found = [];
  if (log) {
    const span = Math.log10(high / low), digits = span > 2.5 ? [1] : [1, 2, 5];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) for (const d of digits) if (d * 10 ** power >= low && d * 10 ** power <= high) found.push(d * 10 ** power);
    return found;
  }
  const step = niceStep(high - low, 4);
  for (let v = Math.ceil(low / step) * step; v <= high + 1e-9 * step; v += step) found.push(Math.abs(v) < step / 1e6 ? 0 : v);
  return found;
}
function ticksAcross(width, y, left = LEFT) {
  const made = [svg("path", {class: "grid", d: `M${left} ${y}H${width - RIGHT}`})];
  let end = -Infinity;
  for (const v of axis.ticks) {
    const x = across(axis.scale(v), width, left), text = view.axis === "tokens" || v >= 10000 ? count(v) : String(v), half = 3.3 * text.length;
    if (x < left - 1 || x > width - RIGHT + 1 || x - half < end) continue;
    end = x + half + 6;
    made.push(svg("path", {class: "grid", d: `M${x.toFixed(1)} ${y}v4`}), svg("text", {x: Math.min(x, width - half).toFixed(1), y: y + 15, "text-anchor": "middle"}, text));
  }
  return made;
}
function strip(to, [after, by], fill, x) {
  const [a, b] = [after ?? by, by].map(placeOf);
  if (a !== null && b !== null) to.append(svg("rect", {x: x(a), y: TOP, width: Math.max(x(b) - x(a), 1), height: HEIGHT, fill, class: "strip", "fill-opacity": "var(--strip)"}));
}
// Checkpoints that were masked or failed, as crosses on the axis.
function bad(width, y, left = LEFT) {
  const made = [];
  DATA.status.forEach((status, i) => {
    const t = axis.at[i];
    if ((status !== "masked" && status !== "failed") || t === null || t < axis.shown[0] || t > axis.shown[1]) return;
    const x = across(t, width, left);
    made.push(svg("path", {class: `bad ${status}`, d: status === "failed" ? `M${x - 3} ${y - 3}l6 6m0 -6l-6 6` : `M${x - 3} ${y}a3 3 0 1 0 6 0a3 3 0 1 0 -6 0`}, svg("title", {}, `step ${DATA.steps[i]}: ${status}${DATA.reasons[i] ? `, ${DATA.reasons[i]}` : ""}`)));
  });
  return made;
}

const readout = document.getElementById("cursor-text"), slider = document.getElementById("cursor");
function where() {
  const tokens = DATA.tokens[view.at], status = DATA.status[view.at];
  return `${DATA.unit} ${DATA.steps[view.at].toLocaleString("en")}${tokens === null ? "" : ` · ${count(tokens)} tokens`}${status === "complete" ? "" : ` · ${status}${DATA.reasons[view.at] ? `: ${DATA.reasons[view.at]}` : ""}`}`;
}
function go(index) {
  index = Math.min(Math.max(index, 0), N - 1);
  if (index === view.at) return;
  view.at = index;
  moved();
}
function moved() {
  slider.value = view.at;
  slider.setAttribute("aria-valuetext", where());
  readout.textContent = where();
  for (const panel of panels) panel.move();
  for (const follow of followed) follow();
}
function redraw() {
  makeAxis();
  for (const panel of panels) panel.measure();
  const draws = drawn.map(measure => measure());
  for (const panel of panels) panel.draw();
  for (const draw of draws) draw();
  moved();
}
function zoom(range) {
  if (range) {
    const inside = axis.at.filter(t => t !== null && t >= range[0] && t <= range[1]).length;
    if (inside < 2) return;
    range = range[0] <= axis.full[0] && range[1] >= axis.full[1] ? null : [Math.max(range[0], axis.full[0]), Math.min(range[1], axis.full[1])];
  }
  view.zoom = range;
  redraw();
}
function zoomBy(factor) {
  const [low, high] = axis.shown, middle = Math.min(Math.max(axis.at[view.at] ?? (low + high) / 2, low), high);
  zoom([middle - (middle - low) * factor, middle + (high - middle) * factor]);
}
function keyed(event) {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const done = {ArrowLeft: () => go(view.at - 1), ArrowRight: () => go(view.at + 1), Home: () => go(0), End: () => go(N - 1), PageUp: () => go(view.at - 5), PageDown: () => go(view.at + 5), "+": () => zoomBy(0.5), "=": () => zoomBy(0.5), "-": () => zoomBy(2), "0": () => zoom(null)}[event.key];
  if (done) { event.preventDefault(); done(); }
}

// The numbers of a figure as a table; a text that a spreadsheet would take for a formula is kept from being one.
function csv(figure) {
  const cell = value => { const text = value === null || value === undefined ? "" : typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value); return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text; };
  const columns = [["step", DATA.steps], ["tokens", DATA.tokens], ["status", DATA.status]];
  for (const panel of figure.panels)
    for (const line of panel.lines) {
      const full = line.curve === undefined ? line : DATA.curves[line.curve], name = [panel.title, line.label].filter(Boolean).join(": ");
      columns.push([name, full.values]);
      for (const [key, words] of [["low", "2.5%"], ["high", "97.5%"], ["mean", "mean of the null"], ["bound", "bound of the null"]]) if (full[key]) columns.push([`${name}, ${words}`, full[key]]);
    }
  return [columns.map(([name]) => cell(name)), ...DATA.steps.map((_, i) => columns.map(([, values]) => cell(values[i])))].map(row => row.join(",")).join("\r\n") + "\r\n";
}
function save(name, text) {
  const link = el("a", {href: URL.createObjectURL(new Blob([text], {type: "text/csv"})), download: `${name}.csv`});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

for (const host of document.querySelectorAll("[data-chart]")) {
  const figure = DATA.figures[host.dataset.chart];
  figure.panels.forEach((spec, i) => new Panel(spec, host.querySelector(".panels"), i));
  host.querySelector(".csv").addEventListener("click", () => save(figure.name, csv(figure)));
}
slider.max = N - 1;
slider.addEventListener("input", () => go(Number(slider.value)));
for (const radio of document.querySelectorAll("[name=axis]")) radio.addEventListener("change", () => { if (radio.checked) { view.axis = radio.value; view.zoom = null; redraw(); } });
document.getElementById("log").addEventListener("change", event => { view.log = event.target.checked; view.zoom = null; redraw(); });
for (const [id, factor] of [["zoom-in", 0.5], ["zoom-out", 2]]) document.getElementById(id).addEventListener("click", () => zoomBy(factor));
document.getElementById("zoom-all").addEventListener("click", () => zoom(null));
let wide = innerWidth;
addEventListener("resize", () => { if (innerWidth !== wide) { wide = innerWidth; redraw(); } });
