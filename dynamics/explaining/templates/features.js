// Features of a dictionary: the numbers in their boxes, what they are, and the edges that they split. Only pages that have
// some hold this; it goes on where the flowchart's own functions end.

const features = new Map(data.features.map(([feature, born, examples]) => [feature, { born, examples }]));
const featureAt = new Map(data.which); // node -> feature
const columnOf = new Map(data.columns); // node, feature or error -> position
let active = new Map(); // node -> [activation, that of the corrupted prompts] at the current checkpoint

// The edges that are kept and carry what a feature or error is a part of.
function passing(node) {
  const position = columnOf.get(node);
  return data.crossing.filter(([edge, at]) => at === position && shown.edges.has(edge)).map(([edge]) => edge);
}

const drawEdgesAndNodes = drawFlow;
drawFlow = (checkpoint) => {
  active = new Map();
  for (let i = 0; i < checkpoint.active.length; i += 3) {
    active.set(checkpoint.active[i], checkpoint.active.slice(i + 1, i + 3));
  }
  const scores = new Map();
  for (let i = 0; i < checkpoint.nodes.length; i += 2) scores.set(checkpoint.nodes[i], checkpoint.nodes[i + 1]);
  for (const node of columnOf.keys()) {
    boxes[node].querySelector(".value").textContent = scores.has(node) ? signed(scores.get(node)) : "";
  }
  drawEdgesAndNodes(checkpoint);
  document.getElementById("splits").textContent = checkpoint.splits;
};

const tipWithoutFeatures = tipOf;
tipOf = (item) => {
  const lines = tipWithoutFeatures(item);
  if (item.kind !== "node" || !columnOf.has(item.index)) return lines;
  if (!passing(item.index).length) lines.push("none of the edges that are kept passes here");
  if (!featureAt.has(item.index)) return lines;
  const { born, examples } = features.get(featureAt.get(item.index));
  const [now, corrupted] = active.get(item.index);
  lines.push(`active ${now.toFixed(2)}, for the corrupted prompt ${corrupted.toFixed(2)}`, born);
  if (examples.length) lines.push("fires most on");
  for (const [before, token, after, activation] of examples) lines.push({ before, token, after, activation });
  return lines;
};

// Examples come as objects: the token on which the feature fires is marked.
const showLines = showTip;
showTip = (lines, box) => {
  const plain = (line) => (typeof line === "string" ? line : Object.values(line).join(" "));
  showLines(lines.map(plain), box);
  [...tip.children].forEach((element, i) => {
    const line = lines[i];
    if (typeof line === "string") return;
    const token = document.createElement("mark");
    token.textContent = line.token;
    const strength = document.createElement("span");
    strength.className = "soft";
    strength.textContent = ` ${line.activation}`;
    element.replaceChildren(`${line.before} `, token, ` ${line.after}`, strength);
  });
};

// A feature has no lines of its own: it is a part of what the edges carry that pass it at its position.
const markWithoutFeatures = mark;
mark = () => {
  markWithoutFeatures();
  const item = hovered || (isShown(pinned) ? pinned : null);
  if (!item || item.kind !== "node" || !columnOf.has(item.index)) return;
  for (const edge of passing(item.index)) {
    lines.get(edge).group.classList.add("lit");
    for (const end of data.edges[edge].slice(0, 2)) boxes[end].classList.add("lit");
    const label = document.querySelector(`#labels [data-edge="${edge}"]`);
    if (label) label.classList.add("lit");
  }
};
