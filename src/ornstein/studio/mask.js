// A picture to paint on: what is painted is to be filled in. The value is {pixels, size, mask}, the mask a string of 0 and
// 1, row by row, in the picture's own resolution.
const c = element.querySelector("canvas"), picture = new Image();
let marks = [], down = false, mine = null;
const size = () => (props.value && props.value.size) || [0, 0];
function draw() {
  const [w, h] = size(); if (!w) return;
  c.width = c.parentElement.clientWidth || 240; c.height = c.width * h / w;
  const g = c.getContext("2d"), s = c.width / w; g.imageSmoothingEnabled = false;
  g.drawImage(picture, 0, 0, c.width, c.height);
  if (picture.naturalWidth) c.dataset.ready = "1";  // there is something to paint on
  g.fillStyle = getComputedStyle(c).getPropertyValue("--mask-mark");
  marks.forEach((on, i) => { if (on) g.fillRect((i % w) * s, Math.floor(i / w) * s, s + 0.5, s + 0.5); });
}
function tell() { mine = marks.map((on) => (on ? "1" : "0")).join(""); props.value = { ...props.value, mask: mine }; trigger("input"); draw(); }
function paint(event) {
  const [w, h] = size(), box = c.getBoundingClientRect(), r = Math.max(0.5, w / 16);
  const x = (event.clientX - box.left) / box.width * w, y = (event.clientY - box.top) / box.height * h;
  for (let i = 0; i < w * h; i++) if (Math.hypot(i % w + 0.5 - x, Math.floor(i / w) + 0.5 - y) <= r + 0.4) marks[i] = true;
  draw();
}
function part(name) {
  const [w, h] = size(); if (!w) return;
  marks = Array.from({ length: w * h }, (_, i) => {
    const x = i % w, y = Math.floor(i / w);
    return name === "lower" ? y >= h / 2 : name === "middle" ? Math.abs(x + 0.5 - w / 2) < w / 4 && Math.abs(y + 0.5 - h / 2) < h / 4 : false;
  });
  tell();
}
c.addEventListener("pointerdown", (event) => { if (!size()[0]) return; down = true; c.setPointerCapture(event.pointerId); paint(event); });
c.addEventListener("pointermove", (event) => { if (down) paint(event); });
c.addEventListener("pointerup", () => { if (down) { down = false; tell(); } });
for (const b of element.querySelectorAll("button")) b.addEventListener("click", () => part(b.dataset.part));
function turn() {
  const v = props.value; if (!v || !v.pixels) return;
  if (v.mask !== mine) { mine = v.mask; marks = [...v.mask].map((one) => one === "1"); }
  picture.onload = draw; picture.src = v.pixels;
}
new ResizeObserver(draw).observe(element.querySelector(".mask"));
watch("value", turn);
turn();
