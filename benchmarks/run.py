"""Every row of docs/performance.md for which the libraries are here, in one command.

    python benchmarks/run.py                                 all rows; results/DATE-speed.json and .html
    python benchmarks/run.py --quick                         the light ones, three rounds
    python benchmarks/run.py --only step forward-8x128       some: groups, rows, or beginnings of their names
    python benchmarks/run.py --list                          what there is
    python benchmarks/run.py --scaling                       time against S, B, L, H and threads, and where it goes
    python benchmarks/run.py --write-docs docs/performance.md            also put the table there
    python benchmarks/run.py --from A.json B.json --write-docs …         from earlier runs, nothing is measured

Contenders run in turn, each in a process of its own; what counts is the ratio of the medians. Where two contenders
computed different things no ratio is printed. Exit status: 0, whether targets are met or not; 1 if something computed
something else or failed; 2 for bad usage.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from speed import docs, page, report, scaling
from speed.cases import GROUPS, Case, Contender, all_cases, select
from speed.inputs import Checkpoints
from speed.machine import describe
from speed.measuring import Settings, measure
from speed.worker import Worker

RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse_args(arguments)
    # However it is stopped, the workers end, the checkpoints are removed and what was measured is written.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        chosen = select(scaling.cases(options.threads) if options.scaling else all_cases(), options.only)
    except ValueError as error:
        parser.error(str(error))
    if options.list:
        for case in chosen:
            print(f"{case.name:28} {', '.join(contender.name for contender in case.contenders)}")
        return 0
    results = merged([read(path, parser) for path in options.earlier]) if options.earlier else run(chosen, options)
    return publish(results, options, parser)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW", help=f"groups ({', '.join(GROUPS)}) or rows")
    parser.add_argument("--quick", action="store_true", help="only the light rows, three rounds")
    parser.add_argument("--rounds", type=positive, help="rounds of each row; default 9, with --quick 3")
    parser.add_argument("--threads", type=positive, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--sentences", metavar="FILE", help="one sentence a line; default: Python's language reference")
    parser.add_argument("--scaling", action="store_true", help="time against sizes instead of the rows")
    parser.add_argument("--list", action="store_true", help="name the rows and the contenders, and stop")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: benchmarks/results/DATE-speed.json")
    parser.add_argument("--html", type=Path, metavar="FILE", help="default: beside the JSON")
    parser.add_argument(
        "--from", dest="earlier", type=Path, nargs="+", metavar="FILE.json",
        help="results of earlier runs instead of a new one; of a row that several have, the last one's",
    )  # fmt: skip
    parser.add_argument("--write-docs", type=Path, metavar="FILE.md", help="replace the table between the markers")
    return parser


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def read(path: Path, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """What an earlier run wrote."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        parser.error(f"{path}: cannot be read ({error})")
    if not isinstance(results, dict) or not {"machine", "cases", "what"} <= results.keys():
        parser.error(f"{path}: not what this command writes")
    return results


def merged(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """One run's results of several, perhaps of several machines: ``runs`` says which cases are whose."""
    cases = {case["name"]: (case, run) for run in runs for case in run["cases"]}
    owners = [
        {"line": docs.machine_line(run), "cases": [name for name, (_, owner) in cases.items() if owner is run]}
        for run in runs
    ]
    return runs[-1] | {"cases": [case for case, _ in cases.values()], "runs": owners}


def run(chosen: list[Case], options: argparse.Namespace) -> dict[str, Any]:
    """Measure; everything that the JSON holds but the rows. After Ctrl-C: what there is so far."""
    quick = options.quick and not options.scaling
    rounds = options.rounds or (3 if options.quick else 9)
    results: dict[str, Any] = {
        "schema": 1,
        "date": datetime.date.today().isoformat(),
        "what": "scaling" if options.scaling else "speed",
        "quick": options.quick,
        "rounds": rounds,
        "machine": describe(options.threads),
        "cases": [],
    }
    with tempfile.TemporaryDirectory(prefix="refbert-speed-") as directory:
        settings = Settings(Checkpoints(Path(directory)), rounds, options.threads, options.sentences)
        try:
            results["roof"] = measure_roof(options.threads)
            group = ""
            for case in chosen:
                if quick and not (case.quick or options.only):
                    continue
                if case.group != group:
                    settings.close()  # the last group's models make room
                    group = case.group
                print(case.name, flush=True)
                found = measure(case, settings)
                results["cases"].append(found)
                print(report.case_text(found))
                for target in case.targets:
                    print(report.row_text(vars(report.row_of(case, target, found))), flush=True)
        except KeyboardInterrupt:
            print("stopped; what there is is written", file=sys.stderr)
        finally:
            settings.close()
    return results


def measure_roof(threads: int) -> dict[str, float]:
    """FLOP/s of large products and bytes/s of a copy, in a process with that many threads."""
    worker = Worker(Contender("machine", "machine"), threads)
    try:
        worker.prepare({})
        return {name: float(value) for name, value in worker.result().items()}
    finally:
        worker.close()


def publish(results: dict[str, Any], options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Write JSON, page and table; the exit status."""
    measured = {case["name"]: case for case in results["cases"]}
    gpus = results["machine"]["gpus"]
    # Rows of every case: what was left out is listed as such.
    results["rows"] = [] if results["what"] == "scaling" else report.rows(all_cases(), measured, gpu=bool(gpus))
    stem = f"{results['date']}-{results['what']}" + ("-quick" if results["quick"] else "")
    target = options.json or (options.earlier[-1] if options.earlier else RESULTS / f"{stem}.json")
    html = options.html or target.with_suffix(".html")
    try:
        if options.json or not options.earlier:
            target.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        html.write_text(page.html(results), encoding="utf-8")
        if options.write_docs is not None:
            docs.write(options.write_docs, results)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"{target}\n{html}")
    return 1 if any(wrong(case) for case in results["cases"]) else 0


def wrong(case: dict[str, Any]) -> bool:
    """Whether some contender failed, or computed something else than the first."""
    return any(
        "failed" in contender or not contender.get("differs", 0.0) <= contender.get("bound", 0.0)
        for contender in case["contenders"].values()
    )


if __name__ == "__main__":
    sys.exit(main())
