"""Options that several commands have, with one meaning everywhere."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    typer.Option("--device", help="Where to compute: auto (a GPU where there is one), cpu, cuda, or mps (Apple)."),
]
"""`base.device.chosen_device` is the rule; `auto` is every command's default."""
