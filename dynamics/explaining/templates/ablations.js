// What the answer becomes without some parts: measured, at every checkpoint. Rows are sorted by how much the metric moves.

const ablationRows = document.getElementById("ablated");
const ABLATIONS = 12; // rows that are shown
const ablationOf = new Map(data.ablations.map((name, number) => [name, number]));

const rowOf = (checkpoint, number) => (checkpoint.ablated || []).find((row) => row[0] === number);

// The metric as it is and with the ablation, over training.
function ablationChart(number) {
  const values = [data.checkpoints.map((c) => c.difference), data.checkpoints.map((c) => (rowOf(c, number) || [])[1] ?? null)];
  const known = values.flat().filter((v) => v !== null);
  const [low, high] = [Math.min(0, ...known), Math.max(0, ...known)];
  const [width, height] = [460, 64];
  const y = (v) => 6 + (height - 12) * (1 - (v - low) / (high - low || 1));
  const label = `${data.ablations[number]} ablated, logit difference through training`;
  const chart = svg("svg", { class: "group-chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  svg("path", { class: "rule", d: `M34 ${y(0)}H448` }, chart);
  for (const v of [low, high]) if (v) svg("text", { class: "axis", x: 30, y: y(v) + 4, "text-anchor": "end" }, chart).textContent = signed(v, 1);
  ["whole", "answer"].forEach((kind, of) => {
    let path = "";
    let drawing = false;
    values[of].forEach((v, i) => {
      if (v !== null) path += `${drawing ? "L" : "M"}${data.across[i]} ${y(v).toFixed(1)}`;
      drawing = v !== null;
      if (v !== null && of) svg("circle", { class: "ablated-at", cx: data.across[i], cy: y(v).toFixed(1), r: 1.8 }, chart);
    });
    svg("path", { class: kind, d: path }, chart);
  });
  svg("line", { class: "now", x1: data.across[current], x2: data.across[current], y1: 2, y2: height - 2 }, chart);
  return chart;
}

const percentOf = (p) => (p === null ? "–" : p < 0.001 ? "<0.1%" : `${(100 * p).toFixed(p < 0.01 ? 1 : 0)}%`);

function becomes([, difference, answer, , first, likely]) {
  if (difference === null) return "the logits are not finite";
  return `logit difference ${signed(difference)}, answer ${percentOf(answer)}, first choice ${first} ${percentOf(likely)}`;
}

function drawAblations(checkpoint) {
  const moved = (row) => (row[1] === null ? Infinity : Math.abs(row[1] - checkpoint.difference));
  const rows = [...(checkpoint.ablated || [])].sort((a, b) => moved(b) - moved(a)).slice(0, ABLATIONS);
  ablationRows.replaceChildren(...rows.map((row) => {
    const line = document.createElement("tr");
    const name = Object.assign(document.createElement("th"), { scope: "row", textContent: data.ablations[row[0]] });
    const cells = [signed(row[1]), percentOf(row[2]), row[4] === null ? "–" : `${row[4]} ${percentOf(row[5])}`].map((text) => Object.assign(document.createElement("td"), { textContent: text }));
    const chart = document.createElement("td");
    chart.append(ablationChart(row[0]));
    line.append(name, ...cells, chart);
    return line;
  }));
  const count = (checkpoint.ablated || []).length;
  document.getElementById("ablated-said").textContent = !count ? "Nothing was ablated at this checkpoint." : count > rows.length ? `${rows.length} of ${count}: those that move the logit difference most, from ${signed(checkpoint.difference)}.` : `The logit difference is ${signed(checkpoint.difference)} as the model is.`;
}

const tipWithoutAblations = tipOf;
tipOf = (item) => {
  const text = tipWithoutAblations(item);
  const row = item.kind === "node" && rowOf(shown.checkpoint, ablationOf.get(data.nodes[item.index][1]));
  return row ? [...text, `${data.ablated_in_words}: ${becomes(row)}`] : text;
};

const panelsWithoutAblations = drawPanels;
drawPanels = (checkpoint, index) => {
  panelsWithoutAblations(checkpoint, index);
  drawAblations(checkpoint);
};
