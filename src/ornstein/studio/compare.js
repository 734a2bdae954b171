// Two drawings and their difference; a value is {left, right, apart}, each {payload, said}, or null while not there.
const figures = element.querySelectorAll("figure"), names = ["left", "right", "apart"];
function turn() {
  const value = given();
  if (!value) return;
  names.forEach((name, i) => {
    if (value.titles) figures[i].querySelector("figcaption").textContent = value.titles[i];
    const part = value[name], place = figures[i].querySelector(".film-place");
    figures[i].querySelector(".film-said").textContent = part ? part.said : "";
    if (part) put(place, part.payload, figures[i].querySelector("figcaption").textContent + ": " + part.said);
    else place.replaceChildren();
  });
  element.querySelector(".versus").dataset.done = value.done ? "1" : "";
}
new MutationObserver(turn).observe(document.body, { attributes: true, attributeFilter: ["class"] });
let over = true;  // what was asked for before has been answered
watch("value", () => {
  turn();
  if (over) bring(element);
  over = Boolean((given() || {}).done);
});
turn();
