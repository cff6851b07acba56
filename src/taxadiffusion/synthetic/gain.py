"""What the trainings of a comparison say: figures of each row, paired differences, gain by species, and a plan."""

# S species, R runs (folds × seeds), M photographs that judge
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import DataError
from taxadiffusion.metrics.classification import calibration_error, f1_of_classes
from taxadiffusion.metrics.intervals import Interval, mean_of_means
from taxadiffusion.names import Lineage
from taxadiffusion.synthetic.classifiers import ClassifierName
from taxadiffusion.synthetic.folds import EVEN, FILTERED, PASTED, REAL, RESAMPLED, Floats
from taxadiffusion.synthetic.plan import Plan, Wanted
from taxadiffusion.synthetic.sources import Sources
from taxadiffusion.synthetic.utility import Cell, Comparison, Named, rows_of, runs_of

RARE = 10
"""Training photographs of a species up to which it counts as rare, if nothing else is asked for."""

Sign = Literal["gain", "harm", "no gain"]
Effect = Literal["helps", "hurts", "not told apart"]

BASELINES = (REAL, EVEN, RESAMPLED, PASTED)


@dataclass(frozen=True, slots=True)
class RowFigures:
    """Of one row by one classifier. rare None: no rare species has a judging photograph."""

    row: str
    classifier: ClassifierName
    macro_f1: Interval
    rare_f1: Interval | None
    named_right: float
    calibration_error: float
    num_learnt: float
    """Pictures, photographs among them; the mean of the folds."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Macro F1 of `row` minus that of `other`, species by species and run by run; of all species or the rare ones."""

    row: str
    other: str
    classifier: ClassifierName
    rare: bool
    f1: Interval

    @property
    def sign(self) -> Sign:
        """Only an interval that leaves out zero is one."""
        if self.f1.known and self.f1.low > 0:
            return "gain"
        return "harm" if self.f1.known and self.f1.high < 0 else "no gain"


@dataclass(frozen=True, slots=True)
class SpeciesGain:
    """F1 of a species in the best filtered row minus that in the resampled one, the mean of the classifiers."""

    taxon: Lineage
    photographs: int
    judged: int
    real_f1: float
    f1: Interval

    @property
    def effect(self) -> Effect:
        if self.f1.known and self.f1.low > 0:
            return "helps"
        return "hurts" if self.f1.known and self.f1.high < 0 else "not told apart"


@dataclass(frozen=True, slots=True)
class Gains:
    """Everything that a report says. best: the filtered row whose species are looked at one by one; None: no set."""

    rows: tuple[RowFigures, ...]
    differences: tuple[Difference, ...]
    species: tuple[SpeciesGain, ...]
    best: str
    num_rare: int
    num_not_judged: int
    """Species without a judging photograph: no row is measured by them."""

    def verdict(self, classifier: ClassifierName, *, rare: bool) -> Sign:
        """Of the best filtered row: a gain beats all of `BASELINES`; harm is below real alone."""
        mine = {
            one.other: one.sign
            for one in self.differences
            if (one.row, one.classifier, one.rare) == (self.best, classifier, rare)
        }
        if mine and all(sign == "gain" for sign in mine.values()):
            return "gain"
        return "harm" if mine.get(REAL) == "harm" else "no gain"


def gains(sources: Sources, comparison: Comparison, found: Mapping[Cell, Named], rare: int = RARE) -> Gains:
    """From the trainings. Raises `DataError` where fewer than two species have a photograph that judges."""
    f1 = {
        (row, classifier): _f1(sources, runs_of(found, row, classifier))
        for row in rows_of(sources)
        for classifier in comparison.classifiers
    }
    judged: NDArray[np.bool_] = np.asarray(~np.isnan(next(iter(f1.values()))).any(axis=1))  # (S,)
    if judged.sum() < 2:
        raise DataError(f"{int(judged.sum())} species have a photograph that judges; two or more are needed")
    few: NDArray[np.bool_] = np.asarray(judged & (sources.counts <= rare))
    num_images = len(runs_of(found, REAL, comparison.classifiers[0])[0].true)
    rows = []
    for (row, classifier), values in f1.items():
        runs = runs_of(found, row, classifier)
        right = [one.named == one.true for one in runs]
        rows.append(
            RowFigures(
                row,
                classifier,
                mean_of_means(values[judged], num_images),
                mean_of_means(values[few], num_images) if few.any() else None,
                float(np.mean([flags.mean() for flags in right])),
                float(np.mean([calibration_error(r, one.confidence) for r, one in zip(right, runs, strict=True)])),
                float(np.mean([one.num_learnt for one in runs])),
            )
        )
    best = _best(rows)
    return Gains(
        tuple(rows),
        tuple(_differences(f1, comparison.classifiers, {False: judged, True: few}, num_images)),
        tuple(_species(sources, f1, best, judged, comparison.classifiers, found)),
        best,
        int(few.sum()),
        int((~judged).sum()),
    )


