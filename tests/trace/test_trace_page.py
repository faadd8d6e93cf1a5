"""The page: nothing from outside, small, and right in a browser where there is one."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import replace

import numpy as np
import pytest
from chromium import WIDTHS, Browser, needs_chromium
from small_checkpoint import write_small_checkpoint

import refbert
from refbert.backend.reference import ReferenceBackend
from refbert_inspection.tracing import Trace, run_pass, trace
from refbert_inspection.tracing.maps import encode, largest, quantised, thumbnail
from refbert_inspection.tracing.page import data, page
from refbert_inspection.tracing.trace import hidden_states, lens

TEXT = "the cat [MASK] on a mat."


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return refbert.load(write_small_checkpoint(tmp_path_factory.mktemp("small")), backend="reference")


@pytest.fixture(scope="module")
def traced(model):
    return trace(model, TEXT, backward=True)


def bytes_of(text):
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)


def random_attention(rng, layers, heads, S, spread):
    z = spread * rng.standard_normal((layers, heads, S, S), dtype=np.float32)
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


class TestMaps:
    def test_probabilities_come_back_within_what_is_promised(self):
        p = random_attention(np.random.default_rng(0), 2, 3, 17, 3)
        found = encode(list(p))
        assert found.kept is None
        assert found.share == (1.0, 1.0)
        for layer, text in zip(p, found.layers, strict=True):
            back = (bytes_of(text).reshape(layer.shape) / 255.0) ** 2  # as attention.js does
            assert (abs(back - layer) <= (np.sqrt(layer) + 1 / 1020) / 255 + 1e-7).all()

    def test_over_the_budget_each_row_keeps_its_largest(self):
        p = random_attention(np.random.default_rng(1), 2, 3, 64, 2)
        found = encode(list(p), budget=14_000)
        assert found.kept is not None
        assert sum(map(len, found.layers)) <= 14_000
        left = largest(p[0], found.kept)
        assert ((left > 0).sum(axis=-1) == found.kept).all()
        np.testing.assert_array_equal(bytes_of(found.layers[0]).reshape(p[0].shape), quantised(left))
        share = largest(p, found.kept).sum(axis=-1)
        assert found.share == (pytest.approx(share.min(), rel=1e-5), pytest.approx(share.mean(), rel=1e-5))

    def test_a_thumbnail_shows_the_largest_of_each_square(self):
        p = np.zeros((1, 100, 100))
        p[0, 57, 4] = 0.8
        small = thumbnail(p)
        assert small.shape == (1, 32, 32)
        assert (small > 0).sum() == 1
        assert small[0, 18, 1] == 0.8  # squares of 3 and 4: 56 to 58, 3 to 5
        np.testing.assert_array_equal(thumbnail(p[:, :9, :9]), p[:, :9, :9])


def outside(text):
    """Whatever a page could load from elsewhere."""
    shown = re.sub(r'<script type="application/json".*?</script>', "", text, flags=re.DOTALL)
    shown = shown.replace("http://www.w3.org/2000/svg", "")  # a namespace's name, not an address that is read
    return re.findall(r"https?://|//[a-z]+\.|@import|url\(|<link (?!rel=\"icon\" href=\"data:,\")|<img|src=", shown)


def test_the_page_refers_to_nothing_outside(traced):
    text = page(traced)
    assert not outside(text)
    assert "default-src 'none'" in text
    assert outside(text + '<script src="x.js"></script>'), "the check cannot fail"


def test_no_text_can_end_the_data(traced):
    evil = "</script><script>alert(1)</script>"
    text = page(replace(traced, text=evil, tokens=(evil, *traced.tokens[1:])))
    assert text.count("</script>") == 2
    assert "<script>alert" not in text
    assert json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])["layers"] == 2


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_model_that_overflows_has_a_page(tmp_path):
    """That is when someone looks: what is not finite is a text in the data, not the end of the command."""
    broken = refbert.load(write_small_checkpoint(tmp_path), backend="reference")
    name = "bert.encoder.layer.0.attention.self.query.weight"
    broken.parameters[name] = np.full_like(broken.parameters[name], np.nan)
    written = page(trace(broken, TEXT, backward=True))
    found = json.loads(re.search(r'id="data">(.*?)</script>', written, re.DOTALL)[1])
    assert found["loss"] == "nan"


def test_it_opens_on_the_first_mask_or_else_on_the_first_word(model, traced):
    assert (data(traced)["masks"], data(traced)["opens"]) == ((3,), 3)
    masked = trace(model, "the cat sat on a mat.", masked=[6, 2])
    assert (data(masked)["masks"], data(masked)["opens"]) == ((2, 6), 2)
    plain = trace(model, "a dog")
    assert (data(plain)["masks"], data(plain)["opens"]) == ((), 1)


def test_the_numbers_on_the_page_are_the_traces(traced):
    found = data(traced)
    rows = {row["name"]: row for row in found["tensors"]}
    for name, x in traced.run.tensors().items():
        assert rows[name]["shape"] == x.shape
        assert rows[name]["rms"] == pytest.approx(np.sqrt((x**2).mean()), rel=1e-3)
        assert rows[name]["min"] == pytest.approx(x.min(), rel=1e-3)
        assert sum(rows[name]["histogram"]) == x.size
    for call in traced.run.backward:
        assert rows[call.name]["gradient"]["rms"] == pytest.approx(np.sqrt((call.gradient**2).mean()), rel=1e-3)
    norms = {row["name"]: row["norm"] for row in found["parameters"]}
    for name, g in traced.run.gradients.items():
        assert norms[name] == pytest.approx(np.linalg.norm(g), rel=1e-3, abs=1e-12)
    habits = found["attention"]["habits"][1][2]
    p = traced.attentions[1][2]
    assert habits["itself"] == pytest.approx(np.trace(p) / len(p), abs=1e-3)
    assert habits["special"] == pytest.approx((p[:, 0] + p[:, -1]).mean(), abs=1e-3)
    assert habits["previous"] == pytest.approx(np.trace(p, -1) / len(p), abs=1e-3)
    assert habits["entropy"] == pytest.approx(-(p * np.log2(p)).sum(axis=-1).mean(), abs=1e-2)


@pytest.fixture(scope="module")
def long_trace(model):
    """512 tokens, 12 layers of 12 heads (narrow ones), and attention of the size that trained models have."""
    config = model.config.replace(
        hidden_size=96, num_attention_heads=12, num_hidden_layers=12, intermediate_size=64, max_position_embeddings=512
    )
    made = refbert.from_config(config, heads=("masked_lm",), backend=ReferenceBackend("float32"))
    made.tokenizer = model.tokenizer
    ids = np.random.default_rng(0).integers(5, config.vocab_size, (1, 512))
    batch = refbert.Batch(ids)
    run = run_pass(made.backend, made.parameters, batch, made.choices, made.heads)
    rng = np.random.default_rng(2)
    calls = tuple(
        replace(call, probabilities=random_attention(rng, 1, 12, 512, 2)) if call.probabilities is not None else call
        for call in run.calls
    )
    run = replace(run, calls=calls)
    tokens = tuple(made.tokenizer.tokens(ids[0].tolist()))
    special = (1, *(0,) * 510, 1)
    return Trace(made, "…", tokens, special, (0,) * 512, run, lens(made, hidden_states(run)), (), "")


@pytest.mark.slow
def test_512_tokens_in_12_by_12_heads_are_below_10_megabytes(long_trace):
    text = page(long_trace)
    assert len(text.encode()) < 10_000_000
    assert "largest probabilities" in text


# In a browser


def tried(folder, text, width):
    """What the page found when it tried itself."""
    file = folder / "page.html"
    file.write_text(text, encoding="utf-8")
    with Browser(folder / "profile") as browser:
        browser.open(f"{file.as_uri()}#selftest", width)
        browser.wait("document.documentElement.dataset.selftest")
        found = json.loads(browser.evaluate('document.getElementById("selftest").textContent'))
        assert browser.complaints == []
        assert [address.partition("#")[0] for address in browser.requests] == [file.as_uri()]
        assert browser.too_wide() == []
    return found


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("width", WIDTHS)
def test_in_a_browser(traced, tmp_path, width):
    """Pick a head, point at a token, pin it, switch the layer, read the map, pick a prediction and a tensor."""
    found = tried(tmp_path, page(traced), width)
    assert found["problems"] == []
    # The last layer's last head, row 1, as the browser unpacked it.
    p = traced.attentions[-1][-1][1]
    np.testing.assert_allclose(found["row"], p, atol=0.005)
    assert found["to"].startswith(traced.tokens[int(p.argmax())])
    assert f"“{traced.model.tokenizer.token(int(traced.lens.ids[-1][0, 0]))}”" in found["said"]


@pytest.mark.slow
@needs_chromium
def test_in_a_browser_without_a_masked_lm_head(model, tmp_path):
    weights = {name: x for name, x in model.state_dict().items() if name.startswith("bert.")}
    bare = refbert.Model(model.config, weights, backend=ReferenceBackend(), heads=())
    bare.tokenizer = model.tokenizer
    made = trace(bare, TEXT, backward=True)
    assert made.lens is None
    assert "This model has no masked-LM head" in page(made)
    assert tried(tmp_path, page(made), 390)["problems"] == []


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("width", WIDTHS)
def test_in_a_browser_at_512_tokens(long_trace, tmp_path, width):
    assert tried(tmp_path, page(long_trace), width)["problems"] == []


CHOSEN = "JSON.stringify(selection)"
PRESSED = "document.querySelector('#heads [aria-pressed=true]').dataset.at"


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("width", WIDTHS)
def test_it_opens_on_the_mask_and_keeps_one_selection_in_the_address(traced, tmp_path, width):
    file = tmp_path / "page.html"
    file.write_text(page(traced), encoding="utf-8")
    word = traced.model.tokenizer.token

    def shown():
        """(token, layer, head) as every section has it."""
        said = json.loads(browser.evaluate(CHOSEN))
        s, layer, head = said["token"], said["layer"], said["head"]
        browser.wait(f"document.getElementById('chosen').textContent === 'Layer {layer}, head {head}'")
        assert browser.evaluate("document.getElementById('said').textContent").startswith(
            f"Token {s}, “{traced.tokens[s]}”"
        )
        for strip in ("words", "strip", "sizes", "reach"):
            on = f"[...document.querySelectorAll('#{strip} .on')].map((e) => Number(e.dataset.i))"
            assert browser.evaluate(on) == [s], strip
        assert browser.evaluate(
            "[...document.querySelectorAll('#lens td.at')].map((e) => e.dataset.s + ' ' + e.dataset.r)"
        ) == [f"{s} {layer + 1}"]
        assert browser.evaluate("document.querySelector('#climb tbody .on').textContent").startswith(f"layer {layer}")
        assert browser.evaluate("document.querySelector('#groups [aria-pressed=true]').textContent") == f"{layer}"
        assert browser.evaluate("document.querySelector('#overview th.at').textContent") == f"{layer}"
        assert browser.evaluate(PRESSED) == f"{layer},{head}"
        name = browser.evaluate("document.querySelector('#tensor code').textContent")
        assert name.startswith(f"bert.encoder.layer.{layer}.")
        assert browser.too_wide() == []
        return s, layer, head

    def moved(script):
        before = browser.evaluate("location.hash")
        browser.evaluate(script)
        browser.wait(f"location.hash !== {json.dumps(before)}")
        browser.wait("JSON.stringify(read()) === JSON.stringify(selection)")

    with Browser(tmp_path / "profile") as browser:
        browser.open(file.as_uri(), width)
        browser.wait("document.getElementById('chosen').textContent.trim()")
        assert shown() == (3, 1, 0)  # the [MASK], the last layer
        assert browser.evaluate("location.hash") == ""
        guess = word(int(traced.lens.ids[-1][3, 0]))
        assert browser.evaluate("document.querySelector('#words .on b').textContent") == guess
        first = browser.evaluate("document.querySelector('#climb tbody tr').textContent")
        assert first.startswith(f"layer 1{100 * traced.lens.final[-1, 3]:.0f}")
        box = "document.getElementById('words').getBoundingClientRect()"
        assert browser.evaluate(f"{box}.bottom < innerHeight"), "the sentence is on the first screen"

        browser.click("#words button[data-i='1']")
        assert shown() == (1, 1, 0)
        browser.click("#lens td[data-s='5'][data-r='1']")
        assert shown() == (5, 0, 0)
        browser.click("#heads [data-at='0,2']")
        assert shown() == (5, 0, 2)
        browser.click("#layer-more")
        assert shown() == (5, 1, 2)
        address = browser.evaluate("location.href")
        assert address.endswith("#token=5&layer=1&head=2")

        moved("history.back()")
        assert shown() == (5, 0, 2)
        moved("history.go(-3)")
        assert shown() == (3, 1, 0)
        moved("history.go(4)")
        assert shown() == (5, 1, 2)
        browser.click("nav.sections a[href='#attention']")
        assert browser.evaluate("location.href") == address

        browser.open(address, width)  # a link, a reload
        browser.wait("document.getElementById('chosen').textContent.trim()")
        assert shown() == (5, 1, 2)
        browser.open(f"{file.as_uri()}#token=99&layer=2&head=<b>", width)  # what is not there is as at first
        browser.wait("document.getElementById('chosen').textContent.trim()")
        assert shown() == (3, 1, 0)
        assert browser.complaints == []


@pytest.mark.slow
@needs_chromium
def test_the_browser_test_can_fail(traced, tmp_path):
    text = page(traced).replace('chip.classList.toggle("on", j === i);', "")
    assert "a hovered token is shown" in tried(tmp_path, text, 1280)["problems"]
