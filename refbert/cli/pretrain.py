"""``refbert pretrain``: text files in, a model out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from refbert.cli.options import given_settings, of_settings, placing
from refbert.cli.progress import Watch, say
from refbert.errors import InputError
from refbert.model import Model
from refbert.training.pretraining_settings import Settings


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE …]")
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The run's directory.")
@of_settings(Settings)
@placing
@click.option("--resume", is_flag=True, help="Go on with the run in the directory (or begin, if there is none).")
def pretrain(files: tuple[str, ...], output: Path, resume: bool, **options: Any) -> int:
    """Pretrain a BERT on the text of FILEs ("-": stdin), masked words and next sentences, as the paper does.

    \b
    refbert pretrain corpus.txt --output DIR --steps 100000
    refbert pretrain --output DIR --resume
    torchrun --nproc-per-node 2 -m refbert pretrain corpus.txt --output DIR --steps 100000
    """
    from refbert.training import pretraining
    from refbert.training.distributed import local_device, processes
    from refbert.training.run import RunDirectory

    given = given_settings(Settings, options | {"files": files})
    if resume and RunDirectory(output).holds_run():
        settings = Settings.resumed(output, given)
    else:
        if not files:
            lost = resume and RunDirectory(output).last() is not None
            why = f"{output}: run.json is not there, so the run's own arguments are needed: " if lost else ""
            raise InputError(f"{why}no text: name at least one FILE (or - for stdin)")
        if "steps" not in given:
            raise InputError("how long? name the number of updates with --steps")
        settings = Settings(**given)
    first = os.environ.get("RANK", "0") == "0"
    watch = Watch("pretrain", output, shown=first)

    def begin(model: Model, done: int) -> None:
        line = f"{model!r}, {model.num_parameters:,} parameters; {output} at step {done:,}"
        watch.begin(line, settings.steps, done, _phases(settings, model))

    with (
        watch.running("nothing of it is kept; start again with the same command"),
        processes(settings.device or "cpu") as together,
    ):
        result = pretraining.pretrain(
            output, settings, resume=resume, processes=together, device=local_device(settings.device),
            on_begin=begin, on_update=watch.update, stop=watch.stopping, say=say,
        )  # fmt: skip
    if result.finished:
        if first:
            print(f'{output}: done, {result.steps:,} steps; try: refbert run --model {output} "…[MASK]…"')
        return 0
    if first:
        print(f"{output}: stopped and saved at step {result.updates:,} of {result.steps:,}; {watch.go_on}")
    return watch.stopping.status


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
