// Watches a training run.

const $ = (id) => document.getElementById(id);
let train = [];
let test = [];
let waiting = 0;

export function watch(modelChanged) {
  $("training").hidden = false;
  const source = new EventSource("/api/training");
  source.addEventListener("restart", () => { train = []; test = []; });
  source.addEventListener("records", (event) => {
    for (const record of JSON.parse(event.data)) {
      if (record.kind === "train") {
        train.push([record.step, record.loss]);
        $("training-facts").textContent = `step ${record.step}, epoch ${record.epoch.toFixed(2)}, loss ` +
          `${record.loss.toPrecision(4)}, ${Math.round(record.images_per_second)} images/s, ${Math.round(record.seconds)} s`;
      } else if (record.kind === "epoch" && record.test_loss !== null) test.push([record.step, record.test_loss]);
    }
    waiting ||= requestAnimationFrame(() => { waiting = 0; plot(); });
  });
  source.addEventListener("preview", (event) => {
    const { epoch } = JSON.parse(event.data);
    $("preview").src = `/api/preview?epoch=${epoch}&at=${Date.now()}`;
    $("preview").hidden = false;
    $("preview-epoch").textContent = `preview of epoch ${epoch}`;
  });
  source.addEventListener("model", modelChanged);
  source.addEventListener("failed", (event) => {
    $("training-facts").textContent = JSON.parse(event.data).message;
    source.close();
  });
  // After a restart of the server the log is sent again.
  source.onopen = () => { train = []; test = []; };
}

function element(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  if (text !== undefined) made.textContent = text;
  return made;
}

// The means of groups, so that a long log is a short path.
function thinned(points, most) {
  const each = Math.ceil(points.length / most) || 1;
  const groups = Array.from({ length: Math.ceil(points.length / each) }, (_, i) => points.slice(i * each, (i + 1) * each));
  return groups.map((group) => [0, 1].map((axis) => group.reduce((sum, point) => sum + point[axis], 0) / group.length));
}

function plot() {
  const positive = (points) => points.filter((point) => point[1] > 0);
  const [curve, dots] = [thinned(positive(train), 400), positive(test)];
  const all = [...curve, ...dots];
  if (!all.length) return;
  const [left, right, top, bottom] = [48, 470, 12, 212];
  const most = Math.max(...all.map((point) => point[0]));
  const logs = all.map((point) => Math.log(point[1]));
  const [low, high] = [Math.min(...logs) - 0.05, Math.max(...logs) + 0.05];
  const x = (step) => left + (right - left) * step / most;
  const y = (loss) => bottom - (bottom - top) * (Math.log(loss) - low) / (high - low);
  const svg = $("loss");
  svg.replaceChildren();
  for (const part of [0, 0.25, 0.5, 0.75, 1]) {
    const loss = Math.exp(low + (high - low) * part);
    svg.append(element("line", { x1: left, x2: right, y1: y(loss), y2: y(loss) }));
    svg.append(element("text", { x: left - 6, y: y(loss) + 4, "text-anchor": "end" }, loss.toPrecision(2)));
  }
  svg.append(element("text", { x: left, y: 230 }, "step 0"));
  svg.append(element("text", { x: right, y: 230, "text-anchor": "end" }, `step ${most.toFixed(0)}`));
  svg.append(element("path", { d: "M" + curve.map(([step, loss]) => `${x(step).toFixed(1)} ${y(loss).toFixed(1)}`).join("L") }));
  dots.forEach(([step, loss]) => svg.append(element("circle", { cx: x(step), cy: y(loss), r: 3 })));
  svg.setAttribute("aria-label", `Loss over steps, from ${all[0][1].toPrecision(3)} to ${all[curve.length - 1]?.[1].toPrecision(3)}; points are test losses`);
}
