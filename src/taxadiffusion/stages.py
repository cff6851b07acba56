"""The training plan as data: which rank is conditioned on, for how many steps, and which parameters learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from taxadiffusion.errors import SettingsError
from taxadiffusion.names import Rank, ordered_ranks

ENCODERS = "encoder"
"""Among the groups that a method trains: those of all rank encoders."""


class Planned(Protocol):
    """What a plan reads of a method; the methods are declared in `condition/methods.py`."""

    @property
    def name(self) -> str: ...
    @property
    def trains(self) -> tuple[str, ...]: ...
    @property
    def stage_per_rank(self) -> bool: ...
    @property
    def random_depth(self) -> bool: ...


def encoder_group(rank: Rank) -> str:
    """The name of a rank encoder's parameter group: "encoder.order"."""
    return f"{ENCODERS}.{rank}"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of training.

    name: the rank, or the method where one stage is all. rank: conditions are truncated here. trains: parameter
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
        others = tuple(group for group in self.trains if not group.startswith(f"{ENCODERS}."))
        mine = tuple(group for group in self.trains if group == encoder_group(rank))
        return replace(self, rank=rank, trains=others + mine)


def plan(
    method: Planned,
    ranks: Sequence[Rank],
    steps: int | Mapping[Rank, int],
    *,
    lora_in_every_stage: bool = False,
    encoders_in_every_stage: bool = False,
    may_skip: bool = False,
) -> tuple[Stage, ...]:
    """The stages of a run, in order (M2).

    ranks: coarse to fine. steps: optimizer steps of each rank's stage (one number for all, or rank → number for every
    rank); a method with a single stage gets their sum, so that all methods cost the same. may_skip: a rank may have
    0 steps, and then no stage, for what it would train is trained already. Raises `SettingsError`.
    """
    if not ranks or ordered_ranks(ranks) != tuple(ranks):
        raise SettingsError(f"ranks must run coarse to fine without repeats and not be empty, got {list(ranks)}")
    budget = _steps_by_rank(ranks, steps, least=0 if may_skip else 1)
    if not method.trains:
        return ()
    others = tuple(group for group in method.trains if group != ENCODERS)
    if method.stage_per_rank:
        return tuple(
            Stage(
                name=rank,
                rank=rank,
                num_steps=budget[rank],
                trains=(
                    *(others if index == 0 or lora_in_every_stage else ()),
                    *(encoder_group(above) for above in ranks[:index] if encoders_in_every_stage),
                    encoder_group(rank),
                ),
                random_depth=method.random_depth,
            )
            for index, rank in enumerate(ranks)
            if budget[rank]
        )
    encoders = tuple(encoder_group(rank) for rank in ranks if ENCODERS in method.trains)
    groups = (*others, *encoders)
    if not any(budget.values()):
        return ()
    return (Stage(method.name, ranks[-1], sum(budget.values()), groups, random_depth=method.random_depth),)


def before_last_stage(stages: Sequence[Stage]) -> int | None:
    """The optimizer steps done when the last stage begins; None: it is the only one."""
    return sum(stage.num_steps for stage in stages[:-1]) or None


def _steps_by_rank(ranks: Sequence[Rank], steps: int | Mapping[Rank, int], least: int) -> dict[Rank, int]:
    budget = dict(steps) if isinstance(steps, Mapping) else dict.fromkeys(ranks, steps)
    if set(budget) != set(ranks):
        raise SettingsError(f"steps must name every rank and no other: got {sorted(budget)}, ranks are {list(ranks)}")
    for rank, number in budget.items():
        if number < least:
            raise SettingsError(f"steps of rank {rank!r} must be at least {least}, got {number}")
    return budget
