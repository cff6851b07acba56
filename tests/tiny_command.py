"""The command line on a tiny run."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from taxadiffusion.cli import app
from taxadiffusion.config import Settings
from taxadiffusion.errors import TaxaDiffusionError
from taxadiffusion.run import open_run
from taxadiffusion.trainer import events
from taxadiffusion.trainer.signals import StopSignal
from taxadiffusion.trainer.world import World


def run_all(settings: Settings, **options: object) -> list[events.Event]:
    with open_run(settings, stop=StopSignal(), world=World(), **options) as run:  # type: ignore[arg-type]
        return list(run.trainer.run())


def invoke(config: Path | None, *arguments: str) -> tuple[int, str]:
    """The command as `main` runs it: exit code and what it printed."""
    result = CliRunner().invoke(app, ["train", *([str(config)] if config else []), *arguments])
    if isinstance(result.exception, TaxaDiffusionError):
        return result.exception.exit_code, result.output + str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output
