"""The command line: ``refbert run``, ``pretrain``, ``finetune``, ``evaluate``, ``conform``, ``bench``, ``info``, ….

Exit status: 0 done; 1 a check failed; 2 bad usage or input, or something unavailable, with one line on stderr.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import click

from refbert import __version__
from refbert.cli.audit import audit
from refbert.cli.backends import backends
from refbert.cli.bench import bench
from refbert.cli.conform import conform
from refbert.cli.diff import diff
from refbert.cli.evaluate import evaluate
from refbert.cli.explain import explain
from refbert.cli.finetune import finetune
from refbert.cli.info import info
from refbert.cli.pretrain import pretrain
from refbert.cli.run import run
from refbert.cli.scoreboard import scoreboard
from refbert.cli.trace import trace
from refbert.errors import RefbertError, RefbertWarning

__all__ = ["cli", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="refbert")
def cli() -> None:
    """BERT, by the book: run it, on any backend."""


cli.add_command(run)
cli.add_command(pretrain)
cli.add_command(finetune)
cli.add_command(evaluate)
cli.add_command(backends)
cli.add_command(info)
cli.add_command(bench)
cli.add_command(conform)
cli.add_command(audit)
cli.add_command(explain)
cli.add_command(scoreboard)
cli.add_command(trace)
cli.add_command(diff)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; every error that is the input's or the environment's is one line on stderr."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        warnings.simplefilter("always", RefbertWarning)
        try:
            status = cli.main(args=arguments, prog_name="refbert", standalone_mode=False)
        except RefbertError as error:
            _fail(str(error))
        except click.UsageError as error:
            _fail(f"{error.format_message()} (see: {_command(error)} --help)")
        except click.ClickException as error:
            _fail(error.format_message())
        except (click.Abort, KeyboardInterrupt):
            sys.exit(130)
        except BrokenPipeError:  # the reader of our output has gone, as with `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except MemoryError as error:
            _fail(f"out of memory: {error}; try a smaller --batch-size or shorter texts")
    sys.exit(status if isinstance(status, int) else 0)


def _command(error: click.UsageError) -> str:
    return error.ctx.command_path if error.ctx else "refbert"


def _fail(message: str) -> None:
    print(f"refbert: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, RefbertWarning):
        print(f"refbert: warning: {' '.join(str(message).split())}", file=sys.stderr)
