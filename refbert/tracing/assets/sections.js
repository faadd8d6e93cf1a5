// Predictions layer by layer, activations, gradients.
const sig = (x) => (x === 0 ? "0" : Math.abs(x) >= 1e5 || Math.abs(x) < 1e-3 ? x.toExponential(2) : x.toPrecision(4));
const rowName = (layer) => (layer === 0 ? "embeddings" : `layer ${layer}`);

function startLens() {
  const lens = data.lens;
  if (!lens) return;
  const table = $("lens"), word = (id) => lens.words[id];
  const chosen = data.targets.length ? data.targets[0][0] : data.tokens.findIndex((_, i) => !data.special[i]);
  table.append(make("thead", {}, make("tr", {}, make("th", { class: "name" }, "says"),
    ...data.tokens.map((t, s) => make("th", { title: `token ${s}` }, t)))));
  const body = make("tbody");
  for (let l = L; l >= 0; l--)
    body.append(make("tr", {}, make("td", { class: "name" }, rowName(l)), ...data.tokens.map((_, s) => {
      const p = lens.scores[l][s][0];
      return make("td", { "data-s": s, title: `${rowName(l)}: ${word(lens.ids[l][s][0])} ${percent(p)}`,
        style: `background:rgb(var(--under-to) / ${(0.6 * p).toFixed(2)})` }, word(lens.ids[l][s][0]));
    })));
  body.addEventListener("click", (event) => {
    const cell = event.target.closest("td[data-s]");
    if (cell) pickPrediction(Number(cell.dataset.s));
  });
  table.append(body);
  pickPrediction(Math.max(0, chosen));
}

function pickPrediction(s) {
  const lens = data.lens;
  for (const cell of $("lens").querySelectorAll("td[data-s]")) cell.classList.toggle("on", Number(cell.dataset.s) === s);
  const final = lens.words[lens.ids[L][s][0]], target = data.targets.find(([at]) => at === s);
  $("said").textContent = `Token ${s}, “${data.tokens[s]}”: the last layer says “${final}”` +
    (target ? `; the label is “${target[1]}”` : "") + `. Its probability, from the embeddings to the last layer: ` +
    lens.final.map((row) => percent(row[s])).join(", ") + ".";
  $("guesses").replaceChildren(...[...Array(L + 1).keys()].reverse().map((l) =>
    make("div", {}, make("h4", {}, rowName(l)), ...lens.ids[l][s].map((id, k) =>
      bar(lens.words[id], lens.scores[l][s][k], percent(lens.scores[l][s][k]))))));
}

// Activations: kinds × layers at a glance, then one layer's tensors in detail.

const show2 = { layer: 1, gradient: false, tensor: null };
const kindOf = (tensor) => tensor.name.replace(/^bert\.encoder\.layer\.\d+\./, "");

function startActivations() {
  const groups = [...new Set(data.tensors.map((t) => t.layer))];
  const title = (g) => (g === 0 ? "embeddings" : g > L ? "heads" : `${g}`);
  $("groups").append(...groups.map((g) => make("button", { "data-group": g, on: { click: () => pickGroup(g) } }, title(g))));
  if (data.loss === null && !data.tensors.some((t) => t.gradient)) $("which").hidden = true;
  for (const button of $("which").querySelectorAll("button"))
    button.addEventListener("click", () => { show2.gradient = button.dataset.which === "gradient"; overview(); });
  overview();
  pickGroup(groups.includes(1) ? 1 : groups[0]);
}

function overview() {
  for (const button of $("which").querySelectorAll("button"))
    button.setAttribute("aria-pressed", (button.dataset.which === "gradient") === show2.gradient);
  const inLayers = data.tensors.filter((t) => t.layer >= 1 && t.layer <= L);
  const kinds = [...new Set(inLayers.map(kindOf))];
  const value = (t) => (t ? (show2.gradient ? t.gradient && t.gradient.rms : t.rms) : null);
  const head = make("tr", {}, make("th", { class: "name" }, show2.gradient ? "rms of the gradient" : "rms"),
    ...[...Array(L).keys()].map((l) => make("th", {}, `${l + 1}`)));
  const rows = kinds.map((kind) => {
    const found = [...Array(L).keys()].map((l) => inLayers.find((t) => t.layer === l + 1 && kindOf(t) === kind));
    const top = Math.max(...found.map((t) => value(t) || 0));
    if (!found.some((t) => value(t) !== null && value(t) !== undefined)) return null;
    return make("tr", {}, make("td", { class: "name" }, ...dotted(kind)), ...found.map((t, l) => {
      const v = value(t);
      return make("td", { style: `cursor:pointer;background:rgb(var(--under-${show2.gradient ? "by" : "to"}) / ${(top ? 0.5 * (v || 0) / top : 0).toFixed(2)})`,
        on: { click: () => { pickGroup(l + 1); if (t) pickTensor(t); } } }, v === null || v === undefined ? "" : sig(v));
    }));
  });
  $("overview").replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows.filter(Boolean)));
}

