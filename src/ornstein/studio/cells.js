// A few rows of a table to write in; the value is {names, rows}, an empty cell being a hole.
const table = element.querySelector("table");
let drawn = null;
function draw() {
  const v = props.value; if (!v || drawn === v.key) return;
  drawn = v.key;
  const head = document.createElement("tr");
  for (const name of v.names) { const th = document.createElement("th"); th.scope = "col"; th.textContent = name; head.append(th); }
  table.tHead.replaceChildren(head);
  table.tBodies[0].replaceChildren(...v.rows.map((row, i) => {
    const tr = document.createElement("tr");
    row.forEach((word, k) => {
      const td = document.createElement("td"), input = document.createElement("input");
      input.value = word; input.placeholder = "?"; input.setAttribute("aria-label", `${v.names[k]} of row ${i + 1}`);
      input.addEventListener("change", () => {
        const rows = props.value.rows.map((one) => [...one]); rows[i][k] = input.value.trim();
        props.value = { ...props.value, rows }; trigger("input");
      });
      td.append(input); tr.append(td);
    });
    return tr;
  }));
}
watch("value", draw);
draw();
