// What a drawing looks like: the noisy state beside the clean estimate, live, and afterwards along a slider.
// A value is {frame, live} while it is drawn, and {frames} once it is done. Words come from people: textContent only.
const figures = element.querySelectorAll(".film-figure");
const slider = element.querySelector(".film-slider");
const play = element.querySelector(".film-play");
const said = element.querySelector(".film-said");
const way = element.querySelector(".film-way");
let frames = [], timer = null;

function show(frame) {
  figures[1].hidden = !frame.clean;
  element.querySelector(".film").classList.toggle("film-wide", !frame.clean);
  put(figures[0].querySelector(".film-place"), frame.noisy, "Samples on their way: " + frame.said);
  put(figures[1].querySelector(".film-place"), frame.clean, "The model's estimate of the result: " + frame.said);
  said.textContent = frame.said;
  element.querySelector(".film").dataset.step = frame.step;
}

function stop() { clearInterval(timer); timer = null; play.textContent = "Play"; }

function turn() {
  const value = given();
  if (!value) return;
  if (value.frames) {
    frames = value.frames; stop();
    slider.max = frames.length - 1; slider.value = frames.length - 1; way.hidden = false;
    element.querySelector(".film").dataset.done = value.key || "1";
    show(frames[frames.length - 1]);
  } else if (value.frame) {
    if (frames.length) bring(element);
    stop(); frames = []; way.hidden = true;
    delete element.querySelector(".film").dataset.done;
    show(value.frame);
  }
}

slider.addEventListener("input", () => { stop(); if (frames.length) show(frames[slider.value]); });
play.addEventListener("click", () => {
  if (timer) return stop();
  if (!frames.length) return;
  if (+slider.value >= frames.length - 1) slider.value = 0;
  play.textContent = "Pause";
  timer = setInterval(() => {
    show(frames[slider.value]);
    if (+slider.value >= frames.length - 1) return stop();
    slider.value = +slider.value + 1;
  }, 90);
});
window.addEventListener("resize", () => { if (frames.length) show(frames[slider.value]); });
new MutationObserver(() => { if (frames.length) show(frames[slider.value]); })
  .observe(document.body, { attributes: true, attributeFilter: ["class"] });
watch("value", turn);
turn();
