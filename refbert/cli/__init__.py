"""The command line: ``refbert run``, ``pretrain``, ``finetune``, ``evaluate``, ``conform``, ``bench``, ``info``, ….

Exit status: 0 done; 1 a check failed; 2 bad usage or input, something unavailable, or an output that takes no more,
with one line on stderr; 70 a mistake of refbert's own, with a traceback; 130 and 143 for SIGINT and SIGTERM; 141 where
the reader of the output has gone.
"""

from __future__ import annotations

import importlib
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import click

from refbert import __version__
from refbert.cli.signals import Signalled, ending
from refbert.cli.terminal import OutputError, ReaderGone, drop, terminal
from refbert.errors import RefbertError, RefbertWarning, one_line

__all__ = ["cli", "commands", "main"]


# What `refbert --help` shows, in its order: each command and the module that has it. One is imported when it is asked
# for: the conformance suite, the audit and what looks inside a model are users of refbert, and not part of every start.
_GROUPS: Mapping[str, Mapping[str, str]] = {
    "Use a model": {"run": "refbert.cli.run", "evaluate": "refbert.cli.evaluate", "info": "refbert.cli.info"},
    "Train one": {"pretrain": "refbert.cli.pretrain", "finetune": "refbert.cli.finetune"},
    "Look inside": {
        "explain": "refbert_inspection.commands.explain",
        "trace": "refbert_inspection.commands.trace",
        "diff": "refbert_inspection.commands.diff",
    },
    "Judge a backend": {
        "backends": "refbert.cli.backends",
        "conform": "refbert_conformance.commands.conform",
        "probe": "refbert_conformance.commands.probe",
        "invariance": "refbert_conformance.commands.invariance",
        "kit": "refbert_conformance.commands.kit",
        "judge": "refbert_conformance.commands.kit",
        "judge-outputs": "refbert_conformance.commands.outputs",
        "scoreboard": "refbert_conformance.commands.scoreboard",
        "bench": "refbert.cli.bench",
    },
    "Check what is said of BERT": {"audit": "refbert_audit.command"},
}
_MODULES = {name: module for group in _GROUPS.values() for name, module in group.items()}


class _Grouped(click.Group):
    """Commands under headings, each with the whole of its summary."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _command(cmd_name) if cmd_name in _MODULES else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in _GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, _summary(_command(name))) for name in names])


def _command(name: str) -> click.Command:
    command: click.Command = getattr(importlib.import_module(_MODULES[name]), name.replace("-", "_"))
    return command


def commands() -> dict[str, click.Command]:
    """Every command by its name."""
    return {name: _command(name) for name in _MODULES}


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; every error that is the input's or the environment's is one line on stderr."""
    with ending():
        try:
            with terminal():
                try:
                    status = _status(arguments)
                except ReaderGone:
                    drop(sys.stdout, sys.stderr)
                    status = 141  # as if SIGPIPE had ended the process
        except Signalled as signal:  # between the lines above
            status = signal.status
    sys.exit(status)


def _status(arguments: Sequence[str] | None) -> int:
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        warnings.simplefilter("always", RefbertWarning)
        try:
            try:
                sys.stdout.flush()  # no work whose result could not be written
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
        except Exception as error:  # noqa: BLE001 (what is not the input's or the environment's fault gets a traceback)
            problem = _problem(error)
            if problem is None:
                traceback.print_exc()
                return 70
            if isinstance(error, OutputError):
                drop(sys.stdout)
            _say(problem)
            return getattr(error, "status", 2)


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
