// The state of the page, which stands in its address.

export const DEFAULTS = {
  mode: "noise", classes: "", seed: "1", count: "10", sampler: "", steps: "", variance: "", eta: "0", guidance: "",
  of: "", strength: "0.6", area: "bottom", drawing: "", mask: "", step: "", image: "0",
};

export const state = { ...DEFAULTS };

export function read() {
  Object.assign(state, DEFAULTS);
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    if (name in DEFAULTS) state[name] = value;
  }
}

export function write() {
  const changed = Object.entries(state).filter(([name, value]) => value !== DEFAULTS[name]);
  history.replaceState(null, "", "#" + new URLSearchParams(changed));
}

// The query of a request: the options of `ddpm-cli sample`.
export function query(model) {
  const query = new URLSearchParams({ seed: state.seed, "num-images": state.count });
  const add = (name, value) => value !== "" && query.set(name, value);
  add("of", state.of);
  if (model.num_classes) {
    add("classes", state.classes);
    add("guidance-scale", state.guidance);
  }
  // With few steps, the painted part fits the known one only if the run goes back and forth.
  add("sampler", state.sampler || (state.mode === "complete" ? "repaint" : ""));
  add("steps", state.steps);
  if (state.sampler === "ddpm") add("variance", state.variance);
  if (state.sampler === "ddim" && state.eta !== "0") add("eta", state.eta);
  if (state.mode === "complete" || state.mode === "strength") add("drawing", state.drawing);
  if (state.mode === "complete") add("mask", state.mask);
  if (state.mode === "strength") add("strength", state.strength);
  return query;
}

function base64url(bytes) {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function bytes(text) {
  try {
    return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
  } catch {
    return new Uint8Array();
  }
}

// Grey levels 0 to 15, two in a byte.
export function packLevels(levels) {
  const packed = new Uint8Array(Math.ceil(levels.length / 2));
  levels.forEach((level, i) => { packed[i >> 1] |= i % 2 ? level : level << 4; });
  return base64url(packed);
}

export function unpackLevels(text, count) {
  const packed = bytes(text);
  return Uint8Array.from({ length: count }, (_, i) => ((packed[i >> 1] ?? 0) >> (i % 2 ? 0 : 4)) & 15);
}

// Bits, eight in a byte.
export function packBits(bits) {
  const packed = new Uint8Array(Math.ceil(bits.length / 8));
  bits.forEach((bit, i) => { packed[i >> 3] |= bit << (7 - i % 8); });
  return base64url(packed);
}

export function unpackBits(text, count) {
  const packed = bytes(text);
  return Uint8Array.from({ length: count }, (_, i) => ((packed[i >> 3] ?? 0) >> (7 - i % 8)) & 1);
}

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}
