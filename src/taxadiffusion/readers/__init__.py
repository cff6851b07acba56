"""One file per source format; each turns what its publisher ships into the same `Record`s."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.readers.record import Box, Reader, Record, Rejected, clean_name, left_out, path_fault

__all__ = [
    "FORMATS",
    "Box",
    "Reader",
    "Record",
    "Rejected",
    "clean_name",
    "detect_format",
    "left_out",
    "open_reader",
    "path_fault",
]

FORMATS: dict[str, str] = {
    "fishnet": "fishnet",
    "bioscan-1m": "bioscan_1m",
    "bioscan-5m": "bioscan_5m",
    "inaturalist": "inaturalist",
    "darwincore": "darwincore",
    "treeoflife": "treeoflife",
    "cub": "cub",
    "folder": "folder",
}
"""Format word → module of this package, in the order of detection (the most general last).

Each module has `detect(source: Path) -> bool` (cheap: file names and one header) and
`open_source(source: Path, *, ranks=None, …) -> Reader`, whose keyword parameters are the options of that format; where
they are many, they are the fields of its `Options`, and it is `open_source(source, options)`.
"""


def detect_format(source: Path) -> str:
    """The format of `source`. Raises `DataError` when no reader knows it."""
    for name, module in FORMATS.items():
        if import_module(f"{__name__}.{module}").detect(source):
            return name
    raise DataError(
        f"{source}: no reader recognises this source. Give --format ({', '.join(FORMATS)}), "
        "or put a metadata.csv with a file_name column and one column per rank beside the images"
    )


def open_reader(
    source: Path,
    format: str | None = None,  # noqa: A002
    *,
    follow_links: bool = False,
    **options: Any,
) -> Reader:
    """The reader of `source`, in the named or detected format, with that format's own options.

    An option that is a path may be given as text. `follow_links` reads folders that are links out of the image root,
    in formats that walk folders. Raises `DataError` when the source is missing or not understood,
    `SettingsError` for an unknown format or option.
    """
    source = Path(source)
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    if format is not None and format not in FORMATS:
        raise SettingsError(f"unknown format {format!r}; known formats: {', '.join(FORMATS)}")
    name = format or detect_format(source)
    module = import_module(f"{__name__}.{FORMATS[name]}")
    stated = inspect.signature(getattr(module, "Options", module.open_source)).parameters
    known = {name: parameter.annotation for name, parameter in stated.items() if name != "source"}
    walks = known.pop("follow_links", None) is not None
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise SettingsError(
            f"format {name} has no option {', '.join(unknown)}; its options: {', '.join(known) or 'none'}"
        )
    typed = {
        name: Path(value) if isinstance(value, str) and "Path" in known[name] else value
        for name, value in options.items()
    }
    if walks:
        typed["follow_links"] = follow_links
    many = hasattr(module, "Options")
    reader: Reader = (
        module.open_source(source, module.Options(**typed)) if many else module.open_source(source, **typed)
    )
    return reader
