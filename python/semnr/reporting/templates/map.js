// The wafer map: one path a colour, so that 10,000 tiles stay a hundred nodes and print sharp.
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
if (data.outline) $("map").addEventListener("keydown", (event) => {
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
if (data.outline) Object.assign(view, { draw: drawMap, mark, focus: () => $("map").focus({ preventScroll: true }) });
