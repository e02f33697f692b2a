// Groups of nodes (supernodes): made by hand, over positions, or of nodes whose attributions go through training alike. What
// a group does is the sum over the kept edges that leave it: those within it are not counted.

const groups = []; // {name, nodes: Set}
const byId = new Map(data.nodes.map(([, id], index) => [id, index]));
const groupList = document.getElementById("groups");
const groupsSaid = document.getElementById("groups-said");
const ALIKE = 0.9; // correlation of two nodes' attributions from which on they are alike
const TOGETHER = 4; // checkpoints at which both were kept, without which two nodes are not compared
let shownGroup = null; // whose nodes are lit, while the pointer or the focus is at it

// Of every checkpoint: sum over edges that leave the nodes; null where nothing was explained.
function effectOf(nodes) {
  return data.checkpoints.map((checkpoint) => {
    if (!checkpoint.edges.length) return null;
    let sum = 0;
    for (let i = 0; i < checkpoint.edges.length; i += 2) {
      const [source, target] = data.edges[checkpoint.edges[i]];
      if (nodes.has(source) && !nodes.has(target)) sum += checkpoint.edges[i + 1] || 0;
    }
    return sum;
  });
}

// The attribution of every node at every checkpoint at which something was explained; null where it was not kept.
function curvesOf() {
  const known = data.checkpoints.filter((checkpoint) => checkpoint.edges.length);
  return data.nodes.map((_, index) => known.map((checkpoint) => {
    for (let i = 0; i < checkpoint.nodes.length; i += 2) if (checkpoint.nodes[i] === index) return checkpoint.nodes[i + 1];
    return null;
  }));
}

// Over the checkpoints at which both were kept: what was not kept has no number, and being kept together is not being alike.
function correlation(first, second) {
  const both = first.flatMap((x, i) => (x === null || second[i] === null ? [] : [[x, second[i]]]));
  if (both.length < TOGETHER) return 0;
  const [a, b] = [0, 1].map((end) => both.map((pair) => pair[end]));
  const mean = (v) => v.reduce((sum, x) => sum + x, 0) / v.length;
  const [p, q] = [mean(a), mean(b)];
  let [ab, aa, bb] = [0, 0, 0];
  a.forEach((x, i) => { ab += (x - p) * (b[i] - q); aa += (x - p) ** 2; bb += (b[i] - q) ** 2; });
  return aa && bb ? ab / Math.sqrt(aa * bb) : 0;
}

// Complete linkage: every two nodes of a group are alike, not only neighbours.
function alike() {
  const curves = curvesOf();
  let sets = data.nodes.map((_, i) => i).filter((i) => /^(head|MLP)/.test(data.nodes[i][0]) && curves[i].filter((x) => x !== null).length >= TOGETHER).map((i) => [i]);
  const near = new Map();
  const likeness = (i, j) => {
    const key = i < j ? `${i},${j}` : `${j},${i}`;
    if (!near.has(key)) near.set(key, correlation(curves[i], curves[j]));
    return near.get(key);
  };
  for (;;) {
    let best = ALIKE, pair = null;
    for (let a = 0; a < sets.length; a++) for (let b = a + 1; b < sets.length; b++) {
      let least = 1;
      for (const i of sets[a]) for (const j of sets[b]) { least = Math.min(least, likeness(i, j)); if (least <= best) break; }
      if (least > best) [best, pair] = [least, [a, b]];
    }
    if (!pair) break;
    sets[pair[0]] = sets[pair[0]].concat(sets[pair[1]]);
    sets.splice(pair[1], 1);
  }
  return sets.filter((set) => set.length > 1);
}

// Heads, and MLPs, with their positions taken together.
function overPositions() {
  const found = new Map();
  data.nodes.forEach(([name], index) => {
    const part = name.split(" at position ")[0];
    if (/^(head|MLP)/.test(part)) found.set(part, [...(found.get(part) || []), index]);
  });
  return [...found].filter(([, nodes]) => nodes.length > 1);
}

// Sets of nodes that are not a group already become one; `none` is said where there is no set.
function addGroups(sets, none) {
  const key = (nodes) => [...nodes].sort((a, b) => a - b).join();
  const there = new Set(groups.map((group) => key(group.nodes)));
  const added = sets.filter(([, nodes]) => !there.has(key(nodes)));
  for (const [name, nodes] of added) groups.push({ name, nodes: new Set(nodes) });
  drawGroups();
  const count = `${added.length} group${added.length === 1 ? "" : "s"} added`;
  groupsSaid.textContent = !sets.length ? none : added.length ? `${count}.` : sets.length === 1 ? "This is a group already." : "These are groups already.";
  remember();
}