def recommended(gained: Gains, sources: Sources) -> Plan | None:
    """The plan of the best filtered set with the species that gained; those that lost, or stayed, get no picture.

    None where no species gained. It was chosen by the photographs that judged: its own gain is for others to show.
    """
    name = gained.best.partition(": ")[2]
    pool = next(pool for pool in sources.pools if pool.name == name)
    gain = {one.taxon: one.f1.mean for one in gained.species}
    wanted = tuple(
        Wanted(taxon, int(sources.counts[i]), int(pool.limits[i]) if gain.get(taxon, 0.0) > 0 else 0)
        for i, taxon in enumerate(sources.taxa)
    )
    ranks = tuple(dict.fromkeys(rank for taxon in sources.taxa for rank in taxon.ranks))
    return Plan("recommended", ranks, wanted) if any(one.pictures for one in wanted) else None


def _f1(sources: Sources, runs: Sequence[Named]) -> Floats:
    """(S, R)."""
    return np.stack([f1_of_classes(one.true, one.named, len(sources.taxa)) for one in runs], axis=1)


def _best(rows: Sequence[RowFigures]) -> str:
    """The filtered row with the highest macro F1, the mean of the classifiers."""
    scores: dict[str, list[float]] = {}
    for one in rows:
        if one.row.startswith(f"{FILTERED}: "):
            scores.setdefault(one.row, []).append(one.macro_f1.mean)
    return max(scores, key=lambda row: float(np.mean(scores[row])))


def _differences(
    f1: Mapping[tuple[str, ClassifierName], Floats],
    classifiers: Sequence[ClassifierName],
    groups: Mapping[bool, NDArray[np.bool_]],
    num_images: int,
) -> list[Difference]:
    """Every synthetic row against the baselines. Species and runs are paired, so both spreads are of differences:
    `mean_of_means` of them speaks of other species and other trainings."""
    synthetic = [row for row in dict.fromkeys(row for row, _ in f1) if row not in BASELINES]
    return [
        Difference(
            row, other, classifier, rare, mean_of_means((f1[row, classifier] - f1[other, classifier])[mask], num_images)
        )
        for classifier in classifiers
        for rare, mask in groups.items()
        if mask.any()
        for row in synthetic
        for other in BASELINES
    ]


def _species(
    sources: Sources,
    f1: Mapping[tuple[str, ClassifierName], Floats],
    best: str,
    judged: NDArray[np.bool_],
    classifiers: Sequence[ClassifierName],
    found: Mapping[Cell, Named],
) -> list[SpeciesGain]:
    """Of species that the set is to give pictures, the greatest gain first. The interval is over runs."""
    mine = np.mean([f1[best, one] for one in classifiers], axis=0)
    beside = np.mean([f1[RESAMPLED, one] for one in classifiers], axis=0)
    real = np.mean([f1[REAL, one] for one in classifiers], axis=0)
    pool = next(pool for pool in sources.pools if pool.name == best.partition(": ")[2])
    shown = np.bincount(next(iter(found.values())).true, minlength=len(sources.taxa))
    gained = [
        SpeciesGain(
            taxon,
            int(sources.counts[i]),
            int(shown[i]),
            float(real[i].mean()),
            mean_of_means((mine[i] - beside[i])[:, None], mine.shape[1]),  # a run is the unit: (R, 1)
        )
        for i, taxon in enumerate(sources.taxa)
        if judged[i] and pool.limits[i]
    ]
    return sorted(gained, key=lambda one: -one.f1.mean)
