"""Forward and backward of the pretraining loss (masked LM on 15 %, next sentence), without dropout or update."""

from __future__ import annotations

from speed.cases import BOTH, BOTH_NAMES, PRODUCTS, Case, Target, at_most, hugging_face, refbert

NUMPY = refbert("numpy")
# Hugging Face projects every position onto the vocabulary; these are made to project only the labelled ones.
LABELLED = (hugging_face("eager", labelled_only=True), hugging_face("sdpa", labelled_only=True))
LABELLED_NAMES = tuple(contender.name for contender in LABELLED)


def _case(short: str, model: str, most: float, labelled: float | None) -> Case:
    row = f"`numpy` forward + backward, MLM (15 %) + NSP, 8×128, {short}"
    targets = [
        Target(row, "Hugging Face BertForPreTraining, loss.backward()", NUMPY.name, BOTH_NAMES, most, at_most(most))
    ]
    if labelled is not None:
        targets.append(
            Target(
                row, "Hugging Face, labelled positions only", NUMPY.name, LABELLED_NAMES, labelled, at_most(labelled)
            )
        )
    return Case(
        name=f"step-{short}-8x128",
        group="step",
        work={"kind": "step", "model": model, "B": 8, "S": 128},
        contenders=(NUMPY, *BOTH, *LABELLED, *PRODUCTS),
        targets=tuple(targets),
        quick=short == "mini",
    )


CASES = [_case("base", "bert-base-uncased", 0.62, 0.80), _case("mini", "bert-mini", 0.25, None)]
