"use strict";
// Tables marked data-interactive get a filter and headings that sort. Without scripts they stay
// what they are.
for (const table of document.querySelectorAll("table[data-interactive]")) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const scroll = table.closest(".scroll");
  const bar = document.createElement("div");
  const label = document.createElement("label");
  const input = document.createElement("input");
  const count = document.createElement("output");
  bar.className = "filter";
  label.textContent = "Filter ";
  input.type = "search";
  input.setAttribute("aria-controls", table.id);
  label.append(input);
  bar.append(label, count);
  scroll.before(bar);
  const words = rows.map((row) => row.textContent.toLowerCase());
  const show = () => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, at) => {
      const keep = wanted.every((word) => words[at].includes(word));
      row.hidden = !keep;
      shown += keep;
    });
    count.textContent = `${shown} of ${rows.length} rows`;
  };
  input.addEventListener("input", show);
  show();
  const heads = Array.from(table.tHead.rows[0].cells);
  const value = (row, column) => {
    const cell = row.cells[column];
    const number = cell.dataset.v;
    return number === undefined ? cell.textContent.trim() : number === "" ? null : Number(number);
  };
  const order = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keys = new Map(rows.map((row, at) => [row, [value(row, column), at]]));
      const sorted = rows.slice().sort((a, b) => {
        const [one, i] = keys.get(a);
        const [two, j] = keys.get(b);
        // What is not known comes last either way.
        if (one === null || two === null) return order(one, two) || i - j;
        return (down ? -1 : 1) * order(one, two) || i - j;
      });
      body.append(...sorted);
    });
  });
}
