// The wafer map: one path a colour, so that 10,000 tiles stay a hundred nodes and print sharp.
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

// map ------------------------------------------------------------------------------------------
const f = (v) => v.toFixed(1);
function rect(i, grow) {
  const w = data.size[0] * S + grow, h = data.size[1] * S + grow;
  return `M${f(data.x[i] * S - w / 2)} ${f(-data.y[i] * S - h / 2)}h${f(w)}v${f(h)}h${f(-w)}z`;
}
function diamond(i) {
  const r = Math.max(9, 0.72 * S * Math.max(data.size[0], data.size[1]));
  return `M${f(data.x[i] * S)} ${f(-data.y[i] * S - r)}l${f(r)} ${f(r)}l${f(-r)} ${f(r)}l${f(-r)} ${f(-r)}z`;
}
function drawMap() {
  const run = data.runs[state.run], metric = data.metrics[state.metric], range = metric ? scale() : null;
  const svg = document.createElementNS(NS, "svg");
  svg.setAttribute("viewBox", data.outline ? "-520 -520 1040 1050" : "-500 -500 1000 1000");
  svg.setAttribute("aria-hidden", "true");
  if (data.outline) {
    const a = 0.05; // half the notch's opening, radians (drawn larger than life)
    const x = S * Math.sin(a), y = S * Math.cos(a);
    // quarter turns, counter-clockwise, from a notch at the bottom
    draw(svg, "path", { class: "wafer-edge", transform: `rotate(${-90 * data.notch})`, d: `M${f(-x)} ${f(y)}A${S} ${S} 0 1 1 ${f(x)} ${f(y)}L0 ${f(y - 30)}z` });
    const [w, h] = data.dieSize.map((v) => v * S);
    const dies = data.dies.map(([dx, dy]) => `M${f(dx * S)} ${f(-dy * S)}h${f(w)}v${f(-h)}h${f(-w)}z`);
    if (dies.length) draw(svg, "path", { class: "die", d: dies.join("") });
  }
  const bins = Array.from({ length: BINS }, () => []), empty = [], flagged = [];
  for (let i = 0; i < count; i++) {
    if (!shown(i)) continue;
    const v = metric ? numeric(cell(state.run, state.metric, i)) : null;
    if (v === null || v === undefined || !range) empty.push(rect(i, -1));
    else {
      const t = range.high > range.low ? (v - range.low) / (range.high - range.low) : 0.5;
      bins[Math.max(0, Math.min(BINS - 1, Math.round(t * (BINS - 1))))].push(rect(i, 0));
    }
    if (run.flags[i]) flagged.push(diamond(i));
  }
  // one path a colour: 10,000 tiles stay a hundred nodes
  bins.forEach((paths, b) => paths.length && draw(svg, "path", { d: paths.join(""), fill: palette[b] }));
  if (empty.length) draw(svg, "path", { class: "novalue", d: empty.join("") });
  if (flagged.length) {
    draw(svg, "path", { class: "flag-halo", d: flagged.join("") });
    draw(svg, "path", { class: "flag", d: flagged.join("") });
  }
  draw(svg, "path", { class: "cursor-halo", id: "cursor-halo", d: "" });
  draw(svg, "path", { class: "cursor", id: "cursor", d: "" });
  $("map").replaceChildren(svg);
  svg.addEventListener("pointermove", (event) => point(event, false));
  svg.addEventListener("click", (event) => point(event, true));
  svg.addEventListener("pointerleave", () => $("tip") && $("tip").remove());
  drawLegend(run, metric, range, empty.length, flagged.length);
  const names = metric ? `${heading(metric)}, ${run.label}` : run.label;
  $("map").setAttribute("aria-label", `Wafer map of ${names}: ${count} tiles, ${flagged.length} flagged, ${empty.length} without a value`);
  mark();
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

// pointing and keys ------------------------------------------------------------------------------
function nearest(x, y, accept) {
  let best = -1, least = Infinity;
  for (let i = 0; i < count; i++) {
    if (!shown(i) || (accept && !accept(i))) continue;
    const d = (data.x[i] - x) ** 2 + (data.y[i] - y) ** 2;
    if (d < least) [best, least] = [i, d];
  }
  return [best, Math.sqrt(least)];
}
function point(event, click) {
  const svg = $("map").querySelector("svg");
  const p = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  const [i, distance] = nearest(p.x / S, -p.y / S);
  if (i < 0 || distance > Math.max(0.04, Math.max(...data.size))) { if ($("tip")) $("tip").remove(); return; }
  if (click) $("map").focus({ preventScroll: true });
  select(i);
  let tip = $("tip");
  if (!tip) { tip = make("div", undefined, { id: "tip" }); $("map").append(tip); }
  fillTip(tip, i);
  const frame = $("map").getBoundingClientRect();
  tip.style.top = `${event.clientY - frame.top + 16}px`;
  const left = event.clientX - frame.left + 14;
  tip.style.left = `${Math.max(0, Math.min(left, frame.width - tip.offsetWidth))}px`;
}
function fillTip(tip, i) {
  const m = data.metrics[state.metric], fired = signalsOf(state.run, i), status = statusOf(state.run, i);
  const words = make("div");
  words.append(make("b", data.tiles[i]));
  if (m) words.append(make("div", `${m.label} ${format(cell(state.run, state.metric, i), m.digits)}`));
  if (status !== "ok") words.append(make("div", status.replace(/_/g, " ")));
  if (fired.length) words.append(make("div", `◇ ${fired.join(", ")}`));
  // the noisy input beside the candidate that the map shows
  const shownSheets = hasThumb(i) ? sheets.filter((s, k) => k === 0 || k === Math.min(state.run + 1, sheets.length - 1)) : [];
  tip.replaceChildren(...shownSheets.map((sheet) => thumb(i, sheet)), words);
}
function mark() {
  const d = state.tile >= 0 && shown(state.tile) ? rect(state.tile, 8) : "";
  for (const id of ["cursor", "cursor-halo"]) if ($(id)) $(id).setAttribute("d", d);
}
function select(i) {
  if (i === state.tile) return;
  state.tile = i;
  mark();
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
function step(dx, dy) {
  if (state.tile < 0) return select(nearest(0, 0)[0]);
  const x = data.x[state.tile], y = data.y[state.tile];
  let best = -1, least = Infinity;
  for (let i = 0; i < count; i++) {
    if (!shown(i) || i === state.tile) continue;
    const ahead = (data.x[i] - x) * dx + (data.y[i] - y) * dy;
    const aside = Math.abs((data.x[i] - x) * dy) + Math.abs((data.y[i] - y) * dx);
    if (ahead > 1e-4 && ahead >= aside && ahead + 3 * aside < least) [best, least] = [i, ahead + 3 * aside];
  }
  if (best >= 0) select(best);
}
$("map").addEventListener("keydown", (event) => {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  if (moves[event.key]) step(...moves[event.key]);
  else if (event.key === "n" || event.key === "N") {
    for (let k = 1; k <= count; k++) {
      const i = (Math.max(0, state.tile) + k) % count;
      if (shown(i) && data.runs[state.run].flags[i]) { select(i); break; }
    }
  } else return;
  event.preventDefault();
});
document.addEventListener("click", (event) => {
  const link = event.target.closest(".tile-link");
  if (!link) return;
  const i = data.tiles.indexOf(link.dataset.tile);
  if (i < 0) return;
  if (data.wafer.length && data.wafer[i] !== state.wafer) { state.wafer = data.wafer[i]; $("w-wafer").value = state.wafer; drawMap(); }
  select(i);
  $("map").focus({ preventScroll: true });
  $("wafer").scrollIntoView({ block: "start" });
});


// selectors --------------------------------------------------------------------------------------
const fill = (id, names) => names.forEach((name, k) => $(id).append(make("option", name, { value: k })));
fill("w-run", data.runs.map((run, r) => (data.runs.length > 1 ? `${letter(r)}  ${run.label}` : run.label)));
for (const [key, name] of Object.entries(data.groups)) {
  const group = make("optgroup", undefined, { label: name });
  data.metrics.forEach((m, k) => m.group === key && group.append(make("option", heading(m), { value: k })));
  if (group.childNodes.length) $("w-metric").append(group);
}
fill("w-wafer", data.wafers);
$("run-field").hidden = $("scale-field").hidden = data.runs.length < 2;
$("wafer-field").hidden = data.wafers.length < 2;
state.metric = ["transfer", "ssim"].map((key) => data.metrics.findIndex((m) => m.key === key)).find((k) => k >= 0) ?? 0;
$("w-metric").value = state.metric;
// open on what needs a look: the first candidate with flagged tiles, and its worst one
state.run = Math.max(0, data.runs.findIndex((run) => Object.keys(run.flags).length));
$("w-run").value = state.run;
for (const [id, name] of [["w-run", "run"], ["w-metric", "metric"], ["w-wafer", "wafer"]])
  $(id).addEventListener("change", (event) => { state[name] = Number(event.target.value); drawMap(); refill(); });
$("w-scale").addEventListener("change", drawMap);
document.querySelector("#wafer > .controls").hidden = false;
drawMap();
const value = (i) => (data.metrics.length ? numeric(cell(state.run, state.metric, i)) : null) ?? Infinity;
const worst = [...Array(count).keys()].filter(shown).reduce((a, b) => {
  const flagged = (i) => (data.runs[state.run].flags[i] ? 0 : 1);
  return a < 0 || flagged(b) < flagged(a) || (flagged(b) === flagged(a) && value(b) < value(a)) ? b : a;
}, -1);
if (worst >= 0) select(worst);

