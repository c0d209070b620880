// What the other scripts share: the data of the page, and small helpers. Names come from the data: they are only ever
// set as text, never as markup.
const data = JSON.parse(document.getElementById("wafer-data").textContent);
const $ = (id) => document.getElementById(id);
const NS = "http://www.w3.org/2000/svg";
const S = 500; // drawing units per wafer radius
const count = data.tiles.length;
const state = { run: 0, metric: 0, wafer: 0, tile: -1 };

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

const letter = (r) => (r < 26 ? String.fromCharCode(65 + r) : String(r + 1));
const signalsOf = (run, i) => data.runs[run].flags[i] || [];
const statusOf = (run, i) => (data.runs[run].problems[i] ? data.runs[run].problems[i].s : "ok");

// thumbnails: one sheet a role; a canvas shows its part of it
const sheets = (data.thumbs ? data.thumbs.sheets : []).map((sheet) => {
  const image = new Image();
  image.src = sheet.uri;
  return { label: sheet.label, image };
});
const hasThumb = (i) => data.thumbs && data.thumbs.slots[i] !== undefined;
function thumb(i, sheet) {
  const { side, across, slots } = data.thumbs;
  const canvas = make("canvas", undefined, { width: side, height: side, role: "img", "aria-label": `${sheet.label} of ${data.tiles[i]}` });
  const slot = slots[i];
  const paint = () => canvas.getContext("2d").drawImage(sheet.image, (slot % across) * side, Math.floor(slot / across) * side, side, side, 0, 0, side, side);
  if (sheet.image.complete) paint();
  else sheet.image.addEventListener("load", paint, { once: true });
  return canvas;
}
