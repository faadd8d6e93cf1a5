"""``refbert bench``: how fast a model runs here, and how near that is to what the machine's matrix products allow."""

from __future__ import annotations

from typing import Any

import click

from refbert.cli import options
from refbert.cli.output import print_json
from refbert.cli.tables import Table, print_table
from refbert.errors import quiet


@click.command()
@options.placing
@click.option("--model", default="bert-base-uncased", show_default=True,
              help="A preset (random weights), or a checkpoint's directory or hub name.")  # fmt: skip
@options.count_option("--batch-size", 8, "Sequences in the batch.")
@options.count_option("--length", 128, "Tokens in each sequence.")
@click.option("--step", is_flag=True, help="Forward and backward (masked LM on 15 %, next sentence), not forward.")
@options.count_option("--rounds", 7, "Timed runs, after two to warm up.")
@options.json_option()
def bench(as_json: bool, **chosen: Any) -> None:
    """Time a model on random tokens: tokens/s, GFLOP/s, share of the matrix-product limit, memory.

    The limit is measured on the same backend, by its own `linear` on large arrays. Peak memory is the whole
    process's, libraries and weights included.

    \b
    refbert bench --backend torch
    refbert bench --backend numpy --model bert-mini --step --batch-size 32
    """
    facts = speed(**chosen)
    if as_json:
        print_json(facts)
    else:
        _print(facts)


def speed(*, model: str, batch_size: int, length: int, step: bool, rounds: int, **placed: str | None) -> dict[str, Any]:
    """Everything that the command shows, as plain data; ``placed``: backend, dtype and device."""
    from refbert.benchmark import measure, quartiles
    from refbert.config.heads import PRETRAINING
    from refbert.config.presets import preset_of
    from refbert.loading import from_config, load

    how: dict[str, Any] = placed | {"heads": PRETRAINING if step else ()}
    known = preset_of(model)
    with quiet():  # a head that the checkpoint lacks is drawn afresh, weights of others are left out: as fast
        made = load(model, **how) if known is None else from_config(known, **how)
    found = measure(made, batch_size=batch_size, length=length, step=step, rounds=rounds)
    low, median, high = quartiles(found.seconds)
    return {
        "backend": made.backend.name, "library": made.backend.library, "dtype": made.backend.dtype,
        "device": made.backend.device, "model": model, "weights": "loaded" if known is None else "random",
        "parameters": made.num_parameters, "work": "step" if step else "forward",
        "batch_size": batch_size, "length": length,
        "seconds": {"median": median, "quartiles": [low, high], "runs": list(found.seconds)},
        "tokens_per_second": found.tokens_per_second, "gflop_per_second": found.flops_per_second / 1e9,
        "limit_gflop_per_second": found.limit / 1e9, "fraction_of_limit": found.fraction,
        "peak_memory": {"process": found.process_bytes, "device": found.device_bytes},
    }  # fmt: skip


def _print(facts: dict[str, Any]) -> None:
    work = "forward and backward" if facts["work"] == "step" else "forward"
    median, low, high = (1e3 * x for x in (facts["seconds"]["median"], *facts["seconds"]["quartiles"]))
    reached, limit = facts["gflop_per_second"], facts["limit_gflop_per_second"]
    table = Table(None, "bench", "", rows=[
        ("backend", f"{facts['backend']} ({facts['library']})"),
        ("dtype, device", f"{facts['dtype']}, {facts['device']}"),
        ("model", f"{facts['model']}, {facts['weights']} weights, {facts['parameters']:,} parameters"),
        ("work", f"{work}, {facts['batch_size']} × {facts['length']} tokens"),
        ("time", f"{median:.1f} ms (half of the runs within {low:.1f} to {high:.1f})"),
    ])  # fmt: skip
    table.add_row("tokens/s", f"{facts['tokens_per_second']:,.0f}", style="bold")
    share = f"{facts['fraction_of_limit']:.0%} of the matrix products' {limit:,.1f}"
    table.add_row("GFLOP/s", f"{reached:,.1f}, {share}", style="bold")
    for where, size in facts["peak_memory"].items():
        if size is not None:
            table.add_row(f"peak memory, {where}", f"{size / 1e6:,.0f} MB")
    print_table(table)
