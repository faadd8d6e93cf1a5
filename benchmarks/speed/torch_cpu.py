"""The torch backend on the CPU, in float32 and bfloat16, against Hugging Face in float32."""

from __future__ import annotations

from speed.cases import BOTH, BOTH_NAMES, Case, Target, at_most, refbert


def _case(B: int, S: int, dtype: str, most: float) -> Case:
    ours = refbert("torch", dtype=dtype)
    short = "bf16" if dtype == "bfloat16" else dtype
    return Case(
        name=f"torch-{short}-{B}x{S}",
        group="torch_cpu",
        work={"kind": "forward", "model": "bert-base-uncased", "B": B, "S": S, "dtype": dtype},
        contenders=(ours, *BOTH),
        targets=(
            Target(
                f"`torch` CPU {short} forward {B}×{S}", "Hugging Face float32, faster of eager and SDPA", ours.name,
                BOTH_NAMES, most, at_most(most),
            ),
        ),
        quick=S == 16,
    )  # fmt: skip


CASES = [_case(8, 128, "float32", 0.78), _case(1, 16, "float32", 0.45), _case(8, 128, "bfloat16", 0.42)]
