"use strict";
(() => {
  const data = JSON.parse(document.getElementById("wafer-data").textContent);
  const $ = (id) => document.getElementById(id);
  const NS = "http://www.w3.org/2000/svg";
  const S = 500; // drawing units per wafer radius
  const count = data.tiles.length;
  const state = { run: 0, metric: 0, wafer: 0, tile: -1 };

  // names come from the data: they are only ever set as text, never as markup
  function make(tag, text, attributes) {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    for (const name in attributes || {}) node.setAttribute(name, attributes[name]);
    return node;
  }
  function draw(parent, tag, attributes) {
    const node = document.createElementNS(NS, tag);
    for (const name in attributes) node.setAttribute(name, attributes[name]);
    parent.appendChild(node);
    return node;
  }
  const numeric = (v) => (v === "inf" ? Infinity : v === "-inf" ? -Infinity : v);
  function format(v, digits) {
    v = numeric(v);
    if (v === null || v === undefined) return "–";
    if (!Number.isFinite(v)) return v > 0 ? "∞" : "−∞";
    if (v === 0 && digits < 0) return "0";
    // a negative count: significant figures, but never an exponent for large values
    const text = digits >= 0 ? v.toFixed(digits) : Math.abs(v) >= 10 ** -digits ? v.toFixed(0) : v.toPrecision(-digits);
    return text.replace(/^-/, "−");
  }
  const cell = (run, metric, i) => {
    const column = data.runs[run].values[data.metrics[metric].key];
    return column ? column[i] : null;
  };
  const heading = (m) => m.label + (m.unit ? ` (${m.unit})` : "");
  const shown = (i) => data.x[i] !== null && (!data.wafer.length || data.wafer[i] === state.wafer);

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
      draw(svg, "path", { class: "wafer-edge", d: `M${f(-x)} ${f(y)}A${S} ${S} 0 1 1 ${f(x)} ${f(y)}L0 ${f(y - 30)}z` });
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
    if (!tip) { tip = make("div", "", { id: "tip" }); $("map").append(tip); }
    const m = data.metrics[state.metric];
    tip.textContent = data.tiles[i] + (m ? `  ${m.label} ${format(cell(state.run, state.metric, i), m.digits)}` : "");
    const frame = $("map").getBoundingClientRect();
    tip.style.top = `${event.clientY - frame.top + 16}px`;
    const left = event.clientX - frame.left + 14;
    tip.style.left = `${Math.max(0, Math.min(left, frame.width - tip.offsetWidth))}px`;
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
    const table = make("table", undefined, { class: "numbers compact" });
    const head = table.createTHead().insertRow();
    head.append(make("th", "Metric", { scope: "col" }));
    data.runs.forEach((run, r) => head.append(make("th", several ? letter(r) : "Value", { scope: "col", class: "n", title: run.label })));
    const body = table.createTBody();
    data.metrics.forEach((m, k) => {
      const row = body.insertRow();
      row.append(make("th", heading(m), { scope: "row" }));
      data.runs.forEach((_, r) => row.append(make("td", format(cell(r, k, i), m.digits), { class: "n" })));
    });
    box.append(table);
  }
  const letter = (r) => (r < 26 ? String.fromCharCode(65 + r) : String(r + 1));
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

  // table of tiles: built when it is opened, 200 rows at a time ---------------------------------------
  const table = { limit: 200, column: -1, down: false, rows: [] };
  function fillTable() {
    const run = data.runs[state.run], wanted = $("t-filter").value.trim().toLowerCase();
    const text = (i) => [data.tiles[i], data.place[i], (run.flags[i] || []).join(" "), run.problems[i] ? run.problems[i].s : ""].join(" ").toLowerCase();
    table.rows = [...Array(count).keys()].filter((i) => !wanted || text(i).includes(wanted));
    if (table.column >= 0) {
      const key = (i) => numeric(cell(state.run, table.column, i));
      table.rows.sort((a, b) => {
        const x = key(a) ?? null, y = key(b) ?? null; // tiles without a value go last, whichever way it is sorted
        if (x === null || y === null) return (x === null) - (y === null) || a - b;
        return x === y ? a - b : table.down === x < y ? 1 : -1;
      });
    }
    const head = $("t-head");
    head.replaceChildren(make("th", "Tile", { scope: "col" }), make("th", "Place", { scope: "col" }), make("th", "Flags or status", { scope: "col" }));
    data.metrics.forEach((m, k) => {
      const sorted = k === table.column ? (table.down ? "descending" : "ascending") : "none";
      const th = make("th", undefined, { scope: "col", class: "n", "aria-sort": sorted });
      const button = make("button", heading(m) + (k === table.column ? (table.down ? " ↓" : " ↑") : ""), { type: "button" });
      button.addEventListener("click", () => { table.down = k === table.column && !table.down; table.column = k; fillTable(); });
      th.append(button);
      head.append(th);
    });
    const rows = table.rows.slice(0, table.limit).map((i) => {
      const row = make("tr"), name = make("th", undefined, { scope: "row" });
      name.append(make("button", data.tiles[i], { type: "button", class: "tile-link", "data-tile": data.tiles[i] }));
      const state_ = [...(run.flags[i] || []), ...(run.problems[i] ? [run.problems[i].s.replace(/_/g, " ")] : [])].join(", ");
      row.append(name, make("td", data.place[i]), make("td", state_ || "–"));
      data.metrics.forEach((m, k) => row.append(make("td", format(cell(state.run, k, i), m.digits), { class: "n" })));
      return row;
    });
    $("t-body").replaceChildren(...rows);
    $("t-count").textContent = `${table.rows.length} of ${count} tiles, ${run.label}`;
    $("t-more").hidden = table.rows.length <= table.limit;
  }
  const refill = () => { if ($("tile-table").open) fillTable(); };
  $("tile-table").addEventListener("toggle", refill);
  $("t-filter").addEventListener("input", () => { table.limit = 200; refill(); });
  $("t-more").addEventListener("click", () => { table.limit += 200; refill(); });

  // selectors --------------------------------------------------------------------------------------
  const fill = (id, names) => names.forEach((name, k) => $(id).append(make("option", name, { value: k })));
  fill("w-run", data.runs.map((run, r) => (data.runs.length > 1 ? `${letter(r)}  ${run.label}` : run.label)));
  fill("w-metric", data.metrics.map(heading));
  fill("w-wafer", data.wafers);
  $("run-field").hidden = $("scale-field").hidden = data.runs.length < 2;
  $("wafer-field").hidden = data.wafers.length < 2;
  const preferred = data.metrics.findIndex((m) => m.key === "ssim");
  state.metric = Math.max(0, preferred);
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

  // pictures ---------------------------------------------------------------------------------------
  const box = $("lightbox");
  let group = [], at = 0;
  function show(k) {
    at = (k + group.length) % group.length;
    const button = group[at], image = button.querySelector("img");
    $("lb-image").src = image.src;
    $("lb-image").alt = image.alt;
    $("lb-title").textContent = button.dataset.title;
  }
  document.querySelectorAll(".zoom").forEach((button) =>
    button.addEventListener("click", () => {
      group = [...document.querySelectorAll(`.zoom[data-group="${button.dataset.group}"]`)];
      show(group.indexOf(button));
      box.showModal();
    }));
  box.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") show(at + 1);
    else if (event.key === "ArrowLeft") show(at - 1);
  });
  $("lb-prev").addEventListener("click", () => show(at - 1));
  $("lb-next").addEventListener("click", () => show(at + 1));
  $("lb-close").addEventListener("click", () => box.close());
  box.addEventListener("click", (event) => event.target === box && box.close());
})();
