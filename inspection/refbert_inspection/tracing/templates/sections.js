// Activations and gradients.
const sig = (x) => (x === 0 ? "0" : Math.abs(x) >= 1e5 || Math.abs(x) < 1e-3 ? x.toExponential(2) : x.toPrecision(4));

// Activations: kinds × layers at a glance, then one layer's tensors in detail.

const shown = { gradient: false, kind: "" }; // the kind of tensor stays when the layer changes
const kindOf = (tensor) => tensor.name.replace(/^bert\.encoder\.layer\.\d+\./, "");

function startActivations() {
  $("groups").append(...choices.layer.map((g) => make("button", { "data-group": g, on: { click: () => select({ layer: g }) } }, `${g}`)));
  if (!data.tensors.some((t) => t.gradient)) $("which").hidden = true;
  for (const button of $("which").querySelectorAll("button"))
    button.addEventListener("click", () => { shown.gradient = button.dataset.which === "gradient"; overview(); });
  sections.push(() => { overview(); showLayer(); });
}

function overview() {
  for (const button of $("which").querySelectorAll("button"))
    button.setAttribute("aria-pressed", (button.dataset.which === "gradient") === shown.gradient);
  const inLayers = data.tensors.filter((t) => typeof t.layer === "number");
  const kinds = [...new Set(inLayers.map(kindOf))];
  const value = (t) => (t ? (shown.gradient ? t.gradient && t.gradient.rms : t.rms) : null);
  const head = make("tr", {}, make("th", { class: "name" }, shown.gradient ? "rms of the gradient" : "rms"),
    ...count(L).map((l) => make("th", { class: l === selection.layer ? "at" : "" }, `${l}`)));
  const rows = kinds.map((kind) => {
    const found = count(L).map((l) => inLayers.find((t) => t.layer === l && kindOf(t) === kind));
    const top = Math.max(...found.map((t) => value(t) || 0));
    if (!found.some((t) => value(t) !== null && value(t) !== undefined)) return null;
    return make("tr", {}, make("td", { class: "name" }, ...dotted(kind)), ...found.map((t, l) => {
      const v = value(t);
      return make("td", { style: `cursor:pointer;background:rgb(var(--under-${shown.gradient ? "by" : "to"}) / ${(top ? 0.5 * (v || 0) / top : 0).toFixed(2)})`,
        on: { click: () => { shown.kind = kind; select({ layer: l }); showLayer(); } } }, v === null || v === undefined ? "" : sig(v));
    }));
  });
  $("overview").replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows.filter(Boolean)));
}

function showLayer() {
  for (const button of $("groups").querySelectorAll("button"))
    button.setAttribute("aria-pressed", button.dataset.group === String(selection.layer));
  const here = data.tensors.filter((t) => t.layer === selection.layer);
  $("tensors").replaceChildren(make("thead", {}, make("tr", {}, make("th", { class: "name" }, "tensor"),
    ...["op", "shape"].map((c) => make("th", { class: "aside" }, c)),
    ...["rms", "min", "max", "distribution", "rms of gradient"].map((c) => make("th", {}, c)))),
  make("tbody", {}, ...here.map((t) => make("tr", { class: "pick-row", tabindex: 0, "data-name": t.name,
    on: { click: () => pickTensor(t), keydown: (e) => { if (e.key === "Enter") pickTensor(t); } } },
    make("td", { class: "name" }, ...dotted(kindOf(t))), make("td", { class: "aside" }, t.op),
    make("td", { class: "aside" }, t.shape.join(" × ") || "number"),
    ...[t.rms, t.min, t.max].map((x) => make("td", {}, sig(x))), make("td", {}, histogram(t, 120, 22)),
    make("td", {}, t.gradient ? sig(t.gradient.rms) : "")))));
  if (here.length) pickTensor(here.find((t) => kindOf(t) === shown.kind) ?? here[0]);
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
  shown.kind = kindOf(t);
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
    parts.push(make("div", { class: "tokens", id: "sizes" }));
    $("tensor").replaceChildren(...parts);
    tokenStrip("sizes", undefined, (s) => ({
      title: `token ${s}: ${sig(t.tokens[s])}` + (t.gradient && t.gradient.tokens.length ? `, gradient ${sig(t.gradient.tokens[s])}` : ""),
      style: `background:rgb(var(--under-to) / ${(0.65 * t.tokens[s] / top).toFixed(2)});` + (t.gradient && t.gradient.tokens.length
        ? `border-bottom-color:rgb(var(--by) / ${(t.gradient.tokens[s] / most).toFixed(2)})` : "") }));
    $("sizes").children[selection.token].classList.add("on");
  } else {
    $("tensor").replaceChildren(...parts);
  }
}

function startGradients() {
  if (!data.parameters.length) return;
  const from = data.tensors.find((t) => t.name === "bert.embeddings.LayerNorm" && t.gradient && t.gradient.tokens.length);
  if (from) {
    const top = Math.max(...from.gradient.tokens) || 1;
    tokenStrip("reach", undefined, (s) => ({ title: `token ${s}: ${sig(from.gradient.tokens[s])}`,
      style: `background:rgb(var(--under-by) / ${(0.65 * from.gradient.tokens[s] / top).toFixed(2)})` }));
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
