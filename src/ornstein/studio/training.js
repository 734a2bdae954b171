// Trainings: a list with their state, and of those that are ticked the loss, the held-out error, that by noise level, and
// the samples of the chosen one through time. It asks anew each second while it is seen. Words: textContent only.
const root = element.querySelector(".training"), list = element.querySelector(".training-runs");
const slider = element.querySelector(".film-slider"), play = element.querySelector(".film-play");
const part = (name) => element.querySelector(".training-" + name);
const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3], [4, 2], [1, 2]];
let asked = { shown: null, chosen: null, step: null, have: null }, value = null, known = null, timer = null, hues = {};
let pixels = {}, rows = new Map();
const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
const ask = () => trigger("tick", { ...asked, have: Object.keys(pixels)[0] || null });

// The list: a row is made once and then only changed, so that a button is not lost under a finger -----------------------

function make(name) {
  const row = document.createElement("div"); row.className = "training-run"; row.dataset.run = name;
  const box = document.createElement("input"); box.type = "checkbox"; box.setAttribute("aria-label", "Show " + name);
  const line = document.createElement("canvas"); line.width = 44; line.height = 16; line.setAttribute("aria-hidden", "true");
  const pick = document.createElement("button"); pick.type = "button"; pick.className = "gallery-pick"; pick.textContent = name;
  const bar = document.createElement("progress"); bar.max = 1; bar.setAttribute("aria-label", "Steps of " + name);
  const said = document.createElement("span"); said.className = "training-state";
  row.append(box, line, pick, bar, said);
  const acts = {};
  for (const [event, word, title] of [["pause", "Pause", "Save and end; it can be resumed"], ["play", "Resume", "Go on from what was saved last"],
    ["stop", "Stop", "End at once; it can be resumed from the last checkpoint"]]) {
    const b = document.createElement("button"); b.type = "button"; b.className = "film-play training-" + event;
    b.textContent = word; b.title = title; b.setAttribute("aria-label", `${word} ${name}`);
    b.addEventListener("click", () => { b.disabled = true; b.dataset.at = row.dataset.state; trigger(event, { run: name }); setTimeout(ask, 200); });
    acts[event] = b; row.append(b);
  }
  box.addEventListener("change", () => {
    asked.shown = value.shown.filter((one) => one !== name).concat(box.checked ? [name] : []);
    if (box.checked) choose(name); else ask();
  });
  pick.addEventListener("click", () => { if (!value.shown.includes(name)) asked.shown = [...value.shown, name]; choose(name); });
  return { row, box, line, said, bar, acts };
}
function choose(name) { asked.chosen = name; asked.step = null; halt(); ask(); }
function time(seconds) { return seconds < 90 ? `${seconds} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`; }
function fill() {
  const order = value.runs.map((run) => {
    if (!rows.has(run.name)) rows.set(run.name, make(run.name));
    const { row, box, line, said, bar, acts } = rows.get(run.name), on = value.shown.includes(run.name);
    if (row.dataset.state !== run.state) for (const b of Object.values(acts)) b.disabled = false;
    row.dataset.state = run.state; box.checked = on;
    row.classList.toggle("training-chosen", Boolean(value.chosen && value.chosen.name === run.name));
    bar.value = run.steps ? run.step / run.steps : 0;
    said.textContent = run.state === "training" && run.step && run.step < run.steps
      ? `step ${run.step.toLocaleString("en")} of ${run.steps.toLocaleString("en")}, ${run.rate} a second` + (run.left === null ? "" : `, about ${time(run.left)} left`) : run.said;
    const busy = run.state === "training" || run.state === "preparing";
    acts.pause.hidden = run.state !== "training"; acts.stop.hidden = !busy; acts.play.hidden = run.state !== "stopped";
    const g = line.getContext("2d"); g.clearRect(0, 0, 44, 16);
    if (on) { pen(g, hues[run.name]); g.lineWidth = 3; g.beginPath(); g.moveTo(2, 8); g.lineTo(42, 8); g.stroke(); }
    return row;
  });
  if (order.length && (order.length !== list.children.length || order.some((row, i) => list.children[i] !== row))) list.replaceChildren(...order);
}

// Charts ----------------------------------------------------------------------------------------------------------------

