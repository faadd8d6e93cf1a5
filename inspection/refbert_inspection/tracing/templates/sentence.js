// The sentence with its guess, how the guess comes about, and all predictions layer by layer.
const lens = data.lens;
const word = (id) => lens.words[id];
// Row 0 of the lens is the embeddings' output, row i + 1 that of layer i, and the heads read the last.
const rows = count(L + 1).reverse();
const layerAt = (row) => (row === 0 ? "embeddings" : row - 1);
const rowOf = (layer) => (layer === "embeddings" ? 0 : layer === "heads" ? L : layer + 1);

function startSentence() {
  tokenStrip("words");
  if (lens) for (const s of data.masks) $("words").children[s].append(make("b", {}, word(lens.ids[L][s][0])));
  sections.push(showSentence);
}

function showSentence() {
  const s = selection.token, token = `Token ${s}, “${data.tokens[s]}”`;
  const label = targets.has(s) ? ` The label is “${targets.get(s)}”.` : "";
  if (!lens) {
    $("said").textContent = `${token}. This model has no masked-LM head, so it guesses no words.`;
    return;
  }
  const guess = word(lens.ids[L][s][0]), best = lens.ids[L][s].map((id, k) => `${word(id)} ${percent(lens.scores[L][s][k])}`);
  const seen = data.masks.includes(s) ? "" : ", which sees it,";
  $("said").replaceChildren(`${token}: the model${seen} says `, make("b", {}, best[0]),
    `${best.length > 1 ? `, then ${best.slice(1).join(", ")}` : ""}.${label} How “${guess}” comes about, layer by layer:`);
  const most = Math.max(...lens.final.map((row) => row[s])) || 1;
  $("climb").replaceChildren(make("thead", {}, make("tr", {}, make("th", { class: "name" }), make("th", { colspan: 2 }, `“${guess}”`),
    make("th", { class: "says" }, "says first"))), make("tbody", {}, ...rows.map((r) => {
    const p = lens.final[r][s], at = layerAt(r);
    return make("tr", { class: r === rowOf(selection.layer) ? "on" : "", on: { click: () => select({ layer: at }) } },
      make("td", { class: "name" }, make("button", {}, layerName(at))),
      make("td", { class: "climbs" }, make("i", { style: `width:${(100 * p / most).toFixed(1)}%` })), make("td", {}, percent(p)),
      make("td", { class: "says" }, `${word(lens.ids[r][s][0])} ${percent(lens.scores[r][s][0])}`));
  })));
}

function startLens() {
  if (!lens) return;
  const body = make("tbody");
  for (const r of rows)
    body.append(make("tr", {}, make("td", { class: "name" }, layerName(layerAt(r))), ...data.tokens.map((_, s) => {
      const p = lens.scores[r][s][0];
      return make("td", { "data-s": s, "data-r": r, title: `${layerName(layerAt(r))}: ${word(lens.ids[r][s][0])} ${percent(p)}`,
        style: `background:rgb(var(--under-to) / ${(0.6 * p).toFixed(2)})` }, word(lens.ids[r][s][0]));
    })));
  body.addEventListener("click", (event) => {
    const cell = event.target.closest("td[data-s]");
    if (cell) select({ token: Number(cell.dataset.s), layer: layerAt(Number(cell.dataset.r)) });
  });
  $("lens").append(make("thead", {}, make("tr", {}, make("th", { class: "name" }, "says"),
    ...data.tokens.map((t, s) => make("th", { title: `token ${s}` }, t)))), body);
  sections.push(showLens);
}

function showLens() {
  const s = selection.token, row = rowOf(selection.layer);
  for (const cell of $("lens").querySelectorAll("td[data-s]")) {
    const here = Number(cell.dataset.s) === s;
    cell.classList.toggle("on", here);
    cell.classList.toggle("at", here && Number(cell.dataset.r) === row);
  }
  const box = $("lens").parentElement, column = $("lens").querySelectorAll("th")[s + 1];
  if (column.offsetLeft < box.scrollLeft || column.offsetLeft + column.offsetWidth > box.scrollLeft + box.clientWidth)
    box.scrollLeft = column.offsetLeft - box.clientWidth / 2;
  $("guesses").replaceChildren(...rows.map((r) =>
    make("div", { class: r === row ? "at" : "" }, make("h4", {}, layerName(layerAt(r))), ...lens.ids[r][s].map((id, k) =>
      bar(word(id), lens.scores[r][s][k], percent(lens.scores[r][s][k]))))));
}
