"""An NVIDIA GPU: torch in bfloat16 against Hugging Face eager and compiled, cupy in TF32 and float16."""

from __future__ import annotations

from speed.cases import Case, Target, at_most, hugging_face, refbert

TORCH = refbert("torch", dtype="bfloat16", device="cuda")
EAGER = hugging_face("sdpa", dtype="bfloat16", device="cuda")
COMPILED = hugging_face("sdpa", dtype="bfloat16", device="cuda", compile=True)


def _torch(kind: str, B: int, S: int) -> Case:
    row = f"`torch` CUDA bf16 {kind} {B}×{S}"
    return Case(
        name=f"cuda-torch-{kind}-{B}x{S}",
        group="cuda",
        work={"kind": kind, "model": "bert-base-uncased", "B": B, "S": S, "dtype": "bfloat16", "device": "cuda"},
        contenders=(TORCH, EAGER, COMPILED),
        targets=(
            Target(row, "Hugging Face SDPA bf16, eager mode", TORCH.name, (EAGER.name,), 0.7, at_most(0.7)),
            Target(row, "Hugging Face SDPA bf16, torch.compile", TORCH.name, (COMPILED.name,), 1.0, at_most(1.0)),
        ),
        quick=(kind, S) == ("forward", 128),
    )


def _cupy(kind: str, dtype: str) -> Case:
    tf32 = dtype == "float32"
    ours = refbert("cupy", dtype=dtype, device="cuda", **({"CUPY_TF32": "1"} if tf32 else {}))
    peer = hugging_face("sdpa", dtype=dtype, device="cuda", tf32=tf32)
    shown = "float32 with TF32" if tf32 else dtype
    return Case(
        name=f"cuda-cupy-{dtype}-{kind}-32x128",
        group="cuda",
        work={
            "kind": kind, "model": "bert-base-uncased", "B": 32, "S": 128, "device": "cuda",
            "dtype": "float16" if tf32 else dtype,  # TF32 rounds a product's factors as float16 does
        },
        contenders=(ours, peer),
        targets=(
            Target(
                f"`cupy` CUDA {shown} {kind} 32×128", "Hugging Face SDPA, same precision", ours.name, (peer.name,),
                1.0, at_most(1.0),
            ),
        ),
    )  # fmt: skip


CASES = [_torch(kind, B, S) for kind in ("forward", "step") for B, S in ((32, 128), (32, 512))] + [
    _cupy(kind, dtype) for dtype in ("float32", "float16") for kind in ("forward", "step")
]
