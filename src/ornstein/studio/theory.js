// A density in the plane through time: heat map of its log-density, score field, and particles that dissolve or return.
// Numbers come as base64: bytes of the heat map, 16-bit whole numbers of coordinates, thousandths of a unit.
const root = element.querySelector(".plane"), slider = element.querySelector(".film-slider");
const play = element.querySelector(".film-play"), said = element.querySelector(".film-said");
const boxes = ["dots", "arrows", "learned"].map((name) => element.querySelector(".plane-" + name));
let data = null, timer = null;

function bytes(text) {
  const raw = atob(text), out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}
const shorts = (text) => new Int16Array(bytes(text).buffer);
const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

function surface(c) {
  const side = Math.max(80, c.parentElement.clientWidth), dense = window.devicePixelRatio || 1;
  if (c.width !== Math.round(side * dense)) { c.width = c.height = Math.round(side * dense); }
  const g = c.getContext("2d");
  g.setTransform(dense, 0, 0, dense, 0, 0); g.clearRect(0, 0, side, side);
  return [g, side];
}

function dots(g, side, all, k, count, hue) {
  g.fillStyle = hue; g.globalAlpha = 0.8;
  const r = Math.max(1.2, side / 190), unit = side / (2 * data.reach) / 1000;
  for (let i = 0; i < count; i++) {
    const at = 2 * (k * count + i);
    g.beginPath(); g.arc(side / 2 + all[at] * unit, side / 2 - all[at + 1] * unit, r, 0, 7); g.fill();
  }
  g.globalAlpha = 1;
}

function arrows(g, side, all, k, hue) {
  const n = data.arrows, cell = side / n;
  g.strokeStyle = hue; g.fillStyle = hue; g.lineWidth = 1.3;
  for (let i = 0; i < n * n; i++) {
    let dx = all[2 * (k * n * n + i)] / 1000, dy = all[2 * (k * n * n + i) + 1] / 1000;
    const long = Math.hypot(dx, dy), shown = Math.min(long, 2) / 2 * cell * 0.85;
    if (shown < 1) continue;
    dx *= shown / long; dy *= -shown / long;
    const x = (i % n + 0.5) * cell - dx / 2, y = side - (Math.floor(i / n) + 0.5) * cell - dy / 2, a = Math.atan2(dy, dx);
    g.beginPath(); g.moveTo(x, y); g.lineTo(x + dx, y + dy); g.stroke();
    g.beginPath(); g.moveTo(x + dx, y + dy);
    for (const turn of [2.6, -2.6]) g.lineTo(x + dx + 4 * Math.cos(a + turn), y + dy + 4 * Math.sin(a + turn));
    g.fill();
  }
}

function heat(g, side, k) {
  const n = data.cells, small = document.createElement("canvas"); small.width = small.height = n;
  const picture = small.getContext("2d").createImageData(n, n);
  const [low, high] = document.body.classList.contains("dark") ? [[14, 19, 28], [86, 160, 220]] : [[255, 255, 255], [58, 126, 188]];
  for (let i = 0; i < n * n; i++) {
    const v = data.heat[k * n * n + i] / 255, at = 4 * ((n - 1 - Math.floor(i / n)) * n + i % n);
    for (let c = 0; c < 3; c++) picture.data[at + c] = low[c] + (high[c] - low[c]) * v;
    picture.data[at + 3] = 255;
  }
  small.getContext("2d").putImageData(picture, 0, 0);
  g.imageSmoothingEnabled = true; g.drawImage(small, 0, 0, side, side);
}

function draw() {
  if (!data) return;
  const last = data.t.length - 1, k = last - slider.value;  // to the right is towards the data
  const [g, side] = surface(element.querySelector(".plane-density"));
  heat(g, side, k);
  if (boxes[1].checked) arrows(g, side, data.exact, k, colour("--plane-arrow"));
  if (boxes[2].checked && data.learned) arrows(g, side, data.learned, k, colour("--plane-learned"));
  if (boxes[0].checked) dots(g, side, data.forward, k, data.count, colour("--plane-dot"));
  for (const c of element.querySelectorAll("canvas[data-flow]")) {
    const [h, w] = surface(c), flow = data.flows[c.dataset.flow];
    if (flow) dots(h, w, flow.particles, last - k, data.count, colour("--plane-dot"));
    c.parentElement.querySelector("small").textContent = flow ? flow.said[last - k] : "";
  }
  said.textContent = `t = ${data.t[k].toFixed(2)}: noise is ${data.ratio[k].toPrecision(2)} times the data` +
    (data.off ? `; the learned score differs by ${(100 * data.off[k]).toFixed(0)} %` : "");
  root.dataset.flows = Object.keys(data.flows).length; root.dataset.moment = k; root.dataset.key = data.key;
}

function stop() { clearInterval(timer); timer = null; play.textContent = "Play"; }

function turn() {
  const v = given();
  if (!v) return;
  const fresh = !data || data.key !== v.key;
  data = { ...v, heat: bytes(v.heat), exact: shorts(v.exact), forward: shorts(v.forward),
    learned: v.learned && shorts(v.learned), flows: Object.fromEntries(Object.entries(v.flows).map(([n, f]) => [n, { ...f, particles: shorts(f.particles) }])) };
  slider.max = data.t.length - 1;
  if (fresh) { stop(); slider.value = Math.round(0.8 * slider.max); }
  element.querySelector(".plane-two").hidden = !data.learned;
  draw();
}

slider.addEventListener("input", () => { stop(); draw(); });
boxes.forEach((box) => box.addEventListener("change", draw));
play.addEventListener("click", () => {
  if (timer) return stop();
  if (+slider.value >= +slider.max) slider.value = 0;
  play.textContent = "Pause";
  timer = setInterval(() => { slider.value = +slider.value + 1; draw(); if (+slider.value >= +slider.max) stop(); }, 120);
});
new ResizeObserver(draw).observe(root);
new MutationObserver(draw).observe(document.body, { attributes: true, attributeFilter: ["class"] });
watch("value", turn);
turn();
