// What changed in the flowchart between another checkpoint and the one that is shown: edges that appeared, that vanished, and
// that are stronger by more than a quarter or weaker by more than a fifth (one is the other, seen from the other checkpoint).

const against = document.getElementById("against");
const goneLayer = document.getElementById("gone");
let compared = null; // index of the other checkpoint

const scoresOf = (checkpoint) => {
  const found = new Map();
  for (let i = 0; i < checkpoint.edges.length; i += 2) found.set(checkpoint.edges[i], checkpoint.edges[i + 1]);
  return found;
};

// [edge, what happened, then, now], the largest change first.
function changesOf(before, now) {
  const found = [];
  for (const edge of new Set([...before.keys(), ...now.keys()])) {
    const [a, b] = [before.get(edge), now.get(edge)];
    if (a === undefined) found.push([edge, "appeared", null, b]);
    else if (b === undefined) found.push([edge, "vanished", a, null]);
    else if (a !== null && b !== null && Math.sign(a) !== Math.sign(b)) found.push([edge, "turned", a, b]);
    else if (Math.abs(b) > 1.25 * Math.abs(a)) found.push([edge, "stronger", a, b]);
    else if (Math.abs(b) < 0.8 * Math.abs(a)) found.push([edge, "weaker", a, b]);
  }
  const size = ([, , a, b]) => Math.abs((b || 0) - (a || 0));
  return found.sort((p, q) => size(q) - size(p));
}

const CHANGES = ["appeared", "vanished", "stronger", "weaker", "turned"];

function drawChanges() {
  flow.classList.remove("comparing");
  const list = document.getElementById("changes");
  const said = document.getElementById("changed");
  goneLayer.replaceChildren();
  for (const edge of shown.edges.keys()) lines.get(edge).line.classList.remove(...CHANGES);
  list.replaceChildren();
  const table = document.getElementById("changes-table");
  table.hidden = true;
  if (compared === null) return (said.textContent = "");
  const before = data.checkpoints[compared];
  const without = [before, data.checkpoints[current]].find((checkpoint) => !checkpoint.edges.length);
  if (compared === current) return (said.textContent = "This is the checkpoint that is shown: choose another one.");
  if (without) return (said.textContent = `Nothing was explained at ${without.title}, so there is nothing to compare. ${without.says}`);
  const found = changesOf(scoresOf(before), shown.edges);
  flow.classList.add("comparing");
  table.hidden = false;
  for (const [edge, kind, then, now] of found) {
    if (kind === "vanished") svg("path", { d: data.edges[edge][3], class: "line vanished" }, goneLayer);
    else lines.get(edge).line.classList.add(kind);
    const row = document.createElement("tr");
    for (const text of [edgeName(edge), kind, then === null ? "–" : signed(then), now === null ? "–" : signed(now)]) {
      row.append(Object.assign(document.createElement("td"), { textContent: text }));
    }
    list.append(row);
  }
  const counts = CHANGES.map((kind) => [found.filter((change) => change[1] === kind).length, kind]);
  const words = { appeared: "appeared", vanished: "vanished", stronger: "are stronger", weaker: "are weaker", turned: "changed their sign" };
  const parts = counts.filter(([count]) => count).map(([count, kind]) => `${count} ${words[kind]}`);
  const same_ = shown.edges.size - found.filter(([, kind]) => kind !== "vanished").length;
  said.textContent = `Compared with ${before.title}, of the edges that are kept ${parts.length ? parts.join(", ") : "none changed"}${parts.length ? `, and ${same_} are as they were` : ""}.`;
}

function compare(index) {
  compared = index;
  against.value = index === null ? "" : String(index);
  drawChanges();
}
for (const [index, checkpoint] of data.checkpoints.entries()) {
  against.append(Object.assign(document.createElement("option"), { value: index, textContent: checkpoint.title + (checkpoint.edges.length ? "" : ` (${checkpoint.state})`), disabled: !checkpoint.edges.length }));
}
against.addEventListener("change", () => { compare(against.value === "" ? null : Number(against.value)); remember(); });
