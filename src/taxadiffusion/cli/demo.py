"""`taxadiffusion demo`: pictures in minutes, and the whole method on a simulated clade."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taxadiffusion.cli import options
from taxadiffusion.trainer.signals import StopSignal

IN_BROWSER = "any species in the browser, in two clicks: make page (without make: taxadiffusion serve --open)"


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo-out"),
    seed: Annotated[
        int | None, typer.Option(min=0, max=options.MAX_SEED, help="Of the simulated clade; left out: the plan's.")
    ] = None,
    device: options.Device = "auto",
) -> None:
    """Draw the shipped butterflies and fish, simulate a clade, train on it from coarse to fine, and write one report.

    Takes some minutes on two CPU cores; the same command again goes on where it was interrupted.
    """
    stop = StopSignal()
    stop.install()
    from rich.console import Console

    from taxadiffusion.cli.shown import parts

    console = Console(highlight=False)
    with parts() as told:

        def show(what: str, done: int, total: int) -> None:
            told(what, done, total)
            stop.raise_if_set(what)

        show("loading PyTorch and the model", 0, 1)
        from taxadiffusion.base.device import chosen_device, described
        from taxadiffusion.demo import demo as make
        from taxadiffusion.demo.plan import read_plan

        where = chosen_device(device)
        show("loading PyTorch and the model", 1, 1)
        console.print(f"on {described(where)}", markup=False)
        report = make(out, plan=read_plan(seed), device=str(where), stop=stop, on_progress=show)
    console.print(f"the report: {report}", soft_wrap=True)
    console.print(IN_BROWSER, soft_wrap=True, markup=False)
