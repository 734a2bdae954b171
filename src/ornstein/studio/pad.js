// A pad to set points on with mouse or finger; its value is "x y; x y; ...", in units of a third of its half side.
const c = element.querySelector("canvas"), count = element.querySelector(".pad-count");
let points = [], down = false, before = null;

function draw() {
  const side = Math.max(120, c.parentElement.clientWidth), dense = window.devicePixelRatio || 1;
  c.width = c.height = side * dense;
  const g = c.getContext("2d"); g.scale(dense, dense); g.clearRect(0, 0, side, side);
  g.fillStyle = getComputedStyle(c).getPropertyValue("--pad-dot");
  for (const [x, y] of points) { g.beginPath(); g.arc(side / 2 + x / 6 * side, side / 2 - y / 6 * side, 3, 0, 7); g.fill(); }
  count.textContent = points.length ? `${points.length} points` : "no points yet";
}
function set(event) {
  const box = c.getBoundingClientRect();
  const p = [6 * (event.clientX - box.left) / box.width - 3, 3 - 6 * (event.clientY - box.top) / box.height];
  if (before && Math.hypot(p[0] - before[0], p[1] - before[1]) < 0.09) return;
  if (points.length < 500) points.push(p);
  before = p; draw();
}
function tell() { props.value = points.map((p) => p.map((v) => v.toFixed(2)).join(" ")).join("; "); trigger("input"); }
c.addEventListener("pointerdown", (event) => { down = true; before = null; c.setPointerCapture(event.pointerId); set(event); });
c.addEventListener("pointermove", (event) => { if (down) set(event); });
c.addEventListener("pointerup", () => { down = false; tell(); });
element.querySelector(".pad-clear").addEventListener("click", () => { points = []; draw(); tell(); });
new ResizeObserver(draw).observe(element.querySelector(".pad"));
draw();
