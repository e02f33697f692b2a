// What stands beside the flowchart: numbers, most probable tokens, the mark in the chart, the logit lens.

const cells = [...document.querySelectorAll("#lens td")]; // the last layer first, as the page shows it
let lensShows = "top";

function drawPanels(checkpoint, index) {
  document.getElementById("step").textContent = checkpoint.title;
  document.getElementById("more").textContent = checkpoint.more;
  document.querySelectorAll("#numbers dd").forEach((cell, i) => {
    cell.textContent = checkpoint.numbers[i];
  });
  document.getElementById("top").replaceChildren(
    ...checkpoint.top.map(([text, percent, probability]) => {
      const item = document.createElement("li");
      const name = document.createElement("bdi");
      const value = document.createElement("span");
      name.textContent = text;
      value.textContent = percent;
      item.append(name, value);
      item.style.setProperty("--p", probability || 0);
      return item;
    }),
  );
  const x = data.across[index];
  const now = document.getElementById("now");
  now.setAttribute("x1", x);
  now.setAttribute("x2", x);
  ["now-answer", "now-foil"].forEach((id, i) => {
    const mark = document.getElementById(id);
    const y = checkpoint.probabilities[i];
    mark.setAttribute("visibility", y === null ? "hidden" : "visible");
    mark.setAttribute("cx", x);
    mark.setAttribute("cy", y || 0);
  });
  drawLens(checkpoint.lens);
}

// Cell i of the page is (layer, position) counted from the top; the numbers are counted from the first layer.
function lensPlace(i) {
  const positions = data.positions.length;
  const layer = data.layers - 1 - Math.floor(i / positions);
  return { layer, position: i % positions, at: layer * positions + (i % positions) };
}

function drawLens(lens) {
  cells.forEach((cell, i) => {
    const { at } = lensPlace(i);
    const token = lens && data.vocabulary[lens.top[2 * at]];
    const probability = lens && (lensShows === "top" ? lens.top[2 * at + 1] : lens.answer[at]);
    cell.textContent = probability === null ? "–" : lensShows === "top" ? token : probability.toFixed(2);
    cell.style.setProperty("--p", probability || 0);
  });
}

document.querySelectorAll("input[name=lens]").forEach((radio) => {
  radio.addEventListener("change", () => {
    lensShows = radio.value;
    drawLens(shown.checkpoint.lens);
    remember();
  });
});

const lensTable = document.getElementById("lens");
lensTable.style.setProperty("--columns", data.positions.length + 1);
lensTable.addEventListener("pointerover", (event) => {
  const i = cells.indexOf(event.target);
  const lens = shown.checkpoint.lens;
  if (i < 0 || !lens) return;
  const { layer, position, at } = lensPlace(i);
  const percent = (p) => (p === null ? "–" : p < 0.001 ? "<0.1%" : `${(100 * p).toFixed(1)}%`);
  showTip(
    [
      `layer ${layer}, position ${data.positions[position]}`,
      `most probable: “${data.vocabulary[lens.top[2 * at]]}” ${percent(lens.top[2 * at + 1])}`,
      `answer ${data.answer}: ${percent(lens.answer[at])}`,
    ],
    event.target.getBoundingClientRect(),
  );
});
lensTable.addEventListener("pointerleave", () => mark());
