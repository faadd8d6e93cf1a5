// Attention: all heads at a glance, one in detail. Maps are described in maps.py.
const looking = { at: "", values: null, token: null }; // token: under the pointer, or null

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
  const chosen = head === "mean" ? count(A) : [head];
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
  grid.append(make("span"), ...choices.head.map((a) => make("span", {}, `${a}`)));
  for (let l = 0; l < L; l++) {
    const bytes = all.subarray(l * A * n * n, (l + 1) * A * n * n);
    grid.append(make("span", {}, `${l}`));
    for (const a of choices.head) {
      const canvas = make("canvas");
      const label = `${layerName(l)}, ${headName(a)}`;
      grid.append(make("button", { "aria-label": label, title: label, "data-at": `${l},${a}`,
        on: { click: () => select({ layer: l, head: a }) } }, canvas));
      paint(canvas, ofHead(bytes, a, n), n);
    }
  }
}

async function showAttention() {
  const { layer, head } = selection, at = `${layer},${head}`;
  for (const button of $("heads").querySelectorAll("button")) button.setAttribute("aria-pressed", button.dataset.at === at);
  const inside = typeof layer === "number";
  $("detail").hidden = !inside;
  $("elsewhere").hidden = inside;
  $("elsewhere").textContent = `Only layers have attention, and “${layer}” is selected: pick one of 0 to ${L - 1}.`;
  if (!inside) return;
  if (looking.at !== at) {
    const bytes = await layerMaps(layer);
    if (at !== `${selection.layer},${selection.head}`) return; // another was picked meanwhile
    looking.at = at;
    looking.values = ofHead(bytes, head, S);
    $("chosen").textContent = `Layer ${layer}, ${headName(head)}`;
    const h = head === "mean" ? null : data.attention.habits[layer][head];
    $("habits").textContent = h
      ? `On average a token gives ${percent(h.special)} to [CLS] and [SEP], ${percent(h.itself)} to itself, ` +
        `${percent(h.previous)} to the token before, ${percent(h.next)} to the one after; entropy ${h.entropy} bits ` +
        `(uniform: ${Math.log2(S).toFixed(2)}).`
      : "The probabilities of all heads of this layer, averaged.";
  }
  look(null);
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
  const top = looking.values.reduce((a, b) => Math.max(a, b), 0) || 1; // a diffuse head would be too pale to read
  paint(small, looking.values, S, top);
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
  context.strokeStyle = `rgb(${getComputedStyle(document.documentElement).getPropertyValue("--by")})`;
  context.lineWidth = Math.max(1, cell / 12);
  context.strokeRect(margin, margin + cell * (looking.token ?? selection.token), cell * S, cell);
}

function look(token) {
  // At the token under the pointer, or else at the selected one.
  looking.token = token;
  const p = looking.values, i = token ?? selection.token;
  if (!p) return;
  const to = Array.from({ length: S }, (_, j) => p[i * S + j]);
  const by = Array.from({ length: S }, (_, j) => p[j * S + i]);
  $("strip").querySelectorAll("button").forEach((chip, j) => {
    chip.style.backgroundColor = `rgb(var(--under-to) / ${(0.65 * Math.sqrt(to[j])).toFixed(3)})`; // text stays readable on it
    chip.style.borderBottomColor = by[j] > 0.0005 ? `rgb(var(--by) / ${Math.sqrt(by[j]).toFixed(3)})` : "";
    chip.classList.toggle("on", j === i);
  });
  fill("to", to, "");
  fill("by", by, "by");
  $("read").textContent = `Token ${i}, “${data.tokens[i]}”`;
  drawMap();
}

function fill(id, p, kind) {
  const best = [...p.keys()].sort((a, b) => p[b] - p[a]).slice(0, 8).filter((j) => p[j] > 0);
  $(id).replaceChildren(...best.map((j) => bar(`${data.tokens[j]}  ${j}`, p[j], percent(p[j]), kind)));
  if (!best.length) $(id).append(make("li", { class: "dim" }, "nothing of what is shown"));
}

function startAttention() {
  tokenStrip("strip", (i) => ({
    pointerenter: (event) => { if (event.pointerType === "mouse") look(i); },
    pointerleave: () => look(null),
    focus: () => look(i),
    blur: () => look(null),
  }));
  const at = (event) => {
    const box = $("map").getBoundingClientRect(), { margin, cell } = geometry();
    // The canvas is shown at another size than its own, inside a border of one pixel.
    const of = (v) => Math.floor(((v - 1) * $("map").width / (box.width - 2) - margin) / cell);
    const j = of(event.clientX - box.left), i = of(event.clientY - box.top);
    return i < 0 || j < 0 || i >= S || j >= S ? null : [i, j];
  };
  $("map").addEventListener("pointermove", (event) => {
    if (!at(event)) return;
    const [i, j] = at(event);
    if (i !== looking.token) look(i);
    $("read").textContent = `“${data.tokens[i]}” (${i}) gives “${data.tokens[j]}” (${j}) ${percent(looking.values[i * S + j])}`;
  });
  $("map").addEventListener("pointerleave", () => look(null));
  $("map").addEventListener("click", (event) => { if (at(event)) select({ token: at(event)[0] }); });
  $("heads").addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    const here = event.target.dataset.at;
    if (!step || !here) return;
    event.preventDefault();
    const [layer, head] = here.split(",");
    const to = { layer: (Number(layer) + step[0] + L) % L, head: choices.head.at((choices.head.map(String).indexOf(head) + step[1]) % (A + 1)) };
    select(to);
    $("heads").querySelector(`[data-at="${to.layer},${to.head}"]`).focus();
  });
  sections.push(showAttention);
  return drawGrid();
}
