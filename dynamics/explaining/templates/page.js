// Moving through training: slider, playback, keyboard, chart.

const slider = document.getElementById("slider");
const play = document.getElementById("play");
const last = data.checkpoints.length - 1;
const PAUSE = Math.min(900, Math.max(250, 30000 / (last + 1))); // milliseconds: half a minute for a whole series at most
let current = last;
let timer = null;

function show(index) {
  current = Math.max(0, Math.min(last, index));
  const checkpoint = data.checkpoints[current];
  slider.value = current;
  slider.setAttribute("aria-valuetext", checkpoint.title);
  drawFlow(checkpoint);
  drawPanels(checkpoint, current);
  moveGroups();
  drawChanges();
  if (timer === null) remember(); // not at every step of a playback
}

function halt() {
  clearInterval(timer);
  timer = null;
  play.setAttribute("aria-label", "Play");
  remember();
}

function toggle() {
  if (timer !== null) return halt();
  if (current === last) show(0);
  play.setAttribute("aria-label", "Pause");
  timer = setInterval(() => {
    show(current + 1);
    if (current === last) halt();
  }, PAUSE);
}

function move(index) {
  halt();
  show(index);
}

slider.addEventListener("input", () => move(Number(slider.value)));
play.addEventListener("click", toggle);

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (event.key === "Escape") {
    pinned = null;
    pins.clear();
    point(null);
    mark();
    remember();
    return;
  }
  // What has keys of its own keeps them: the slider moves itself, buttons are pressed, radio buttons and boxes with a
  // scroll bar use the arrows.
  const target = event.target;
  const own = target.closest("button, input, summary, a");
  if (event.key === " " && (!own || own === slider)) toggle();
  else if (own || target.matches(".scroll")) return;
  else if (event.key === "ArrowRight") move(current + 1);
  else if (event.key === "ArrowLeft") move(current - 1);
  else if (event.key === "Home") move(0);
  else if (event.key === "End") move(last);
  else return;
  event.preventDefault();
});

document.getElementById("chart").addEventListener("click", (event) => {
  const chart = event.currentTarget;
  const { left, width } = chart.getBoundingClientRect();
  const x = ((event.clientX - left) / width) * chart.viewBox.baseVal.width;
  const distances = data.across.map((at) => Math.abs(at - x));
  move(distances.indexOf(Math.min(...distances)));
});
