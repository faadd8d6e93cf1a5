"""What the torch backend keeps between calls, and its training graph."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import refbert  # noqa: E402
from refbert.text.tokenization import Tokenizer  # noqa: E402
from refbert_torch.backend import TorchBackend  # noqa: E402
from refbert_torch.layer import PrepackedLinears, available  # noqa: E402

CPU = torch.device("cpu")
# Eight products and a bias in float32, of size 1: in another order the sums differ by some units of 2^-24; 16 here.
SUM_OF_8 = {"rtol": 2.0**-20, "atol": 2.0**-20}
# Two layers in float64: a few hundred roundings of 2^-53 in sums of numbers of size 1, so 1e-14 beside small ones.
TWO_LAYERS = {"rtol": 1e-10, "atol": 1e-14}


def weights(*shapes):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def plain(x, ws, bs):
    return torch.cat([torch.nn.functional.linear(x, w, b) for w, b in zip(ws, bs, strict=True)], dim=1)


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("count", [1, 3])
class TestPrepackedLinears:
    def linears(self, pack):
        if pack and not available(CPU, torch.float32):
            pytest.skip("this PyTorch packs no weights")
        return PrepackedLinears(pack=pack)

    def test_the_product_and_its_bits_from_call_to_call(self, pack, count):
        linear = self.linears(pack)
        x, *rest = weights((5, 8), *[(6, 8)] * count, *[(6,)] * count)
        ws, bs = rest[:count], rest[count:]
        first = linear(x, ws, bs)
        torch.testing.assert_close(first, plain(x, ws, bs), **SUM_OF_8)
        assert torch.equal(first, linear(x, ws, bs))

    @pytest.mark.parametrize("what", ["weight", "bias"])
    @pytest.mark.parametrize("how", ["in place", "another"])
    def test_a_weight_that_changes(self, pack, count, what, how):
        linear = self.linears(pack)
        x, *rest = weights((5, 8), *[(6, 8)] * count, *[(6,)] * count)
        ws, bs = rest[:count], rest[count:]
        linear(x, ws, bs)
        group = ws if what == "weight" else bs
        if how == "in place":
            group[-1].mul_(2)
        else:
            group[-1] = group[-1] * 2
        torch.testing.assert_close(linear(x, ws, bs), plain(x, ws, bs), **SUM_OF_8)

    def test_many_rows_are_left_alone(self, pack, count, monkeypatch):
        if not available(CPU, torch.float32):
            pytest.skip("this PyTorch packs no weights")
        linear = PrepackedLinears(pack=pack, most=5)
        packed = []
        ops = torch.ops.mkldnn
        own = ops._linear_pointwise
        monkeypatch.setattr(
            ops, "_linear_pointwise", lambda x, w, *a: (packed.append((len(x), w.is_mkldnn)), own(x, w, *a))[1]
        )
        x, *rest = weights((6, 8), *[(6, 8)] * count, *[(6,)] * count)
        ws, bs = rest[:count], rest[count:]
        for rows in (6, 5, 6, 5):
            torch.testing.assert_close(linear(x[:rows], ws, bs), plain(x[:rows], ws, bs), **SUM_OF_8)
        assert packed == ([(5, True)] * 2 if pack else [])

    def test_nothing_outlives_the_weights(self, pack, count):
        linear = self.linears(pack)
        x, *rest = weights((5, 8), *[(6, 8)] * count, *[(6,)] * count)
        ws, bs = rest[:count], rest[count:]
        linear(x, ws, bs)
        there = [weakref.ref(tensor) for tensor in (*ws, *bs)]
        del ws, bs, rest
        gc.collect()
        assert [ref() for ref in there] == [None] * len(there)
        assert not linear._kept


def test_the_weights_of_a_model_go_with_it():
    config = refbert.BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2)
    model = refbert.from_config(config, heads=(), backend="torch")
    model(refbert.Batch(input_ids=np.ones((1, 4), int)))
    backend = model.backend
    assert backend._linear._kept
    del model
    gc.collect()
    assert not backend._linear._kept


@pytest.mark.parametrize("dtype", TorchBackend.dtypes)
@pytest.mark.parametrize("scale", [1.0, 0.37])
@pytest.mark.parametrize("rule", ["bert_adam", "adamw", "lamb"])
@pytest.mark.parametrize("layout", ["row-major", "transposed", "one row for all"])
def test_scale_and_layout_change_no_bit_of_an_update(dtype, scale, rule, layout):
    backend = TorchBackend(dtype)
    p, g, m, v = (backend.asarray(x.numpy()) for x in weights((9, 7), (9, 7), (9, 7), (9, 7)))
    v = v.abs()
    g = {"row-major": g, "transposed": g.T.contiguous().T, "one row for all": g[:1].expand(9, 7)}[layout]
    options = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "weight_decay": 0.01, "step": 3}
    before, clipped = p.clone(), g.clone() * scale
    wanted = backend.update(rule, p, clipped, m.clone(), v.clone(), scale=1.0, **options)
    new = backend.update(rule, p, g, m.clone(), v.clone(), scale=scale, **options)
    assert torch.equal(p, before)
    for one, other in zip(new, wanted, strict=True):
        assert torch.equal(one, other)
        assert one.is_contiguous()


def test_the_training_graph_is_the_composition_of_ops(monkeypatch):
    """One graph against op by op, and a second pullback, for which the graph is made again."""
    config = refbert.BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2)
    heads = ("masked_lm", "next_sentence")
    model = refbert.from_config(config, heads=heads, backend="torch", dtype="float64", seed=3)
    rng = np.random.default_rng(5)
    batch = refbert.Batch(input_ids=rng.integers(0, 30, (3, 6)))
    labels = {"labels": rng.integers(0, 30, (3, 6)), "next_sentence_label": np.array([0, 1, 1])}
    draws = refbert.Dropout(7, 0)
    loss, terms, pullback = model.backend.objective(model.parameters, batch, labels, heads, model.choices, draws=draws)
    one, two, double = (pullback(torch.tensor(x, dtype=torch.float64)) for x in (1.0, 1.0, 2.0))
    assert set(terms) == set(heads)
    assert not loss.requires_grad
    monkeypatch.delattr(TorchBackend, "objective")
    value, parts = model.device_loss_and_gradients(batch, labels, dropout=draws)
    assert float(loss) == pytest.approx(value, rel=1e-14)
    assert parts.keys() == one.keys()
    for name, x in parts.items():
        torch.testing.assert_close(one[name], x, **TWO_LAYERS)
        assert torch.equal(one[name], two[name])
        torch.testing.assert_close(double[name], 2 * x, **TWO_LAYERS)


@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_new", "relu"])
def test_the_training_graph_keeps_one_array_of_a_gelu(hidden_act):
    config = refbert.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        hidden_act=hidden_act,
    )  # fmt: skip
    model = refbert.from_config(config, heads=("masked_lm",), backend="torch", dtype="float64", seed=3)
    labels = np.full((2, 5), -100)
    labels[0, 1] = 4
    kept = {}

    def keep(x):
        if x.ndim and x.shape[-1] == 24 and x.shape[:-1].numel() == 10:
            kept[x.untyped_storage().data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        model.device_loss_and_gradients(refbert.Batch(np.ones((2, 5), int)), {"labels": labels})
    # ReLU's one array is its result, which its derivative can be read from.
    assert len(kept) == 2


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "pooler"])
def test_encode_computes_no_padding_and_gives_the_same(pooling, monkeypatch):
    config = refbert.BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxy"]
    tokenizer = Tokenizer.from_vocabulary(vocabulary, settings={"do_lower_case": True})
    texts = ["a", "a b c d e f", ("g h", "i"), "b a", "x y x y x y x y x", "c"]
    vectors = {}
    rows = []
    layer = TorchBackend.packed_encoder_layer
    monkeypatch.setattr(
        TorchBackend, "packed_encoder_layer", lambda self, x, *a, **k: (rows.append(len(x)), layer(self, x, *a, **k))[1]
    )
    for backend in ("reference", "torch"):
        model = refbert.from_config(config, backend=backend, dtype="float64", pooler=True, seed=3)
        model.tokenizer = tokenizer
        vectors[backend] = model.encode(texts, pooling=pooling, batch_size=4)
    np.testing.assert_allclose(vectors["torch"], vectors["reference"], rtol=1e-12, atol=1e-13)
    assert sum(rows) == 2 * sum(len(e.input_ids) for e in tokenizer.encode(texts, max_length=99))


def one_hot(size, S, heads=1):
    """Query s looks for key s: [B, S, heads·S], entries 0 and ``size``."""
    return np.tile(np.eye(S, dtype=np.float32) * size, (2, 1, heads))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("size", [400.0, 60000.0])  # scores of 400 · 400/√4 are beyond float16, entries are not
class TestRange:
    """Scores have one range, whichever way they are computed: a row's result does not depend on another row's mask."""

    S = 4
    OTHERS = ([1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0])  # what the second sequence sees

    def masks(self):
        return [np.array([[1, 1, 1, 0], other]) for other in self.OTHERS]

    @pytest.mark.parametrize("value", [-np.inf, -10000.0, -1e9])
    def test_attention(self, dtype, size, value):
        backend, S = TorchBackend(dtype), self.S
        q = backend.asarray(one_hot(size, S, heads=2))
        v = backend.asarray(np.tile(np.arange(1.0, 9.0, dtype=np.float32), (2, S, 1)) * one_hot(1.0, S, heads=2))
        want = np.arange(1.0, 9.0) * one_hot(1.0, S, heads=2)[0]  # each visible key is its own query's alone
        for mask in self.masks():
            for keep in (None, np.ones((2, 2, S, S), bool)):
                y, pullback = backend.attention(q, q, v, mask=mask, heads=2, mask_value=value, keep=keep, rate=0.0)
                assert np.array_equal(backend.to_numpy(y)[0, :3], want[:3])
                assert all(np.isfinite(backend.to_numpy(g)[0]).all() for g in pullback(v))
            p, pullback = backend.attention_probabilities(q, q, mask=mask, heads=2, mask_value=value)
            assert np.array_equal(backend.to_numpy(p)[0, :, :3], np.tile(np.eye(S)[:3], (2, 1, 1)))
            assert all(np.isfinite(backend.to_numpy(g)[0]).all() for g in pullback(p))

    def test_layers(self, dtype, size):
        """The identity as every projection but those of query and key, which multiply by √size (60000: by 200)."""
        backend, S = TorchBackend(dtype), self.S
        factor = min(size**0.5, 200.0)
        p = {}
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
                     "intermediate.dense", "output.dense"):  # fmt: skip
            p[f"{name}.weight"] = np.eye(S) * (factor if name.endswith(("query", "key")) else 1.0)
            p[f"{name}.bias"] = np.zeros(S)
        for name in ("attention.output", "output"):
            p[f"{name}.LayerNorm.weight"], p[f"{name}.LayerNorm.bias"] = np.ones(S), np.zeros(S)
        p = {name: backend.asarray(x) for name, x in p.items()}
        options = {"heads": 1, "activation": "relu", "eps": 1e-5}
        x = backend.asarray(one_hot(factor, S))
        packed = backend.packed_encoder_layer(x[0, :3], p, lengths=np.array([3]), **options)
        for mask in self.masks():
            y = backend.encoder_layer(x, p, mask=mask, mask_value=-np.inf, **options)
            assert np.isfinite(backend.to_numpy(y)).all()
            assert np.array_equal(backend.to_numpy(y)[0, :3], backend.to_numpy(packed))
