"""One process of a data-parallel run, for test_distributed.py: started once for each rank, with torchrun's variables.

python worker.py OUT STEPS BACKEND [die RANK STEP]
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import small

from refbert.errors import RefbertError
from refbert.training import Optimizer
from refbert.training.accumulation import loss_and_gradients
from refbert.training.distributed import processes
from refbert.training.loop import Saving, train

SEED = 7


def main() -> None:
    out, steps, backend = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    die = [int(x) for x in sys.argv[5:7]]
    model = small.model(backend)
    with processes("cpu") as together:
        together.check_same("seed", os.environ.get("SEED_OF_THIS", "7"))
        batch, labels = small.batch_and_labels(0)
        sums = loss_and_gradients(model, batch, labels, rank=together.rank, processes=together.count)
        together.sum_arrays(model.backend, sums.gradients)
        (loss,) = together.sum_numbers([sums.loss])
        gradients = {name: model.backend.to_numpy(x) for name, x in sums.gradients.items()}

        def on_update(update: object) -> None:
            if die == [together.rank, update.step]:
                os.kill(os.getpid(), signal.SIGKILL)

        optimizer = Optimizer(eps=1e-3)
        stop = None
        if os.environ.get("STOP_AT"):

            def stop() -> bool:
                return together.rank == 1 and optimizer.updates + 1 == int(os.environ["STOP_AT"])

        done = train(
            model, small.Stream(), optimizer=optimizer, rate=lambda step: 0.01, steps=steps, seed=SEED, micro_batch=2,
            saving=Saving(out / "checkpoints", every=2), processes=together, on_update=on_update, stop=stop,
        )  # fmt: skip
        names = {f"gradient {name}": x for name, x in gradients.items()} | model.state_dict()
        np.savez(out / f"rank{together.rank}.npz", loss=loss, done=done, **names)


if __name__ == "__main__":
    try:
        main()
    except RefbertError as error:
        print(f"refbert: {error}", file=sys.stderr)
        sys.exit(2)
