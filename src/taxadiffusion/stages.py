"""The training plan as data: which rank is conditioned on, for how many steps, and which parameters learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from taxadiffusion.errors import SettingsError
from taxadiffusion.names import Rank, ordered_ranks

Strategy = Literal["progressive", "all", "random", "zero_shot", "lora", "full", "class_embedding", "taxon_adapter"]
"""The method's three strategies (M2), then the baselines (one stage each; zero_shot trains nothing)."""

BASELINE_GROUPS: dict[Strategy, tuple[str, ...]] = {
    "lora": ("lora",),
    "full": ("unet",),
    "class_embedding": ("lora", "classes"),
    "taxon_adapter": ("taxon_tokens", "taxon_attention"),
}


def encoder_group(rank: Rank) -> str:
    """The name of a rank encoder's parameter group: "encoder.order"."""
    return f"encoder.{rank}"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of training.

    name: the rank, or the strategy where one stage is all. rank: conditions are truncated here. trains: parameter
    groups ("encoder.order", "lora", "unet", "classes", "taxon_tokens", "taxon_attention"). random_depth: every step
    draws its depth among the encoders and trains `at(depth)`.
    """

    name: str
    rank: Rank
    num_steps: int
    trains: tuple[str, ...]
    random_depth: bool = False

    def at(self, rank: Rank) -> Stage:
        """This stage at a drawn depth: conditions end at `rank` and of the encoders only that rank's learns."""
        others = tuple(group for group in self.trains if not group.startswith("encoder."))
        mine = tuple(group for group in self.trains if group == encoder_group(rank))
        return replace(self, rank=rank, trains=others + mine)


def plan(
    strategy: Strategy,
    ranks: Sequence[Rank],
    steps: int | Mapping[Rank, int],
    *,
    lora_in_every_stage: bool = False,
    encoders_in_every_stage: bool = False,
) -> tuple[Stage, ...]:
    """The stages of a run, in order (M2).

    ranks: coarse to fine. steps: optimizer steps of each rank's stage (one number for all, or rank → number for every
    rank); a strategy with a single stage gets their sum, so that all strategies cost the same. Raises `SettingsError`.
    """
    if strategy not in get_args(Strategy):
        raise SettingsError(f"unknown strategy {strategy!r}; known: {', '.join(get_args(Strategy))}")
    if not ranks or ordered_ranks(ranks) != tuple(ranks):
        raise SettingsError(f"ranks must run coarse to fine without repeats and not be empty, got {list(ranks)}")
    budget = _steps_by_rank(ranks, steps)
    if strategy == "zero_shot":
        return ()
    if strategy == "progressive":
        return tuple(
            Stage(
                name=rank,
                rank=rank,
                num_steps=budget[rank],
                trains=(
                    *(("lora",) if index == 0 or lora_in_every_stage else ()),
                    *(encoder_group(above) for above in ranks[:index] if encoders_in_every_stage),
                    encoder_group(rank),
                ),
            )
            for index, rank in enumerate(ranks)
        )
    encoders = tuple(encoder_group(rank) for rank in ranks)
    groups = ("lora", *encoders) if strategy in ("all", "random") else BASELINE_GROUPS[strategy]
    depth = strategy in ("random", "class_embedding")
    return (Stage(strategy, ranks[-1], sum(budget.values()), groups, random_depth=depth),)


def _steps_by_rank(ranks: Sequence[Rank], steps: int | Mapping[Rank, int]) -> dict[Rank, int]:
    budget = dict(steps) if isinstance(steps, Mapping) else dict.fromkeys(ranks, steps)
    if set(budget) != set(ranks):
        raise SettingsError(f"steps must name every rank and no other: got {sorted(budget)}, ranks are {list(ranks)}")
    for rank, number in budget.items():
        if number < 1:
            raise SettingsError(f"steps of rank {rank!r} must be at least 1, got {number}")
    return budget
