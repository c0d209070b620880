// The selectors above the map or the gallery, and what is shown first.
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
  $(id).addEventListener("change", (event) => { state[name] = Number(event.target.value); view.draw(); refill(); });
$("w-scale").addEventListener("change", view.draw);
document.querySelector("#wafer > .controls").hidden = false;
view.draw();
const worst = [...Array(count).keys()].filter(shown).reduce((a, b) => {
  return a < 0 || flagged(b) < flagged(a) || (flagged(b) === flagged(a) && value(b) < value(a)) ? b : a;
}, -1);
if (worst >= 0) select(worst);
