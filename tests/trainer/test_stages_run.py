"""Laws of a stage as it runs: on what it is validated and ends, what its samples are conditioned on and weigh."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from taxadiffusion import checkpoint
from taxadiffusion.errors import NonFiniteError, SettingsError
from taxadiffusion.names import Lineage
from taxadiffusion.trainer import events
from tests.tiny_run import IDENTITY, RANKS, OracleSource, loop_settings, tiny_denoiser, tiny_trainer


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def copied(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in parameters.items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in b)


def test_a_stage_is_watched_on_its_moving_average_and_ends_on_it(tmp_path: Path) -> None:
    """Recomputed here from the weights after each step; between the steps the weights are their own."""
    settings = loop_settings(validation={"every_steps": 2}, preview={"every_steps": 2}, checkpoint={"every_steps": 1})
    trainer = tiny_trainer(tmp_path, steps=4, settings=settings)
    watched = ended = 0
    average: dict[str, Tensor] = {}
    own: dict[str, Tensor] = {}
    for event in trainer.run():
        if isinstance(event, events.StageStarted):
            stage = next(s for s in trainer.plan if s.name == event.stage)
            parameters = {n: p for group in stage.trains for n, p in trainer.denoiser.groups()[group].items()}
            average = copied(parameters)
        elif isinstance(event, events.StepDone):
            own = copied(parameters)
            decay = min(0.9, event.stage_step / (9 + event.stage_step))
            average = {n: decay * a + (1 - decay) * own[n] for n, a in average.items()}
        elif isinstance(event, events.Validated | events.PreviewDue):
            for name, value in average.items():
                torch.testing.assert_close(parameters[name].detach(), value)
            assert event.step % 4 == 0 or not same(parameters, own)
            watched += 1
        elif isinstance(event, events.CheckpointCommitted) and event.step % 4:
            assert same(parameters, own)
        elif isinstance(event, events.StageDone):
            assert not same(parameters, own)
            for name, value in average.items():
                torch.testing.assert_close(parameters[name].detach(), value)
            ended += 1
    assert (watched, ended) == (2 * 2 * len(RANKS), len(RANKS))


@pytest.mark.parametrize(("first", "later"), [(0.999, 0.0), (0.0, 0.999)])
def test_the_null_is_trained_in_the_first_stage_by_its_own_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: float, later: float
) -> None:
    settings = loop_settings(
        training={"condition_dropout": first, "condition_dropout_later": later, "rank_dropout": 0.0},
        validation={"every_steps": 0},
    )
    denoiser = tiny_denoiser()
    asked: list[Lineage] = []
    distinct = denoiser.conditioner.distinct

    def noting(lineages: Any) -> Any:
        asked.extend(lineages)
        return distinct(lineages)

    monkeypatch.setattr(denoiser.conditioner, "distinct", noting)
    seen = {}
    for event in tiny_trainer(tmp_path, steps=2, settings=settings, denoiser=denoiser).run():
        if isinstance(event, events.StageDone):
            seen[event.stage] = [bool(lineage) for lineage in asked]
            asked.clear()
    shares = [sum(named) / len(named) for named in seen.values()]
    assert [len(named) for named in seen.values()] == [16] * 3
    assert [share > 0.5 for share in shares] == [first < 0.5, later < 0.5, later < 0.5]


@dataclass
class FilledSource(OracleSource):
    """What cannot be read is `fill` instead of zero."""

    fill: float = 0.0

    def read(
        self, rows: NDArray[np.int64], variants: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        latents, readable = super().read(rows, variants)
        latents[~readable] = self.fill
        return latents, readable


def test_an_image_that_cannot_be_read_weighs_nothing(tmp_path: Path) -> None:
    """Whatever stands in its place, the weights have the same bits."""
    settings = loop_settings(training={"max_bad_fraction": 0.5}, validation={"every_steps": 0})
    models = []
    for number, fill in enumerate((0.0, 3.0)):
        source = FilledSource(unreadable=(3, 17, 20, 33), fill=fill)
        skipped = [
            event
            for event in tiny_trainer(tmp_path / str(number), steps=3, source=source, settings=settings).run()
            if isinstance(event, events.SamplesSkipped)
        ]
        assert skipped
        committed = checkpoint.latest(tmp_path / str(number))
        assert committed is not None
        models.append(committed.tensors("model"))
    assert same(models[0], models[1])


def test_a_loss_is_the_mean_over_the_batch_however_it_is_cut(tmp_path: Path) -> None:
    found = {}
    for size in (2, 8):
        settings = loop_settings(training={"micro_batch_size": size}, validation={"every_steps": 0})
        run = tiny_trainer(tmp_path / str(size), steps=1, settings=settings, denoiser=tiny_denoiser(dropout=0.0)).run()
        step = next(event for event in run if isinstance(event, events.StepDone))
        run.close()
        found[size] = step
    assert found[2].loss == pytest.approx(found[8].loss, rel=1e-5)
    assert 0.3 < found[2].loss < 3  # of a random network, against noise of variance 1
    assert found[2].grad_norm == pytest.approx(found[8].grad_norm, rel=1e-4)


def test_a_gradient_that_is_not_finite_names_the_whole_batch(tmp_path: Path) -> None:
    """The losses are fine, so no sample is at fault; after the allowed number in a row the run ends."""
    trainer = tiny_trainer(tmp_path, steps=4, settings=loop_settings(training={"max_refused_steps": 3}))
    weights = {name: p for group in trainer.denoiser.groups().values() for name, p in group.items()}
    before = copied(weights)
    broken = next(p for name, p in weights.items() if "lora_B" in name)
    refused = []

    def run() -> None:
        for event in trainer.run():
            if isinstance(event, events.StageStarted):
                broken.register_hook(lambda gradient: torch.full_like(gradient, torch.inf))
            if isinstance(event, events.StepRefused):
                refused.append(event)

    with pytest.raises(NonFiniteError, match="step 3: the gradient was not finite 3 times in a row") as caught:
        run()
    assert caught.value.exit_code == 70
    assert [event.in_a_row for event in refused] == [1, 2, 3]
    order, size = trainer.dataset.order, trainer.settings.training.batch_size
    for number, event in enumerate(refused):
        assert event.rows == tuple(order.rows_at(number * size + np.arange(size)).tolist())
        assert event.reason == "the gradient is not finite"
    assert same(weights, before)


def test_refused_steps_that_do_not_follow_each_other_do_not_end_a_run(tmp_path: Path) -> None:
    source = OracleSource(poisoned=(5,))
    trainer = tiny_trainer(tmp_path, steps=10, source=source, settings=loop_settings(training={"max_refused_steps": 3}))
    refused = [event for event in trainer.run() if isinstance(event, events.StepRefused)]
    assert len(refused) >= 4
    assert max(event.in_a_row for event in refused) < 3


def test_bad_images_up_to_the_limit_do_not_end_a_run(tmp_path: Path) -> None:
    """2 of 40 images, of which 5 % may be bad."""
    settings = loop_settings(training={"max_bad_fraction": 0.05})
    run = tiny_trainer(tmp_path, source=OracleSource(unreadable=(3, 17)), settings=settings).run()
    assert isinstance(list(run)[-1], events.Finished)


def test_what_a_step_reports_counts_from_its_stage_and_from_the_run(tmp_path: Path) -> None:
    run = tiny_trainer(tmp_path, steps=2, settings=loop_settings(optimiser={"warmup_steps": 0})).run()
    happened = list(run)
    steps = [event for event in happened if isinstance(event, events.StepDone)]
    assert [(s.step, s.stage, s.stage_step, s.num_samples_seen) for s in steps] == [
        (number + 1, RANKS[number // 2], number % 2 + 1, 8 * (number + 1)) for number in range(6)
    ]
    assert all(0 <= s.seconds < 600 for s in steps)
    started = [event for event in happened if isinstance(event, events.StageStarted)]
    assert [(s.step, s.num_steps, s.num_samples_seen) for s in started] == [(0, 2, 0), (2, 2, 16), (4, 2, 32)]
    denoiser = tiny_denoiser()
    sizes = {group: sum(p.numel() for p in ps.values()) for group, ps in denoiser.groups().items()}
    assert [s.num_trained for s in started] == [
        sizes["lora"] + sizes["encoder.order"], sizes["encoder.family"], sizes["encoder.genus"]
    ]  # fmt: skip


def test_commits_validations_and_previews_come_when_they_are_due(tmp_path: Path) -> None:
    """At their steps and at each stage's end; previews at stages' ends whether or not they are asked for."""
    kinds = (events.CheckpointCommitted, events.Validated, events.PreviewDue)

    def steps_of_each(name: str, **changes: Any) -> list[list[int]]:
        happened = list(tiny_trainer(tmp_path / name, steps=5, settings=loop_settings(**changes)).run())
        return [[event.step for event in happened if isinstance(event, kind)] for kind in kinds]

    asked = {"checkpoint": {"every_steps": 3}, "validation": {"every_steps": 4}, "preview": {"every_steps": 4}}
    assert steps_of_each("asked", **asked) == [[3, 5, 6, 9, 10, 12, 15], *[[4, 5, 8, 10, 12, 15]] * 2]
    seldom = {"checkpoint": {"every_steps": 99}, "validation": {"every_steps": 0}, "preview": {"every_steps": 0}}
    assert steps_of_each("seldom", **seldom) == [[5, 10, 15], [], [5, 10, 15]]


def test_a_run_begun_with_settings_that_are_gone_goes_on_where_they_were_off(tmp_path: Path) -> None:
    def trained(settings: dict[str, Any]) -> Any:
        identity = replace(IDENTITY, settings=settings)
        return tiny_trainer(tmp_path, steps=1, settings=loop_settings(checkpoint={"every_steps": 1}), identity=identity)

    old = {"seed": 0, "conditioner.zero_init": False, "conditioner.warm_start": False}
    run = trained(old).run()
    next(event for event in run if isinstance(event, events.CheckpointCommitted))
    run.close()
    assert isinstance(next(trained({"seed": 0}).run()), events.Resumed)


def test_a_run_begun_with_a_warm_start_is_refused_by_name(tmp_path: Path) -> None:
    begun = replace(IDENTITY, settings={"seed": 0, "conditioner.warm_start": True})
    run = tiny_trainer(tmp_path, settings=loop_settings(checkpoint={"every_steps": 1}), identity=begun).run()
    next(event for event in run if isinstance(event, events.CheckpointCommitted))
    run.close()
    with pytest.raises(SettingsError, match=r"conditioner\.warm_start: True → None"):
        next(tiny_trainer(tmp_path).run())
