// The worst tiles: every pane of a tile shows the same part of it, whatever is zoomed or moved; and pictures in place.
document.querySelectorAll(".panes").forEach((panes) => {
  const planes = [...panes.querySelectorAll(".plane")];
  if (!planes.length) return;
  const view = { k: 1, x: 0, y: 0 }; // zoom, and the corner of the part shown, as shares of the tile
  const MOST = 16;
  const article = panes.closest("article");
  const level = article.querySelector(".zoom-level");
  const clamp = (v, most) => Math.min(Math.max(v, 0), most);
  function apply() {
    view.x = clamp(view.x, 1 - 1 / view.k);
    view.y = clamp(view.y, 1 - 1 / view.k);
    for (const plane of planes) {
      plane.style.transform = `scale(${view.k}) translate(${-100 * view.x}%, ${-100 * view.y}%)`;
      plane.classList.toggle("close", view.k > 1.5);
    }
    panes.classList.toggle("zoomed", view.k > 1);
    panes.style.setProperty("--k", view.k); // the marks' lines keep their width
    level.textContent = `${Math.round(100 * view.k)} %`;
  }
  // zoom so that the place (x, y) of the viewport, as shares, keeps what it shows
  function zoom(factor, x = 0.5, y = 0.5) {
    const k = clamp(view.k * factor, MOST) || 1, next = Math.max(1, k);
    view.x += x / view.k - x / next;
    view.y += y / view.k - y / next;
    view.k = next;
    apply();
  }
  function centre(x, y, k) {
    Object.assign(view, { k, x: x - 0.5 / k, y: y - 0.5 / k });
    apply();
  }
  const share = (event) => {
    const frame = event.target.closest(".viewport").getBoundingClientRect();
    return [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height];
  };
  let held = null;
  panes.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !event.target.closest(".viewport")) return;
    held = { at: share(event), from: { ...view }, port: event.target.closest(".viewport") };
    if (view.k > 1) { held.port.setPointerCapture(event.pointerId); event.preventDefault(); panes.focus({ preventScroll: true }); }
  });
  panes.addEventListener("pointermove", (event) => {
    if (!held || view.k === 1) return;
    const frame = held.port.getBoundingClientRect();
    const [x, y] = [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height];
    view.x = held.from.x - (x - held.at[0]) / view.k;
    view.y = held.from.y - (y - held.at[1]) / view.k;
    apply();
  });
  for (const end of ["pointerup", "pointercancel"]) panes.addEventListener(end, () => { held = null; });
  panes.addEventListener("dblclick", (event) => event.target.closest(".viewport") && zoom(view.k > 1 && event.shiftKey ? 0.5 : 2, ...share(event)));
  // the wheel scrolls the page, as everywhere; with Ctrl it zooms, and over zoomed panes that have the focus too
  panes.addEventListener("wheel", (event) => {
    if (!event.target.closest(".viewport") || !(event.ctrlKey || (view.k > 1 && document.activeElement === panes))) return;
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.25 : 0.8, ...share(event));
  }, { passive: false });
  panes.addEventListener("keydown", (event) => {
    const step = 0.1 / view.k;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "0") centre(0.5, 0.5, 1);
    else if (moves[event.key] && view.k > 1) { view.x += moves[event.key][0]; view.y += moves[event.key][1]; apply(); }
    else return;
    event.preventDefault();
  });
  const pictures = [...panes.querySelectorAll("img.overview")];
  article.querySelectorAll("[data-do]").forEach((button) => button.addEventListener("click", () => {
    const act = button.dataset.do;
    if (act === "in") zoom(1.5);
    else if (act === "out") zoom(1 / 1.5);
    else if (act === "whole") centre(0.5, 0.5, 1);
    else if (act === "boxes") panes.classList.toggle("bare", button.getAttribute("aria-pressed") === "true");
    else if (act === "blink") blink(pictures);
    else if (act === "place") centre(Number(button.dataset.x), Number(button.dataset.y), Number(button.dataset.k) || 6);
    if (act === "boxes") button.setAttribute("aria-pressed", String(!panes.classList.contains("bare")));
  }));
  article.querySelectorAll(".pane-tools").forEach((tools) => { tools.hidden = false; });
});

