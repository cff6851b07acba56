"""Pictures that a filter lets pass: candidates are drawn until every taxon has as many as were asked for."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.evaluate.filter import Filter
from taxadiffusion.features import Extractor
from taxadiffusion.files import whole
from taxadiffusion.images import load_image
from taxadiffusion.names import Lineage
from taxadiffusion.pictures.generate import Generated
from taxadiffusion.pictures.recipe import TABLE
from taxadiffusion.sampler import Request

CANDIDATES, JUDGED = "-candidates", "judged.csv"
"""Ending of the folder beside the pictures' that keeps all that was drawn, and its table of who passed."""

_BATCH = 64


@dataclass(frozen=True, slots=True)
class Accepting:
    """What pictures must pass. tries: at most so many are drawn for each that is wanted."""

    filter: Filter
    extractor: Extractor
    tries: int = 10

    def __post_init__(self) -> None:
        self.filter.require(self.extractor)
        if self.tries < 1:
            raise SettingsError(f"tries must be at least 1, got {self.tries}")

    def probabilities(self, files: Sequence[Path]) -> list[float]:
        """Of files of pictures."""
        found: list[float] = []
        for start in range(0, len(files), _BATCH):
            batch = np.stack([load_image(file, self.filter.size_px) for file in files[start : start + _BATCH]])
            found += self.filter.probabilities(self.extractor(batch)).tolist()
        return found


@dataclass(frozen=True, slots=True)
class Accepted:
    """The pictures that passed, by taxon as many as wanted at most; how many of each taxon were drawn and refused."""

    pictures: tuple[Generated, ...]
    drawn: Counter[Lineage]
    refused: Counter[Lineage]


def accepted(
    make: Callable[[Sequence[Request], Path], Iterable[Generated]],
    request: Callable[[Lineage, int], Request],
    lineages: Sequence[Lineage],
    seeds: range,
    out: Path,
    accepting: Accepting,
) -> Accepted:
    """For each lineage len(`seeds`) pictures that pass, in `out`; all candidates are beside it, with a table.

    make: draws requests into a folder, and goes on where it was. request: of a lineage and a seed. The candidates are
    the seeds from the first of `seeds` on; nothing is drawn twice, so the same call goes on. Raises `DataError` where a
    folder cannot be written.
    """
    wanted, first = len(seeds), seeds.start
    folder = out.with_name(out.name + CANDIDATES)
    passed: dict[Lineage, list[Generated]] = {lineage: [] for lineage in lineages}
    scores: dict[Path, float] = {}
    drawn: Counter[Lineage] = Counter()
    while short := [one for one in lineages if len(passed[one]) < wanted and drawn[one] < wanted * accepting.tries]:
        requests = []
        for lineage in short:
            number = min(wanted - len(passed[lineage]), wanted * accepting.tries - drawn[lineage])
            requests += [request(lineage, first + drawn[lineage] + i) for i in range(number)]
            drawn[lineage] += number
        made = list(make(requests, folder))
        for picture, score in zip(made, accepting.probabilities([one.path for one in made]), strict=True):
            scores[picture.path] = score
            if score >= accepting.filter.threshold:
                passed[picture.request.lineage].append(picture)
    try:
        pictures = [_copied(picture, folder, out) for mine in passed.values() for picture in mine]
        _write_tables(folder, out, [picture.path.relative_to(out).as_posix() for picture in pictures])
        _write_judged(folder / JUDGED, folder, scores, accepting.filter.threshold)
    except OSError as error:
        raise DataError(f"{out}: the pictures cannot be written: {error.strerror}") from error
    refused = Counter({one: number - len(passed[one]) for one, number in drawn.items()})
    return Accepted(tuple(pictures), drawn, refused)


def _copied(picture: Generated, folder: Path, out: Path) -> Generated:
    target = out / picture.path.relative_to(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole(target) as aside:
        shutil.copyfile(picture.path, aside)
    return Generated(picture.request, target, picture.made)


def _write_tables(folder: Path, out: Path, names: Sequence[str]) -> None:
    """`out`'s table: the candidates' rows of the pictures that passed, beside those that were there."""
    rows = {row["file_name"]: row for table in (out / TABLE, folder / TABLE) for row in _rows(table)}
    there = [row["file_name"] for row in _rows(out / TABLE) if (out / row["file_name"]).is_file()]
    kept = list(dict.fromkeys([*there, *names]))
    columns = list(rows[kept[0]]) if kept else ["file_name"]
    out.mkdir(parents=True, exist_ok=True)
    with whole(out / TABLE) as aside, aside.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, columns)
        table.writeheader()
        table.writerows(rows[name] for name in kept)


def _rows(table: Path) -> list[dict[str, str]]:
    if not table.is_file():
        return []
    with table.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _write_judged(path: Path, folder: Path, scores: dict[Path, float], threshold: float) -> None:
    with whole(path) as aside, aside.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file_name", "probability", "accepted"])
        for file, score in scores.items():
            verdict = "yes" if score >= threshold else "no"
            table.writerow([file.relative_to(folder).as_posix(), f"{score:.4f}", verdict])
