// How samples are drawn: pictures, points, curves and rows, in the colours of the page. `put` is for all
// rooms, and `given` is the value that a room shows, told as text. Words come from people: textContent only.
const given = () => (props.value ? JSON.parse(props.value) : null);
// What was asked for is brought to who asked: on a phone the button may be far below the picture.
function bring(place) {
  const box = place.getBoundingClientRect();
  if (place.offsetParent && (box.bottom < 80 || box.top > window.innerHeight - 80)) place.scrollIntoView({ block: "start" });
}
const { put } = (() => {
  const colour = (place, name) => getComputedStyle(place).getPropertyValue(name).trim();

  function canvas(place, ratio) {
    let c = place.querySelector("canvas");
    if (!c) { c = document.createElement("canvas"); place.replaceChildren(c); c.setAttribute("role", "img"); }
    const side = Math.max(200, place.clientWidth), dense = window.devicePixelRatio || 1;
    c.width = side * dense; c.height = side * ratio * dense;
    const g = c.getContext("2d"); g.scale(dense, dense); g.clearRect(0, 0, side, side * ratio);
    return [c, g, side, side * ratio];
  }

  function image(place, p, text) {
    let img = place.querySelector("img");
    if (!img) { img = document.createElement("img"); place.replaceChildren(img); }
    img.src = p.pixels; img.alt = text; img.width = p.size[0]; img.height = p.size[1];
  }

  function points(place, p, text) {
    const [c, g, w] = canvas(place, 1);
    c.setAttribute("aria-label", text);
    g.fillStyle = colour(place, "--film-dot"); g.globalAlpha = Math.max(0.25, Math.min(0.9, 150 / p.points.length));
    const r = p.points.length > 600 ? 1.5 : 2.4;
    if (p.before) {
      g.strokeStyle = colour(place, "--film-two"); g.lineWidth = 0.8;
      p.points.forEach(([x, y], i) => {
        const [a, b] = p.before[i];
        g.beginPath(); g.moveTo(a / 1000 * w, w - b / 1000 * w); g.lineTo(x / 1000 * w, w - y / 1000 * w); g.stroke();
      });
    }
    for (const [x, y] of p.points) { g.beginPath(); g.arc(x / 1000 * w, w - y / 1000 * w, r, 0, 7); g.fill(); }
  }

  function curves(place, p, text) {
    const across = p.curves.length > 4 ? 3 : 2, down = Math.ceil(p.curves.length / across);
    const [c, g, w, h] = canvas(place, 0.8);
    c.setAttribute("aria-label", text);
    const hues = ["--film-dot", "--film-two", "--film-three"].map((name) => colour(place, name));
    p.curves.forEach((lines, i) => {
      const left = (i % across) * w / across, top = Math.floor(i / across) * h / down;
      const pw = w / across - 8, ph = h / down - 8;
      g.strokeStyle = colour(place, "--film-line"); g.lineWidth = 1; g.strokeRect(left + 4, top + 4, pw, ph);
      lines.forEach((line, k) => {
        g.strokeStyle = hues[k % 3]; g.lineWidth = 1.3; g.beginPath();
        line.forEach((y, t) => g.lineTo(left + 4 + pw * (line.length > 1 ? t / (line.length - 1) : 0.5), top + 4 + ph * (1 - y / 1000)));
        g.stroke();
      });
    });
  }

  function rows(place, p, text) {
    const table = document.createElement("table"), head = table.createTHead().insertRow(), body = table.createTBody();
    table.createCaption().textContent = text;
    for (const name of p.names) { const th = document.createElement("th"); th.scope = "col"; th.textContent = name; head.append(th); }
    for (const row of p.rows) {
      const tr = body.insertRow();
      for (const word of row) {
        const td = tr.insertCell();
        if (word === null) { td.className = "film-masked"; td.setAttribute("aria-label", "not known yet"); }
        else td.textContent = word;
      }
    }
    place.replaceChildren(table);
  }

  function put(place, p, text) {
    if (!p) return;
    if (p.pixels) image(place, p, text);
    else if (p.points) points(place, p, text);
    else if (p.curves) curves(place, p, text);
    else if (p.rows) rows(place, p, text);
  }
  return { put };
})();
