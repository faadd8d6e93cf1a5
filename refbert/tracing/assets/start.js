// Start everything; with #selftest in its address the page also tries itself and writes what came of it into #selftest.
const problems = [];
addEventListener("error", (event) => problems.push(String(event.message)));
addEventListener("unhandledrejection", (event) => problems.push(String(event.reason)));

async function start() {
  if (typeof DecompressionStream === "undefined") {
    $("old").hidden = false;
    return;
  }
  startLens();
  startActivations();
  startGradients();
  if (data.attention) await startAttention();
  if (location.hash === "#selftest") await selftest();
}

async function selftest() {
  const found = {}, check = (name, good) => { if (!good) problems.push(name); };
  if (data.attention) {
    const last = [L - 1, A - 1], button = $("heads").querySelector(`[data-at="${last}"]`);
    button.click();
    await layerMaps(L - 1);
    await new Promise((done) => setTimeout(done, 50));
    check("a head is picked", $("chosen").textContent === `Layer ${L}, head ${A}` && button.ariaPressed === "true");
    const token = Math.min(1, S - 1), chip = $("strip").children[token];
    chip.dispatchEvent(new PointerEvent("pointerenter", { pointerType: "mouse" }));
    check("a hovered token is shown", chip.classList.contains("on") && $("to").children.length > 0 && $("by").children.length > 0);
    found.row = Array.from(state.values.slice(token * S, (token + 1) * S));
    found.to = $("to").children[0].textContent;
    chip.click();
    $("strip").children[0].dispatchEvent(new PointerEvent("pointerenter", { pointerType: "mouse" }));
    check("a pinned token stays", state.token === token);
    chip.click();
    const before = $("map").toDataURL();
    $("up").click();
    await layerMaps(state.layer);
    await new Promise((done) => setTimeout(done, 50));
    check("the layer is switched", L === 1 || state.layer === L - 2);
    check("another layer looks different", L === 1 || $("map").toDataURL() !== before);
    const box = $("map").getBoundingClientRect(), { margin, cell } = geometry();
    const size = 1 + (margin + cell * (S - 0.5)) * (box.width - 2) / $("map").width;
    $("map").dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + size, clientY: box.top + size }));
    check("the map is read", $("read").textContent.includes(`(${S - 1}) gives`));
    $("right").click();
    await new Promise((done) => setTimeout(done, 50));
    check("the mean of the heads is shown", $("chosen").textContent.endsWith("mean of the heads"));
  }
  if (data.lens) {
    $("lens").querySelector("tbody td[data-s]").click();
    check("a prediction is picked", $("said").textContent.startsWith("Token 0,") && $("guesses").children.length === L + 1);
    found.said = $("said").textContent;
  }
  $("groups").querySelector("button").click();
  check("activations of a layer are listed", $("tensors").querySelectorAll("tbody tr").length > 3);
  $("tensors").querySelectorAll("tbody tr")[2].click();
  check("a tensor is shown", $("tensor").querySelector("code").textContent.endsWith("position_embeddings"));
  const wide = document.documentElement;
  check("nothing is wider than the window", wide.scrollWidth <= wide.clientWidth);
  found.problems = problems;
  $("selftest").textContent = JSON.stringify(found);
  document.documentElement.dataset.selftest = problems.length ? "failed" : "passed";
}

start();
