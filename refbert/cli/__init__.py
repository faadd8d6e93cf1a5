"""The command line: ``refbert run``, ``pretrain``, ``finetune``, ``evaluate``, ``conform``, ``bench``, ``info``, ….

Exit status: 0 done; 1 a check failed; 2 bad usage or input, something unavailable, or an output that takes no more,
with one line on stderr; 70 a mistake of refbert's own, with a traceback; 130 and 143 for SIGINT and SIGTERM; 141 where
the reader of the output has gone.
"""

from __future__ import annotations

import sys
import traceback
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
from refbert.cli.signals import Signalled, ending
from refbert.cli.terminal import OutputError, ReaderGone, drop, terminal
from refbert.cli.trace import trace
from refbert.errors import RefbertError, RefbertWarning, one_line

__all__ = ["cli", "main"]


# What `refbert --help` shows, in its order.
_GROUPS: tuple[tuple[str, tuple[click.Command, ...]], ...] = (
    ("Use a model", (run, evaluate, info)),
    ("Train one", (pretrain, finetune)),
    ("Look inside", (explain, trace, diff)),
    ("Judge a backend", (backends, conform, scoreboard, bench)),
    ("Check what is said of BERT", (audit,)),
)


class _Grouped(click.Group):
    """Commands under headings, each with the whole of its summary."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in _GROUPS:
            with formatter.section(title):
                formatter.write_dl([(str(one.name), _summary(one)) for one in commands])


def _summary(command: click.Command) -> str:
    """The first paragraph of its help, on one line."""
    return " ".join((command.help or "").split("\n\n")[0].split())


@click.group(
    cls=_Grouped, context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True
)  # fmt: skip
@click.version_option(__version__, prog_name="refbert")
@click.pass_context
def cli(context: click.Context) -> None:
    """BERT, by the book: run it, on any backend."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _, _commands in _GROUPS:
    for _command in _commands:
        cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; every error that is the input's or the environment's is one line on stderr."""
    with ending():
        try:
            with terminal():
                try:
                    status = _status(arguments)
                except ReaderGone:  # of what was asked for, or of what is wrong with it
                    drop(sys.stdout, sys.stderr)
                    status = 141  # as a process that SIGPIPE ends: what it had to say is not known to be good
        except Signalled as signal:  # between the lines above
            status = signal.status
    sys.exit(status)


def _status(arguments: Sequence[str] | None) -> int:
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        warnings.simplefilter("always", RefbertWarning)
        try:
            try:
                sys.stdout.flush()  # nothing is begun that nobody could see
                status = cli.main(args=arguments, prog_name="refbert", standalone_mode=False, color=True)
            finally:
                sys.stdout.flush()
            return status if isinstance(status, int) else 0
        except ReaderGone:
            raise
        except Signalled as signal:
            _say(str(signal))
            return signal.status
        except click.exceptions.Abort:
            return 130
        except Exception as error:  # noqa: BLE001 (the border: by kind, and what is no kind of input's is a traceback)
            problem = _problem(error)
            if problem is None:
                traceback.print_exc()
                return 70
            if isinstance(error, OutputError):
                drop(sys.stdout)
            _say(problem)
            return 2


def _problem(error: Exception) -> str | None:
    """What is wrong with the input or the environment, in a line; None for a mistake of refbert's own."""
    if isinstance(error, click.UsageError):
        return f"{error.format_message()} (see: {error.ctx.command_path if error.ctx else 'refbert'} --help)"
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, RefbertError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"out of memory: {error}; try a smaller --batch-size or shorter texts"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    if isinstance(error, RecursionError):
        return "something is nested too deep to be read"
    if isinstance(error, UnicodeError):
        return f"a name or a text is not Unicode ({error})"
    if isinstance(error, ValueError) and "null byte" in str(error):
        return "no file can have a name with a NUL character"
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        return "a path begins with ~ and the name of nobody here"
    if isinstance(error, RuntimeError) and "Symlink loop" in str(error):
        return str(error).replace("Symlink loop from", "links that lead in a circle:")
    return None


def _say(message: str) -> None:
    try:
        print(f"refbert: {one_line(message)}", file=sys.stderr)
    except ReaderGone:
        drop(sys.stderr)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, RefbertWarning):
        _say(f"warning: {message}")
