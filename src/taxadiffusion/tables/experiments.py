"""The rows of the tables: each a strategy of the one trainer and a guidance of the one sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from taxadiffusion.errors import SettingsError
from taxadiffusion.guidance import Guidance
from taxadiffusion.names import Rank
from taxadiffusion.stages import Strategy

Experiment = Literal["table1", "strategies", "guidance", "rare"]
EXPERIMENTS: tuple[Experiment, ...] = get_args(Experiment)

SWEEP_SCALES = (3.0, 6.0, 9.0)
SWEEP_INTERVALS = ((0.0, 0.6), (0.4, 1.0))
"""Guidance only near the picture, and only near the noise; 0 is clean."""


@dataclass(frozen=True, slots=True)
class Method:
    """A row: its name in results, the strategy that trains it, how it is sampled, and the ranks it is asked for."""

    name: str
    strategy: Strategy
    guidance: Guidance
    ranks: tuple[Rank, ...]


def methods_of(experiment: Experiment, ranks: Sequence[Rank], scale: float) -> tuple[Method, ...]:
    """The rows of an experiment on a data set's `ranks`, coarse to fine; `scale` is the common guidance scale.

    Every model has a trained null, so each is guided from it at the same scale; rows with an ancestor in their name are
    guided from that ancestor by the same model.
    """
    if experiment == "table1":
        return _table1(tuple(ranks), scale)
    if experiment == "strategies":
        null, every = Guidance(scale), tuple(ranks)
        return (
            Method("taxadiffusion", "progressive", null, every),
            Method("taxadiffusion_all", "all", null, every),
            Method("taxadiffusion_random", "random", null, every),
        )
    if experiment == "guidance":
        return _sweep(tuple(ranks), scale)
    raise ValueError(f"experiment {experiment!r} has no fixed rows")


def compared_row(experiment: Experiment, rows: Sequence[str]) -> str | None:
    """The row that the others are compared with, known before anything is measured; None: picked among many settings.

    The method of the paper; of rare species the most photographs, the last row.
    """
    if experiment == "guidance":
        return None
    named = rows[-1] if experiment == "rare" else "taxadiffusion"
    return named if named in rows else None


def experiments_named(name: str) -> tuple[Experiment, ...]:
    """`all`, or one experiment. Raises `SettingsError`."""
    if name == "all":
        return EXPERIMENTS
    found = tuple(experiment for experiment in EXPERIMENTS if experiment == name)
    if not found:
        raise SettingsError(f"unknown experiment {name!r}; known: {', '.join(EXPERIMENTS)}, all")
    return found


def settings_by_strategy(assignments: Sequence[str]) -> Mapping[Strategy, tuple[str, ...]]:
    """`STRATEGY:key=value` strings → strategy → its `key=value`. Raises `SettingsError` for an unknown strategy."""
    found: dict[Strategy, tuple[str, ...]] = {}
    for assignment in assignments:
        name, _, own = assignment.partition(":")
        strategy = next((known for known in get_args(Strategy) if known == name), None)
        if strategy is None or not own:
            raise SettingsError(
                f"--set-for {assignment!r}: write it as STRATEGY:key=value, with one of {', '.join(get_args(Strategy))}"
            )
        found[strategy] = (*found.get(strategy, ()), own)
    return found


def _table1(ranks: tuple[Rank, ...], scale: float) -> tuple[Method, ...]:
    null = Guidance(scale)
    return (
        Method("zero_shot", "zero_shot", null, ranks),
        Method("lora", "lora", null, ranks),
        Method("full", "full", null, ranks),
        Method("class_embedding", "class_embedding", null, ranks),
        Method("class_embedding_superclass", "class_embedding", Guidance(scale, ranks[-2]), ranks),
        Method("taxon_adapter", "taxon_adapter", null, ranks),
        Method("taxadiffusion", "progressive", null, ranks),
        Method("taxadiffusion_taxonomy_guidance", "progressive", Guidance(scale, ranks[0]), ranks),
        Method("taxadiffusion_all", "all", null, ranks),
    )


def _sweep(ranks: tuple[Rank, ...], scale: float) -> tuple[Method, ...]:
    """No guidance, then every base (the null, each ancestor) at every scale, then two intervals at the common scale."""
    finest = ranks[-1:]
    rows = [Method("none", "progressive", Guidance(), finest)]
    bases: tuple[Rank | None, ...] = (None, *ranks[:-1])
    for base in bases:
        name = base or "null"
        rows += [Method(f"{name} ×{s:g}", "progressive", Guidance(s, base), finest) for s in SWEEP_SCALES]
        rows += [
            Method(f"{name} ×{scale:g} in {low:g}–{high:g}", "progressive", Guidance(scale, base, (low, high)), finest)
            for low, high in SWEEP_INTERVALS
        ]
    return tuple(rows)
