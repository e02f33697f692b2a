// What is seen, in the address of the page: whoever opens a copied link sees the same. Nodes and edges are named by what they
// are, so that a link holds when the explanation is made anew.

const edgeKey = (edge) => { const [source, target, port] = data.edges[edge]; return `${data.nodes[source][1]}>${data.nodes[target][1]}:${port}`; };
const edgeKeys = new Map(data.edges.map((_, edge) => [edgeKey(edge), edge]));

// Not at every move of the slider: browsers limit how often an address changes.
let waiting = null;
function remember() {
  if (restoring) return;
  clearTimeout(waiting);
  waiting = setTimeout(writeAddress, 250);
}

function writeAddress() {
  waiting = null;
  const state = new URLSearchParams();
  state.set("step", data.checkpoints[current].title.replace(/\D/g, ""));
  if (pinned) state.set("pin", pinned.kind === "node" ? data.nodes[pinned.index][1] : edgeKey(pinned.index));
  if (pins.size) state.set("pins", [...pins].map((i) => data.nodes[i][1]).join("|"));
  if (lensShows !== "top") state.set("lens", lensShows);
  if (compared !== null) state.set("against", data.checkpoints[compared].title.replace(/\D/g, ""));
  for (const group of groups) state.append("group", `${encodeURIComponent(group.name)}|${[...group.nodes].map((i) => data.nodes[i][1]).join("|")}`);
  try {
    history.replaceState(null, "", `#${state}`);
  } catch {
    // Too often even so; the next change says it all again.
  }
}

const atStep = (text) => data.checkpoints.findIndex((checkpoint) => checkpoint.title.replace(/\D/g, "") === text);
const known = (ids) => ids.map((id) => byId.get(id)).filter((index) => index !== undefined);

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a percent sign that somebody wrote
  }
}

let restoring = false;
function restore() {
  const state = new URLSearchParams(location.hash.slice(1));
  clearTimeout(waiting); // what was to be written is no longer seen
  waiting = null;
  restoring = true;
  const step = atStep(state.get("step"));
  const pin_ = state.get("pin");
  pinned = byId.has(pin_) ? { kind: "node", index: byId.get(pin_) } : edgeKeys.has(pin_) ? { kind: "edge", index: edgeKeys.get(pin_) } : null;
  pins.clear();
  for (const index of known((state.get("pins") || "").split("|"))) pins.add(index);
  groups.length = 0;
  for (const text of state.getAll("group")) {
    const [name, ...ids] = text.split("|");
    const nodes = known(ids);
    if (nodes.length) groups.push({ name: decoded(name).slice(0, 60), nodes: new Set(nodes) });
  }
  lensShows = state.get("lens") === "answer" ? "answer" : "top";
  document.querySelector(`input[name=lens][value=${lensShows}]`).checked = true;
  const other = state.has("against") ? atStep(state.get("against")) : -1;
  compared = other < 0 ? null : other;
  against.value = compared === null ? "" : String(compared);
  halt();
  groupsSaid.textContent = "";
  drawGroups();
  show(step < 0 ? last : step);
  restoring = false;
}
addEventListener("hashchange", restore);
addEventListener("pagehide", () => { if (waiting !== null) writeAddress(); });
restore();
document.getElementById("flow-scroll").scrollLeft = 1e6; // the answer is at the last position
document.getElementById("lens-scroll").scrollLeft = 1e6;
