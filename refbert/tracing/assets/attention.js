"use strict";
// The page's data, written into it by refbert/tracing/page.py; maps of attention are described in maps.py.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const S = data.tokens.length, L = data.layers, A = data.heads;
const state = { layer: 0, head: 0, token: null, pinned: false, values: null };

function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else if (name === "class") element.className = value;
    else if (name === "style") element.style.cssText = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const percent = (p) => (p >= 0.0995 ? (100 * p).toFixed(0) : p >= 0.00995 ? (100 * p).toFixed(1) : (100 * p).toFixed(2)) + "\u00a0%";
const headName = (head) => (head === A ? "mean of the heads" : `head ${head + 1}`);

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const unpacked = new Map();
function layerMaps(layer) {
  // Few layers are kept: at 512 tokens one of 12 heads is 3 MB.
  if (!unpacked.has(layer)) {
    if (unpacked.size > 5) unpacked.delete(unpacked.keys().next().value);
    unpacked.set(layer, inflate(data.attention.layers[layer]));
  }
  return unpacked.get(layer);
}

function ofHead(bytes, head, n) {
  // Probabilities [n, n] of one head, or of the mean of all.
  const out = new Float32Array(n * n);
  const chosen = head === A ? [...Array(A).keys()] : [head];
  for (const a of chosen)
    for (let i = 0; i < n * n; i++) out[i] += (bytes[a * n * n + i] / 255) ** 2 / chosen.length;
  return out;
}

function colour() {
  return getComputedStyle(document.documentElement).getPropertyValue("--to").trim().split(" ").map(Number);
}

