"""Profiles: which function a configuration's word means, and that every choice is one of those that exist."""

from __future__ import annotations

import math

import numpy as np
import pytest
from transformers.activations import ACT2FN

from refbert import ops
from refbert.config import BertConfig
from refbert.config.profiles import GOOGLE, HF, PROFILES, get_profile
from refbert.errors import ConfigError, InputError

ERF, TANH = "gelu_erf", "gelu_tanh"


@pytest.mark.parametrize(
    ("word", "google", "hf"),
    [
        ("gelu", TANH, ERF),
        ("GELU", TANH, ERF),
        ("gelu_new", TANH, TANH),
        ("gelu_fast", None, TANH),
        ("gelu_python", None, ERF),
        ("gelu_pytorch_tanh", None, TANH),
        ("gelu_python_tanh", None, TANH),
        ("relu", "relu", "relu"),
        ("tanh", "tanh", "tanh"),
        ("linear", "linear", "linear"),
        ("", "linear", None),
        ("swish", None, None),
    ],
)
def test_hidden_act(word, google, hf):
    config = BertConfig(hidden_act=word)
    for profile, expected in ((GOOGLE, google), (HF, hf)):
        if expected is None:
            says = f"hidden_act={word!r} is not implemented in profile '{profile.name}' \\(known: "
            with pytest.raises(ConfigError, match=says):
                profile.activation(config)
        else:
            assert profile.activation(config) == expected


FUNCTIONS = {
    "gelu_erf": lambda x: ops.gelu(x, form="erf")[0],
    "gelu_tanh": lambda x: ops.gelu(x, form="tanh")[0],
    "relu": lambda x: ops.relu(x)[0],
    "tanh": lambda x: ops.tanh(x)[0],
    "linear": lambda x: x,
}


def test_the_unknown_word_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"known: gelu, gelu_new, linear, relu, tanh\)"):
        GOOGLE.activation(BertConfig(hidden_act="swish"))


@pytest.mark.parametrize("word", HF.activations)
def test_a_word_means_what_it_means_to_transformers(word):
    import torch

    x = np.linspace(-8, 8, 2001)
    theirs = ACT2FN[word](torch.from_numpy(x)).numpy()
    # Rounding: a dozen operations on |x| <= 8. gelu_fast also writes c = √(2/π) as 0.7978845608, which is 2.9e-12
    # less, and |d gelu_tanh / dc| = ½ x² (1 + 0.044715 x²) / cosh²(u) stays below 1.
    bound = 12 * 8 * np.finfo(float).eps + (2.9e-12 if word == "gelu_fast" else 0)
    assert np.abs(FUNCTIONS[HF.activations[word]](x) - theirs).max() <= bound


def test_the_two_profiles_differ_where_the_libraries_do():
    assert (GOOGLE.mask_value, HF.mask_value) == (-10000.0, -math.inf)
    assert (GOOGLE.masked_lm_epsilon, HF.masked_lm_epsilon) == (1e-5, 0.0)
    assert (GOOGLE.max_chars_per_word, HF.max_chars_per_word) == (200, 100)
    assert (GOOGLE.truncated_normal, HF.truncated_normal) == (True, False)
    assert (GOOGLE.bias_correction, HF.bias_correction) == (False, True)
    assert (GOOGLE.schedule_from_zero, HF.schedule_from_zero) == (True, False)
    assert (GOOGLE.span_mean_over_batch, HF.span_mean_over_batch) == (True, False)


def test_by_name():
    assert {name: get_profile(name) for name in PROFILES} == {"google": GOOGLE, "hf": HF}
    assert get_profile(GOOGLE) is GOOGLE
    with pytest.raises(InputError, match=r'unknown profile "huggingface" \(known: google, hf\)'):
        get_profile("huggingface")
