"""Named profiles: the places where Google's code and Hugging Face's compute different numbers for "the same" BERT.

No single implementation can match both, so refbert names each choice and bundles them: ``profile="google"`` for
google-research/bert (commit eedf571), ``profile="hf"`` for Hugging Face transformers. The paper decides none of
these. See docs/profiles.md for the table with the evidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from refbert.config import BertConfig
from refbert.errors import ConfigError, InputError


@dataclass(frozen=True)
class Profile:
    """One consistent set of choices.

    activations: a configuration's ``hidden_act`` -> the function that the spec applies
        ("gelu_erf", "gelu_tanh", "relu", "tanh", "linear").
    mask_value: added to the attention scores of masked keys; ``-inf`` excludes them altogether.
    masked_lm_epsilon: added to the number of labelled positions that the masked-LM loss is divided by.
    span_mean_over_batch: the two halves of a span's loss are averaged over all sequences, not over those whose
        answer lies inside the window.
    truncated_normal: weights are initialised from a normal cut at two standard deviations.
    max_chars_per_word: longer words become [UNK] when the tokenizer is built from ``vocab.txt``.
    bias_correction: Adam's moments are divided by 1 - beta^t.
    schedule_from_zero: linear decay counts from step 0 (jump at the end of warmup), not from the end of warmup.
    clip_epsilon: added to the global norm before the gradients are divided by it.
    """

    name: str
    activations: Mapping[str, str]
    mask_value: float
    masked_lm_epsilon: float
    span_mean_over_batch: bool
    truncated_normal: bool
    max_chars_per_word: int
    bias_correction: bool
    schedule_from_zero: bool
    clip_epsilon: float

    def activation(self, config: BertConfig) -> str:
        """The function behind ``config.hidden_act``; raises `ConfigError` for one that refbert does not have."""
        try:
            return self.activations[config.hidden_act.lower()]
        except (KeyError, AttributeError):
            known = ", ".join(sorted(name for name in self.activations if name))
            raise ConfigError(
                f"hidden_act={config.hidden_act!r} is not implemented in profile {self.name!r} (known: {known})"
            ) from None


_SAME = {name: name for name in ("relu", "tanh", "linear")}  # in both

GOOGLE = Profile(
    name="google",
    # modeling.py: get_activation. "gelu" has been the tanh form since commit bee6030 (2019-02-07). "gelu_new" is
    # Hugging Face's word for that form, under which a model of this profile is saved, so it must be read back too.
    activations={
        "gelu": "gelu_tanh",
        "gelu_new": "gelu_tanh",
        "": "linear",
        **_SAME,
    },
    mask_value=-10000.0,
    masked_lm_epsilon=1e-5,
    span_mean_over_batch=True,
    truncated_normal=True,
    max_chars_per_word=200,
    bias_correction=False,
    schedule_from_zero=True,
    clip_epsilon=0.0,
)

HF = Profile(
    name="hf",
    activations={
        "gelu": "gelu_erf",
        "gelu_python": "gelu_erf",
        **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python_tanh"), "gelu_tanh"),
        **_SAME,
    },
    mask_value=-math.inf,
    masked_lm_epsilon=0.0,
    span_mean_over_batch=False,
    truncated_normal=False,
    max_chars_per_word=100,
    bias_correction=True,
    schedule_from_zero=False,
    clip_epsilon=1e-6,
)

PROFILES: Mapping[str, Profile] = {profile.name: profile for profile in (GOOGLE, HF)}


def get_profile(profile: str | Profile) -> Profile:
    """The profile of that name; raises `InputError` for an unknown one."""
    if isinstance(profile, Profile):
        return profile
    if profile not in PROFILES:
        raise InputError(f'unknown profile "{profile}" (known: {", ".join(PROFILES)})')
    return PROFILES[profile]
