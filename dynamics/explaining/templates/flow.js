// The flowchart: boxes are in the page already and stay where they are; lines are made when first needed and kept.

const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const flow = document.getElementById("flow");
const tip = document.getElementById("tip");
const boxes = [...document.querySelectorAll(".node")];
const lines = new Map(); // edge number -> {group, hit, line}
const PORTS = { q: "its queries", k: "its keys", v: "its values", in: "its input" };

const edgeLayer = document.getElementById("edges");

let shown = { nodes: new Map(), edges: new Map(), checkpoint: null }; // scores at the current checkpoint
let hovered = null; // {kind: "node" | "edge", index}: under the pointer or focused
let pointer = null; // where the pointer met it; null when it was the keyboard
let pinned = null; // the same, by click or Enter; stays while one moves through training
const pins = new Set(); // nodes that were pinned beside each other, with shift, to be grouped

const same = (a, b) => a !== null && b !== null && a.kind === b.kind && a.index === b.index;

const signOf = (score) => (score === null ? "unknown" : score < 0 ? "minus" : "plus");

function signed(score, digits = 2) {
  if (score === null) return "–";
  const text = Math.abs(score).toFixed(digits);
  return (Number(text) === 0 ? "" : score < 0 ? "−" : "+") + text;
}

function svg(name, attributes, parent) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (parent) parent.append(element);
  return element;
}

// The strongest edges into (end 1) or out of (end 0) a node, the strongest first.
function edgesAt(node, end) {
  const found = [...shown.edges].filter(([edge]) => data.edges[edge][end] === node);
  return found.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
}

function makeLine(edge) {
  // The wide transparent line is what the pointer meets: most lines are too thin to be met.
  const group = svg("g", { class: "edge", "data-edge": edge, tabindex: -1, role: "button" });
  const path = { d: data.edges[edge][3] };
  const hit = svg("path", { ...path, class: "hit" }, group);
  const line = svg("path", { ...path, class: "line" }, group);
  lines.set(edge, { group, hit, line });
  return lines.get(edge);
}

function drawFlow(checkpoint) {
  const nodes = new Map();
  const edges = new Map();
  for (let i = 0; i < checkpoint.nodes.length; i += 2) nodes.set(checkpoint.nodes[i], checkpoint.nodes[i + 1]);
  for (let i = 0; i < checkpoint.edges.length; i += 2) edges.set(checkpoint.edges[i], checkpoint.edges[i + 1]);
  shown = { nodes, edges, checkpoint };

  boxes.forEach((box, index) => {
    const score = nodes.get(index);
    box.classList.toggle("on", nodes.has(index));
    for (const name of ["plus", "minus"]) box.classList.toggle(name, nodes.has(index) && signOf(score) === name);
    if (nodes.has(index)) {
      box.setAttribute("tabindex", 0);
      box.setAttribute("role", "button");
      box.setAttribute("aria-label", `${data.nodes[index][0]}: ${signed(score)} logits`);
    } else {
      for (const name of ["tabindex", "role", "aria-label", "aria-pressed"]) box.removeAttribute(name);
    }
  });

  // Width on one scale for all checkpoints, so that growth shows; opacity on this checkpoint's own, so that early ones
  // can be read too.
  const strongest = Math.max(...[...edges.values()].map(Math.abs), 0) || 1;
  for (const [edge, { group }] of lines) if (!edges.has(edge)) group.remove();
  for (const [edge, score] of edges) {
    const { group, line } = lines.get(edge) || makeLine(edge);
    line.setAttribute("stroke-width", (0.7 + (5.3 * Math.abs(score)) / (data.strongest || 1)).toFixed(2));
    line.setAttribute("opacity", (0.16 + 0.74 * Math.sqrt(Math.abs(score) / strongest)).toFixed(2));
    line.setAttribute("class", `line ${signOf(score)}`);
    group.setAttribute("aria-label", `${edgeName(edge)}: ${signed(score)} logits`);
    if (!group.isConnected) edgeLayer.append(group); // what is there stays: moving it would end its focus and its fading
  }

  const labels = [];
  for (let i = 0; i < checkpoint.labels.length; i += 3) {
    const [edge, x, y] = checkpoint.labels.slice(i, i + 3);
    const label = svg("text", { class: "label", "data-edge": edge, x, y: y + 3.5, "text-anchor": "middle" });
    label.textContent = edgeLabel(edge);
    labels.push(label);
  }
  document.getElementById("labels").replaceChildren(...labels);

  document.getElementById("says").textContent = edges.size ? checkpoint.says : "";
  document.getElementById("message").textContent = edges.size ? "" : checkpoint.says;
  if (!isShown(hovered)) hovered = null;
  mark();
}

const isShown = (item) => item !== null && shown[item.kind === "node" ? "nodes" : "edges"].has(item.index);

function edgeLabel(edge) {
  const port = data.edges[edge][2];
  return signed(shown.edges.get(edge)) + (port === "in" ? "" : ` ${port}`);
}

function edgeName(edge) {
  const [source, target, port] = data.edges[edge];
  return `${data.nodes[source][1]} → ${data.nodes[target][1]}, ${PORTS[port]}`;
}

