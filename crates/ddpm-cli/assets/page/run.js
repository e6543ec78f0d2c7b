// Asks the server for a run and keeps all its steps.

import { fromBase64 } from "./state.js";

let source = null;
let asked = 0;

// Calls `step(frames, total)` after each step and `end(message)` at the end, with a message if the run failed.
export async function start(query, { step, end, labels }) {
  stop();
  const mine = ++asked;
  let answer;
  try {
    const response = await fetch(`/api/command?${query}`);
    answer = { ok: response.ok, busy: response.status === 503, ...await response.json() };
  } catch {
    answer = { message: "the server does not answer" };
  }
  if (mine !== asked) return;
  if (!answer.ok) return end(answer.message);
  labels(answer);
  const frames = [];
  source = new EventSource(`/api/run?${query}`);
  const finish = (message) => { source?.close(); source = null; end(message); };
  source.addEventListener("start", (event) => {
    const x_t = fromBase64(JSON.parse(event.data).x_t);
    frames.length = 0;
    frames.push({ x_t, x_start: null, index: -1 });
    step(frames, answer.steps);
  });
  source.addEventListener("step", (event) => {
    const found = JSON.parse(event.data);
    frames.push({ ...found, x_t: fromBase64(found.x_t), x_start: fromBase64(found.x_start) });
    step(frames, found.total);
  });
  source.addEventListener("failed", (event) => finish(JSON.parse(event.data).message));
  source.addEventListener("end", () => finish(""));
  source.onerror = () => finish("the server has ended the run; it has too much to do, or it was stopped");
}

export function stop() {
  asked += 1;
  source?.close();
  source = null;
}
