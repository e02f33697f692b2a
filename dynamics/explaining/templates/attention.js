// Where heads look that carry much into the answer, and which queries and keys made them look there.

const lookRows = document.getElementById("looks");
const lookOf = (checkpoint, [head, token]) => checkpoint.attention.find((look) => look[0] === head && look[1] === token);

// Attention between 0 and 1 at every checkpoint at which it was asked for.
function attentionChart(look) {
  const [width, height] = [460, 48];
  const y = (v) => 6 + (height - 12) * (1 - v);
  const label = `attention of ${look[0]} to position ${data.positions[look[1]]} through training`;
  const chart = svg("svg", { class: "group-chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const v of [0, 1]) {
    svg("path", { class: "rule", d: `M34 ${y(v)}H448` }, chart);
    svg("text", { class: "axis", x: 30, y: y(v) + 4, "text-anchor": "end" }, chart).textContent = v;
  }
  let path = "";
  let drawing = false;
  data.checkpoints.forEach((checkpoint, i) => {
    const found = lookOf(checkpoint, look);
    if (found) {
      path += `${drawing ? "L" : "M"}${data.across[i]} ${y(found[2]).toFixed(1)}`;
      svg("circle", { class: "looked-at", cx: data.across[i], cy: y(found[2]).toFixed(1), r: 1.8 }, chart);
    }
    drawing = Boolean(found);
  });
  svg("path", { class: "answer", d: path }, chart);
  svg("line", { class: "now", x1: data.across[current], x2: data.across[current], y1: 2, y2: height - 2 }, chart);
  return chart;
}

const weightOf = (p) => (p === null ? "–" : p < 0.01 && p > 0 ? "<1%" : `${(100 * p).toFixed(0)}%`);

// Lines of text: the score, then the largest parts of it by what wrote the query, the key, and both.
function madeOf([, , , , score, rest, queries, keys, pairs]) {
  if (rest === null) return [`${signed(score, 1)}: cannot be taken apart, the norm before the head is not known`];
  const list = (found) => found.map((part) => [...part.slice(0, -1).join(" × ").split(" "), signed(part[part.length - 1], 1)].join("\u00a0")).join(", ");
  const lines = [`${signed(score, 1)} in all${Math.abs(rest) > 0.05 ? `, of which ${signed(rest, 1)} is no query times a key` : ""}`];
  for (const [word, found] of [["keys of", keys], ["queries of", queries], ["query × key", pairs]]) if (found.length) lines.push(`${word} ${list(found)}`);
  return lines;
}

function drawAttention(checkpoint) {
  lookRows.replaceChildren(...checkpoint.attention.map((look) => {
    const line = document.createElement("tr");
    const head = Object.assign(document.createElement("th"), { scope: "row", textContent: look[0] });
    const cells = [data.positions[look[1]], weightOf(look[2]), weightOf(look[3])].map((text) => Object.assign(document.createElement("td"), { textContent: text }));
    const parts = document.createElement("td");
    parts.append(...madeOf(look).map((text) => Object.assign(document.createElement("div"), { textContent: text })));
    const chart = document.createElement("td");
    chart.append(attentionChart(look));
    line.append(head, ...cells, parts, chart);
    return line;
  }));
  document.getElementById("attention-said").textContent = checkpoint.attention.length ? "" : "No head that was asked about carries anything at this checkpoint.";
}

const tipWithoutAttention = tipOf;
tipOf = (item) => {
  const text = tipWithoutAttention(item);
  if (item.kind !== "node") return text;
  const looks = shown.checkpoint.attention.filter((look) => look[0] === data.nodes[item.index][1]);
  return [...text, ...looks.map((look) => `looks at ${data.positions[look[1]]} with ${weightOf(look[2])} (${weightOf(look[3])} corrupted)`)];
};

const panelsWithoutAttention = drawPanels;
drawPanels = (checkpoint, index) => {
  panelsWithoutAttention(checkpoint, index);
  drawAttention(checkpoint);
};