// pictures in place: two at the same spot under one slider, which shows what moved or went ------------
const box = $("lightbox");
const lb = { pictures: [], first: 0, second: 0, k: 1, x: 0, y: 0 };
function blink(pictures) {
  lb.pictures = pictures;
  const kind = (name) => pictures.findIndex((image) => image.closest(".pic").classList.contains(name));
  const at = [kind("noisy"), kind("denoised")].map((k, i) => (k < 0 ? Math.min(i, pictures.length - 1) : k));
  [lb.first, lb.second] = at;
  for (const id of ["lb-first", "lb-second"])
    $(id).replaceChildren(...pictures.map((image, k) => make("option", image.closest("figure").querySelector("figcaption").textContent, { value: k })));
  Object.assign(lb, { k: 1, x: 0, y: 0 });
  showPair();
  if (!box.open) box.showModal();
  $("lb-view").focus();
}
function showPair() {
  $("lb-first").value = lb.first;
  $("lb-second").value = lb.second;
  const layers = [[$("lb-under"), lb.second], [$("lb-over").firstElementChild, lb.first]];
  for (const [plane, k] of layers)
    plane.replaceChildren(...[...lb.pictures[k].closest(".plane").querySelectorAll("img")].map((image) => image.cloneNode()));
  $("lb-view").style.aspectRatio = `${lb.pictures[0].width} / ${lb.pictures[0].height}`;
  $("lb-view").style.setProperty("--ratio", lb.pictures[0].width / lb.pictures[0].height);
  slide();
  place();
}
function slide() {
  const share = Number($("lb-slide").value), fade = $("lb-fade").checked;
  $("lb-over").style.clipPath = fade ? "none" : `inset(0 ${100 - share}% 0 0)`;
  $("lb-over").style.opacity = fade ? share / 100 : 1;
  $("lb-edge").style.left = `${share}%`;
  $("lb-edge").hidden = fade;
}
function place() {
  lb.x = Math.min(Math.max(lb.x, 0), 1 - 1 / lb.k);
  lb.y = Math.min(Math.max(lb.y, 0), 1 - 1 / lb.k);
  for (const plane of [$("lb-under"), $("lb-over").firstElementChild])
    plane.style.transform = `scale(${lb.k}) translate(${-100 * lb.x}%, ${-100 * lb.y}%)`;
  $("lb-level").textContent = `${Math.round(100 * lb.k)} %`;
}
function zoomPair(factor, x = 0.5, y = 0.5) {
  const next = Math.min(16, Math.max(1, lb.k * factor));
  lb.x += x / lb.k - x / next;
  lb.y += y / lb.k - y / next;
  lb.k = next;
  place();
}
const shareOf = (event) => {
  const frame = $("lb-view").getBoundingClientRect();
  return [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height];
};
let grabbed = null;
$("lb-view").addEventListener("pointerdown", (event) => { grabbed = { at: shareOf(event), x: lb.x, y: lb.y }; $("lb-view").setPointerCapture(event.pointerId); });
$("lb-view").addEventListener("pointermove", (event) => {
  if (!grabbed) return;
  const [x, y] = shareOf(event);
  if (lb.k === 1) { $("lb-slide").value = 100 * x; slide(); return; }
  Object.assign(lb, { x: grabbed.x - (x - grabbed.at[0]) / lb.k, y: grabbed.y - (y - grabbed.at[1]) / lb.k });
  place();
});
for (const end of ["pointerup", "pointercancel"]) $("lb-view").addEventListener(end, () => { grabbed = null; });
$("lb-view").addEventListener("wheel", (event) => { event.preventDefault(); zoomPair(event.deltaY < 0 ? 1.25 : 0.8, ...shareOf(event)); }, { passive: false });
$("lb-view").addEventListener("keydown", (event) => {
  const slider = $("lb-slide");
  if (event.key === "ArrowRight") slider.value = Number(slider.value) + 5;
  else if (event.key === "ArrowLeft") slider.value = Number(slider.value) - 5;
  else if (event.key === " ") { [lb.first, lb.second] = [lb.second, lb.first]; showPair(); }
  else if (event.key === "+" || event.key === "=") zoomPair(1.5);
  else if (event.key === "-") zoomPair(1 / 1.5);
  else return;
  event.preventDefault();
  slide();
});
$("lb-slide").addEventListener("input", slide);
$("lb-fade").addEventListener("change", slide);
for (const [id, name] of [["lb-first", "first"], ["lb-second", "second"]])
  $(id).addEventListener("change", (event) => { lb[name] = Number(event.target.value); showPair(); });
$("lb-in").addEventListener("click", () => zoomPair(1.5));
$("lb-out").addEventListener("click", () => zoomPair(1 / 1.5));
$("lb-close").addEventListener("click", () => box.close());
box.addEventListener("click", (event) => event.target === box && box.close());
