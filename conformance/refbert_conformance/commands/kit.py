"""``refbert kit`` and ``refbert judge``: a target without a pipe, judged from files."""

from __future__ import annotations

import time
from pathlib import Path

import click

from refbert.cli.options import file_option
from refbert.cli.output import require_writable, working
from refbert.cli.tables import say
from refbert.errors import InputError
from refbert_conformance.commands.conform import publish, require_hypothesis, seed_number
from refbert_conformance.commands.options import DTYPES, arithmetic_option, declared_arithmetic


@click.command()
@click.argument("place", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", show_default=True, help="What the target has.")
@click.option("--only", metavar="PATTERN", help="Properties whose id holds this text, or matches it with * and ?.")
@click.option(
    "--effort", type=click.Choice(("quick", "default")), default="quick", show_default=True, help="How many cases."
)
@click.option("--seed", default="0", show_default=True, metavar="N|random", help="Other cases; the same for one N.")
@arithmetic_option("How the target rounds, such as")
def kit(place: Path, dtype: str, only: str | None, effort: str, seed: str, arithmetic: str | None) -> int:
    """Write cases for a target that no backend can reach: inputs, options, expected values and bounds.

    It computes them wherever it runs, and `refbert judge` judges what comes back.
    """
    require_hypothesis()
    from refbert_conformance.kit.files import Asked, require_new, write_kit
    from refbert_conformance.kit.recording import left_out, record
    from refbert_conformance.properties.table import matching

    declared = declared_arithmetic(arithmetic, dtype) or {}
    require_new(place)
    properties = matching(only)
    if all(map(left_out, properties)):
        raise InputError(f'no kit has anything of "{only}": {left_out(properties[0])}')
    asked = Asked(dtype, declared, effort, seed_number(seed), only)
    with working() as tell:
        tell("recording calls", "")
        recorded = record(properties, dtype=dtype, arithmetic=declared, effort=effort, seed=asked.seed)
        write_kit(place, asked, properties, recorded, tell)
    size = sum(file.stat().st_size for file in place.iterdir())
    say(f"{place}: {len(recorded.cases):,} cases of {len(recorded.examples)} properties, {size / 1e6:.1f} MB")
    say(f"results are tensors named as outputs in {place / 'manifest.json'}; then: refbert judge {place} RESULTS")
    return 0


@click.command()
@click.argument("place", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("results", metavar="RESULTS …", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--name", help="What the target is called in reports; default: as the first of RESULTS.")
@click.option("--inference", is_flag=True, help="The target computes no gradients, and is not asked for any.")
@file_option("--json", "json_file", help="The report as JSON.")
@file_option("--html", "html_file", help="The scoreboard.")
def judge(
    place: Path, results: tuple[Path, ...], name: str | None, inference: bool, json_file: Path | None,
    html_file: Path | None,
) -> int:  # fmt: skip
    """Judge what a target has made of a kit's cases, as `refbert conform` judges a backend.

    RESULTS are safetensors files, or directories of them. Exit status: 0 conformant, 1 not conformant, 2 bad usage,
    3 inconclusive: nothing failed, but results are missing.
    """
    require_hypothesis()
    from refbert_conformance import report as reports
    from refbert_conformance.kit.files import read_manifest, read_results
    from refbert_conformance.kit.judging import Judge
    from refbert_conformance.properties.table import matching

    require_writable(json_file, html_file)
    started, manifest = time.perf_counter(), read_manifest(place)
    judging = Judge(manifest, read_results(results), gradients=not inference)
    properties = matching(manifest["only"])
    run = judging.run(properties, name or results[0].name)
    result = reports.assemble(
        run, properties, {}, effort=manifest["effort"], seed=manifest["seed"], only=manifest["only"], model=None,
        seconds=time.perf_counter() - started,
    ) | {"missing": judging.missing}  # fmt: skip
    publish([result], json_file, html_file)
    return reports.STATUS[result["verdict"]]
