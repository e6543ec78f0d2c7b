// Shows the steps of a run, and moves through them.

import { state, write } from "./state.js";

const $ = (id) => document.getElementById(id);
let frames = [];
let labels = [];
let size = { rows: 28, cols: 28 };
let timer = 0;
// Whether the last step is shown, also while steps arrive.
let atEnd = true;

export function setSize(model) {
  size = model;
}

export function setLabels(found) {
  labels = found;
}

export function show(found, following) {
  frames = found;
  const last = frames.length - 1;
  $("time").max = last;
  if (following || atEnd) {
    $("time").value = state.step !== "" && Number(state.step) <= last ? state.step : last;
  }
  draw();
}

export function paint(canvas, levels) {
  canvas.width = size.cols;
  canvas.height = size.rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(size.cols, size.rows);
  for (let i = 0; i < size.cols * size.rows; i++) {
    const level = levels ? levels[i] : 128;
    image.data.set([level, level, level, 255], 4 * i);
  }
  context.putImageData(image, 0, 0);
}

function part(levels, image) {
  const pixels = size.rows * size.cols;
  return levels?.subarray(image * pixels, (image + 1) * pixels);
}

export function draw() {
  const frame = frames[Number($("time").value)];
  if (!frame) return;
  const count = frame.x_t.length / (size.rows * size.cols);
  const image = Math.min(Number(state.image) || 0, count - 1);
  paint($("x_t"), part(frame.x_t, image));
  paint($("x_start"), part(frame.x_start, image));
  const total = frames[frames.length - 1].total ?? frames.length - 1;
  $("fact-step").textContent = `${frame.index + 1} of ${total}`;
  $("fact-t").textContent = frame.index < 0 ? "start" : frame.t;
  const digits = (x) => x === undefined ? "–" : x.toFixed(3);
  $("fact-signal").textContent = digits(frame.signal);
  $("fact-noise").textContent = digits(frame.noise);
  $("time").setAttribute("aria-valuetext",
    frame.index < 0 ? "the start" : `step ${frame.index + 1} of ${total}, noise ${digits(frame.noise)}`);
  tiles(frame, count, image);
}

function tiles(frame, count, chosen) {
  const list = $("tiles");
  while (list.children.length > count) list.lastChild.remove();
  while (list.children.length < count) {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("role", "option");
    const index = list.children.length;
    button.append(document.createElement("canvas"));
    button.addEventListener("click", () => { state.image = String(index); write(); draw(); });
    list.append(button);
  }
  for (const [index, button] of [...list.children].entries()) {
    paint(button.firstChild, part(frame.x_t, index));
    button.setAttribute("aria-selected", index === chosen);
    const label = labels[index];
    button.setAttribute("aria-label", `Image ${index + 1}` + (label === undefined ? "" : `, a ${label}`));
  }
}

function stopPlaying() {
  clearInterval(timer);
  timer = 0;
  $("play").textContent = "▶";
  $("play").setAttribute("aria-label", "Play");
}

export function play() {
  if (timer) return stopPlaying();
  const time = $("time");
  if (Number(time.value) >= frames.length - 1) time.value = 0;
  draw();
  $("play").textContent = "❚❚";
  $("play").setAttribute("aria-label", "Pause");
  const slow = matchMedia("(prefers-reduced-motion: reduce)").matches;
  timer = setInterval(() => {
    time.value = Number(time.value) + 1;
    draw();
    if (Number(time.value) >= frames.length - 1) { stopPlaying(); scrubbed(); }
  }, slow ? 700 : Math.max(40, 2400 / frames.length));
}

function scrubbed() {
  const value = Number($("time").value);
  atEnd = value >= frames.length - 1;
  state.step = atEnd ? "" : String(value);
  write();
}

export function listen() {
  $("time").addEventListener("input", () => { if (timer) stopPlaying(); draw(); scrubbed(); });
  $("play").addEventListener("click", play);
  document.addEventListener("keydown", (event) => {
    const isField = event.target.closest("button, a, select, textarea, #pad, input:not(#time)");
    if (event.key === " " && !isField) { event.preventDefault(); play(); }
  });
}
