"""Several processes that start a run in one directory at one moment, round after round, for test_ownership.py.

python racing.py finetune|pretrain ROUNDS PROCESSES FOLDER KEY=VALUE …      the settings, as JSON
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path

from refbert.errors import RefbertError
from refbert.training import finetuning, pretraining
from refbert.training.finetuning_settings import Settings as Fine
from refbert.training.pretraining_settings import Settings as Pre

RUN = {"finetune": (finetuning.finetune, Fine), "pretrain": (pretraining.pretrain, Pre)}


def child(start, made, out, settings, say):
    """Start at the moment; say what came of it."""
    while time.monotonic() < start:
        pass
    try:
        made(out, settings)
        answer = "done"
    except RefbertError as error:
        answer = str(error)
    except BaseException:  # noqa: BLE001, the test is told
        answer = traceback.format_exc()
    os.write(say, (answer + "\0").encode())
    os._exit(0)


def main():
    what, rounds, processes, folder, *chosen = sys.argv[1:]
    made, kind = RUN[what]
    settings = kind(**{name: json.loads(value) for name, value in (pair.split("=", 1) for pair in chosen)})
    assert threading.active_count() == 1  # or a fork is not what it seems
    for number in range(int(rounds)):
        out = Path(folder) / str(number)
        read, write = os.pipe()
        start = time.monotonic() + 0.02
        for _ in range(int(processes)):
            if os.fork() == 0:
                child(start, made, out, settings, write)
        os.close(write)
        with open(read, encoding="utf-8") as answers:
            print(json.dumps(answers.read().split("\0")[:-1]), flush=True)
        for _ in range(int(processes)):
            os.wait()


if __name__ == "__main__":
    main()
