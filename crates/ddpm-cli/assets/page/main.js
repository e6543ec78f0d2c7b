// The page: options, requests and buttons.

import * as drawing from "./drawing.js";
import * as player from "./player.js";
import * as run from "./run.js";
import * as training from "./training.js";
import { query, read, state, write } from "./state.js";

const $ = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];
const FIELDS = ["seed", "count", "sampler", "steps", "variance", "eta", "guidance", "of", "strength", "area"];
let model = null;
let timer = 0;
let classified = 0;

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

async function loadModel() {
  const response = await fetch("/api/model" + (state.of ? `?of=${state.of}` : ""));
  const found = await response.json();
  if (!response.ok) {
    if (!state.of) throw new Error(found.message);
    state.of = "";
    await loadModel();
    say(found.message, true);
    return;
  }
  model = found;
  const classes = model.num_classes ? `${model.num_classes} classes` : "no classes";
  $("model").textContent =
    `model ${model.name}, ${model.rows}×${model.cols} pixels, ${classes}, ${model.alphas_cumprod.length} timesteps, version ${model.version}`;
  player.setSize(model);
  $("sampler").replaceChildren(new Option("default", ""), ...model.samplers.map((name) => new Option(name)));
  $("steps").max = model.alphas_cumprod.length;
  $("digits").querySelectorAll("label").forEach((label) => label.remove());
  for (let digit = 0; digit < model.num_classes; digit++) {
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", value: digit, name: "digit" });
    const text = document.createElement("span");
    text.textContent = digit;
    label.append(box, text);
    $("digits").append(label);
  }
  all(".needs-classes").forEach((part) => { part.hidden = !model.num_classes; });
  if (!model.num_classes && state.mode === "classify") state.mode = "noise";
  $("of-row").hidden = !model.has_run;
  drawing.listen(model, changed);
}

// Puts the state into the fields.
function fill() {
  for (const name of FIELDS) $(name).value = state[name];
  if (state.steps === "") $("steps").value = model.alphas_cumprod.length;
  if (state.guidance === "") $("guidance").value = model.guidance_scale;
  const chosen = state.classes === "" ? null : state.classes.split(",");
  all("input[name=digit]").forEach((box) => { box.checked = chosen ? chosen.includes(box.value) : true; });
  all("input[name=mode]").forEach((box) => { box.checked = box.value === state.mode; });
  arrange();
}

// Shows the fields that have an effect.
function arrange() {
  const { mode, sampler } = state;
  const given = mode === "complete" || mode === "strength";
  $("draw").hidden = mode === "noise";
  $("sampling").hidden = mode === "classify";
  $("steps-view").hidden = mode === "classify";
  all(".for-sampling").forEach((part) => { part.hidden = mode === "classify"; });
  all(".for-complete").forEach((part) => { part.hidden = mode !== "complete"; });
  all(".for-whole").forEach((part) => { part.hidden = mode === "complete"; });
  all(".for-strength").forEach((part) => { part.hidden = mode !== "strength"; });
  all(".for-classify").forEach((part) => { part.hidden = mode !== "classify"; });
  all(".for-given").forEach((part) => { part.hidden = !given; });
  all(".for-ddpm").forEach((part) => { part.hidden = sampler !== "ddpm"; });
  all(".for-ddim").forEach((part) => { part.hidden = sampler !== "ddim"; });
  if (mode !== "complete" && $("draw").querySelector("[value=paint]").checked) $("draw").querySelector("[value=pen]").checked = true;
  $("hint").textContent = {
    noise: "",
    complete: "Draw part of a digit. The model paints the blue pixels so that they fit.",
    strength: "Draw something. The model starts from it with noise: more strength, more freedom.",
    classify: "Draw a digit. The model removes noise from it as if it were each class; the smallest error wins.",
  }[mode];
  $("steps-value").textContent = $("steps").value;
  $("eta-value").textContent = $("eta").value;
  $("guidance-value").textContent = $("guidance").value;
  $("strength-value").textContent = $("strength").value;
  drawing.draw();
}

function changed() {
  arrange();
  write();
  clearTimeout(timer);
  timer = setTimeout(ask, 120);
}

