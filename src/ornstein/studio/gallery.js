// All runs in a table that sorts by any column; a row is chosen by its button. A value is {columns, rows, caption}.
const table = element.querySelector("table");
let by = null, down = true;
function draw() {
  const value = given();
  if (!value) return;
  element.querySelector(".gallery-caption").textContent = value.caption;
  const head = document.createElement("tr");
  value.columns.forEach((name, i) => {
    const th = document.createElement("th"); th.scope = "col";
    if (name) {
      const b = document.createElement("button"); b.type = "button"; b.textContent = name + (by === i ? (down ? " ↓" : " ↑") : "");
      b.setAttribute("aria-label", "Sort by " + name);
      b.addEventListener("click", () => { down = by === i ? !down : true; by = i; draw(); });
      th.setAttribute("aria-sort", by === i ? (down ? "descending" : "ascending") : "none"); th.append(b);
    }
    head.append(th);
  });
  table.tHead.replaceChildren(head);
  const rows = [...value.rows];
  if (by !== null) rows.sort((a, b) => {
    const x = a.sort[by], y = b.sort[by];
    if (x === null || y === null) return (x === null) - (y === null);
    return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
  });
  table.tBodies[0].replaceChildren(...rows.map((row) => {
    const tr = document.createElement("tr"); tr.dataset.run = row.name;
    row.cells.forEach((cell, i) => {
      const td = document.createElement("td"); td.dataset.label = value.columns[i];
      if (i === 0) { if (cell) { const img = document.createElement("img"); img.src = cell; img.alt = "newest samples of " + row.name; td.append(img); } }
      else if (i === 1) {
        const b = document.createElement("button"); b.type = "button"; b.className = "gallery-pick"; b.textContent = cell;
        b.addEventListener("click", () => trigger("select", { run: row.name })); td.append(b);
      } else td.textContent = cell;
      tr.append(td);
    });
    return tr;
  }));
}
watch("value", draw);
draw();