// Light up what is pointed at or pinned, what feeds it and what it feeds; fade the rest.
function mark() {
  const item = hovered || (isShown(pinned) ? pinned : null);
  flow.classList.toggle("near", item !== null);
  const litNodes = new Set();
  const litEdges = new Set();
  if (item && item.kind === "node") {
    litNodes.add(item.index);
    for (const edge of shown.edges.keys()) {
      const [source, target] = data.edges[edge];
      if (source !== item.index && target !== item.index) continue;
      litEdges.add(edge);
      litNodes.add(source).add(target);
    }
  } else if (item) {
    litEdges.add(item.index);
    litNodes.add(data.edges[item.index][0]).add(data.edges[item.index][1]);
  }
  boxes.forEach((box, index) => {
    box.classList.toggle("lit", litNodes.has(index));
    box.classList.toggle("chosen", same(item, { kind: "node", index }));
    if (shown.nodes.has(index)) box.setAttribute("aria-pressed", same(pinned, { kind: "node", index }));
  });
  for (const edge of shown.edges.keys()) {
    const { group } = lines.get(edge);
    group.classList.toggle("lit", litEdges.has(edge));
    group.setAttribute("aria-pressed", same(pinned, { kind: "edge", index: edge }));
  }
  for (const label of document.querySelectorAll("#labels .label")) {
    label.classList.toggle("lit", litEdges.has(Number(label.dataset.edge)));
  }
  if (item) showTip(tipOf(item), (item === hovered && pointer) || elementOf(item).getBoundingClientRect());
  else if (pinned) showTip([nameOf(pinned), "Not among what is kept at this checkpoint."], flow.getBoundingClientRect());
  else tip.hidden = true;
}

const nameOf = (item) => (item.kind === "node" ? data.nodes[item.index][0] : edgeName(item.index));
const elementOf = (item) => (item.kind === "node" ? boxes[item.index] : lines.get(item.index).group);

function tipOf(item) {
  const score = (item.kind === "node" ? shown.nodes : shown.edges).get(item.index);
  const effect = { plus: " logits, supports the answer", minus: " logits, opposes the answer", unknown: " (no number)" };
  const text = [nameOf(item), signed(score, 3) + effect[signOf(score)]];
  if (item.kind === "node") {
    for (const [word, own, other] of [["fed by", 1, 0], ["feeds", 0, 1]]) {
      const found = edgesAt(item.index, own);
      if (!found.length) continue;
      const names = found.slice(0, 4).map(([edge, s]) => {
        const port = data.edges[edge][2];
        return `${data.nodes[data.edges[edge][other]][1]}${port === "in" ? "" : ` (${port})`} ${signed(s)}`;
      });
      const more = found.length > 4 ? `, and ${found.length - 4} more` : "";
      text.push(`${word} ${names.join(", ")}${more}`);
    }
  } else {
    text.push(`from ${data.nodes[data.edges[item.index][0]][0]}`, `to ${data.nodes[data.edges[item.index][1]][0]}`);
  }
  return text;
}

// Beside a rectangle of the window, and never outside of it.
function showTip([title, ...rest], box) {
  const strong = document.createElement("strong");
  strong.textContent = title;
  const others = rest.map((text) => {
    const line = document.createElement("div");
    line.textContent = text;
    return line;
  });
  tip.replaceChildren(strong, ...others);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const right = box.right + 10 + width < innerWidth ? box.right + 10 : box.left - 10 - width;
  tip.style.left = `${Math.max(8, Math.min(right, innerWidth - width - 8))}px`;
  tip.style.top = `${Math.max(8, Math.min(box.top, innerHeight - height - 8))}px`;
}

function itemAt(target) {
  const element = target.closest && target.closest(".node.on, .edge");
  if (!element) return null;
  return "node" in element.dataset
    ? { kind: "node", index: Number(element.dataset.node) }
    : { kind: "edge", index: Number(element.dataset.edge) };
}

function point(item, event = null) {
  if (item === hovered || same(item, hovered)) return;
  hovered = item;
  // A long line is met anywhere along its way; its tooltip belongs there.
  const beside = item && item.kind === "edge" && event;
  pointer = beside ? { left: event.clientX, right: event.clientX, top: event.clientY } : null;
  mark();
}

function pin(item, more = false) {
  if (more && item && item.kind === "node") {
    if (pinned && pinned.kind === "node" && !pins.size) pins.add(pinned.index);
    if (!pins.delete(item.index)) pins.add(item.index);
    pinned = null;
    mark();
    remember();
    return;
  }
  pins.clear();
  pinned = same(item, pinned) ? null : item;
  hovered = pinned ? item : null;
  mark();
  remember();
}

// From a node down and up through its edges, the strongest first; then from edge to edge of the same node.
let walked = null; // {node, edges}: whose edges the arrow keys go through
function walk(item, by) {
  if (item.kind === "node") {
    walked = { node: item.index, edges: [...edgesAt(item.index, 1), ...edgesAt(item.index, 0)].map(([edge]) => edge) };
  }
  if (!walked || !walked.edges.length) return;
  const at = item.kind === "node" ? -1 : walked.edges.indexOf(item.index);
  const next = at + by;
  if (next < 0 || at < 0 && by < 0) boxes[walked.node].focus();
  else if (next < walked.edges.length && shown.edges.has(walked.edges[next])) lines.get(walked.edges[next]).group.focus();
}

flow.addEventListener("pointerover", (event) => point(itemAt(event.target), event));
flow.addEventListener("pointerleave", () => point(null));
flow.addEventListener("focusin", (event) => point(itemAt(event.target)));
flow.addEventListener("focusout", () => point(null));
flow.addEventListener("click", (event) => pin(itemAt(event.target), event.shiftKey));
flow.addEventListener("keydown", (event) => {
  const item = itemAt(event.target);
  if (!item || event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "Enter" || event.key === " ") pin(item, event.shiftKey);
  else if (event.key === "ArrowDown") walk(item, 1);
  else if (event.key === "ArrowUp") walk(item, -1);
  else if (event.key === "Escape" && item.kind === "edge" && walked) boxes[walked.node].focus();
  else return;
  event.preventDefault();
});