function pen(g, hue) { g.strokeStyle = g.fillStyle = colour("--line-" + hue); g.setLineDash(DASHES[hue]); }
function ticks(low, high, log) {
  if (log && high - low > 1.3) { const by = Math.ceil((high - low) / 6); return range(Math.ceil(low), high, by).map((k) => [k, 10 ** k]); }
  const [a, b] = log ? [10 ** low, 10 ** high] : [low, high], power = 10 ** Math.floor(Math.log10((b - a) / 5));
  const step = [1, 2, 5, 10].map((f) => f * power).find((f) => (b - a) / f <= 6);
  return range(Math.ceil(a / step), b / step, 1).map((k) => [log ? Math.log10(k * step) : k * step, k * step]);
}
function range(first, last, by) { const out = []; for (let k = first; k <= last + 1e-9; k += by) out.push(k); return out; }
function number(v) { const a = Math.abs(v); return a >= 1e4 ? (v / 1e3).toLocaleString("en") + "k" : a && a < 1e-3 ? v.toExponential(0) : String(+v.toPrecision(3)); }

function chart(canvas, lines, { logX = false, across = "", one = false, words = "" }) {
  const w = Math.max(220, canvas.parentElement.clientWidth), h = Math.round(w * 0.46), dense = window.devicePixelRatio || 1;
  canvas.width = w * dense; canvas.height = h * dense; canvas.style.height = h + "px"; canvas.setAttribute("aria-label", words);
  const g = canvas.getContext("2d"); g.scale(dense, dense); g.font = "11px system-ui, sans-serif";
  const all = lines.flatMap((line) => line.points).filter(([x]) => !logX || x > 0);
  if (!all.length) { g.fillStyle = colour("--training-ink"); g.textAlign = "center"; g.fillText("nothing measured yet", w / 2, h / 2); return; }
  const ys = all.map((p) => p[1]).concat(one ? [1] : []), least = Math.min(...ys), most = Math.max(...ys);
  const logY = least > 0 && most / least > 8, fx = (v) => (logX ? Math.log10(v) : v), fy = (v) => (logY ? Math.log10(v) : v);
  let [x0, x1] = [Math.min(...all.map((p) => fx(p[0]))), Math.max(...all.map((p) => fx(p[0])))], [y0, y1] = [fy(least), fy(most)];
  const only = x1 <= x0 ? [[x0, logX ? 10 ** x0 : x0]] : null;
  if (only) { x0 -= 0.5; x1 += 0.5; } if (y1 <= y0) { y0 -= 0.5; y1 += 0.5; }
  const room = 0.05 * (y1 - y0); y0 -= room; y1 += room;
  const [left, right, top, bottom] = [46, 8, 6, across ? 34 : 20];
  const px = (v) => left + (fx(v) - x0) / (x1 - x0) * (w - left - right), py = (v) => h - bottom - (fy(v) - y0) / (y1 - y0) * (h - top - bottom);
  g.fillStyle = colour("--training-ink"); g.strokeStyle = colour("--film-line"); g.lineWidth = 1;
  g.textAlign = "right"; g.textBaseline = "middle";
  for (const [, v] of ticks(y0, y1, logY)) { const y = py(v); g.beginPath(); g.moveTo(left, y); g.lineTo(w - right, y); g.stroke(); g.fillText(number(v), left - 5, y); }
  g.textAlign = "center"; g.textBaseline = "top";
  for (const [, v] of only || ticks(x0, x1, logX)) g.fillText(number(v), Math.min(px(v), w - 16), h - bottom + 5);
  if (across) g.fillText(across, (left + w - right) / 2, h - 13);
  if (one) { g.strokeStyle = colour("--training-ink"); g.setLineDash([2, 4]); g.beginPath(); g.moveTo(left, py(1)); g.lineTo(w - right, py(1)); g.stroke(); }
  g.lineJoin = "round";
  for (const line of lines) {
    const points = line.points.filter(([x]) => !logX || x > 0).map(([x, y]) => [px(x), py(y)]);
    pen(g, line.hue); g.globalAlpha = line.faint ?? 1; g.lineWidth = line.wide || 1.8;
    g.beginPath(); points.forEach(([x, y]) => g.lineTo(x, y)); g.stroke();
    g.setLineDash([]);
    if (line.dots) for (const [x, y] of points) { g.beginPath(); g.arc(x, y, 2.6, 0, 7); g.fill(); }
    g.globalAlpha = 1;
  }
}
const last = (points) => (points.length ? `${points[points.length - 1][1].toPrecision(3)} at ${points[points.length - 1][0]}` : "nothing yet");

