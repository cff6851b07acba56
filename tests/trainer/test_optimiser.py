"""Laws of a stage's optimiser: AdamW at the stated rate, one gradient over all processes, an average that is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from taxadiffusion.errors import CheckpointError
from taxadiffusion.trainer.optimiser import StageOptimiser, learning_rate
from taxadiffusion.trainer.settings import OptimiserSettings
from taxadiffusion.trainer.world import World

SHAPES = {"b": (3,), "a": (2, 4), "c": (5,)}


@dataclass(frozen=True)
class TwoProcesses(World):
    """This process and one that sends `others`: what they would have summed."""

    num_processes: int = 2
    others: list[Tensor] = field(default_factory=list)

    def sum_(self, tensor: Tensor) -> None:
        tensor += self.others.pop(0)


def parameters(seed: int = 0) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in SHAPES.items()}


def made(own: dict[str, nn.Parameter], num_steps: int = 20, **settings: Any) -> StageOptimiser:
    return StageOptimiser(own, OptimiserSettings(**{"learning_rate": 1e-2} | settings), num_steps)


def gradients(step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1000 + step)
    return [torch.randn(SHAPES[name], generator=generator) for name in sorted(SHAPES)]


def walk(optimiser: StageOptimiser, steps: Sequence[int]) -> list[list[Tensor]]:
    """The parameters after each step."""
    seen = []
    for step in steps:
        for parameter, gradient in zip(optimiser.parameters, gradients(step), strict=True):
            parameter.grad = gradient
        optimiser.update(step)
        seen.append([p.detach().clone() for p in optimiser.parameters])
    return seen


def test_a_step_is_adamws_at_the_rate_of_that_step() -> None:
    settings = {
        "schedule": "cosine",
        "warmup_steps": 3,
        "weight_decay": 0.3,
        "betas": (0.8, 0.95),
        "learning_rate": 0.1,
    }
    optimiser = made(parameters(), num_steps=10, **settings)
    own = [p.detach().clone().requires_grad_(True) for p in optimiser.parameters]
    expected = torch.optim.AdamW(own, lr=0.0, betas=(0.8, 0.95), weight_decay=0.3, foreach=False)
    for step, after in enumerate(walk(optimiser, range(10))):
        for parameter, gradient in zip(own, gradients(step), strict=True):
            parameter.grad = gradient
        expected.param_groups[0]["lr"] = learning_rate(optimiser.settings, step, 10)
        expected.step()
        for mine, other in zip(after, own, strict=True):
            torch.testing.assert_close(mine, other.detach())


def test_update_returns_the_rate_it_used() -> None:
    optimiser = made(parameters(), num_steps=10, schedule="cosine", warmup_steps=3)
    rates = [optimiser.update(step) for step in range(10)]
    assert rates == [learning_rate(optimiser.settings, step, 10) for step in range(10)]
    assert len(set(rates)) > 5


def test_a_cosine_halves_the_rate_half_way_and_ends_at_its_share() -> None:
    settings = OptimiserSettings(learning_rate=2.0, schedule="cosine", warmup_steps=10, final_fraction=0.2)
    assert learning_rate(settings, 10, 110) == 2.0
    assert learning_rate(settings, 60, 110) == pytest.approx(2.0 * (0.2 + 0.8 / 2))
    assert learning_rate(settings, 35, 110) == pytest.approx(2.0 * (0.2 + 0.8 * (1 + 0.5**0.5) / 2))
    assert learning_rate(settings, 110, 110) == learning_rate(settings, 500, 110) == pytest.approx(0.4)
    assert learning_rate(settings, 10, 10) == 2.0  # a stage that is all warm-up
    assert learning_rate(settings, 11, 11) == pytest.approx(0.4)  # or all but one step


def test_the_moving_average_follows_its_recursion() -> None:
    """`a ← d·a + (1 − d)·p` with d = min(decay, (1 + step)/(10 + step)), from the parameters at the start."""
    optimiser = made(parameters(), ema_decay=0.3, learning_rate=0.1)
    expected = [p.detach().clone() for p in optimiser.parameters]
    for step, after in enumerate(walk(optimiser, range(12))):
        decay = min(0.3, (1 + step) / (10 + step))
        expected = [decay * a + (1 - decay) * p for a, p in zip(expected, after, strict=True)]
    for mine, other in zip(optimiser.average, expected, strict=True):
        torch.testing.assert_close(mine, other)
    assert not any(torch.equal(a, p) for a, p in zip(optimiser.average, optimiser.parameters, strict=True))


def test_within_averaged_the_parameters_are_the_average_and_after_it_their_own_bits() -> None:
    optimiser = made(parameters(), ema_decay=0.9)
    own = walk(optimiser, range(3))[-1]

    def look() -> None:
        with optimiser.averaged():
            assert all(torch.equal(p, a) for p, a in zip(optimiser.parameters, optimiser.average, strict=True))
            assert not any(torch.equal(p, o) for p, o in zip(optimiser.parameters, own, strict=True))
            raise KeyError

    with pytest.raises(KeyError):
        look()
    assert all(torch.equal(p, o) for p, o in zip(optimiser.parameters, own, strict=True))
    optimiser.end_on_average()
    assert all(torch.equal(p, a) for p, a in zip(optimiser.parameters, optimiser.average, strict=True))


def test_without_an_average_nothing_is_kept_and_nothing_changes() -> None:
    optimiser = made(parameters())
    own = walk(optimiser, range(2))[-1]
    with optimiser.averaged():
        assert all(torch.equal(p, o) for p, o in zip(optimiser.parameters, own, strict=True))
    optimiser.end_on_average()
    assert all(torch.equal(p, o) for p, o in zip(optimiser.parameters, own, strict=True))
    assert set(optimiser.state()) == {"optimizer"}


def test_gradients_are_cut_to_the_norm_that_is_returned_before() -> None:
    optimiser = made(parameters(), clip_norm=0.5)
    given = gradients(0)
    for parameter, gradient in zip(optimiser.parameters, given, strict=True):
        parameter.grad = gradient.clone()
    norm = torch.cat([g.flatten() for g in given]).norm()
    torch.testing.assert_close(optimiser.reduced_norm(World()), norm)
    for parameter, gradient in zip(optimiser.parameters, given, strict=True):
        torch.testing.assert_close(parameter.grad, gradient * 0.5 / norm)
    small = [g * 0.1 / norm for g in given]
    for parameter, gradient in zip(optimiser.parameters, small, strict=True):
        parameter.grad = gradient.clone()
    torch.testing.assert_close(optimiser.reduced_norm(World()), torch.tensor(0.1))
    assert all(torch.equal(p.grad, g) for p, g in zip(optimiser.parameters, small, strict=True) if p.grad is not None)
    optimiser.clear_gradients()
    assert all(p.grad is None for p in optimiser.parameters)


def test_processes_add_up_their_gradients_and_what_none_used_keeps_none() -> None:
    own = parameters()
    optimiser = made(own, clip_norm=1e9)
    mine, theirs = gradients(0)[:2], gradients(1)[:2]
    optimiser.parameters[0].grad = mine[0].clone()  # a: used by both; b: by the other alone; c: by none
    sent = torch.cat([theirs[0].flatten(), theirs[1].flatten(), torch.zeros(5), torch.tensor([1.0, 1.0, 0.0])])
    optimiser.reduced_norm(TwoProcesses(others=[sent]))
    found = [p.grad for p in optimiser.parameters]
    assert found[0] is not None
    assert found[1] is not None
    torch.testing.assert_close(found[0], mine[0] + theirs[0])
    torch.testing.assert_close(found[1], theirs[1])
    assert found[2] is None


def test_a_single_parameter_is_added_up_as_many_are() -> None:
    optimiser = made({"a": nn.Parameter(torch.zeros(2))}, clip_norm=1e9)
    optimiser.parameters[0].grad = torch.tensor([1.0, 2.0])
    norm = optimiser.reduced_norm(TwoProcesses(others=[torch.tensor([2.0, 2.0, 1.0])]))
    assert float(norm) == 5.0
    assert torch.equal(optimiser.parameters[0].grad, torch.tensor([3.0, 4.0]))


def test_a_restored_optimiser_goes_on_with_the_same_bits() -> None:
    first = made(parameters(), ema_decay=0.9)
    walk(first, range(4))
    state = first.state()
    assert set(state) == {"optimizer", "ema"}
    again = {name: nn.Parameter(p.detach().clone()) for name, p in zip(first.names, first.parameters, strict=True)}
    second = made(again, ema_decay=0.9)
    second.restore(
        {k: v.clone() for k, v in state["optimizer"].items()}, {k: v.clone() for k, v in state["ema"].items()}
    )
    for a, b in zip(walk(first, range(4, 7))[-1], walk(second, range(4, 7))[-1], strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(a, b) for a, b in zip(first.average, second.average, strict=True))


def test_a_parameter_that_no_gradient_reached_has_no_state_and_needs_none() -> None:
    optimiser = made(parameters())
    optimiser.parameters[0].grad = gradients(0)[0]
    optimiser.update(0)
    moments = optimiser.state()["optimizer"]
    assert {name.partition("/")[0] for name in moments} == {"a"}
    made(parameters()).restore(moments, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, _: m.pop("a/step"), "state of a is incomplete"),
        (lambda m, _: m.update({"a/exp_avg": torch.zeros(3)}), "state of a is incomplete or of another shape"),
        (lambda m, _: m.update({"d/step": torch.zeros(())}), "unknown parameters, e.g. d/step"),
        (lambda _, e: e.pop("a"), "moving average does not hold exactly"),
        (lambda _, e: e.update({"d": torch.zeros(1)}), "moving average does not hold exactly"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(change: Any, message: str) -> None:
    optimiser = made(parameters(), ema_decay=0.9)
    walk(optimiser, range(2))
    state = optimiser.state()
    moments, average = dict(state["optimizer"]), dict(state["ema"])
    change(moments, average)
    with pytest.raises(CheckpointError, match=message):
        made(parameters(), ema_decay=0.9).restore(moments, average)


def test_an_average_that_is_missing_is_refused() -> None:
    with pytest.raises(CheckpointError, match="moving average does not hold exactly"):
        made(parameters(), ema_decay=0.9).restore({}, None)