function ask() {
  const { mode } = state;
  if (mode === "classify") return classify();
  const asked = query(model).toString();
  const parts = new URLSearchParams(asked);
  const of = state.of ? `&of=${state.of}` : "";
  $("get-drawing").href = `/api/drawing?drawing=${parts.get("drawing") ?? ""}${of}`;
  $("get-mask").href = `/api/mask?mask=${parts.get("mask") ?? ""}${of}`;
  if (mode !== "noise" && !state.drawing) {
    run.stop();
    $("download").removeAttribute("href");
    $("command").textContent = "";
    return say("Draw something first.");
  }
  $("download").href = `/api/picture?${asked}`;
  const started = performance.now();
  run.start(asked, {
    labels: (answer) => { player.setLabels(answer.labels); $("command").textContent = answer.command; },
    step: (frames, total) => { player.show(frames, frames.length > total); },
    end: (message) => say(message ? message : `sampled in ${Math.round(performance.now() - started)} ms`, Boolean(message)),
  });
}

async function classify() {
  run.stop();
  const mine = ++classified;
  $("classes-found").replaceChildren();
  if (!state.drawing) return say("Draw a digit first.");
  const response = await fetch(`/api/classify?drawing=${state.drawing}${state.of ? `&of=${state.of}` : ""}`);
  const found = await response.json();
  if (mine !== classified) return;
  if (!response.ok) return say(found.message, true);
  const [low, high] = [Math.min(...found.errors), Math.max(...found.errors)];
  const bars = document.createElement("div");
  bars.className = "bars";
  found.errors.forEach((error, digit) => {
    const [name, bar, number] = ["b", "meter", "span"].map((kind) => document.createElement(kind));
    name.textContent = digit;
    Object.assign(bar, { min: 0, max: 1, value: 0.03 + 0.97 * (high - error) / (high - low || 1) });
    bar.setAttribute("aria-label", `class ${digit}, denoising error ${error.toPrecision(4)}`);
    number.textContent = error.toPrecision(4);
    if (digit === found.class) [name, number].forEach((part) => part.classList.add("best"));
    bars.append(name, bar, number);
  });
  const answer = document.createElement("p");
  answer.className = "quiet";
  answer.textContent = `Nearest to class ${found.class}: its denoising error over ${found.num_noise} noise samples is the smallest, and has the longest bar.`;
  $("classes-found").append(answer, bars);
  say(`classified in ${Math.round(1000 * found.seconds)} ms`);
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    say(`${what} copied`);
  } catch {
    say(`the browser does not allow copying; the ${what.toLowerCase()} is: ${text}`);
  }
}

function listen() {
  for (const name of FIELDS) {
    $(name).addEventListener("input", async () => {
      state[name] = $(name).value;
      if (name === "seed" && state.seed === "") return;
      if (name === "area") drawing.setArea();
      if (name === "of") { await loadModel(); fill(); }
      changed();
    });
  }
  $("digits").addEventListener("input", () => {
    const boxes = all("input[name=digit]");
    const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
    state.classes = chosen.length === boxes.length ? "" : chosen.join(",");
    if (!chosen.length) return say("Choose a digit.");
    changed();
  });
  all("input[name=mode]").forEach((box) => box.addEventListener("input", () => { state.mode = box.value; state.image = "0"; changed(); }));
  $("clear").addEventListener("click", drawing.clear);
  $("fit").addEventListener("click", drawing.fit);
  $("next-seed").addEventListener("click", () => { state.seed = String((Number(state.seed) || 0) + 1); $("seed").value = state.seed; changed(); });
  $("copy-link").addEventListener("click", () => copy(location.href, "Link"));
  $("copy-command").addEventListener("click", () => copy($("command").textContent, "Command"));
  addEventListener("hashchange", async () => { read(); await loadModel(); fill(); drawing.restore(); ask(); });
  player.listen();
}

read();
try {
  await loadModel();
  fill();
  listen();
  if (model.has_run) training.watch(() => { if (state.of) ask(); });
  ask();
} catch (error) {
  say(`the server does not answer: ${error.message}`, true);
}