function drawGroups() {
  groupList.replaceChildren(...groups.map((group, number) => {
    const item = document.createElement("li");
    const name = Object.assign(document.createElement("input"), { value: group.name, maxLength: 60 });
    name.setAttribute("aria-label", `Name of group ${number + 1}`);
    name.addEventListener("input", () => { group.name = name.value; remember(); });
    const members = Object.assign(document.createElement("span"), { className: "soft small", textContent: [...group.nodes].map((i) => data.nodes[i][1]).join(", ") });
    const value = Object.assign(document.createElement("span"), { className: "effect" });
    const remove = Object.assign(document.createElement("button"), { type: "button", textContent: "remove" });
    remove.setAttribute("aria-label", `Remove the group ${group.name}`);
    remove.addEventListener("click", () => { groups.splice(number, 1); shownGroup = null; groupsSaid.textContent = ""; drawGroups(); mark(); remember(); });
    item.append(name, groupChart(group), value, remove, members);
    for (const kind of ["pointerenter", "focusin"]) item.addEventListener(kind, () => { shownGroup = group; mark(); });
    for (const kind of ["pointerleave", "focusout"]) item.addEventListener(kind, () => { shownGroup = null; mark(); });
    return item;
  }));
  boxes.forEach((box, index) => box.classList.toggle("grouped", groups.some((group) => group.nodes.has(index))));
  moveGroups();
}

function groupChart(group) {
  const effect = (group.effect = effectOf(group.nodes));
  const known = effect.filter((v) => v !== null);
  const [low, high] = [Math.min(0, ...known), Math.max(0, ...known)];
  const [width, height] = [460, 64];
  const y = (v) => 6 + (height - 12) * (1 - (v - low) / (high - low || 1));
  const chart = svg("svg", { class: "group-chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Effect of the group through training, from ${signed(low)} to ${signed(high)} logits` });
  svg("path", { class: "rule", d: `M34 ${y(0)}H448` }, chart);
  for (const v of [low, high]) if (v) svg("text", { class: "axis", x: 30, y: y(v) + 4, "text-anchor": "end" }, chart).textContent = signed(v, 1);
  let path = "";
  let drawing = false;
  effect.forEach((v, i) => { if (v !== null) path += `${drawing ? "L" : "M"}${data.across[i]} ${y(v).toFixed(1)}`; drawing = v !== null; });
  svg("path", { class: "answer", d: path }, chart);
  group.now = svg("line", { class: "now", y1: 2, y2: height - 2 }, chart);
  return chart;
}

function moveGroups() {
  groups.forEach((group, number) => {
    for (const end of ["x1", "x2"]) group.now.setAttribute(end, data.across[current]);
    const value = group.effect[current];
    groupList.children[number].querySelector(".effect").textContent = value === null ? "–" : `${signed(value)} logits`;
  });
}

const markWithoutGroups = mark;
mark = () => {
  markWithoutGroups();
  document.getElementById("group-pinned").disabled = pins.size < 2;
  boxes.forEach((box, index) => box.classList.toggle("pinned", pins.has(index)));
  if (!shownGroup) return;
  flow.classList.add("near");
  boxes.forEach((box, index) => box.classList.toggle("lit", shownGroup.nodes.has(index)));
  for (const [edge] of shown.edges) {
    const [source, target] = data.edges[edge];
    lines.get(edge).group.classList.toggle("lit", shownGroup.nodes.has(source) !== shownGroup.nodes.has(target));
  }
};

document.getElementById("group-pinned").addEventListener("click", () => {
  addGroups([[`group ${groups.length + 1}`, pins]]);
  pins.clear();
  mark();
  remember();
});
document.getElementById("group-alike").addEventListener("click", () => {
  const found = alike().map((nodes) => [`alike: ${data.nodes[nodes[0]][1]} and ${nodes.length - 1} more`, nodes]);
  addGroups(found, `No two nodes go through training alike: none correlate above ${ALIKE} over ${TOGETHER} or more checkpoints at which both were kept.`);
});
document.getElementById("group-positions").addEventListener("click", () => {
  addGroups(overPositions().map(([name, nodes]) => [`${name}, all positions`, nodes]), "No head and no MLP is kept at more than one position.");
});
