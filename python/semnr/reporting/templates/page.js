// The page: words explained on the spot, the section that is read, tables that scroll with the keyboard.
const explained = $("explained");
let explainedBy = null;
function explain(link) {
  const entry = $(link.getAttribute("href").slice(1));
  if (!entry) return;
  explained.querySelector("b").textContent = entry.querySelector("dt").textContent;
  explained.querySelector("p").textContent = entry.querySelector("dd").textContent;
  (link.closest("dialog") || document.body).append(explained);
  explained.hidden = false;
  const at = link.getBoundingClientRect(), wide = explained.offsetWidth;
  explained.style.left = `${Math.max(8, Math.min(at.left, document.documentElement.clientWidth - wide - 8)) + scrollX}px`;
  explained.style.top = `${at.bottom + 6 + scrollY}px`;
  link.setAttribute("aria-describedby", "explained");
  explainedBy = link;
}
function explainNothing() {
  explained.hidden = true;
  if (explainedBy) explainedBy.removeAttribute("aria-describedby");
  explainedBy = null;
}
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.term");
  if (!link) return event.target.closest("#explained") || explainNothing();
  event.preventDefault();
  const again = link === explainedBy;
  explainNothing();
  if (!again) explain(link);
});
document.addEventListener("keydown", (event) => event.key === "Escape" && explainNothing());
document.addEventListener("focusout", (event) => event.target === explainedBy && explainNothing());

const places = [...document.querySelectorAll("nav.sticky a")].map((link) => [link, $(link.getAttribute("href").slice(1))]);
function here() {
  const line = 120;
  const passed = places.filter(([, section]) => section && section.getBoundingClientRect().top < line);
  const current = passed.length ? passed[passed.length - 1][0] : places[0] && places[0][0];
  for (const [link] of places) link.toggleAttribute("aria-current", link === current);
}
let waiting = false;
addEventListener("scroll", () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; here(); });
}, { passive: true });
here();
for (const link of document.querySelectorAll('nav.sticky a[href="#terms"]')) link.addEventListener("click", () => { $("glossary").open = true; });

// what scrolls sideways can be reached with the keyboard; what does not is no stop
const boxes = [...document.querySelectorAll(".scroll:not(#t-scroll)")];
function reachable() {
  for (const box of boxes) {
    const wide = box.scrollWidth > box.clientWidth + 1;
    const caption = box.querySelector("caption");
    if (wide) {
      box.tabIndex = 0;
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", caption ? caption.textContent : "Table");
    } else for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
  }
}
addEventListener("resize", reachable);
document.addEventListener("toggle", reachable, true);
reachable();
addEventListener("beforeprint", () => document.querySelectorAll("details.each, details.glossary").forEach((d) => { d.open = true; }));
document.documentElement.dataset.ready = "yes";
