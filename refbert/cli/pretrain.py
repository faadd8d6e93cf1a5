"""``refbert pretrain``: text files in, a model out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from refbert.cli.progress import TrainingProgress, say
from refbert.cli.signals import Interrupted, Stopping
from refbert.config.profiles import PROFILES
from refbert.errors import InputError

if TYPE_CHECKING:
    from refbert.model import Model
    from refbert.training.pretraining_settings import Settings

_POSITIVE = click.IntRange(min=1)


def _options(*groups: tuple[Any, ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return decorate


_TEXT = (
    click.option("--format", type=click.Choice(("lines", "raw", "parquet")), default="lines", show_default=True,
                 help="One sentence per line; running text; Parquet or Arrow."),
    click.option("--documents", type=click.Choice(("blank-line", "file")), default="blank-line", show_default=True,
                 help="What ends a document."),
    click.option("--column", help="The column of a Parquet file."),
    click.option("--tokenizer", metavar="DIR", help="Use this tokenizer instead of learning a vocabulary."),
    click.option("--vocab-size", type=_POSITIVE, default=8192, show_default=True, help="Pieces to learn, at most."),
    click.option("--cased", is_flag=True, help="Keep capitals and accents in the vocabulary."),
)  # fmt: skip
_MODEL = (
    click.option("--size", default="bert-tiny", show_default=True, help="A preset or a configuration file."),
    click.option("--from", "start_from", metavar="DIR", help="Begin with a checkpoint's weights and tokenizer."),
    click.option("--profile", type=click.Choice(tuple(PROFILES)), default="google", show_default=True,
                 help="Whose numbers, where Google's and Hugging Face's differ."),
    click.option("--backend", default="numpy", show_default=True, help="A name from `refbert backends`."),
    click.option("--dtype", help="What the backend computes in."),
    click.option("--device", help='Where: "cpu", "cuda", …'),
    click.option("--mixed-precision", metavar="DTYPE", help="Of forward and backward alone: bfloat16."),
)  # fmt: skip
_COURSE = (
    click.option("--steps", type=_POSITIVE, help="Updates in all."),
    click.option("--batch-size", type=_POSITIVE, default=256, show_default=True, help="Sequences per update."),
    click.option("--micro-batch", type=_POSITIVE, default=32, show_default=True, help="Sequences computed at once."),
    click.option("--gradient-checkpointing/--no-gradient-checkpointing", default=False,
                 help="Less memory, more time: layers run again in the backward."),
    click.option("--short-length", type=_POSITIVE, default=128, show_default=True, help="Tokens, first 90 % of steps."),
    click.option("--long-length", type=_POSITIVE, default=512, show_default=True, help="Tokens, last 10 % of steps."),
    click.option("--learning-rate", type=float, default=1e-4, show_default=True, help="At the end of the warmup."),
    click.option("--warmup", type=click.IntRange(min=0), help="Updates; default: 1 % of the steps."),
    click.option("--optimizer", type=click.Choice(("bert_adam", "adamw", "lamb")), help="Default: the profile's."),
    click.option("--weight-decay", type=float, default=0.01, show_default=True, help="Not of biases and LayerNorms."),
    click.option("--max-norm", type=float, default=1.0, show_default=True, help="Gradients are clipped to this norm."),
    click.option("--dropout", type=float, help="Default: the configuration's."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of weights, order, masks and dropout."),
)  # fmt: skip
_EXAMPLES = (
    click.option("--examples", type=click.Choice(("google", "dynamic")), default="google", show_default=True,
                 help="Ten fixed versions of the text, or a new one each round."),
    click.option("--mask-rate", type=float, default=0.15, show_default=True, help="Share of tokens to predict."),
    click.option("--whole-word", is_flag=True, help="Mask whole words."),
    click.option("--next-sentence/--no-next-sentence", default=True, show_default=True,
                 help="Does the second sentence follow? The paper's second objective."),
    click.option("--short-sequence-probability", type=float, default=0.1, show_default=True,
                 help="Share of examples of a random length below the limit."),
    click.option("--dupe-factor", type=_POSITIVE, default=10, show_default=True, help="Versions under google."),
)  # fmt: skip
_KEEPING = (
    click.option("--dev", multiple=True, metavar="FILE", help="Text that is scored as the run goes, not learned from."),
    click.option("--score-every", type=_POSITIVE, default=1000, show_default=True, help="Updates between scorings."),
    click.option("--save-every", type=_POSITIVE, default=1000, show_default=True, help="Updates between checkpoints."),
    click.option("--save-minutes", type=float, default=5.0, show_default=True, help="Between checkpoints, at most."),
    click.option("--keep", type=_POSITIVE, default=3, show_default=True, help="Checkpoints to keep."),
    click.option("--resume", is_flag=True, help="Go on with the run in the directory (or begin, if there is none)."),
)


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE …]")
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The run's directory.")
@_options(_TEXT, _MODEL, _COURSE, _EXAMPLES, _KEEPING)
def pretrain(files: tuple[str, ...], output: Path, resume: bool, **options: Any) -> int:
    """Pretrain a BERT on the text of FILEs ("-": stdin), masked words and next sentences, as the paper does.

    \b
    refbert pretrain corpus.txt --output DIR --steps 100000
    refbert pretrain --output DIR --resume
    torchrun --nproc-per-node 2 -m refbert pretrain corpus.txt --output DIR --steps 100000
    """
    from refbert.training import pretraining
    from refbert.training.distributed import local_device, processes
    from refbert.training.loop import NotFinite
    from refbert.training.pretraining_settings import Settings, resumed_settings
    from refbert.training.run import RunDirectory

    first = os.environ.get("RANK", "0") == "0"
    paths = _absolute(files)
    options["dev"] = _absolute(options["dev"])
    given = {name: value for name, value in options.items() if _is_given(name)}
    if paths:
        given["files"] = paths
    if resume and RunDirectory(output).holds_run():
        settings = resumed_settings(output, given)
    else:
        if not files:
            lost = resume and RunDirectory(output).last() is not None
            why = f"{output}: run.json is not there, so the run's own arguments are needed: " if lost else ""
            raise InputError(f"{why}no text: name at least one FILE (or - for stdin)")
        if options["steps"] is None:
            raise InputError("how long? name the number of updates with --steps")
        settings = Settings(**{**options, "files": tuple(paths)})
    shown: list[TrainingProgress] = []

    stopping = Stopping()

    def begin(model: Any, done: int) -> None:
        stopping.be_patient()
        if first:
            print(f"{model!r}, {model.num_parameters:,} parameters; {output} at step {done:,}", file=sys.stderr)
            shown.append(TrainingProgress(settings.steps, done, _phases(settings, model)))

    try:
        with processes(settings.device or "cpu") as together, stopping:
            result = pretraining.pretrain(
                output, settings, resume=resume, processes=together, device=local_device(settings.device),
                on_begin=begin, on_update=lambda update: shown[0].add(update), stop=stopping, say=say,
            )  # fmt: skip
    except Interrupted:
        kept = f"go on with: refbert pretrain --output {output} --resume"
        if not RunDirectory(output).holds_run():
            kept = "nothing of it is kept; start again with the same command"
        stopping.leave(f"{output}: stopped before the first update; {kept}" if first else None)
    except NotFinite as error:
        print(f"refbert: {error}", file=sys.stderr)
        return 1
    finally:
        for bar in shown:
            bar.close()
    if result.finished:
        if first:
            print(f'{output}: done, {result.steps:,} steps; try: refbert run --model {output} "…[MASK]…"')
        return 0
    if first:
        print(f"{output}: stopped and saved at step {result.updates:,} of {result.steps:,}; go on with: "
              f"refbert pretrain --output {output} --resume")  # fmt: skip
    return stopping.status


def _phases(settings: Settings, model: Model) -> list[tuple[int, float, int]]:
    """(updates, operations of one, tokens) of each phase."""
    from refbert.config.flops import forward_flops

    hidden = settings.data().most_predictions
    return [
        (
            phase.steps,
            phase.batch_size * forward_flops(
                model.config, phase.length, model.heads, pooler=model.has_pooler, masked_positions=hidden(phase.length)
            ),
            phase.length,
        )
        for phase in settings.phases()
    ]  # fmt: skip


def _absolute(files: tuple[str, ...]) -> list[str]:
    return [name if name == "-" else str(Path(name).resolve()) for name in files]


def _is_given(name: str) -> bool:
    """Whether the command line has the option, rather than its default."""
    source = click.get_current_context().get_parameter_source(name)
    return source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP")
