// The tile that is looked at: its numbers, signals and thumbnails beside the map or the gallery.
const view = {}; // draw, mark, focus: of the wafer map where tiles have places, else of the gallery

// colour ---------------------------------------------------------------------------------------
const BINS = 64;
const stops = data.colours.map((c) => [1, 3, 5].map((k) => parseInt(c.slice(k, k + 2), 16)));
const palette = Array.from({ length: BINS }, (_, b) => {
  const at = (b / (BINS - 1)) * (stops.length - 1);
  const k = Math.min(stops.length - 2, Math.floor(at));
  return `rgb(${stops[k].map((v, j) => Math.round(v + (stops[k + 1][j] - v) * (at - k))).join(",")})`;
});
function scale() {
  const runs = $("w-scale").checked ? data.runs.map((_, r) => r) : [state.run];
  const all = [];
  for (const r of runs)
    for (let i = 0; i < count; i++) {
      const v = numeric(cell(r, state.metric, i));
      if (Number.isFinite(v) && v !== null) all.push(v);
    }
  if (!all.length) return null;
  all.sort((a, b) => a - b);
  // a few outliers must not eat the range: the ends are the 1st and 99th percentile, and the legend says so
  const low = all[Math.floor(0.01 * (all.length - 1))], high = all[Math.ceil(0.99 * (all.length - 1))];
  return { low, high, below: all[0] < low, above: all[all.length - 1] > high };
}

function drawLegend(run, metric, range, empty, flagged) {
  const box = $("legend");
  box.replaceChildren();
  if (range) {
    const ramp = make("div", undefined, { class: "ramp" });
    ramp.append(make("b", heading(metric)), make("span", (range.below ? "≤ " : "") + format(range.low, metric.digits)));
    const bar = draw(ramp, "svg", { viewBox: `0 0 ${BINS} 10`, preserveAspectRatio: "none", "aria-hidden": "true" });
    palette.forEach((colour, b) => draw(bar, "rect", { x: b, width: 1.1, height: 10, fill: colour }));
    ramp.append(make("span", (range.above ? "≥ " : "") + format(range.high, metric.digits)), make("span", metric.direction, { class: "muted" }));
    box.append(ramp);
  } else box.append(make("p", metric ? `${run.label} has no ${metric.label} values.` : "No metric has a value on any tile."));
  const shapes = make("div", undefined, { class: "shapes" });
  const item = (cls, d, text) => {
    const span = make("span");
    const svg = draw(span, "svg", { viewBox: "-9 -9 18 18", width: 16, height: 16, "aria-hidden": "true" });
    draw(svg, "path", { class: cls, d });
    span.append(text);
    shapes.append(span);
  };
  if (flagged) item("flag", "M0 -7l7 7l-7 7l-7 -7z", `flagged by a signal (${flagged})`);
  if (empty) item("novalue", "M-6 -6h12v12h-12z", `no value (${empty})`);
  if (shapes.childNodes.length) box.append(shapes);
  const lost = data.x.filter((v) => v === null).length;
  $("map-counts").textContent = lost ? `${lost} tiles without coordinates are only in the table.` : "";
}

function select(i) {
  if (i === state.tile) return;
  state.tile = i;
  view.mark();
  const box = $("inspector");
  box.replaceChildren(make("h3", data.tiles[i]));
  const where = [data.wafers.length > 1 ? data.wafers[data.wafer[i]] : "", data.place[i]].filter(Boolean).join(" · ");
  if (where) box.append(make("p", where, { class: "muted" }));
  const several = data.runs.length > 1;
  data.runs.forEach((run) => {
    const who = several ? `${run.label}: ` : "";
    if (run.flags[i]) box.append(make("p", `◇ ${who}flagged: ${run.flags[i].join(", ")}`, { class: "flagged" }));
    const trouble = run.problems[i];
    if (trouble) box.append(make("p", `${who}${trouble.s.replace(/_/g, " ")}${trouble.r ? ": " + trouble.r : ""}`));
  });
  if (hasThumb(i)) {
    const strip = make("div", undefined, { class: "thumbs" });
    for (const sheet of sheets) {
      const figure = make("figure");
      figure.append(thumb(i, sheet), make("figcaption", sheet.label));
      strip.append(figure);
    }
    box.append(strip);
  }
  const table = make("table", undefined, { class: "numbers compact" });
  const head = table.createTHead().insertRow();
  head.append(make("th", "Metric", { scope: "col" }));
  data.runs.forEach((run, r) => head.append(make("th", several ? letter(r) : "Value", { scope: "col", class: "n", title: run.label })));
  const body = table.createTBody();
  let group = "scores";
  data.metrics.forEach((m, k) => {
    const values = data.runs.map((_, r) => cell(r, k, i));
    if (values.every((v) => v === null || v === undefined)) return;
    if (m.group !== group) {
      group = m.group;
      body.insertRow().append(make("th", data.groups[group], { scope: "colgroup", colspan: data.runs.length + 1, class: "group" }));
    }
    const row = body.insertRow();
    row.append(make("th", heading(m), { scope: "row" }));
    values.forEach((v) => row.append(make("td", format(v, m.digits), { class: "n" })));
  });
  box.append(table);
}
document.addEventListener("click", (event) => {
  const link = event.target.closest(".tile-link");
  if (!link) return;
  const i = data.tiles.indexOf(link.dataset.tile);
  if (i < 0) return;
  if (data.wafer.length && data.wafer[i] !== state.wafer) { state.wafer = data.wafer[i]; $("w-wafer").value = state.wafer; view.draw(); }
  select(i);
  view.focus();
  $("wafer").scrollIntoView({ block: "start" });
});
