"use strict";
// The page's data, written into it by inspection/refbert_inspection/tracing/page.py, and one selection for all sections: a token, a layer
// ("embeddings", 0, 1, …, "heads") and a head (0, 1, …, "mean"). It is kept in the address, so that back, forward,
// reload and a link give it again. Layers and heads have the numbers of the parameters' names: encoder.layer.0.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const S = data.tokens.length, L = data.layers, A = data.heads;

const count = (n) => [...Array(n).keys()];
const choices = { token: count(S), layer: [...new Set(data.tensors.map((t) => t.layer))], head: [...count(A), "mean"] };
const first = { token: data.opens, layer: L ? L - 1 : "embeddings", head: 0 };
const selection = { ...first };
const sections = []; // functions that show the selection, one for each section

function read() {
  // What the address says; what it does not say, or says wrongly, is as at first.
  const said = new URLSearchParams(location.hash.slice(1));
  const of = (name) => choices[name].find((choice) => String(choice) === said.get(name)) ?? first[name];
  return { token: of("token"), layer: of("layer"), head: of("head") };
}

function apply(next) {
  if (Object.keys(next).every((name) => next[name] === selection[name])) return;
  Object.assign(selection, next);
  for (const show of sections) show();
}

function select(change) {
  apply({ ...selection, ...change });
  const hash = `#${new URLSearchParams(selection)}`;
  if (location.hash !== hash) location.hash = hash; // one step back for every choice
}

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
const headName = (head) => (head === "mean" ? "mean of the heads" : `head ${head}`);
const layerName = (layer) => (typeof layer === "number" ? `layer ${layer}` : layer);

function bar(name, share, text, kind = "") {
  return make("li", { class: `bar ${kind}` }, make("span", { title: name }, name),
    make("i", { style: `width:${(100 * Math.min(1, share)).toFixed(1)}%` }), make("b", {}, text));
}

function dotted(name) {
  // Where the screen is narrow, a name is broken after its dots.
  return name.split(/(?<=\.)/).flatMap((part, i) => (i ? [make("wbr"), part] : [part]));
}

const targets = new Map(data.targets);
const strips = [];
function tokenStrip(id, act = () => ({}), look = () => ({})) {
  // All tokens as buttons that select one.
  $(id).append(...data.tokens.map((word, i) => make("button", {
    class: [data.special[i] ? "special" : "", targets.has(i) ? "target" : ""].join(" "), "data-i": i,
    title: `token ${i}, segment ${data.segments[i]}`, ...look(i), on: { click: () => select({ token: i }), ...act(i) } }, word)));
  if (!strips.includes(id)) strips.push(id);
}

function startSelection() {
  const shown = { token: () => `${selection.token} “${data.tokens[selection.token]}”`, layer: () => `${selection.layer}`,
    head: () => `${selection.head}` };
  const names = Object.keys(choices).filter((name) => L || name === "token");
  const step = (name, by) => {
    const all = choices[name], at = all.indexOf(selection[name]) + by;
    select({ [name]: all[Math.min(all.length - 1, Math.max(0, at))] });
  };
  $("selected").append(...names.map((name) => make("span", {}, `${name} `,
    make("button", { id: `${name}-less`, "aria-label": `${name} before`, on: { click: () => step(name, -1) } }, "−"),
    make("b", { id: `${name}-shown` }),
    make("button", { id: `${name}-more`, "aria-label": `${name} after`, on: { click: () => step(name, 1) } }, "+"))));
  sections.push(() => {
    for (const name of names) {
      $(`${name}-shown`).textContent = shown[name]();
      $(`${name}-less`).disabled = selection[name] === choices[name][0];
      $(`${name}-more`).disabled = selection[name] === choices[name].at(-1);
    }
    for (const id of strips)
      for (const chip of $(id).children) chip.classList.toggle("on", Number(chip.dataset.i) === selection.token);
  });
  // Links to sections scroll and leave the selection in the address.
  for (const link of document.querySelectorAll("nav.sections a"))
    link.addEventListener("click", (event) => {
      event.preventDefault();
      document.querySelector(link.getAttribute("href")).scrollIntoView();
    });
  addEventListener("hashchange", () => apply(read()));
}
