// Start everything; with "selftest" in its address the page also tries itself and writes what came of it into #selftest.
const problems = [];
addEventListener("error", (event) => problems.push(String(event.message)));
addEventListener("unhandledrejection", (event) => problems.push(String(event.reason)));

async function start() {
  if (typeof DecompressionStream === "undefined") {
    $("old").hidden = false;
    return;
  }
  Object.assign(selection, read());
  const tries = new URLSearchParams(location.hash.slice(1)).has("selftest");
  startSelection();
  startSentence();
  startLens();
  startActivations();
  startGradients();
  if (data.attention) await startAttention();
  for (const show of sections) show();
  if (tries) await selftest();
}

async function selftest() {
  const found = {}, check = (name, good) => { if (!good) problems.push(name); };
  const pause = () => new Promise((done) => setTimeout(done, 50));
  const settled = async () => { // until the attention of the selected head is there
    while (typeof selection.layer === "number" && looking.at !== `${selection.layer},${selection.head}`) await pause();
  };
  check("it opens where the data says", $("said").textContent.startsWith(`Token ${data.opens}, “${data.tokens[data.opens]}”`));
  if (data.attention) {
    const last = [L - 1, A - 1], button = $("heads").querySelector(`[data-at="${last}"]`);
    button.click();
    await settled();
    check("a head is picked", $("chosen").textContent === `Layer ${L - 1}, head ${A - 1}` && button.ariaPressed === "true");
    const token = Math.min(1, S - 1), chip = $("strip").children[token];
    chip.dispatchEvent(new PointerEvent("pointerenter", { pointerType: "mouse" }));
    check("a hovered token is shown", chip.classList.contains("on") && $("to").children.length > 0 && $("by").children.length > 0);
    found.row = Array.from(looking.values.slice(token * S, (token + 1) * S));
    found.to = $("to").children[0].textContent;
    chip.dispatchEvent(new PointerEvent("pointerleave"));
    check("the selected token is shown again", chip.classList.contains("on") === (selection.token === token));
    chip.click();
    check("a token is selected everywhere", $("said").textContent.startsWith(`Token ${token},`) && chip.classList.contains("on") &&
      $("words").children[token].classList.contains("on"));
    const before = $("map").toDataURL();
    $("layer-less").click();
    await settled();
    check("the layer is switched", $("layer-shown").textContent === (L === 1 ? "embeddings" : `${L - 2}`));
    check("another layer looks different", L === 1 || $("map").toDataURL() !== before);
    select({ layer: L - 1 });
    await settled();
    const box = $("map").getBoundingClientRect(), { margin, cell } = geometry();
    const size = 1 + (margin + cell * (S - 0.5)) * (box.width - 2) / $("map").width;
    $("map").dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + size, clientY: box.top + size }));
    check("the map is read", $("read").textContent.includes(`(${S - 1}) gives`));
    $("head-more").click();
    await settled();
    check("the mean of the heads is shown", $("chosen").textContent.endsWith("mean of the heads"));
    $("groups").querySelector("button").click();
    await settled();
    check("the embeddings have no attention", $("detail").hidden && !$("elsewhere").hidden);
  }
  if (lens) {
    $("lens").querySelector("tbody td[data-s]").click();
    check("a prediction is picked", $("said").textContent.startsWith("Token 0,") && $("guesses").children.length === L + 1);
    check("the guess climbs", $("climb").querySelectorAll("tbody tr").length === L + 1);
    found.said = $("said").textContent;
  }
  $("groups").querySelector("button").click();
  check("activations of a layer are listed", $("tensors").querySelectorAll("tbody tr").length > 3);
  $("tensors").querySelectorAll("tbody tr")[2].click();
  check("a tensor is shown", $("tensor").querySelector("code").textContent.endsWith("position_embeddings"));
  check("the selection is in the address", location.hash === `#token=${selection.token}&layer=embeddings&head=${selection.head}`);
  const wide = document.documentElement;
  check("nothing is wider than the window", wide.scrollWidth <= wide.clientWidth);
  found.problems = problems;
  $("selftest").textContent = JSON.stringify(found);
  document.documentElement.dataset.selftest = problems.length ? "failed" : "passed";
}

start();
