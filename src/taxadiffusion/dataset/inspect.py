"""`check` end to end: open a source or a prepared data set, count it, judge it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from taxadiffusion.dataset.catalogue_file import OnBytes
from taxadiffusion.dataset.census import prepared_census, take_census
from taxadiffusion.dataset.check import CheckReport, check
from taxadiffusion.dataset.fixes import FixedReader, Fixes
from taxadiffusion.dataset.prepared import PreparedDataset
from taxadiffusion.errors import SettingsError
from taxadiffusion.readers import Reader, open_reader


@dataclass(frozen=True)
class CheckSettings:
    """What `inspect_source` is asked for.

    `format` and its `options` choose the reader; `fix` is applied before judging. Unless `tables_only`, pictures that
    do not exist or lead out of the image root through a link (unless `follow_links`) are counted and named.
    `catalogue` is an archive of the Catalogue of Life that the names are read against.
    """

    format: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    tables_only: bool = False
    synonyms: Path | None = None
    fix: Path | None = None
    follow_links: bool = False
    catalogue: Path | None = None


_AS_IT_IS = CheckSettings()


def inspect_source(source: Path, asked: CheckSettings = _AS_IT_IS, on_bytes: OnBytes | None = None) -> CheckReport:
    """The report on a source or a prepared data set; `on_bytes` hears how much of the catalogue has been read.

    Raises `DataError` for a source that cannot be read, `SettingsError` for wrong options and for `fix` or options with
    a prepared data set.
    """
    if (source / "images.parquet").is_file():
        moved = dict(asked.options)
        root = moved.pop("root", None)
        if asked.format or moved or asked.fix or asked.follow_links:
            raise SettingsError(
                f"{source}: a prepared data set takes no format, no options but --root, no --fix, no --follow-links; "
                "give them to prepare"
            )
        census = prepared_census(PreparedDataset.open(source, root))
        return check(census, synonyms=asked.synonyms, catalogue=asked.catalogue, on_bytes=on_bytes)
    reader: Reader = open_reader(source, asked.format, follow_links=asked.follow_links, **asked.options)
    fixes = Fixes.load(asked.fix) if asked.fix else None
    if fixes is not None:
        reader = FixedReader(reader, fixes)
    census = take_census(reader, source, look_at_pictures=not asked.tables_only, follow_links=asked.follow_links)
    report = check(census, synonyms=asked.synonyms, catalogue=asked.catalogue, on_bytes=on_bytes)
    if fixes is None:
        return report
    applied = {str(rule): number for rule, number in fixes.applied.items()}
    return replace(report, fixes_applied=applied, fixes_unused=tuple(str(rule) for rule in fixes.unused()))
