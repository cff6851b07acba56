"""The rows of the tables: each a strategy of the one trainer and a guidance of the one sampler."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from taxadiffusion.condition import methods
from taxadiffusion.condition.methods import Method, method_named
from taxadiffusion.errors import SettingsError
from taxadiffusion.evaluate.pick import BEST, Comparison
from taxadiffusion.guidance import Guidance
from taxadiffusion.names import Rank

Experiment = Literal["table1", "strategies", "guidance", "rare"]
EXPERIMENTS: tuple[Experiment, ...] = get_args(Experiment)

_PAPER = "progressive"

SWEEP_SCALES = (3.0, 6.0, 9.0)
EARLIER_SCALES = (2.0, 3.0)
"""Away from an earlier state of the model. Published settings of autoguidance are 2.05 to 2.45 in the same meaning of a
scale (EDM2, class-conditional, 512 px; Karras et al. 2024)."""
SWEEP_INTERVALS = ((0.0, 0.6), (0.4, 1.0))
"""Guidance only near the picture, and only near the noise; 0 is clean."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its name in results, the strategy that trains it, how it is sampled, and the ranks it is asked for."""

    name: str
    strategy: str
    guidance: Guidance
    ranks: tuple[Rank, ...]


@dataclass(frozen=True, slots=True)
class RareRow:
    """A row of the rare experiment: a strategy, and how many training images each thinned species keeps at most."""

    name: str
    strategy: str
    number: int


def rare_rows(methods_asked: Collection[str], keep: Sequence[int]) -> tuple[RareRow, ...]:
    """Every number by every method that is asked for and trains; nothing asked: by the method of the paper.

    Of one method a row is named by its number alone. Raises `SettingsError` where no asked method trains.
    """
    trained = [method for method in methods.METHODS if method.trains]
    asked = [method for method in trained if _name(method) in (methods_asked or ("taxadiffusion",))]
    if not asked:
        raise SettingsError(
            f"rare has no method named {' or '.join(methods_asked)}; its methods: {', '.join(map(_name, trained))}"
        )
    return tuple(
        RareRow(f"{_name(method)}, {number}" if len(asked) > 1 else f"{number}", method.name, number)
        for method in asked
        for number in keep
    )


def _rare_against(rows: Sequence[RareRow]) -> dict[str, str]:
    """Row of another method → that of the paper's method with as many images."""
    ours = {row.number: row.name for row in rows if row.strategy == _PAPER}
    return {row.name: ours[row.number] for row in rows if row.strategy != _PAPER and row.number in ours}


def rows_of(experiment: Experiment, ranks: Sequence[Rank], scale: float) -> tuple[Row, ...]:
    """The rows of an experiment on a data set's `ranks`, coarse to fine; `scale` is the common guidance scale.

    Every model has a trained null, so each is guided from it at the same scale; rows with an ancestor in their name are
    guided from that ancestor by the same model.
    """
    if experiment == "table1":
        return _table1(tuple(ranks), scale)
    if experiment == "strategies":
        return tuple(_row(method, ranks, scale) for method in methods.METHODS if method.row)
    if experiment == "guidance":
        return _sweep(tuple(ranks), scale)
    raise ValueError(f"experiment {experiment!r} has no fixed rows")


def check_rows(asked: Collection[str], experiments: Sequence[Experiment], ranks: Sequence[Rank], scale: float) -> None:
    """Raises `SettingsError` for a row that none of the experiments has."""
    known = {row.name: None for name in experiments if name != "rare" for row in rows_of(name, ranks, scale)}
    if "rare" in experiments:
        known |= {_name(method): None for method in methods.METHODS if method.trains}
    if wrong := [name for name in asked if name not in known]:
        raise SettingsError(f"{', '.join(experiments)} has no row named {wrong[0]}; its rows: {', '.join(known)}")


def comparison_of(experiment: Experiment, rows: Sequence[str], rare: Sequence[RareRow] = ()) -> Comparison:
    """Which row the others are compared with, known before anything is measured; none: picked among many settings.

    The method of the paper. Of rare species its last row, with the most photographs; but another method with that of as
    many photographs.
    """
    if experiment == "guidance":
        return BEST
    if experiment == "rare":
        named = next((row.name for row in reversed(rare) if row.strategy == _PAPER), rows[-1])
        return Comparison(named, _rare_against(rare))
    return Comparison("taxadiffusion") if "taxadiffusion" in rows else BEST


def experiments_named(name: str) -> tuple[Experiment, ...]:
    """`all`, or one experiment. Raises `SettingsError`."""
    if name == "all":
        return EXPERIMENTS
    found = tuple(experiment for experiment in EXPERIMENTS if experiment == name)
    if not found:
        raise SettingsError(f"unknown experiment {name!r}; known: {', '.join(EXPERIMENTS)}, all")
    return found


def settings_by_strategy(assignments: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """`STRATEGY:key=value` strings → strategy → its `key=value`. Raises `SettingsError` for an unknown strategy."""
    found: dict[str, tuple[str, ...]] = {}
    known = [method.name for method in methods.METHODS]
    for assignment in assignments:
        strategy, _, own = assignment.partition(":")
        if strategy not in known or not own:
            raise SettingsError(
                f"--set-for {assignment!r}: write it as STRATEGY:key=value, with one of {', '.join(known)}"
            )
        found[strategy] = (*found.get(strategy, ()), own)
    return found


def _name(method: Method) -> str:
    """In tables."""
    return method.row or method.name


def _row(method: Method, ranks: Sequence[Rank], scale: float) -> Row:
    """The method, guided from its null."""
    return Row(_name(method), method.name, Guidance(scale), tuple(ranks))


def _table1(ranks: tuple[Rank, ...], scale: float) -> tuple[Row, ...]:
    """Every baseline, then the method of the paper; two of them also guided from an ancestor, just below."""
    ancestors = {
        "class_embedding": ("class_embedding_superclass", ranks[-2]),
        "progressive": ("taxadiffusion_taxonomy_guidance", ranks[0]),
    }
    ours = (method_named("progressive"), method_named("all"))
    rows = []
    for method in (*(baseline for baseline in methods.METHODS if not baseline.row), *ours):
        rows.append(_row(method, ranks, scale))
        if method.name in ancestors:
            name, ancestor = ancestors[method.name]
            rows.append(Row(name, method.name, Guidance(scale, ancestor), ranks))
    return tuple(rows)


def _sweep(ranks: tuple[Rank, ...], scale: float) -> tuple[Row, ...]:
    """No guidance, then every base (the null, each ancestor, a sister) at every scale, of all but the sister also two
    intervals at the common scale; then the model's own earlier state."""
    finest = ranks[-1:]
    rows = [Row("none", "progressive", Guidance(), finest)]
    bases: tuple[Rank | None, ...] = (None, *ranks[:-1])
    for base in bases:
        name = base or "null"
        rows += [Row(f"{name} ×{s:g}", "progressive", Guidance(s, base), finest) for s in SWEEP_SCALES]
        rows += [
            Row(f"{name} ×{scale:g} in {low:g}–{high:g}", "progressive", Guidance(scale, base, (low, high)), finest)
            for low, high in SWEEP_INTERVALS
        ]
    rows += [Row(f"sister ×{s:g}", "progressive", Guidance(s, base="sister"), finest) for s in SWEEP_SCALES]
    rows += [Row(f"earlier ×{s:g}", "progressive", Guidance(s, base="weaker model"), finest) for s in EARLIER_SCALES]
    return tuple(rows)
