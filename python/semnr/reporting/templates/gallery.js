// The gallery: tiles without coordinates as pictures, those that need a look first; more on request.
const CELLS = 48; // at first, and more at each request
let cells = CELLS;
const value = (i) => (data.metrics.length ? numeric(cell(state.run, state.metric, i)) : null) ?? Infinity;
const flagged = (i) => (data.runs[state.run].flags[i] ? 0 : 1);

function ordered() {
  const rows = [...Array(count).keys()].filter((i) => !data.wafer.length || data.wafer[i] === state.wafer);
  const order = $("g-order").value;
  if (order === "run") return rows;
  const key = (i) => { const v = value(i); return v === Infinity ? v : order === "high" ? -v : v; };
  const need = order === "need" ? flagged : () => 0;
  return rows.sort((a, b) => need(a) - need(b) || key(a) - key(b) || a - b);
}
function drawGallery() {
  const run = data.runs[state.run], metric = data.metrics[state.metric], range = metric ? scale() : null;
  const rows = ordered(), shownRows = rows.slice(0, cells);
  const sheet = sheets[Math.min(state.run + 1, sheets.length - 1)];
  $("gallery").replaceChildren(...shownRows.map((i) => {
    const button = make("button", undefined, { type: "button", class: "tile-cell", "data-i": i });
    if (hasThumb(i) && sheet) button.append(thumb(i, sheet));
    const v = metric ? numeric(cell(state.run, state.metric, i)) : null;
    const number = make("span", metric ? format(v, metric.digits) : "", { class: "n" });
    if (range && Number.isFinite(v) && v !== null) {
      const t = range.high > range.low ? (v - range.low) / (range.high - range.low) : 0.5;
      const bar = draw(button, "svg", { viewBox: "0 0 10 2", preserveAspectRatio: "none", "aria-hidden": "true" });
      draw(bar, "rect", { width: 10, height: 2, fill: palette[Math.max(0, Math.min(BINS - 1, Math.round(t * (BINS - 1))))] });
    }
    button.append(make("b", data.tiles[i]), number);
    const status = statusOf(state.run, i);
    if (status !== "ok") button.append(make("small", status.replace(/_/g, " ")));
    if (run.flags[i]) button.append(make("small", `◇ ${run.flags[i].join(", ")}`, { class: "flagged" }));
    const item = make("li");
    item.append(button);
    return item;
  }));
  $("g-more").hidden = rows.length <= cells;
  $("map-counts").textContent = `${shownRows.length} of ${rows.length} tiles`;
  const without = rows.filter((i) => value(i) === Infinity).length;
  drawLegend(run, metric, range, without, rows.filter((i) => run.flags[i]).length);
  markCell();
}
function markCell() {
  for (const button of $("gallery").querySelectorAll("button")) {
    const here = Number(button.dataset.i) === state.tile;
    button.setAttribute("aria-pressed", String(here));
  }
}
if (!data.outline) {
  Object.assign(view, { draw: drawGallery, mark: markCell, focus: () => $("inspector").focus({ preventScroll: true }) });
  $("gallery").addEventListener("click", (event) => {
    const button = event.target.closest(".tile-cell");
    if (button) select(Number(button.dataset.i));
  });
  $("g-more").addEventListener("click", () => { cells += CELLS; drawGallery(); });
  $("g-order").addEventListener("change", drawGallery);
}
