"""Laws of the training plan."""

from __future__ import annotations

import pytest

from taxadiffusion.condition.methods import method_named
from taxadiffusion.errors import SettingsError
from taxadiffusion.stages import before_last_stage, plan

RANKS = ("order", "family", "genus", "species")


def test_progressive_trains_lora_once_and_one_encoder_a_stage() -> None:
    stages = plan(method_named("progressive"), RANKS, 10)
    assert [stage.rank for stage in stages] == list(RANKS)
    assert stages[0].trains == ("lora", "encoder.order")
    assert [stage.trains for stage in stages[1:]] == [("encoder.family",), ("encoder.genus",), ("encoder.species",)]


def test_lora_in_every_stage_is_a_named_exception() -> None:
    stages = plan(method_named("progressive"), RANKS, 10, lora_in_every_stage=True)
    assert all(stage.trains == ("lora", f"encoder.{stage.rank}") for stage in stages)


def test_the_last_stage_begins_where_the_steps_before_it_end() -> None:
    budget = {"order": 2, "family": 3, "genus": 4, "species": 5}
    assert before_last_stage(plan(method_named("progressive"), RANKS, budget)) == 2 + 3 + 4
    for single in (plan(method_named("all"), RANKS, 10), plan(method_named("progressive"), RANKS[:1], 10), ()):
        assert before_last_stage(single) is None


def test_encoders_in_every_stage_is_a_named_exception() -> None:
    stages = plan(method_named("progressive"), RANKS, 10, encoders_in_every_stage=True)
    assert stages[0].trains == ("lora", "encoder.order")
    assert stages[2].trains == ("encoder.order", "encoder.family", "encoder.genus")


@pytest.mark.parametrize("strategy", ["all", "random", "lora", "full", "class_embedding", "taxon_adapter"])
def test_every_strategy_has_the_progressive_budget(strategy: str) -> None:
    steps = {"order": 5, "family": 7, "genus": 11, "species": 13}
    stages = plan(method_named(strategy), RANKS, steps)  # type: ignore[arg-type]
    assert sum(stage.num_steps for stage in stages) == 36
    assert stages[-1].rank == "species"


def test_zero_shot_trains_nothing() -> None:
    assert plan(method_named("zero_shot"), RANKS, 10) == ()


def test_a_drawn_depth_trains_that_encoder_alone() -> None:
    (stage,) = plan(method_named("random"), RANKS, 10)
    assert stage.random_depth
    drawn = stage.at("family")
    assert (drawn.rank, drawn.trains) == ("family", ("lora", "encoder.family"))


@pytest.mark.parametrize(
    ("strategy", "ranks", "steps", "message"),
    [
        ("all", (), 1, "coarse to fine"),
        ("all", ("species", "genus"), 1, "coarse to fine"),
        ("all", RANKS, 0, "at least 1"),
        ("all", RANKS, {"order": 3}, "every rank and no other"),
    ],
)
def test_wrong_plans_are_refused(strategy: str, ranks: tuple[str, ...], steps: object, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        plan(method_named(strategy), ranks, steps)  # type: ignore[arg-type]
