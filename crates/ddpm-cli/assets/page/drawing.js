// The drawing, and the pixels that the model paints.

import { packBits, packLevels, state, unpackBits, unpackLevels } from "./state.js";

const pad = document.getElementById("pad");
// Pixels of the canvas for each pixel of the drawing.
const SCALE = 10;
let size = { rows: 28, cols: 28 };
let levels = new Uint8Array();
let marks = new Uint8Array();
let changed = () => {};
let pen = null;

const tool = () => document.querySelector("input[name=tool]:checked").value;

export function listen(model, whenChanged) {
  [size, changed] = [model, whenChanged];
  pad.width = size.cols * SCALE;
  pad.height = size.rows * SCALE;
  restore();
  const place = (event) => {
    const box = pad.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * size.cols, (event.clientY - box.top) / box.height * size.rows];
  };
  pad.onpointerdown = (event) => { pad.setPointerCapture(event.pointerId); pen = place(event); line(pen, pen); };
  pad.onpointermove = (event) => { if (pen) { const to = place(event); line(pen, to); pen = to; } };
  pad.onpointerup = pad.onpointercancel = () => { if (pen) { pen = null; changed(); } };
  let cursor = [size.cols / 2, size.rows / 2];
  pad.onkeydown = (event) => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    const to = move ? [cursor[0] + move[0], cursor[1] + move[1]] : cursor;
    const next = [Math.min(Math.max(to[0], 0.5), size.cols - 0.5), Math.min(Math.max(to[1], 0.5), size.rows - 0.5)];
    if (event.key === " " || event.shiftKey) { line(cursor, next); changed(); }
    cursor = next;
    draw(cursor);
  };
  pad.onblur = () => draw();
}

export function restore() {
  const count = size.rows * size.cols;
  levels = unpackLevels(state.drawing, count);
  if (state.area === "marked" && state.mask) marks = unpackBits(state.mask, count);
  else setArea();
  draw();
}

export function setArea() {
  const [rows, cols] = [size.rows, size.cols];
  const inside = {
    bottom: (x, y) => y >= rows / 2, top: (x, y) => y < rows / 2,
    left: (x) => x < cols / 2, right: (x) => x >= cols / 2,
  }[state.area];
  if (inside) marks = Uint8Array.from({ length: rows * cols }, (_, i) => inside(i % cols, Math.floor(i / cols)) ? 1 : 0);
  else if (marks.length !== rows * cols) marks = new Uint8Array(rows * cols);
  save();
}

export function clear() {
  levels.fill(0);
  if (state.area === "marked") marks.fill(0);
  save();
  draw();
  changed();
}

// Scales the drawing to 20/28 of the picture and puts its centre of mass in the middle, as the images of MNIST were made.
export function fit() {
  if (isEmpty()) return;
  const { rows, cols } = size;
  const inked = [...levels.keys()].filter((i) => levels[i] > 3);
  const ends = (values) => [Math.min(...values), Math.max(...values) + 1];
  const [[left, right], [top, bottom]] = [ends(inked.map((i) => i % cols)), ends(inked.map((i) => Math.floor(i / cols)))];
  const scale = Math.min(20 / 28 * cols / (right - left), 20 / 28 * rows / (bottom - top));
  const total = levels.reduce((sum, level) => sum + level, 0);
  const mean = (axis) => levels.reduce((sum, level, i) => sum + level * (axis(i) + 0.5), 0) / total;
  const centre = [mean((i) => i % cols), mean((i) => Math.floor(i / cols))];
  const at = (x, y) => x >= 0 && y >= 0 && x < cols && y < rows ? levels[y * cols + x] : 0;
  const between = (x, y) => {
    const [x0, y0] = [Math.floor(x - 0.5), Math.floor(y - 0.5)];
    const [u, v] = [x - 0.5 - x0, y - 0.5 - y0];
    return (at(x0, y0) * (1 - u) + at(x0 + 1, y0) * u) * (1 - v) + (at(x0, y0 + 1) * (1 - u) + at(x0 + 1, y0 + 1) * u) * v;
  };
  levels = Uint8Array.from({ length: rows * cols }, (_, i) => {
    const [x, y] = [i % cols + 0.5 - cols / 2, Math.floor(i / cols) + 0.5 - rows / 2];
    return Math.round(between(centre[0] + x / scale, centre[1] + y / scale));
  });
  save();
  draw();
  changed();
}

export function isEmpty() {
  return levels.every((level) => level === 0);
}

function save() {
  state.drawing = isEmpty() ? "" : packLevels(levels);
  state.mask = packBits(marks);
}

// A line with a soft edge, about as thick as the strokes of MNIST.
function line([x0, y0], [x1, y1]) {
  const chosen = tool();
  const radius = (chosen === "paint" ? 2 : 1.1) * Math.max(size.rows, size.cols) / 28;
  for (let y = 0; y < size.rows; y++) {
    for (let x = 0; x < size.cols; x++) {
      const [dx, dy, px, py] = [x1 - x0, y1 - y0, x + 0.5 - x0, y + 0.5 - y0];
      const along = Math.min(1, Math.max(0, (px * dx + py * dy) / (dx * dx + dy * dy || 1)));
      const distance = Math.hypot(px - along * dx, py - along * dy);
      const ink = Math.min(1, Math.max(0, radius + 0.5 - distance));
      const i = y * size.cols + x;
      if (chosen === "pen") levels[i] = Math.max(levels[i], Math.round(15 * ink));
      else if (ink > 0.5 && chosen === "paint") marks[i] = 1;
      else if (ink > 0.3 && chosen === "eraser") { levels[i] = 0; if (state.area === "marked") marks[i] = 0; }
    }
  }
  if (chosen === "paint" && state.area !== "marked") {
    state.area = "marked";
    document.getElementById("area").value = "marked";
  }
  save();
  draw();
}

export function draw(cursor) {
  const context = pad.getContext("2d");
  const marked = state.mode === "complete";
  for (let i = 0; i < levels.length; i++) {
    const [x, y, grey] = [i % size.cols, Math.floor(i / size.cols), levels[i] * 17];
    context.fillStyle = marked && marks[i] ? `rgb(${60 + grey / 2}, ${80 + grey / 2}, ${130 + grey / 2})` : `rgb(${grey}, ${grey}, ${grey})`;
    context.fillRect(x * SCALE, y * SCALE, SCALE, SCALE);
  }
  if (cursor) {
    context.strokeStyle = "#f08a70";
    context.lineWidth = 3;
    context.strokeRect((cursor[0] - 1) * SCALE, (cursor[1] - 1) * SCALE, 2 * SCALE, 2 * SCALE);
  }
}
