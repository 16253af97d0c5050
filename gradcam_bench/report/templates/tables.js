"use strict";
// Tables that sort by a click on a head, and figures that open large.
(() => {
  // What a cell sorts by: its exact value, else the number its text begins with, else its text.
  const key = (cell) => {
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const text = cell.textContent.trim();
    const number = cell.classList.contains("number") ? parseFloat(text.replace(/[,[]/g, "")) : NaN;
    return cell.classList.contains("number") ? number : text;
  };
  const compare = (a, b) =>
    typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
  const undefinedKey = (value) => typeof value === "number" && Number.isNaN(value);

  function sort(table, column, direction) {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [key(row.cells[column]), row]);
    rows.sort(([a], [b]) => {
      if (undefinedKey(a) || undefinedKey(b)) return undefinedKey(a) - undefinedKey(b); // last
      return direction * compare(a, b);
    });
    body.append(...rows.map(([, row]) => row));
  }

  document.querySelectorAll("table").forEach((table) => {
    if (!table.tHead || table.tBodies[0].rows.length < 2) return;
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        table.tHead.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        sort(table, column, up ? 1 : -1);
      });
    });
  });

  const dialog = document.getElementById("figure");
  const image = document.getElementById("figure-image");
  document.querySelectorAll("figure .open").forEach((button) => {
    button.addEventListener("click", () => {
      const small = button.querySelector("img");
      for (const name of ["src", "alt"]) image.setAttribute(name, small.getAttribute(name));
      dialog.classList.toggle("chart", button.parentElement.classList.contains("chart"));
      dialog.showModal();
    });
  });
  document.getElementById("figure-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
})();
