"""From a source as published to a prepared data set: list, judge, verify, write; resumable, and whole or absent."""

from __future__ import annotations

import shutil
from pathlib import Path

from taxadiffusion.dataset.catalogue_reader import CatalogueReader
from taxadiffusion.dataset.fixes import FixedReader, Fixes
from taxadiffusion.dataset.preparation import OnPrepared, Preparation
from taxadiffusion.dataset.report import PrepareReport, PrepareSettings
from taxadiffusion.dataset.shards import Shard
from taxadiffusion.dataset.workers import num_cores
from taxadiffusion.dataset.workspace import check_out, locked
from taxadiffusion.errors import DataError
from taxadiffusion.readers import Reader, open_reader

_AS_IT_IS = PrepareSettings()


def prepare(
    source: Path | str,
    out: Path | str,
    settings: PrepareSettings = _AS_IT_IS,
    *,
    num_workers: int | None = None,
    shard: Shard = Shard(),  # noqa: B008 - frozen
    on_progress: OnPrepared | None = None,
) -> PrepareReport:
    """Makes the prepared data set `out` from `source`, and returns its report.

    Every picture is checked, hashed and measured in `num_workers` processes (all cores); `shard` lets several calls, on
    machines with one file system, share that work: each makes the same call with its own number, and the data set is
    the same. Bad rows and files are left out and listed in `quarantine.csv`.

    Nothing appears at `out` until it is whole. A run that was stopped goes on when called again; a data set that is
    there already, made from the same rows and settings, is left alone. Raises `SettingsError`, and `DataError` for a
    source that cannot be read, contradictions (all listed), more bad rows than `max_bad_fraction`, or an `out` that
    holds something else or whose pictures have changed since.
    """
    source, out = Path(source).absolute(), Path(out).absolute()
    reader = _open(source, settings)
    check_out(out)
    work = out.parent / f".{out.name}.partial"
    own = work.with_name(f"{work.name}-{shard.number}") if shard.number else work
    on_progress = on_progress or (lambda _: None)
    try:
        with locked(own):
            job = Preparation(reader, source, out, own, work, settings, num_workers or num_cores(), shard, on_progress)
            report = job.help() if shard.number else job.run()
            shutil.rmtree(own)
            return report
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"{error.filename or work}: {reason}. What is done is kept: repair this (a full disk: make room) and run "
            "the same command again"
        ) from error


def _open(source: Path, settings: PrepareSettings) -> Reader:
    options = dict(settings.options)
    if settings.ranks is not None:
        options["ranks"] = settings.ranks
    reader = open_reader(source, settings.format, follow_links=settings.follow_links, **options)
    if settings.verify and not reader.root.is_dir():
        raise DataError(f"{reader.root}: the image folder is missing")
    if settings.fix:
        reader = FixedReader(reader, Fixes.load(settings.fix))
    return CatalogueReader(reader, settings.catalogue) if settings.catalogue else reader