function pickGroup(group) {
  show2.layer = group;
  for (const button of $("groups").querySelectorAll("button"))
    button.setAttribute("aria-pressed", Number(button.dataset.group) === group);
  const here = data.tensors.filter((t) => t.layer === group);
  $("tensors").replaceChildren(make("thead", {}, make("tr", {}, make("th", { class: "name" }, "tensor"),
    ...["op", "shape"].map((c) => make("th", { class: "aside" }, c)),
    ...["rms", "min", "max", "distribution", "rms of gradient"].map((c) => make("th", {}, c)))),
  make("tbody", {}, ...here.map((t) => make("tr", { class: "pick-row", tabindex: 0, "data-name": t.name,
    on: { click: () => pickTensor(t), keydown: (e) => { if (e.key === "Enter") pickTensor(t); } } },
    make("td", { class: "name" }, ...dotted(kindOf(t))), make("td", { class: "aside" }, t.op),
    make("td", { class: "aside" }, t.shape.join(" × ") || "number"),
    ...[t.rms, t.min, t.max].map((x) => make("td", {}, sig(x))), make("td", {}, histogram(t, 120, 22)),
    make("td", {}, t.gradient ? sig(t.gradient.rms) : "")))));
  if (here.length) pickTensor(here[0]);
}

function svg(tag, options, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(options)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function histogram(t, width, height) {
  // Root scale, so that a handful of outliers among a million can be seen.
  const top = Math.sqrt(Math.max(...t.histogram, 1)), step = width / Math.max(1, t.histogram.length);
  return svg("svg", { width, height, role: "img", "aria-label": `histogram of ${t.name}` },
    ...t.histogram.map((c, i) => svg("rect", { class: "histogram", x: i * step, width: Math.max(1, step - 0.5),
      y: height - height * Math.sqrt(c) / top, height: height * Math.sqrt(c) / top })));
}

function pickTensor(t) {
  show2.tensor = t;
  for (const row of $("tensors").querySelectorAll("tr[data-name]")) row.classList.toggle("on", row.dataset.name === t.name);
  const parts = [make("h3", {}, make("code", {}, ...dotted(t.name))), histogram(t, 300, 80),
    make("p", { class: "small dim" }, `from ${sig(t.min)} to ${sig(t.max)}, mean ${sig(t.mean)}` +
      (t.bad ? `; ${t.bad} entries are NaN or infinite` : "") + "; heights are roots of counts"),
    make("p", { class: "small" }, "quantiles: " + t.quantiles.map((q, i) => `${data.quantiles[i]}: ${sig(q)}`).join("; "))];
  if (t.tokens.length) {
    const top = Math.max(...t.tokens) || 1;
    parts.push(make("p", { class: "small dim" }, `rms at each token, the largest ${sig(top)}` +
      (t.gradient && t.gradient.tokens.length ? "; below each, that of the gradient" : "")));
    const most = t.gradient ? Math.max(...t.gradient.tokens) || 1 : 1;
    parts.push(make("div", { class: "tokens" }, ...data.tokens.map((word, s) => make("button", {
      title: `token ${s}: ${sig(t.tokens[s])}` + (t.gradient && t.gradient.tokens.length ? `, gradient ${sig(t.gradient.tokens[s])}` : ""),
      style: `background:rgb(var(--under-to) / ${(0.65 * t.tokens[s] / top).toFixed(2)});` + (t.gradient && t.gradient.tokens.length
        ? `border-bottom-color:rgb(var(--by) / ${(t.gradient.tokens[s] / most).toFixed(2)})` : "") }, word))));
  }
  $("tensor").replaceChildren(...parts);
}

function startGradients() {
  if (!data.parameters.length) return;
  const from = data.tensors.find((t) => t.name === "bert.embeddings.LayerNorm" && t.gradient && t.gradient.tokens.length);
  if (from) {
    const top = Math.max(...from.gradient.tokens) || 1;
    $("reach").append(...data.tokens.map((word, s) => make("button", { title: `token ${s}: ${sig(from.gradient.tokens[s])}`,
      style: `background:rgb(var(--under-by) / ${(0.65 * from.gradient.tokens[s] / top).toFixed(2)})` }, word)));
  }
  const norms = data.parameters.map((p) => p.norm).filter((n) => n > 0);
  const low = Math.log10(Math.min(...norms)), high = Math.log10(Math.max(...norms));
  $("parameters").append(make("thead", {}, make("tr", {}, make("th", { class: "name" }, "parameter"),
    make("th", { class: "aside" }, "shape"), ...["rms of weights", "norm of gradient", "logarithmic"].map((c) => make("th", {}, c)))),
  make("tbody", {}, ...data.parameters.map((p) => make("tr", {}, make("td", { class: "name" }, ...dotted(p.name)),
    make("td", { class: "aside" }, p.shape.join(" × ")), make("td", {}, sig(p.rms)), make("td", {}, sig(p.norm)), make("td", {},
      make("div", { class: "bar by", style: "grid-template-columns:9rem" }, make("i", {
        style: `width:${p.norm > 0 ? (4 + 96 * (Math.log10(p.norm) - low) / (high - low || 1)).toFixed(1) : 0}%` })))))));
}
