"""Laws of one step's passes: the same numbers on one process and on two, and what a step is said to have come to."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from taxadiffusion.condition.methods import method_named
from taxadiffusion.stages import plan
from taxadiffusion.trainer.gradients import Gradients, Issued, Outcome
from taxadiffusion.trainer.loader import MicroBatches, Share
from taxadiffusion.trainer.optimiser import StageOptimiser
from taxadiffusion.trainer.order import Order
from taxadiffusion.trainer.signals import StopSignal
from taxadiffusion.trainer.world import World
from tests.tiny_run import RANKS, OracleSource, loop_settings, tiny_data, tiny_denoiser


@dataclass(frozen=True)
class NotingWorld(World):
    """Notes what would be summed, and sums nothing."""

    noted: list[Tensor] = field(default_factory=list)

    def sum_(self, tensor: Tensor) -> None:
        self.noted.append(tensor.clone())

    def gathered(self, values: Sequence[Any]) -> list[Any]:
        return list(values)


def given(
    world: NotingWorld, source: OracleSource | None = None, stop: int = 0, **training: Any
) -> tuple[Gradients, Issued, list[Tensor]]:
    """A step of the second stage, and the gradients that it leaves."""
    settings = loop_settings(training={"micro_batch_size": 2} | training)
    denoiser, data = tiny_denoiser(), tiny_data(source)
    stage = plan(method_named("progressive"), RANKS, 5)[1]
    optimiser = StageOptimiser(denoiser.prepare_stage(stage), settings.optimiser, 5)
    share = Share.of(8, 2, world.process_index, world.num_processes)
    order = Order(settings.seed, data.train_rows)
    signals = StopSignal()
    signals.number = stop
    gradients = Gradients(denoiser, data, settings, share, world, signals)
    dataset = MicroBatches(data.source, order, share)
    start = 3 * share.accumulation
    batches = iter([dataset[start + index] for index in range(share.accumulation)])
    issued = gradients.step(stage, 0.0, optimiser, batches)
    return gradients, issued, [p.grad for p in optimiser.parameters if p.grad is not None]


def came_to(source: OracleSource | None = None, **options: Any) -> Outcome:
    gradients, issued, _ = given(NotingWorld(), source, **options)
    return gradients.outcome(issued)


def rows_of_step() -> list[int]:
    order = Order(0, tiny_data().train_rows)
    return order.rows_at(3 * 8 + np.arange(8)).tolist()


def test_two_processes_put_their_numbers_where_one_has_them() -> None:
    """Losses in the order of the blocks, whoever computes them: added up, the same bits."""
    bad = OracleSource(unreadable=tuple(rows_of_step()[:3]))
    alone = NotingWorld()
    given(alone, bad, stop=signal.SIGTERM)
    pair = [NotingWorld(process_index=index, num_processes=2) for index in range(2)]
    given(pair[0], bad)
    given(pair[1], bad, stop=signal.SIGTERM)
    (whole,) = alone.noted
    assert len(whole) == 4 + 3
    assert torch.equal(pair[0].noted[0] + pair[1].noted[0], whole)
    assert whole[4:].tolist() == [3, 0, 1]
    assert [int((world.noted[0][:4] != 0).sum()) for world in pair] == [2, 2]
    assert torch.equal(pair[0].noted[0][:4] != 0, torch.tensor([True, False, True, False]))


def test_a_steps_loss_is_the_mean_over_its_batch_and_its_norm_that_of_the_gradients() -> None:
    world = NotingWorld()
    gradients, issued, found = given(world)
    outcome = gradients.outcome(issued)
    (total,) = world.noted
    assert outcome.loss == pytest.approx(float(total[:4].sum()) / 8)
    norm = float(torch.cat([g.flatten() for g in found]).norm())
    assert norm == pytest.approx(min(outcome.grad_norm, 1.0), rel=1e-4)
    assert outcome.finite
    assert (outcome.stop, outcome.bad_rows, outcome.faulty_rows) == (0, (), ())
    assert float(issued.not_finite) == 0.0


@pytest.mark.parametrize(
    ("number", "reported"),
    [(0, 0), (signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGTERM), (signal.SIGUSR1, signal.SIGTERM)],
)
def test_a_signal_is_reported_with_the_step(number: int, reported: int) -> None:
    assert came_to(stop=number).stop == reported


def test_rows_that_cannot_be_read_or_are_not_finite_are_reported() -> None:
    rows = rows_of_step()
    outcome = came_to(OracleSource(unreadable=(rows[1], rows[6])))
    assert outcome.bad_rows == (rows[1], rows[6])
    assert outcome.finite
    gradients, issued, _ = given(NotingWorld(), OracleSource(poisoned=(rows[2], rows[7])))
    outcome = gradients.outcome(issued)
    assert not outcome.finite
    assert outcome.faulty_rows == (rows[2], rows[7])
    assert outcome.bad_rows == ()
    assert float(issued.not_finite) == 1.0


@pytest.mark.parametrize(("loss", "norm"), [(np.nan, 1.0), (1.0, np.inf)])
def test_a_step_is_finite_where_loss_and_norm_are(loss: float, norm: float) -> None:
    assert not Outcome(loss, norm, 0, (), ()).finite
    assert Outcome(1.0, 1.0, 0, (), ()).finite
