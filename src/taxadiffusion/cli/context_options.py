"""Options of a caption beside a taxon, and what they ask for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taxadiffusion.guidance import CONTEXT_SCALE

if TYPE_CHECKING:
    from taxadiffusion.guidance import Context

Caption = Annotated[
    str | None,
    typer.Option("--context", metavar="CAPTION", help="A caption of the base beside the taxon: `over pink`."),
]
Captions = Annotated[
    Path | None,
    typer.Option(
        "--contexts",
        metavar="FILE",
        help="Captions of the base, one a line: each picture, of whatever species, draws one of them.",
    ),
]
Scale = Annotated[
    float | None,
    typer.Option("--context-scale", help=f"How much such a caption steers; left out: {CONTEXT_SCALE:g}."),
]


def one_context(caption: str | None, scale: float | None) -> Context | None:
    """Raises `SettingsError` for a scale of nothing, or a caption without words."""
    from taxadiffusion.guidance import Context

    _require_caption(caption is not None, scale, "--context CAPTION")
    return None if caption is None else Context(caption, CONTEXT_SCALE if scale is None else scale)


def contexts_of(file: Path | None, scale: float | None) -> tuple[Context, ...]:
    """Raises `SettingsError` for a scale of nothing, `DataError` for a file without captions."""
    from taxadiffusion.synthetic.contexts import read_contexts

    _require_caption(file is not None, scale, "--contexts FILE")
    return () if file is None else read_contexts(file, CONTEXT_SCALE if scale is None else scale)


def _require_caption(given: bool, scale: float | None, option: str) -> None:
    from taxadiffusion.errors import SettingsError

    if scale is not None and not given:
        raise SettingsError(f"--context-scale is that of a caption: give it with {option}")