function draw() {
  if (!value || !root.clientWidth) return;
  const say = (title, key) => `${title}. ` + value.curves.map((c) => `${c.name}: ${last(c[key])}`).join("; ");
  const lines = (key, dots) => value.curves.map((c) => ({ points: c[key], hue: hues[c.name], dots: dots || c[key].length < 2 }));
  chart(part("loss"), lines("loss", false), { words: say("Training loss by step", "loss") });
  chart(part("held"), lines("held_out", true), { words: say("Held-out error by step", "held_out") });
  const chosen = value.chosen, moment = chosen && chosen.step, levels = [];
  for (const c of value.curves) {
    const steps = Object.keys(c.by_noise).map(Number).sort((a, b) => a - b), mine = Boolean(chosen && c.name === chosen.name);
    const now = mine && c.by_noise[moment] ? moment : steps[steps.length - 1];
    if (mine) steps.forEach((step, i) => { if (step !== now) levels.push({ points: c.by_noise[step], hue: hues[c.name], faint: 0.08 + 0.22 * (i + 1) / steps.length, wide: 1 }); });
    if (now !== undefined) levels.push({ points: c.by_noise[now], hue: hues[c.name], dots: true });
  }
  chart(part("noise"), levels, { logX: true, across: chosen ? chosen.across : "", one: Boolean(chosen && !chosen.share),
    words: "How good the chosen training is at each noise level, earlier steps faint" });
  part("unit").textContent = !chosen ? "" : chosen.share ? chosen.found : "earlier steps faint";
}

// Samples through time ----------------------------------------------------------------------------------------------------

function halt() { clearInterval(timer); timer = null; play.textContent = "Play"; }
function samples() {
  const chosen = value.chosen, way = part("way"), place = part("samples");
  if (chosen && chosen.pixels) pixels = { [chosen.key]: chosen.pixels };
  const picture = chosen && pixels[chosen.key];
  if (picture) put(place, { pixels: picture, size: ["", ""] }, `Samples of ${chosen.name} at step ${chosen.step}`);
  else place.replaceChildren();
  way.hidden = !chosen || chosen.pictures.length < 2;
  part("said").textContent = !chosen || chosen.step === null ? "" : `${chosen.name} at step ${chosen.step.toLocaleString("en")}` + (asked.step === null ? ", the newest" : "");
  if (!chosen) return;
  slider.max = Math.max(0, chosen.pictures.length - 1);
  if (document.activeElement !== slider && !timer) slider.value = Math.max(0, chosen.pictures.indexOf(chosen.step));
}
function go(place) {
  const steps = value.chosen.pictures;
  slider.value = place; asked.step = place >= steps.length - 1 ? null : steps[place]; ask();
}
slider.addEventListener("input", () => { halt(); go(+slider.value); });
play.addEventListener("click", () => {
  if (timer) return halt();
  go(+slider.value >= +slider.max ? 0 : +slider.value + 1); play.textContent = "Pause";
  timer = setInterval(() => { if (+slider.value >= +slider.max) return halt(); go(+slider.value + 1); }, 500);
});

function turn() {
  value = given(); if (!value) return;
  const fresh = known && value.runs.filter((run) => !known.has(run.name));
  known = new Set(value.runs.map((run) => run.name));
  if (fresh && fresh.length) { asked.shown = [...value.shown, fresh[0].name]; return choose(fresh[0].name); }  // it has begun
  for (const name of Object.keys(hues)) if (!value.shown.includes(name)) delete hues[name];
  for (const name of value.shown) if (!(name in hues)) hues[name] = [0, 1, 2, 3, 4, 5].find((k) => !Object.values(hues).includes(k));
  fill(); samples(); draw();
  root.dataset.looks = +(root.dataset.looks || 0) + 1;
}
setInterval(() => { if (root.offsetParent && !document.hidden) ask(); }, 1000);
new ResizeObserver(draw).observe(root);
new MutationObserver(() => { if (value) { fill(); draw(); } }).observe(document.body, { attributes: true, attributeFilter: ["class"] });
watch("value", turn);
turn();
