"""The command line: each command parses its options, calls one documented function and prints."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console

from taxadiffusion import __version__
from taxadiffusion.cli import (
    ancestors,
    augment,
    check,
    demo,
    evaluate,
    export,
    export_model,
    generate,
    identify,
    prepare,
    push,
    reproduce,
    review,
    runs,
    serve,
    simulate,
    train,
    trust,
    utility,
)
from taxadiffusion.cli.paths import read_paths
from taxadiffusion.errors import CheckpointError, InterruptedByUserError, TaxaDiffusionError

app = typer.Typer(
    name="taxadiffusion",
    help="Accurate images of a species from its taxonomy, even when only a handful of photographs exist.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS: dict[Callable[..., Any], bool] = {
    prepare.prepare: True,
    check.check: True,
    export.export: False,
    export_model.export_model: False,
    push.push: False,
    train.train: False,
    runs.runs: False,
    trust.trust: False,
    generate.generate: False,
    identify.identify: False,
    augment.augment: False,
    utility.utility: False,
    ancestors.ancestors: False,
    evaluate.evaluate: False,
    serve.serve: False,
    reproduce.reproduce: False,
    review.review: False,
    simulate.simulate: False,
    demo.demo: False,
}
"""Each, and whether options of a source's format may follow its own."""
for command, others in _COMMANDS.items():
    read_paths(command)
    app.command(context_settings={"allow_extra_args": others, "ignore_unknown_options": others})(command)

# An unknown option or command, a bad value, a missing argument. Some versions of typer bring a click of their own.
_UsageError: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NOT_THERE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
"""Faults of the place that a person named, not of the program."""


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"taxadiffusion {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and leave."
    ),
) -> None:
    """Accurate images of a species from its taxonomy, even when only a handful of photographs exist."""


def main() -> None:
    """Run the command line; a fault that the user can repair is one message and its exit code, never a traceback."""
    try:
        sys.exit(app(standalone_mode=False))
    except TaxaDiffusionError as error:
        _print_error(str(error))
        sys.exit(error.exit_code)
    except OSError as error:
        place = error.filename2 or error.filename
        if error.errno not in _NO_ROOM and (error.errno not in _NOT_THERE or place is None):
            raise
        remedy = "make room" if error.errno in _NO_ROOM else "name another place"
        _print_error(": ".join(str(part) for part in (place, error.strerror) if part) + f"; {remedy}")
        sys.exit(CheckpointError.exit_code)
    except typer.Abort:  # how Ctrl-C is told of
        sys.exit(InterruptedByUserError.exit_code)
    except _UsageError as error:
        error.show()
        sys.exit(error.exit_code)


def _print_error(words: str) -> None:
    Console(stderr=True, highlight=False).print(f"error: {words}", style="bold red", markup=False, soft_wrap=True)
