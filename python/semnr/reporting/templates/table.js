// The table of tiles: filtered and sorted whole, but only the rows in view are in the document.
const ROW = 30; // px, as in the style sheet
const SPARE = 8; // rows kept ready above and below
const table = { column: -1, down: false, rows: [], from: -1, to: -1 };
const group = () => $("t-group").value;
const columnsShown = () => data.metrics.map((m, k) => k).filter((k) => group() === "all" || data.metrics[k].group === group());

function wantedRows() {
  const words = $("t-filter").value.trim().toLowerCase(), status = $("t-status").value, signal = $("t-signal").value;
  const metric = $("t-metric").value, low = $("t-low").valueAsNumber, high = $("t-high").valueAsNumber;
  const accept = (i) => {
    const fired = signalsOf(state.run, i), is = statusOf(state.run, i);
    if (status === "flagged" ? !fired.length : status === "problem" ? is === "ok" : status && is !== status) return false;
    if (signal && !fired.includes(signal)) return false;
    if (words && ![data.tiles[i], data.place[i], fired.join(" "), is].join(" ").toLowerCase().includes(words)) return false;
    if (metric === "" || (Number.isNaN(low) && Number.isNaN(high))) return true;
    const v = numeric(cell(state.run, Number(metric), i));
    return v !== null && v !== undefined && !(v < low) && !(v > high);
  };
  const rows = [];
  for (let i = 0; i < count; i++) if (accept(i)) rows.push(i);
  return rows;
}

function sortRows(rows) {
  if (table.column < 0) return rows;
  const key = (i) => numeric(cell(state.run, table.column, i)) ?? null;
  return rows.sort((a, b) => {
    const x = key(a), y = key(b); // tiles without a value go last, whichever way it is sorted
    if (x === null || y === null) return (x === null) - (y === null) || a - b;
    return x === y ? a - b : table.down === x < y ? 1 : -1;
  });
}

function fillTable() {
  table.rows = sortRows(wantedRows());
  const head = $("t-head");
  head.replaceChildren(make("th", "Tile", { scope: "col" }), make("th", "Place", { scope: "col" }), make("th", "Signals or status", { scope: "col" }));
  for (const k of columnsShown()) {
    const sorted = k === table.column ? (table.down ? "descending" : "ascending") : "none";
    const th = make("th", undefined, { scope: "col", class: "n", "aria-sort": sorted });
    const button = make("button", heading(data.metrics[k]) + (k === table.column ? (table.down ? " ↓" : " ↑") : ""), { type: "button", "data-column": k });
    th.append(button);
    head.append(th);
  }
  $("t-table").setAttribute("aria-rowcount", table.rows.length + 1);
  $("t-count").textContent = `${table.rows.length} of ${count} tiles, ${data.runs[state.run].label}`;
  table.from = table.to = -1;
  $("t-scroll").scrollTop = 0;
  fillRows();
}

function fillRows() {
  const box = $("t-scroll"), seen = Math.ceil((box.clientHeight || 480) / ROW);
  const from = Math.max(0, Math.floor(box.scrollTop / ROW) - SPARE), to = Math.min(table.rows.length, from + seen + 2 * SPARE);
  if (from === table.from && to === table.to) return;
  [table.from, table.to] = [from, to];
  const columns = columnsShown();
  const spacer = (rows) => {
    const row = make("tr", undefined, { "aria-hidden": "true", class: "spacer" });
    row.append(make("td", undefined, { colspan: columns.length + 3 }));
    row.firstChild.style.height = `${rows * ROW}px`;
    return row;
  };
  const rows = table.rows.slice(from, to).map((i, k) => {
    const row = make("tr", undefined, { "aria-rowindex": from + k + 2 }), name = make("th", undefined, { scope: "row" });
    name.append(make("button", data.tiles[i], { type: "button", class: "tile-link", "data-tile": data.tiles[i] }));
    const status = statusOf(state.run, i);
    const words = [...signalsOf(state.run, i), ...(status === "ok" ? [] : [status.replace(/_/g, " ")])].join(", ");
    row.append(name, make("td", data.place[i]), make("td", words || "–", words ? { title: words } : {}));
    for (const k of columns) row.append(make("td", format(cell(state.run, k, i), data.metrics[k].digits), { class: "n" }));
    return row;
  });
  $("t-body").replaceChildren(spacer(from), ...rows, spacer(table.rows.length - to));
}

const refill = () => { if ($("tile-table").open) fillTable(); };
function fillSignals() {
  const names = [...new Set(Object.values(data.runs[state.run].flags).flat())].sort();
  const kept = $("t-signal").value;
  $("t-signal").replaceChildren(make("option", "any", { value: "" }), ...names.map((name) => make("option", name, { value: name })));
  $("t-signal").value = names.includes(kept) ? kept : "";
}
function csv() {
  const tame = (text) => (/^[=+\-@\t]/.test(text) ? `'${text}` : text); // a name is no formula of a spreadsheet
  const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text);
  const plain = (v) => (v === null || v === undefined ? "" : String(v));
  const head = ["tile", "place", "status", "signals", ...data.metrics.map((m) => m.key)];
  const lines = table.rows.map((i) => [...[data.tiles[i], data.place[i], statusOf(state.run, i), signalsOf(state.run, i).join("; ")].map(tame),
    ...data.metrics.map((_, k) => plain(cell(state.run, k, i)))]);
  return [head, ...lines].map((line) => line.map(quoted).join(",")).join("\r\n") + "\r\n";
}
$("t-save").addEventListener("click", () => {
  const link = make("a", undefined, { download: `${data.runs[state.run].label.replace(/[^\w.-]+/g, "-") || "tiles"}.csv` });
  link.href = URL.createObjectURL(new Blob(["\ufeff", csv()], { type: "text/csv" }));
  link.click();
  URL.revokeObjectURL(link.href);
});
$("tile-table").addEventListener("toggle", refill);
for (const id of ["t-filter", "t-low", "t-high"]) $(id).addEventListener("input", refill);
for (const id of ["t-status", "t-signal", "t-metric", "t-group"]) $(id).addEventListener("change", refill);
$("t-scroll").addEventListener("scroll", () => requestAnimationFrame(fillRows));
$("w-run").addEventListener("change", fillSignals);
$("t-head").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const k = Number(button.dataset.column);
  [table.down, table.column] = [k === table.column && !table.down, k];
  fillTable();
  const again = $("t-head").querySelector(`[data-column="${k}"]`);
  if (again) again.focus();
});

const statuses = new Set(data.runs.flatMap((run) => Object.values(run.problems).map((p) => p.s)));
for (const name of [...statuses].sort()) $("t-status").append(make("option", name.replace(/_/g, " "), { value: name }));
data.metrics.forEach((m, k) => $("t-metric").append(make("option", heading(m), { value: k })));
for (const [key, name] of Object.entries(data.groups))
  if (data.metrics.some((m) => m.group === key)) $("t-group").append(make("option", name, { value: key }));
$("t-group").append(make("option", "All", { value: "all" }));
fillSignals();
