// All circuits on the axis of the page: one row for each finding, those of one circuit together.
const line = document.getElementById("timeline");
if (line) {
  const MARGIN = 6, TALL = 22, rows = [];
  DATA.timeline.forEach((group, number) => {
    const fill = `var(--c${number % 6})`;
    const list = el("ul", {});
    line.append(el("div", {class: "circuit"}, el("h3", {}, el("a", {href: `#${group.analysis}`}, group.title)), list));
    for (const row of group.rows) {
      const picture = svg("svg", {class: "plot row", role: "img", "aria-label": `${row.title}: ${row.text}`});
      const value = el("span", {class: "now"});
      const name = el("span", {class: "name"}, row.title);
      if (row.fragile) name.append(" ", el("span", {class: "fragile", title: "with other prompts, null draws or a checkpoint less, another date or state is found too often"}, "fragile"));
      if (row.state === "transient") name.append(" ", el("span", {class: "fragile", title: "it rose above its null and was lost again"}, "transient"));
      list.append(el("li", {}, name, picture, value));
      rows.push({row, picture, value, fill, curve: DATA.curves[row.key]});
    }
  });
  const foot = svg("svg", {class: "plot foot", "aria-hidden": "true"});
  line.append(el("div", {class: "circuit axis"}, el("ul", {}, el("li", {}, el("span", {class: "name"}), foot, el("span", {class: "now"})))));
  const point = event => { const box = event.currentTarget.getBoundingClientRect(); go(nearest(event.clientX - box.left, box.width, MARGIN)); };
  for (const {picture} of rows) for (const kind of ["pointermove", "pointerdown"]) picture.addEventListener(kind, point);

  const bar = (to, range, width, height, attributes) => {
    const [a, b] = range.map(placeOf);
    if (a === null || b === null) return;
    const [x, end] = [across(a, width, MARGIN), across(b, width, MARGIN)];
    to.append(svg("rect", {x, y: (TALL - height) / 2, width: Math.max(end - x, 1.5), height, ...attributes}));
  };
  function track({row, picture, fill}, width) {
    const first = DATA.steps[0], last = DATA.steps[N - 1];
    picture.setAttribute("viewBox", `0 0 ${width} ${TALL}`);
    const inner = svg("svg", {x: MARGIN, width: width - MARGIN - RIGHT, height: TALL, viewBox: `${MARGIN} 0 ${width - MARGIN - RIGHT} ${TALL}`, overflow: "hidden"});
    for (const v of axis.ticks) inner.append(svg("path", {class: "grid", d: `M${across(axis.scale(v), width, MARGIN)} 0V${TALL}`}));
    if (row.onset) {
      const [after, by] = [row.onset[0] ?? first, row.onset[1] ?? last];
      if (row.range) { const range = [row.range[0] ?? first, row.range[1] ?? last]; bar(inner, range, width, 1.6, {fill, class: "range"}); for (const end of range) bar(inner, [end, end], width, 9, {fill}); }
      bar(inner, [by, row.end ?? last], width, 12, {fill, "fill-opacity": 0.38});
      bar(inner, [after, by], width, 12, {fill, class: "onset"});
      const middle = row.midpoint === null ? null : placeOf(row.midpoint);
      if (middle !== null && row.midpoint >= after) { const x = across(middle, width, MARGIN); inner.append(svg("path", {d: `M${x} 6l5 5l-5 5l-5 -5Z`, fill: "var(--paper)", stroke: "var(--ink)", "stroke-width": 1.1})); }
    } else if (row.state === "present from start") bar(inner, [first, last], width, 4, {fill, "fill-opacity": 0.38});
    picture.replaceChildren(inner, svg("title", {}, row.text));
    if (!row.onset) picture.append(svg("text", {x: MARGIN + 4, y: TALL / 2 + (row.state === "present from start" ? -1 : 4)}, row.state));
  }
  let width = 120;
  drawn.push(() => {
    width = Math.max(120, foot.clientWidth);  // as every row's
    return draw;
  });
  function draw() {
    for (const row of rows) track(row, width);
    foot.setAttribute("viewBox", `0 0 ${width} ${TALL + 8}`);
    foot.replaceChildren(...ticksAcross(width, 6, MARGIN), ...bad(width, 6, MARGIN));
  }
  followed.push(() => {
    const t = axis.at[view.at];
    for (const {picture, value, curve} of rows) {
      picture.querySelector(".cursor")?.remove();
      if (t !== null && t >= axis.shown[0] && t <= axis.shown[1]) { const x = across(t, width, MARGIN).toFixed(1); picture.append(svg("path", {class: "cursor", d: `M${x} 0V${TALL}`})); }
      const [v, bound] = [curve.values[view.at], curve.bound?.[view.at] ?? null];
      const above = v !== null && bound !== null && (curve.down ? v < bound : v > bound);
      value.textContent = `${above ? "●" : "○"} ${number(v)}`;
      value.title = v === null ? "not measured at this checkpoint" : above ? "beyond the bound of its null at this checkpoint" : "not beyond the bound of its null at this checkpoint";
    }
  });
}