function paint(canvas, p, n, top = 1) {
  canvas.width = canvas.height = n;
  const image = new ImageData(n, n), [r, g, b] = colour();
  for (let i = 0; i < n * n; i++) image.data.set([r, g, b, Math.round(255 * Math.sqrt(p[i] / top))], 4 * i);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

async function drawGrid() {
  const n = data.attention.side, all = await inflate(data.attention.thumbnails);
  const grid = $("heads");
  grid.style.gridTemplateColumns = `1.6rem repeat(${A + 1}, minmax(0, 1fr))`;
  grid.append(make("span"), ...[...Array(A).keys()].map((a) => make("span", {}, `${a + 1}`)), make("span", {}, "mean"));
  for (let l = 0; l < L; l++) {
    const bytes = all.subarray(l * A * n * n, (l + 1) * A * n * n);
    grid.append(make("span", {}, `${l + 1}`));
    for (let a = 0; a <= A; a++) {
      const canvas = make("canvas");
      const label = `layer ${l + 1}, ${headName(a)}`;
      grid.append(make("button", { "aria-label": label, title: label, "data-at": `${l},${a}`,
        on: { click: () => choose(l, a) } }, canvas));
      paint(canvas, ofHead(bytes, a, n), n);
    }
  }
}

async function choose(layer, head) {
  state.layer = (layer + L) % L;
  state.head = (head + A + 1) % (A + 1);
  for (const button of $("heads").querySelectorAll("button"))
    button.setAttribute("aria-pressed", button.dataset.at === `${state.layer},${state.head}`);
  const wanted = `${state.layer},${state.head}`;
  const bytes = await layerMaps(state.layer);
  if (wanted !== `${state.layer},${state.head}`) return; // another was picked meanwhile
  state.values = ofHead(bytes, state.head, S);
  $("chosen").textContent = `Layer ${state.layer + 1}, ${headName(state.head)}`;
  const h = state.head < A ? data.attention.habits[state.layer][state.head] : null;
  $("habits").textContent = h
    ? `On average a token gives ${percent(h.special)} to [CLS] and [SEP], ${percent(h.itself)} to itself, ` +
      `${percent(h.previous)} to the token before, ${percent(h.next)} to the one after; entropy ${h.entropy} bits ` +
      `(uniform: ${Math.log2(S).toFixed(2)}).`
    : "The probabilities of all heads of this layer, averaged.";
  drawMap();
  show(state.token ?? 0);
}

const LABELLED = 40; // tokens up to which the map has them written at its sides
function geometry() {
  const margin = S <= LABELLED ? 84 : 0;
  const cell = Math.max(1, Math.floor((S <= LABELLED ? 560 : 1024) / S));
  return { margin, cell: Math.min(cell, 40) };
}

function shortened(context, word, width) {
  if (context.measureText(word).width <= width) return word;
  let end = word.length - 1;
  while (end > 1 && context.measureText(word.slice(0, end) + "…").width > width) end--;
  return word.slice(0, end) + "…";
}

function drawMap() {
  const canvas = $("map"), { margin, cell } = geometry();
  canvas.width = canvas.height = margin + cell * S;
  const context = canvas.getContext("2d"), small = make("canvas");
  const top = state.values.reduce((a, b) => Math.max(a, b), 0) || 1; // a diffuse head would be too pale to read
  paint(small, state.values, S, top);
  $("darkest").textContent = `The map’s strongest cell is ${percent(top)}.`;
  context.imageSmoothingEnabled = false;
  context.drawImage(small, margin, margin, cell * S, cell * S);
  if (margin) {
    context.fillStyle = getComputedStyle(document.body).color;
    context.font = `${Math.max(9, Math.min(13, cell))}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    for (let i = 0; i < S; i++) {
      const word = shortened(context, data.tokens[i], margin - 8);
      context.textAlign = "right";
      context.fillText(word, margin - 4, margin + cell * (i + 0.5));
      context.save();
      context.translate(margin + cell * (i + 0.5), margin - 4);
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      context.fillText(word, 0, 0);
      context.restore();
    }
  }
  if (state.token !== null) {
    context.strokeStyle = `rgb(${getComputedStyle(document.documentElement).getPropertyValue("--by")})`;
    context.lineWidth = Math.max(1, cell / 12);
    context.strokeRect(margin, margin + cell * state.token, cell * S, cell);
  }
}

function show(token) {
  state.token = token;
  const p = state.values;
  if (!p) return;
  const to = Array.from({ length: S }, (_, j) => p[token * S + j]);
  const by = Array.from({ length: S }, (_, i) => p[i * S + token]);
  $("strip").querySelectorAll("button").forEach((chip, j) => {
    chip.style.backgroundColor = `rgb(var(--under-to) / ${(0.65 * Math.sqrt(to[j])).toFixed(3)})`; // text stays readable on it
    chip.style.borderBottomColor = by[j] > 0.0005 ? `rgb(var(--by) / ${Math.sqrt(by[j]).toFixed(3)})` : "";
    chip.classList.toggle("on", j === token);
  });
  fill("to", to, "");
  fill("by", by, "by");
  $("read").textContent = `Token ${token}, “${data.tokens[token]}”${state.pinned ? " (pinned; click it again to let go)" : ""}`;
  drawMap();
}

function fill(id, p, kind) {
  const best = [...p.keys()].sort((a, b) => p[b] - p[a]).slice(0, 8).filter((j) => p[j] > 0);
  $(id).replaceChildren(...best.map((j) => bar(`${data.tokens[j]}  ${j}`, p[j], percent(p[j]), kind)));
  if (!best.length) $(id).append(make("li", { class: "dim" }, "nothing of what is shown"));
}

function dotted(name) {
  // Where the screen is narrow, a name is broken after its dots.
  return name.split(/(?<=\.)/).flatMap((part, i) => (i ? [make("wbr"), part] : [part]));
}

function bar(name, share, text, kind = "") {
  return make("li", { class: `bar ${kind}` }, make("span", { title: name }, name),
    make("i", { style: `width:${(100 * Math.min(1, share)).toFixed(1)}%` }), make("b", {}, text));
}

function tokenStrip(act) {
  const targets = new Set(data.targets.map(([s]) => s));
  return data.tokens.map((word, i) =>
    make("button", { class: [data.special[i] ? "special" : "", targets.has(i) ? "target" : ""].join(" "), "data-i": i,
      title: `token ${i}, segment ${data.segments[i]}`, on: act(i) }, word));
}

function startAttention() {
  $("strip").append(...tokenStrip((i) => ({
    pointerenter: (event) => { if (!state.pinned && event.pointerType === "mouse") show(i); },
    focus: () => { if (!state.pinned) show(i); },
    click: () => { state.pinned = !(state.pinned && state.token === i); show(i); },
  })));
  $("map").addEventListener("pointermove", (event) => {
    const box = $("map").getBoundingClientRect(), { margin, cell } = geometry();
    // The canvas is shown at another size than its own, inside a border of one pixel.
    const at = (v) => Math.floor(((v - 1) * $("map").width / (box.width - 2) - margin) / cell);
    const j = at(event.clientX - box.left), i = at(event.clientY - box.top);
    if (i < 0 || j < 0 || i >= S || j >= S) return;
    if (!state.pinned && i !== state.token) show(i);
    $("read").textContent = `“${data.tokens[i]}” (${i}) gives “${data.tokens[j]}” (${j}) ${percent(state.values[i * S + j])}`;
  });
  const steps = { up: [-1, 0], down: [1, 0], left: [0, -1], right: [0, 1] };
  for (const [id, [dl, dh]] of Object.entries(steps))
    $(id).addEventListener("click", () => choose(state.layer + dl, state.head + dh));
  $("heads").addEventListener("keydown", (event) => {
    const step = steps[event.key.replace("Arrow", "").toLowerCase()];
    if (!step) return;
    event.preventDefault();
    const at = [(state.layer + step[0] + L) % L, (state.head + step[1] + A + 1) % (A + 1)];
    choose(...at);
    $("heads").querySelector(`[data-at="${at}"]`).focus();
  });
  return drawGrid().then(() => choose(0, 0));
}
