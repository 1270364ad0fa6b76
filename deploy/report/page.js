"use strict";
// Sorting by a click on a column's head: up, then down. Cells without a figure stay last.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = head.closest("table").tBodies[0];
    const key = (row) => {
      const cell = row.cells[head.cellIndex];
      return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
    };
    const order = (a, b) => {
      if ((a === "") !== (b === "")) return a === "" ? 1 : -1;
      const way = down ? -1 : 1;
      if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
      if (typeof a === "number") return way * (a - b);
      return way * a.localeCompare(b, "en", { numeric: true });
    };
    const rows = Array.from(body.rows, (row) => [key(row), row]);
    rows.sort((a, b) => order(a[0], b[0]));
    body.append(...rows.map((pair) => pair[1]));
  });
}

// What a point is, beside the pointer: of the mark below it, else of the nearest one around.
const REACH = 24; // pixels
const tip = document.getElementById("tip");
let shown = null;

function nearest(picture, event) {
  let found = null, least = REACH;
  for (const mark of picture.querySelectorAll("circle[data-tip]")) {
    const box = mark.getBoundingClientRect();
    const x = box.x + box.width / 2 - event.clientX, y = box.y + box.height / 2 - event.clientY;
    const far = Math.hypot(x, y);
    if (far < least) [found, least] = [mark, far];
  }
  return found;
}

function show(mark, event) {
  if (shown !== mark) {
    if (shown) shown.classList.remove("on");
    if (mark) mark.classList.add("on");
    shown = mark;
    tip.hidden = !mark;
    if (mark) tip.textContent = mark.dataset.tip;
  }
  if (!mark) return;
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.min(event.clientX + 14, document.documentElement.clientWidth - width - 4);
  const above = event.clientY - height - 12;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${above > 4 ? above : event.clientY + 18}px`;
}

for (const picture of document.querySelectorAll("figure .scroll svg")) {
  const look = (event) => {
    const below = event.target.closest("[data-tip]");
    show(below || nearest(picture, event), event);
  };
  picture.addEventListener("pointermove", look);
  picture.addEventListener("pointerdown", look);
  picture.addEventListener("pointerleave", (event) => show(null, event));
}

// Light and dark follow the system until the button is pressed.
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  root.dataset.theme = (root.dataset.theme || system) === "dark" ? "light" : "dark";
});
